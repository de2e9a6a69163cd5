"""Torture tells one bit of difference, knows what it interrupted, and real trainings come through it."""

import json
import pathlib
import shutil
import signal

import numpy as np
import orbax.checkpoint as ocp
import pytest

from fsq_repro.profiling import full_disk, torture


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> pathlib.Path:
    """A run directory as a finished training leaves it."""
    run = tmp_path_factory.mktemp("finished")
    for step, value in ((5, 1.0), (10, 2.0)):
        state = {"params": {"kernel": np.full(3, value, np.float32)}, "step": np.array(step, np.int32)}
        ocp.PyTreeCheckpointer().save(run / "checkpoints" / str(step) / "state", state)
        (run / "checkpoints" / str(step) / "data").mkdir()
        (run / "checkpoints" / str(step) / "data" / "process_0-of-1.json").write_text(f'{{"next_index": {step}}}')
    lines = [{"step": step, "loss": 1 / step, "data_wait": 0.1} for step in (9, 10)] + [{"step": 10, "validation/a": 1}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "samples").mkdir()
    (run / "samples" / "grid_0000010.png").write_bytes(b"picture")
    (run / "record.json").write_text(json.dumps({"status": "finished", "steps": 10, "wall_time_s": 1.0}))
    return run


def _replace(file: pathlib.Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def _flip_a_bit(run: pathlib.Path) -> None:
    state = run / "checkpoints" / "10" / "state"
    tree = ocp.PyTreeCheckpointer().restore(state)
    kernel = np.array(tree["params"]["kernel"])
    kernel.view(np.uint32)[2] ^= 1
    ocp.PyTreeCheckpointer().save(state, {"params": {"kernel": kernel}, "step": tree["step"]}, force=True)


FAULTS = {
    "another array ['params']['kernel']": _flip_a_bit,
    'another data position process_0-of-1.json: {"next_index": 11}, unbroken {"next_index": 10}': lambda run: _replace(
        run / "checkpoints" / "10" / "data" / "process_0-of-1.json", "10", "11"
    ),
    "another last checkpoint: 5, unbroken 10": lambda run: shutil.rmtree(run / "checkpoints" / "10"),
    "another steps of metrics.jsonl: ['9', '10', '10'], unbroken ['9', '10', '10 checked']": lambda run: _replace(
        run / "metrics.jsonl", "validation/a", "a"
    ),
    "another steps of metrics.jsonl: ['10', '10 checked'], unbroken ['9', '10', '10 checked']": lambda run: _replace(
        run / "metrics.jsonl", json.dumps({"step": 9, "loss": 1 / 9, "data_wait": 0.1}) + "\n", ""
    ),
    "another line of step 10 in metrics.jsonl": lambda run: _replace(
        run / "metrics.jsonl", '10, "loss": 0.1', '10, "loss": 0.2'
    ),
    "no picture grid_0000010.png": lambda run: (run / "samples" / "grid_0000010.png").unlink(),
    "another status in record.json: training, unbroken finished": lambda run: _replace(
        run / "record.json", "finished", "training"
    ),
    "": lambda run: _replace(run / "metrics.jsonl", '"data_wait": 0.1', '"data_wait": 0.2'),  # time may differ
}


@pytest.mark.parametrize("told", FAULTS)
def test_whatever_differs_in_the_end_is_told(finished, tmp_path, told):
    shutil.copytree(finished, tmp_path / "run")
    assert torture.difference(torture.final_state(finished), torture.final_state(tmp_path / "run")) == ""
    FAULTS[told](tmp_path / "run")
    found = torture.difference(torture.final_state(finished), torture.final_state(tmp_path / "run"))
    assert found.startswith(told) and bool(found) == bool(told)


def test_what_a_training_did_is_told_by_its_output_and_files(tmp_path):
    compiled = "12:00:00 resumed from step 5\n12:00:01 compiled the step in 1.0 s\n"
    steps = f"{compiled}12:00:02 step 9/40  loss 1\n12:00:02 step 10/40  loss 1\n"
    assert torture.phase("", tmp_path) == "start"
    assert torture.phase("12:00:00 resumed from step 5\n", tmp_path) == "compilation"
    assert torture.phase(compiled, tmp_path) == torture.phase(steps, tmp_path) == "step"
    (tmp_path / "checkpoints" / "10.orbax-checkpoint-tmp").mkdir(parents=True)
    assert torture.phase(steps, tmp_path) == "save"
    (tmp_path / "checkpoints" / "10.orbax-checkpoint-tmp").rename(tmp_path / "checkpoints" / "10")
    assert torture.phase(steps, tmp_path) == "evaluation"
    assert torture.phase(f"{steps}12:00:03 step 10  validation/mse 1\n", tmp_path) == "step"


@pytest.mark.slow
def test_killed_trainings_end_as_unbroken_ones_and_a_planted_fault_is_told(tmp_path, monkeypatch):
    killed = torture.Torture(tmp_path, seed=0)
    row = killed.interrupt("autoencoder", signal.SIGKILL, 2)
    assert row.during.total() == 2 and row.runs >= 1 and not row.problem
    row = full_disk.fill_disks(killed, "autoencoder", tmp_path, 1, seed=0)
    assert not row.problem and (row.note or row.during.total() == row.resumes == 1)

    start = torture.Training.__init__

    def start_elsewhere(training, kind, folder, run):
        for file in run.glob("checkpoints/*/data/process_0-of-1.json"):
            position = json.loads(file.read_text())
            file.write_text(json.dumps({name: index + 1 for name, index in position.items()}))
        start(training, kind, folder, run)

    monkeypatch.setattr(torture.Training, "__init__", start_elsewhere)
    while not (row := killed.interrupt("autoencoder", signal.SIGKILL, 2)).problem:
        assert not row.resumes  # killed before the first checkpoint: there was nothing to go on from
