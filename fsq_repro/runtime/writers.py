"""Metric writers: one JSON line a write, always; TensorBoard through clu where TensorFlow is installed."""

import importlib.util
import json
import logging
import pathlib
from collections.abc import Mapping

import numpy as np

log = logging.getLogger(__name__)


class JsonlWriter:
    """Appends {"step": ..., name: value, ...} to `metrics.jsonl`; reports and resumed runs read it back."""

    def __init__(self, path: pathlib.Path):
        self._file = open(path, "a", buffering=1)  # noqa: SIM115 (lives as long as the writer)

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        self._file.write(json.dumps({"step": step, **{k: float(v) for k, v in scalars.items()}}) + "\n")

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Pictures lie in `samples/`; a line of numbers has no place for them."""

    def close(self) -> None:
        self._file.close()


class TensorBoardWriter:
    """clu's TensorBoard writer (imports TensorFlow)."""

    def __init__(self, directory: pathlib.Path):
        from clu import metric_writers

        self._writer = metric_writers.SummaryWriter(str(directory))

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        self._writer.write_scalars(step, scalars)

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """images: name -> uint8 (H, W, 3)."""
        self._writer.write_images(step, {k: v[None] for k, v in images.items()})

    def close(self) -> None:
        self._writer.flush()
        self._writer.close()


class MultiWriter:
    """Writes to all of its writers."""

    def __init__(self, *writers: JsonlWriter | TensorBoardWriter):
        self._writers = writers

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        for w in self._writers:
            w.write_scalars(step, scalars)

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        for w in self._writers:
            w.write_images(step, images)

    def close(self) -> None:
        for w in self._writers:
            w.close()


def make_writer(run_path: pathlib.Path, *, is_main_process: bool) -> MultiWriter:
    """Writers of a run directory; other processes than the first write nothing."""
    if not is_main_process:
        return MultiWriter()
    writers = [JsonlWriter(run_path / "metrics.jsonl")]
    if all(importlib.util.find_spec(m) for m in ("tensorflow", "tensorboard")):
        writers.append(TensorBoardWriter(run_path / "tensorboard"))
    else:
        log.info(
            "TensorFlow is not installed: metrics go to metrics.jsonl only (requirements-tfds.txt adds TensorBoard)"
        )
    return MultiWriter(*writers)
