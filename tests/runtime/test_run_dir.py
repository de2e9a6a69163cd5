import json

import pytest

from fsq_repro.errors import UserError
from fsq_repro.metrics.table import MetricKey
from fsq_repro.runtime.run_dir import Measured, RunDir, changed, config_fingerprint, open_run, read_metrics
from tests.tiny import tiny_config, tiny_uvim


def test_config_comes_back_as_written(tmp_path):
    config = tiny_config()
    RunDir(tmp_path).write_config(config, file="x.py")
    assert RunDir(tmp_path).config.to_dict() == config.to_dict()


def test_the_fingerprint_is_of_what_is_trained_and_measured(tmp_path):
    base = config_fingerprint(tiny_config())
    for field, value, same in (
        ("log_every", 7, True),
        ("mesh.fsdp", 2, True),
        ("steps", 7, False),
        ("optimizer.learning_rate", 0.5, False),
        ("eval.networks", ("vgg16",), False),
        ("data.source", "folder:elsewhere", False),
    ):
        config = tiny_config()
        config.update_from_flattened_dict({field: value})
        assert (config_fingerprint(config) == base) == same, field
    here, there = tiny_config(), tiny_config()
    here.data.source, there.data.source = "folder:a", "folder:b/c"
    assert config_fingerprint(here) == config_fingerprint(there)


def test_a_finished_run_without_its_checkpoints_starts_a_record_of_its_own(tmp_path):
    """Whatever it says was measured on weights that are gone."""
    run, facts = RunDir(tmp_path), {"status": "training", "steps": 8, "git_revision": "b", "versions": {}}
    run.update_record(
        {MetricKey("psnr"): Measured(1.0, {"checkpoint": 8})}, status="finished", git_revision="a", wall_time_s=9.0
    )
    assert run.start_record(**facts) == {"metrics": []} | facts


def test_resuming_may_change_how_long_but_not_what(tmp_path):
    config = tiny_config()
    config.optimizer.schedule = "constant"
    RunDir(tmp_path).write_config(config, file="x.py")
    config.steps, config.log_every, config.eval.batches = 100, 1, 1
    RunDir(tmp_path).check_resumable(config)
    config.quantizer.levels = (5, 5, 5)
    with pytest.raises(UserError, match=r"quantizer.levels: \[8, 6, 5\] -> \[5, 5, 5\]"):
        RunDir(tmp_path).check_resumable(config)


@pytest.mark.parametrize("config", [tiny_config(), tiny_uvim(1)], ids=["cosine", "uvim"])
def test_a_schedule_that_ends_with_the_steps_keeps_them(config, tmp_path):
    """The rate would jump from its end to the middle of another schedule."""
    RunDir(tmp_path).write_config(config)
    config = config.copy_and_resolve_references()
    config.log_every += 1
    RunDir(tmp_path).check_resumable(config)
    config.steps += 4
    RunDir(tmp_path).check_resumable(config)  # as imported weights, it has trained no step here
    RunDir(tmp_path).update_record(wall_time_s=1.0)
    with pytest.raises(UserError, match="steps: 8 -> 12, at which the learning rate's schedule ends"):
        RunDir(tmp_path).check_resumable(config)


def test_a_run_keeps_the_revision_that_it_was_started_with(tmp_path):
    run = RunDir(tmp_path)
    facts = {"status": "training", "steps": 8, "versions": {"jax": "1"}}
    assert run.start_record(git_revision="a", **facts)["git_revision"] == "a"
    assert "later_revisions" not in run.start_record(git_revision="a", **facts)
    for revision in ("b", "c", "b"):
        record = run.start_record(git_revision=revision, **facts | {"versions": {"jax": "2"}})
    assert record["git_revision"] == "a" and record["versions"] == {"jax": "1"}
    assert record["later_revisions"] == ["b", "c"]
    run.update_record(status="finished", device="x")
    (run.checkpoints / "8").mkdir(parents=True)
    before = (tmp_path / "record.json").read_text()
    run.start_record(git_revision="d", **facts)
    assert (tmp_path / "record.json").read_text() == before
    assert run.start_record(git_revision="d", **facts | {"steps": 9})["later_revisions"] == ["b", "c", "d"]


def test_record_merges_metrics(tmp_path):
    run = RunDir(tmp_path)
    psnr, fd = MetricKey("psnr"), MetricKey("reconstruction_fd", network="alexnet", reference="train")
    run.update_record({psnr: Measured(1.0, {"samples": 2})}, status="training")
    run.update_record({psnr: Measured(2.0, {"samples": 3}), fd: Measured(4.0, {})}, status="finished")
    record = json.loads((tmp_path / "record.json").read_text())
    assert read_metrics(record) == {psnr: Measured(2.0, {"samples": 3}), fd: Measured(4.0, {})}
    assert record["status"] == "finished" and run.record == record == RunDir(tmp_path).record
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]  # no temporary file is left


def test_the_last_check_is_the_last_line_of_validation(tmp_path):
    run = RunDir(tmp_path)
    assert run.last_check() == {}
    lines = [{"step": s, f"{part}mse": s / 8} for s in (2, 4) for part in ("validation/", "loss/")]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run.last_check() == {"step": 4, "mse": 0.5}


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
