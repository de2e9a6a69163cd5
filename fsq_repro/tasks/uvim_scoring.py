"""What UViM's predictions are scored with, task by task, beside predictions that see no image or only its grey.

A scorer takes each image's prediction at the model's resolution and brings it to the size of the ground truth, as
published. Figures of a baseline are called NAME@BASELINE.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from fsq_repro.data.dense_labels import resize_nearest, to_grey
from fsq_repro.data.images import to_uint8, to_unit_float
from fsq_repro.data.sources import Source
from fsq_repro.data.transforms import Item, plain_resize
from fsq_repro.metrics.depth_metrics import DepthMetrics, mean_valid_depth, valid_depth
from fsq_repro.metrics.panoptic_quality import PanopticQuality, majority_class_map
from fsq_repro.visualization.dense_pictures import depth_rows, panoptic_rows, titled_rows

Maps = dict[str, np.ndarray]

NUM_PICTURES = 8


class TaskScorer(Protocol):
    """Figures of one task over a split."""

    def update(self, maps: Maps, truths: Sequence[Item]) -> None:
        """Adds predictions (B, H, W, ...) of a batch; `truths` are the source's items, B of them."""
        ...

    def compute(self) -> dict[str, float | int]:
        """Figures of everything seen, those of the baselines too."""
        ...

    def protocols(self) -> dict[str, dict]:
        """What belongs to the protocol of single figures, besides what all share: name -> entries."""
        ...

    def picture(self) -> np.ndarray:
        """Input, ground truth and prediction of the first images, uint8."""
        ...


def evenly(source: Source, count: int) -> Iterator[Item]:
    """`count` items spread evenly over a source, or all of them if it has fewer."""
    count = min(count, len(source))
    return (source[i * len(source) // count] for i in range(count))


class _Shown:
    """The first images at the model's resolution, with truth and prediction."""

    def __init__(self, names: Sequence[str]):
        self._names, self._rows = names, []

    def add(self, maps: Maps, truths: Sequence[Item]) -> None:
        for i, truth in enumerate(truths[: NUM_PICTURES - len(self._rows)]):
            true = plain_resize(truth, maps[self._names[0]].shape[1])
            self._rows.append((true["image"], [true[n] for n in self._names], [maps[n][i] for n in self._names]))

    def stacked(self) -> tuple[np.ndarray, tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
        """Images, true maps and predicted maps, each (n, H, W, ...)."""
        images, true, predicted = zip(*self._rows, strict=True)
        stack = lambda maps: tuple(np.stack(m) for m in zip(*maps, strict=True))  # noqa: E731
        return np.stack(images), stack(true), stack(predicted)


def mean_depth_map(depths: Iterable[np.ndarray], otherwise: float) -> np.ndarray:
    """Mean of each pixel over maps (H, W) of one size, where it is valid, metres; `otherwise` where it never is."""
    total_HxW, count_HxW = 0.0, 0
    for depth_HxW in depths:
        valid_HxW = valid_depth(depth_HxW)
        total_HxW = total_HxW + np.where(valid_HxW, depth_HxW, 0).astype(np.float64)
        count_HxW = count_HxW + valid_HxW
    return np.where(count_HxW > 0, total_HxW / np.maximum(count_HxW, 1), otherwise)


class DepthScorer:
    """Depth errors; baselines: the mean depth of the training set and, where all maps have one size, of each pixel."""

    def __init__(self, train: Source, size: tuple[int, int], baseline_images: int):
        """`size` is that of the maps to be scored."""
        self._seen = {"training_images": min(baseline_images, len(train))}
        depths = lambda: (item["depth"] for item in evenly(train, baseline_images))  # noqa: E731 - read twice
        self._mean = mean_valid_depth(depths())
        self._mean_map = mean_depth_map(depths(), self._mean) if train[0]["depth"].shape == size else None
        self._metrics = DepthMetrics()
        self._baselines = {"mean_depth": DepthMetrics(), "mean_map": DepthMetrics()}
        self._shown = _Shown(["depth"])

    def update(self, maps: Maps, truths: Sequence[Item]) -> None:
        self._shown.add(maps, truths)
        for depth_HxW, truth in zip(maps["depth"], truths, strict=True):
            true_1xHxW = truth["depth"][None]
            self._metrics.update(resize_nearest(depth_HxW, truth["depth"].shape)[None], true_1xHxW)
            self._baselines["mean_depth"].update(np.full_like(true_1xHxW, self._mean), true_1xHxW)
            if self._mean_map is not None:
                self._baselines["mean_map"].update(self._mean_map[None], true_1xHxW)

    def compute(self) -> dict[str, float | int]:
        figures = self._metrics.compute()
        for name, metrics in self._baselines.items():
            if name == "mean_depth" or self._mean_map is not None:
                figures[f"rmse@{name}"] = metrics.compute()["rmse"]
        return figures

    def protocols(self) -> dict[str, dict]:
        return {name: self._seen for name in self.compute() if "@" in name}

    def picture(self) -> np.ndarray:
        images, (true,), (predicted,) = self._shown.stacked()
        return depth_rows(images, {"ground truth": true, "prediction": predicted})


class PanopticScorer:
    """Panoptic quality; baseline: the most frequent class at each place of the training maps, a segment each."""

    def __init__(self, train: Source, baseline_images: int, resolution: int):
        self._seen = {"training_images": min(baseline_images, len(train))}
        self._quality = PanopticQuality(train.num_semantics, train.things)
        self._baseline = PanopticQuality(train.num_semantics, train.things)
        maps = (plain_resize(item, resolution)["semantics"][None] for item in evenly(train, baseline_images))
        self._majority = majority_class_map(maps, train.num_semantics)
        self._shown = _Shown(["semantics", "instances"])

    def update(self, maps: Maps, truths: Sequence[Item]) -> None:
        self._shown.add(maps, truths)
        for i, truth in enumerate(truths):
            size = truth["semantics"].shape
            true = truth["semantics"][None], truth["instances"][None]
            crowd = truth["crowd"][None] if "crowd" in truth else None
            predicted = (resize_nearest(maps[name][i], size)[None] for name in ("semantics", "instances"))
            self._quality.update(*predicted, *true, crowd_BxHxW=crowd)
            majority = resize_nearest(self._majority, size)[None]
            self._baseline.update(majority, np.zeros_like(majority), *true, crowd_BxHxW=crowd)

    def compute(self) -> dict[str, float | int]:
        return self._quality.compute() | {"pq@majority_map": self._baseline.compute()["pq"]}

    def protocols(self) -> dict[str, dict]:
        return {"pq@majority_map": self._seen}

    def picture(self) -> np.ndarray:
        images, true, predicted = self._shown.stacked()
        return panoptic_rows(images, {"ground truth": true, "prediction": predicted})


def compare_rows(task: str, items: Sequence[Item], columns: Mapping[str, Sequence[Maps]]) -> np.ndarray:
    """Items of one size and the predictions of some models for them -> image, ground truth and each model's column.

    Args:
      task: a task's name.
      items: of a source.
      columns: title -> predictions at the items' size, as `LabelPredictor.predict` gives them.
    """
    images = np.stack([item["image"] for item in items])
    stacked = lambda maps, name: np.stack([m[name] for m in maps])  # noqa: E731
    if task == "colorization":
        grey = to_uint8(to_grey(to_unit_float(images)))
        return titled_rows(
            {"input": grey, "ground truth": images} | {title: stacked(maps, "color") for title, maps in columns.items()}
        )
    with_truth = {"ground truth": items} | dict(columns)
    if task == "depth":
        return depth_rows(images, {title: stacked(maps, "depth") for title, maps in with_truth.items()})
    pairs = {title: (stacked(maps, "semantics"), stacked(maps, "instances")) for title, maps in with_truth.items()}
    return panoptic_rows(images, pairs)
