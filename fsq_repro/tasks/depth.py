"""Depth as classes, its errors beside those of mean depths, and its files."""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fsq_repro.data.choice import some_items
from fsq_repro.data.dense_labels import bins_to_depth, depth_to_bins
from fsq_repro.data.pipeline import Batch
from fsq_repro.data.sources import Source
from fsq_repro.data.transforms import Item, plain_resize, resize_nearest
from fsq_repro.files import atomic_path
from fsq_repro.metrics.depth_metrics import DepthMetrics, mean_valid_depth, valid_depth
from fsq_repro.metrics.table import MetricKey
from fsq_repro.tasks import base
from fsq_repro.visualization.dense_pictures import colour_depth, depth_rows
from fsq_repro.visualization.grids import save_png


@dataclasses.dataclass(frozen=True)
class DepthTask(base.Task):
    """Uniform bins of [0.001, 10] m; a prediction is the centre of the likeliest bin.

    Bin 0, where pixels without a measurement fall, costs nothing, and the mean is still over all pixels.

    Attributes:
      bins: number of classes.
    """

    name: ClassVar[str] = "depth"
    needs: ClassVar[tuple[str, ...]] = ("depth",)
    bins: int

    def __post_init__(self) -> None:
        base.check_least("bins", self.bins, 2)

    @property
    def labels(self) -> tuple[tuple[str, int], ...]:
        return (("depth", self.bins),)

    def prepare(self, batch: Batch) -> Batch:
        return {"context": self.context(batch["image"]), "depth": depth_to_bins(batch["depth"], self.bins)}

    def loss(self, outputs: base.Arrays, batch: base.Arrays) -> tuple[jax.Array, base.Arrays]:
        bins_BxHxW = batch["depth"]
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels(outputs["depth"], bins_BxHxW)
        loss_B = base.mean_by_image(jnp.where(bins_BxHxW != 0, cross_entropy, 0.0))
        return loss_B, {"depth": loss_B}

    def predict(self, outputs: base.Arrays) -> base.Arrays:
        """Returns {"depth": float32 (B, H, W) in metres}."""
        centres_K = jnp.asarray(bins_to_depth(np.arange(self.bins), self.bins))
        return {"depth": centres_K[jnp.argmax(outputs["depth"], axis=-1)]}

    def rows(self, items: Sequence[Item], columns: Mapping[str, Sequence[base.Maps]]) -> np.ndarray:
        columns = {"ground truth": items} | dict(columns)
        depths = {title: base.stacked(maps, "depth") for title, maps in columns.items()}
        return depth_rows(base.stacked(items, "image"), depths)

    def write(self, stem: pathlib.Path, maps: base.Maps) -> list[str]:
        """STEM_depth.png, coloured from the nearest to the farthest pixel, and STEM_depth.npy in metres."""
        depth, picture, data = maps["depth"], f"{stem}_depth.png", f"{stem}_depth.npy"
        save_png(picture, colour_depth(depth, float(depth.min()), float(depth.max())))
        with atomic_path(data) as temporary:
            np.save(temporary, depth)
        return [picture, data]

    def evaluation(self, data: base.EvaluationData) -> base.Evaluation:
        size = data.test[0]["depth"].shape
        scorer = DepthScorer(data.train, size, data.eval["baseline_images"])
        return base.Evaluation(scorer, data.test, self, {"crop": data.data["crop"]})


class DepthScorer:
    """Depth errors; baselines: the mean depth of the training set and, where all maps have one size, of each pixel."""

    def __init__(self, train: Source, size: tuple[int, int], baseline_images: int):
        """`size` is that of the maps to be scored."""
        self._seen = {"training_images": min(baseline_images, len(train))}
        depths = lambda: (item["depth"] for item in some_items(train, baseline_images))  # noqa: E731 - read twice
        self._mean = mean_valid_depth(depths())
        self._metrics = DepthMetrics()
        self._baselines = {"mean_depth": DepthMetrics()}
        if train[0]["depth"].shape == size:
            self._mean_map = mean_depth_map(depths(), self._mean)
            self._baselines["mean_map"] = DepthMetrics()
        self.shown = base.Shown()

    def update(self, maps: base.Maps, truths: Sequence[Item]) -> None:
        self.shown.add((plain_resize(truth, maps["depth"].shape[1]) for truth in truths), maps)
        for depth_HxW, truth in zip(maps["depth"], truths, strict=True):
            true_1xHxW = truth["depth"][None]
            self._metrics.update(resize_nearest(depth_HxW, truth["depth"].shape)[None], true_1xHxW)
            self._baselines["mean_depth"].update(np.full_like(true_1xHxW, self._mean), true_1xHxW)
            if "mean_map" in self._baselines:
                self._baselines["mean_map"].update(self._mean_map[None], true_1xHxW)

    def compute(self) -> dict[MetricKey, float | int]:
        return {MetricKey(name): value for name, value in self._metrics.compute().items()} | {
            MetricKey("rmse", baseline=name): metrics.compute()["rmse"] for name, metrics in self._baselines.items()
        }

    def protocols(self) -> dict[MetricKey, dict[str, Any]]:
        return {MetricKey("rmse", baseline=name): self._seen for name in self._baselines}


def mean_depth_map(depths: Iterable[np.ndarray], otherwise: float) -> np.ndarray:
    """Mean of each pixel over maps (H, W) of one size, where it is valid, metres; `otherwise` where it never is."""
    total_HxW, count_HxW = 0.0, 0
    for depth_HxW in depths:
        valid_HxW = valid_depth(depth_HxW)
        total_HxW = total_HxW + np.where(valid_HxW, depth_HxW, 0).astype(np.float64)
        count_HxW = count_HxW + valid_HxW
    return np.where(count_HxW > 0, total_HxW / np.maximum(count_HxW, 1), otherwise)
