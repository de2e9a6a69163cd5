"""Tokens for stage II: a process's share in training, the whole split where it is measured."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from fsq_repro.factories import maskgit
from tests.tiny import NoiseSource, tiny_stage2


@pytest.mark.parametrize(("processes", "rows"), [(None, slice(1, None, 2)), (1, slice(None))])
def test_shares_of_two_processes(processes, rows, monkeypatch, tmp_path):
    monkeypatch.setenv("FSQ_REPRO_CACHE", str(tmp_path))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    mean = lambda images: np.full((len(images), 4, 4), 255 * images.mean((1, 2, 3))[:, None, None], np.int32)  # noqa: E731
    tokenizer = SimpleNamespace(encode=mean, fingerprint="f", grid=4, resolution=16)
    source = NoiseSource(32, split="validation")
    tokens = maskgit.build_tokens(tiny_stage2(""), tokenizer, source, processes)
    expected = np.array([int(source[i]["image"].mean(dtype=np.float64)) for i in range(32)])[rows]
    assert np.abs(tokens.tokens_NxVxS[:, 0, 0] - expected).max() <= 1
    np.testing.assert_array_equal(tokens.labels_N, (np.arange(32) % 2)[rows])
