"""Every file that fuzzing starts from is read; every finding is refused, at once and in little memory."""

import pathlib
import time
import tracemalloc

import pytest

from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS, run

CORPUS = pathlib.Path(__file__).parent / "corpus"
FILES = sorted(CORPUS.glob("*/*"))
MAX_BYTES, MAX_S = 2**25, 5.0  # largest file: a few kB


def test_every_target_has_seeds_that_are_read(tmp_path):
    found = seeds(tmp_path)
    assert found.keys() == TARGETS.keys()
    for name, contents in found.items():
        refusals = [run(name, content) for content in contents]
        # What is one array is never images, statistics and weights at a time.
        assert refusals and (name == "npy") == any(refusals), (name, refusals)


@pytest.mark.parametrize("file", FILES, ids=lambda f: f"{f.parent.name}-{f.name}")
def test_findings_stay_refused(file):
    started = time.monotonic()
    tracemalloc.start()
    try:
        assert run(file.parent.name, file.read_bytes())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MAX_BYTES and time.monotonic() - started < MAX_S
