import json

import pytest

from fsq_repro.errors import UserError
from fsq_repro.profiling import dry_run_cache


def test_one_line_a_dry_run(tmp_path):
    file = tmp_path / "sweep.json"
    assert dry_run_cache.read(file) == {}
    dry_run_cache.add(file, {"b/dp1": {"steps": 1}, "a/dp8": {"steps": 2}})
    dry_run_cache.add(file, {"a/dp1": {"steps": 3, "compiled": None}, "b/dp1": {"steps": 4}})
    found = {"a/dp1": {"steps": 3, "compiled": None}, "a/dp8": {"steps": 2}, "b/dp1": {"steps": 4}}
    assert dry_run_cache.read(file) == found == json.loads(file.read_text())
    assert [line[:7] for line in file.read_text().splitlines()] == ["{", '"a/dp1"', '"a/dp8"', '"b/dp1"', "}"]


@pytest.mark.parametrize("content", [b"", b'{"a/dp1": {', b"\xff\xfe"])
def test_a_damaged_file_is_named(tmp_path, content):
    file = tmp_path / "sweep.json"
    file.write_bytes(content)
    with pytest.raises(UserError, match=f"{file} is no valid JSON .*; delete it"):
        dry_run_cache.read(file)
    with pytest.raises(UserError):
        dry_run_cache.add(file, {"b/dp1": {"steps": 1}})
    assert file.read_bytes() == content
