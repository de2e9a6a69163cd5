import json

import numpy as np
import pytest

from fsq_repro.runtime.writers import MetricWriter


def test_jsonl_has_a_line_a_write_and_is_appended_to(tmp_path):
    for step in (1, 2):
        writer = MetricWriter(tmp_path, is_main_process=True)
        writer.write_scalars(step, {"loss": np.float32(0.5), "usage": 1})
        writer.write_images(step, {"picture": np.zeros((4, 4, 3), np.uint8)})
        writer.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": s, "loss": 0.5, "usage": 1.0} for s in (1, 2)]


def test_other_processes_write_nothing(tmp_path):
    writer = MetricWriter(tmp_path, is_main_process=False)
    writer.write_scalars(1, {"loss": 0.5})
    writer.write_images(1, {"picture": np.zeros((4, 4, 3), np.uint8)})
    writer.close()
    assert not list(tmp_path.iterdir())


def test_tensorboard_events(tmp_path):
    """Where TensorFlow is installed (requirements-tfds.txt)."""
    pytest.importorskip("tensorflow")
    writer = MetricWriter(tmp_path, is_main_process=True)
    writer.write_scalars(1, {"loss": 0.5})
    writer.write_images(1, {"picture": np.zeros((4, 4, 3), np.uint8)})
    writer.close()
    (events,) = tmp_path.glob("tensorboard/events*")
    assert b"loss" in events.read_bytes() and b"picture" in events.read_bytes()
