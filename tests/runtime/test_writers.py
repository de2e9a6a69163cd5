import json

import numpy as np
import pytest

from fsq_repro.runtime.writers import MetricWriter, lacks_check


def test_jsonl_has_a_line_a_write_and_is_appended_to(tmp_path):
    for step in (1, 2):
        writer = MetricWriter(tmp_path, is_main_process=True, step=step - 1)
        writer.write_scalars(step, {"loss": np.float32(0.5), "usage": 1})
        writer.write_images(step, {"picture": np.zeros((4, 4, 3), np.uint8)})
        writer.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": s, "loss": 0.5, "usage": 1.0} for s in (1, 2)]


def test_what_a_killed_run_left_behind_its_checkpoint_is_dropped(tmp_path):
    file = tmp_path / "metrics.jsonl"
    lines = [f'{{"step": {step}, "loss": 0.5}}\n' for step in (1, 2, 3)]
    check = '{"step": 2, "validation/mse": 0.5}\n'
    assert not lacks_check(tmp_path, 0)  # a run that is new, or of imported weights
    for left, step, kept, lacks in (
        (lines, 2, lines[:2], True),
        (lines[:2] + [check] + lines[2:], 2, lines[:2] + [check], False),
        (lines[:2] + [check] + lines[2:], 1, lines[:1], True),
        (lines[:2] + [check[:-9]], 2, lines[:2], True),  # cut off
        (lines[:2] + ["\0\0\0\n"], 2, lines[:2], True),  # the machine lost its power
        (lines, 3, lines, True),
    ):
        file.write_text("".join(left))
        assert lacks_check(tmp_path, step) == lacks
        MetricWriter(tmp_path, is_main_process=True, step=step).close()
        assert file.read_text() == "".join(kept)


def test_other_processes_write_nothing(tmp_path):
    writer = MetricWriter(tmp_path, is_main_process=False, step=0)
    writer.write_scalars(1, {"loss": 0.5})
    writer.write_images(1, {"picture": np.zeros((4, 4, 3), np.uint8)})
    writer.close()
    assert not list(tmp_path.iterdir())


def test_tensorboard_events(tmp_path):
    """Where TensorFlow is installed (requirements-tfds.txt)."""
    pytest.importorskip("tensorflow")
    writer = MetricWriter(tmp_path, is_main_process=True, step=0)
    writer.write_scalars(1, {"loss": 0.5})
    writer.write_images(1, {"picture": np.zeros((4, 4, 3), np.uint8)})
    writer.close()
    (events,) = tmp_path.glob("tensorboard/events*")
    assert b"loss" in events.read_bytes() and b"picture" in events.read_bytes()
