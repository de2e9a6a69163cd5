"""A run's metrics: one JSON line a write, always; TensorBoard through clu where TensorFlow is installed."""

import importlib.util
import json
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from fsq_repro.files import atomic_path

log = logging.getLogger(__name__)

FILE = "metrics.jsonl"


class MetricWriter:
    """Appends {"step": ..., name: value, ...} to `metrics.jsonl`, which reports and resumed runs read back.

    Other processes than the first write nothing. TensorBoard's events, in `tensorboard/`, have the pictures too.
    """

    def __init__(self, run_path: pathlib.Path, *, is_main_process: bool, step: int):
        """Continues after a step; lines of later ones, which a killed run left and which come again, are dropped."""
        self._lines = self._events = None
        if is_main_process:
            kept = "".join(_lines_until(run_path, step))
            if (run_path / FILE).exists() and kept != (run_path / FILE).read_text():
                with atomic_path(run_path / FILE) as temporary:
                    temporary.write_text(kept)
            self._lines = open(run_path / FILE, "a", buffering=1)  # noqa: SIM115 (lives as long as this)
            self._events = _tensorboard(run_path / "tensorboard")

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        if self._lines:
            self._lines.write(json.dumps({"step": step, **{k: float(v) for k, v in scalars.items()}}) + "\n")
        if self._events:
            self._events.write_scalars(step, scalars)

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Name -> uint8 (H, W, 3); a line of numbers has no place for them."""
        if self._events:
            self._events.write_images(step, images)

    def close(self) -> None:
        for file in filter(None, (self._lines, self._events)):
            file.close()


def lacks_check(run_path: pathlib.Path, step: int) -> bool:
    """Whether a run that was trained to a step has no line of its check on the validation split."""
    lines = _lines_until(run_path, step)
    return bool(lines) and not any('"validation/' in line for line in lines if json.loads(line)["step"] == step)


def _lines_until(run_path: pathlib.Path, step: int) -> list[str]:
    """The lines up to those of a step, without one that was cut off."""
    file = run_path / FILE
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [line for line in lines if line.endswith("}\n") and json.loads(line)["step"] <= step]


def _tensorboard(directory: pathlib.Path) -> Any:
    """clu's writer; None without TensorFlow, which `clu.metric_writers` needs to be imported at all."""
    if not all(importlib.util.find_spec(m) for m in ("tensorflow", "tensorboard")):
        log.info("TensorFlow is not installed: metrics go to metrics.jsonl only (`make tfds` adds TensorBoard)")
        return None
    from clu import metric_writers

    return metric_writers.SummaryWriter(str(directory))
