import json

import pytest

from fsq_repro.errors import UserError
from fsq_repro.runtime import run_dir
from tests.tiny import tiny_config


def test_config_comes_back_as_written(tmp_path):
    config = tiny_config()
    run_dir.RunDir(tmp_path).write_config(config, file="x.py")
    assert run_dir.RunDir(tmp_path).config.to_dict() == config.to_dict()


def test_resuming_may_change_how_long_but_not_what(tmp_path):
    config = tiny_config()
    run_dir.RunDir(tmp_path).write_config(config, file="x.py")
    config.steps, config.log_every, config.eval.batches = 100, 1, 1
    run_dir.RunDir(tmp_path).check_resumable(config)
    config.quantizer.levels = (5, 5, 5)
    with pytest.raises(UserError, match=r"quantizer.levels: \[8, 6, 5\] -> \[5, 5, 5\]"):
        run_dir.RunDir(tmp_path).check_resumable(config)


def test_record_merges_figures(tmp_path):
    run_dir.RunDir(tmp_path).update_record(figures={"a": {"value": 1, "protocol": {"samples": 2}}}, status="training")
    run_dir.RunDir(tmp_path).update_record(figures={"b": {"value": 2, "protocol": {"samples": 2}}}, status="finished")
    record = json.loads((tmp_path / "record.json").read_text())
    assert set(record["figures"]) == {"a", "b"} and record["status"] == "finished"
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]  # no temporary file is left


def test_not_a_run_directory(tmp_path):
    with pytest.raises(UserError, match="is not a run directory"):
        run_dir.RunDir(tmp_path).config
