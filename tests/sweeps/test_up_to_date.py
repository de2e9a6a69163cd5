"""When a sweep leaves a run alone, works on it again, or refuses it: for every kind of run, by what has changed."""

import json
import pathlib
import shutil

import pytest
from ml_collections import ConfigDict

from fsq_repro.errors import UserError
from fsq_repro.metrics.table import CODEBOOK_USAGE, MetricKey
from fsq_repro.runtime.run_dir import Measured, RunDir, changed, config_fingerprint
from fsq_repro.sweeps import sweep
from fsq_repro.sweeps.sweep import Task, nothing_known, survey, take_over
from fsq_repro.sweeps.up_to_date import outdated
from tests.tiny import tiny_config, tiny_stage2, tiny_uvim

MAIN = {"autoencoder": "psnr", "maskgit": "compression_bits", "uvim_stage1": "rmse", "uvim_stage2": "rmse"}
DATA = {"train": "t1", "validation": "v1", "test": "e1"}


def data_now(**others: str):
    return lambda config: DATA | others


def make_config(kind: str, stage1: pathlib.Path) -> ConfigDict:
    config = {
        "autoencoder": tiny_config,
        "maskgit": lambda: tiny_stage2(stage1),
        "uvim_stage1": lambda: tiny_uvim(1),
        "uvim_stage2": lambda: tiny_uvim(2, stage1=stage1),
    }[kind]()
    config.optimizer.schedule = "constant"
    return config


def train(path: pathlib.Path, config: ConfigDict, to: int | None = None, data: dict = DATA) -> None:
    """What scripts/train.py leaves in a run directory, trained to the end or to an earlier step."""
    run = RunDir(path)
    run.check_resumable(config)
    facts = {"experiment": config.experiment, "steps": config.steps, "batch_size": config.batch_size}
    facts |= {"seed": config.seed, "overrides": {}, "config_fingerprint": config_fingerprint(config)}
    facts |= {"data_hashes": {split: data[split] for split in ("train", "validation")}, "versions": {}}
    if "task" in config:
        facts["task"] = config.task.name
    if config.get("stage1"):
        theirs = RunDir(config.stage1).record
        keys = ("experiment", "steps", "batch_size", "seed")
        facts["stage1"] = {k: theirs[k] for k in keys} | {"run": "s", "fingerprint": theirs["evaluated"]["weights"]}
    run.start_record(status="training", git_revision="x", **facts)
    run.write_config(config)
    (run.checkpoints / str(to or config.steps)).mkdir(parents=True, exist_ok=True)
    if not to:
        run.update_record(status="finished", wall_time_s=1.0)


def evaluate(path: pathlib.Path, *, weights: str = "w", step: int | None = None, data: dict = DATA) -> None:
    """What scripts/evaluate.py leaves there, of the last checkpoint or of another `step`."""
    run = RunDir(path)
    config, record = run.config, run.record
    protocol = {"checkpoint": step or config.steps, "weights": "raw"}
    of_checkpoint = {"weights": "raw", "step": step} if step else {}
    measured = {MetricKey(MAIN[config.trainer], **of_checkpoint): Measured(0.5, protocol)}
    if config.trainer == "uvim_stage2":
        usage = Measured(1.0, {"checkpoint": record["stage1"]["steps"]})
        measured |= {MetricKey(name, **of_checkpoint): usage for name in CODEBOOK_USAGE}
    fact = {"checkpoint": config.steps, "config_fingerprint": config_fingerprint(config), "weights": weights}
    fact["data_hashes"] = {split: data[split] for split in ("train", "test")}
    run.update_record(measured, **({} if step else {"evaluated": fact, "tokens_sha256": f"of step {config.steps}"}))


@pytest.fixture(params=MAIN)
def finished(request, tmp_path):
    """A run of each kind, trained and evaluated: its directory, its config, and stage I's directory or None."""
    stage1 = tmp_path / "stage1"
    if request.param in ("maskgit", "uvim_stage2"):
        behind = {"maskgit": "autoencoder", "uvim_stage2": "uvim_stage1"}[request.param]
        train(stage1, make_config(behind, stage1))
        evaluate(stage1)
    path, config = tmp_path / "run", make_config(request.param, stage1)
    train(path, config)
    evaluate(path)
    assert outdated(path, config, data_now()) == ""
    return path, config, stage1 if stage1.exists() else None


def files(path: pathlib.Path) -> dict:
    return {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "fields", [{"log_every": 3}, {"data.num_workers": 2}, {"mesh.fsdp": 2}, {"accumulate_steps": 2}, {"eval_every": 5}]
)
def test_what_a_machine_sets_changes_nothing(finished, fields):
    path, config, _ = finished
    assert outdated(path, changed(config, fields), data_now()) == ""


def test_longer_training_resumes_and_is_evaluated_again_and_never_passes_before(finished):
    path, config, _ = finished
    longer = changed(config, {"steps": config.steps + 4})
    assert outdated(path, longer, data_now()) == "its config has changed"
    train(path, longer, to=config.steps + 2)  # stopped on the way
    record = RunDir(path).record
    assert record["evaluated"] is None and record["tokens_sha256"] is None
    assert outdated(path, longer, data_now()) == "its training has not finished"
    train(path, longer)
    assert outdated(path, longer, data_now()) == f"its checkpoint of step {longer.steps} has not been evaluated"
    assert outdated(path, longer, data_now(), evaluated=False) == ""
    old = [e for e in RunDir(path).record["metrics"] if e["protocol"]["checkpoint"] == config.steps]
    of_stage1 = CODEBOOK_USAGE if config.trainer == "uvim_stage2" else ()
    assert all(e.get("step") == config.steps for e in old if e["metric"] not in of_stage1)
    evaluate(path)
    assert outdated(path, longer, data_now()) == ""
    with pytest.raises(UserError, match=f"steps: {longer.steps} -> {config.steps}, less than the {longer.steps} of"):
        outdated(path, config, data_now())


@pytest.mark.parametrize(
    "field, value", [("optimizer.learning_rate", 0.123), ("batch_size", 16), ("seed", 9), ("data.resolution", 64)]
)
def test_a_run_that_was_trained_otherwise_is_refused_by_field(finished, field, value):
    path, config, _ = finished
    before, old = files(path), changed(config, {}).to_json()
    with pytest.raises(
        UserError, match=rf"{field}: .* -> {value}\); resume it as it was, or choose another"
    ) as refused:
        outdated(path, changed(config, {field: value}), data_now())
    assert str(refused.value).count("->") == 1 and files(path) == before and config.to_json() == old


def test_another_evaluation_is_asked_for_by_the_config(finished):
    """Also where the training has noted the new config and the evaluation was killed; and of a record of before."""
    path, config, _ = finished
    other = changed(config, {"eval.batch_size": 2 * config.eval.batch_size})
    for known in (True, False):
        train(path, config)
        evaluate(path)
        if not known:
            record = RunDir(path).record
            del record["evaluated"], record["config_fingerprint"]
            (path / "record.json").write_text(json.dumps(record))
        assert outdated(path, config, data_now()) == ""
        assert outdated(path, other, data_now()) == "its config has changed"
        train(path, other)
        assert outdated(path, other, data_now()) == "it has been evaluated with another config"
        evaluate(path)
        assert outdated(path, other, data_now()) == ""


def test_an_evaluation_of_another_checkpoint_is_none_of_the_last(finished):
    path, config, _ = finished
    RunDir(path).update_record(metrics=[], evaluated=None)
    evaluate(path, step=4)
    assert outdated(path, config, data_now()) == f"its checkpoint of step {config.steps} has not been evaluated"


def test_changed_data_are_refused_or_measured_again(finished):
    path, config, _ = finished
    assert outdated(path, config, data_now(test="e2")) == "the data that it was evaluated on have changed"
    for split in ("train", "validation"):
        with pytest.raises(UserError, match=f"data of .* have changed .*, {split} split: {DATA[split]} -> other"):
            outdated(path, config, data_now(**{split: "other"}))
    assert outdated(path, config, nothing_known) == ""  # no data here
    shutil.rmtree(path / "checkpoints")  # nothing was trained on them that could go on
    assert outdated(path, config, data_now(train="other")) == "its data have changed"


@pytest.mark.parametrize("finished", ["maskgit", "uvim_stage2"], indirect=True)
def test_a_run_on_another_stage_i_is_refused(finished):
    path, config, stage1 = finished
    evaluate(stage1, weights="others")
    with pytest.raises(UserError, match=r"another stage I .* \(fingerprint: w -> others\); choose"):
        outdated(path, config, data_now())
    evaluate(stage1)
    longer = changed(RunDir(stage1).config, {"steps": config.steps + 1})
    train(stage1, longer)
    with pytest.raises(UserError, match=rf"another stage I .* \(steps: {config.steps} -> {longer.steps}\)"):
        outdated(path, config, data_now())


def test_records_that_do_not_say_it_are_taken_at_their_word(finished):
    path, config, _ = finished
    record = RunDir(path).record
    for name in ("evaluated", "config_fingerprint", "data_hashes", "overrides"):
        del record[name]
    (path / "record.json").write_text(json.dumps(record))
    assert outdated(path, config, data_now(train="other")) == ""
    with pytest.raises(UserError, match="optimizer.learning_rate"):  # by the config
        outdated(path, changed(config, {"optimizer.learning_rate": 0.123}), data_now())


def task_of(name: str, path: pathlib.Path, config: ConfigDict, needs: tuple[str, ...] = ()) -> Task:
    return Task(name, path, needs, (), ("evaluate",), config)


def test_a_record_from_elsewhere_serves_until_its_checkpoint_is_needed(finished, tmp_path):
    """Then its run is trained anew, and nothing of the record is left over."""
    path, config, _ = finished
    here = tmp_path / "here"
    task = task_of("run", here, config)
    assert take_over([task], tmp_path, data_now(train="other")) == []
    assert take_over([task_of("run", here, changed(config, {"seed": 5}))], tmp_path, data_now()) == []
    assert take_over([task], tmp_path, data_now()) == ["run"] and survey([task], data_now()) == ({}, {})
    user = task_of("user", tmp_path / "user", config, ("run",))
    todo, _ = survey([task, user], data_now())
    assert todo == {"user": "it has not been trained", "run": "its checkpoint, which user needs, is not here"}
    train(here, config, to=4)
    assert RunDir(here).record["status"] == "training" and RunDir(here).record["metrics"] == []


def test_refused_runs_do_not_keep_the_others_of_a_sweep_from_running(tmp_path, monkeypatch, capsys):
    """On this machine; what needs a refused run is left out."""
    (tmp_path / "mark.py").write_text("import pathlib, sys; pathlib.Path(sys.argv[1]).touch()")
    monkeypatch.setattr(sweep, "ROOT", tmp_path)
    config = make_config("autoencoder", tmp_path)
    train(tmp_path / "bad", changed(config, {"seed": 3}))
    evaluate(tmp_path / "bad")
    tasks = [
        Task(name, tmp_path / name, needs, ("mark.py", f"{tmp_path / name}/trained"), (), config)
        for name, needs in (("bad", ()), ("needs_it", ("bad",)), ("good", ()))
    ]
    failed = sweep.run_sweep(tasks, on_finished=lambda path: None)
    assert failed == ["bad", "needs_it"] and (tmp_path / "good" / "trained").exists()
    assert not (tmp_path / "bad" / "trained").exists()
    assert "bad REFUSED: " in (out := capsys.readouterr().out) and f"seed: 3 -> {config.seed}" in out
