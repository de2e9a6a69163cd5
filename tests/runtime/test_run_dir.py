import json

import pytest

from fsq_repro.errors import UserError
from fsq_repro.metrics.table import MetricKey
from fsq_repro.runtime.run_dir import Measured, RunDir, changed, open_run, read_metrics
from tests.tiny import tiny_config


def test_config_comes_back_as_written(tmp_path):
    config = tiny_config()
    RunDir(tmp_path).write_config(config, file="x.py")
    assert RunDir(tmp_path).config.to_dict() == config.to_dict()


def test_resuming_may_change_how_long_but_not_what(tmp_path):
    config = tiny_config()
    RunDir(tmp_path).write_config(config, file="x.py")
    config.steps, config.log_every, config.eval.batches = 100, 1, 1
    RunDir(tmp_path).check_resumable(config)
    config.quantizer.levels = (5, 5, 5)
    with pytest.raises(UserError, match=r"quantizer.levels: \[8, 6, 5\] -> \[5, 5, 5\]"):
        RunDir(tmp_path).check_resumable(config)


def test_record_merges_metrics(tmp_path):
    run = RunDir(tmp_path)
    psnr, fd = MetricKey("psnr"), MetricKey("reconstruction_fd", network="alexnet", reference="train")
    run.update_record({psnr: Measured(1.0, {"samples": 2})}, status="training")
    run.update_record({psnr: Measured(2.0, {"samples": 3}), fd: Measured(4.0, {})}, status="finished")
    record = json.loads((tmp_path / "record.json").read_text())
    assert read_metrics(record) == {psnr: Measured(2.0, {"samples": 3}), fd: Measured(4.0, {})}
    assert record["status"] == "finished" and run.record == record == RunDir(tmp_path).record
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]  # no temporary file is left


def test_a_run_directory_is_read_once(tmp_path):
    RunDir(tmp_path).write_config(tiny_config())
    run = open_run(str(tmp_path))
    assert open_run(run) is run and run.config is run.config
    (tmp_path / "config.json").unlink()
    assert run.config.trainer == "autoencoder"


def test_a_changed_config_is_a_copy(tmp_path):
    RunDir(tmp_path).write_config(tiny_config())
    config = RunDir(tmp_path).config
    other = changed(config, {"eval.networks": ("vgg16",), "steps": 3})
    assert (other.eval.networks, other.steps) == (("vgg16",), 3)
    assert (config.eval.networks, config.steps) == (("alexnet",), 8)
    with pytest.raises(KeyError):
        changed(config, {"eval.network": ()})


def test_not_a_run_directory(tmp_path):
    with pytest.raises(UserError, match="is not a run directory"):
        _ = RunDir(tmp_path).config
