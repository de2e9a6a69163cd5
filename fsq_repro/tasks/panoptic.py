"""Panoptic segmentation: a class and a segment for each pixel, panoptic quality, and the files."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np
import optax

from fsq_repro.data.choice import some_items
from fsq_repro.data.dense_labels import panoptic_labels
from fsq_repro.data.pipeline import Batch
from fsq_repro.data.sources import Source
from fsq_repro.data.transforms import Item, plain_resize, resize_nearest
from fsq_repro.files import atomic_path
from fsq_repro.metrics.panoptic_quality import PanopticQuality, majority_class_map, panoptic_from_logits
from fsq_repro.metrics.table import MetricKey
from fsq_repro.tasks import base
from fsq_repro.visualization.dense_pictures import colour_panoptic, panoptic_rows
from fsq_repro.visualization.grids import save_png

BASELINE = MetricKey("pq", baseline="majority_map")


@dataclasses.dataclass(frozen=True)
class PanopticTask(base.Task):
    """A class and a segment number for each pixel, 0 being void in both; the two cross-entropies are summed.

    Attributes:
      num_classes, num_instances: sizes of the two heads, void included.
      min_fraction: predicted segments on no more than this share of the pixels become void.
    """

    name: ClassVar[str] = "panoptic"
    needs: ClassVar[tuple[str, ...]] = ("semantics", "instances")
    num_classes: int
    num_instances: int
    min_fraction: float = 0.0

    def __post_init__(self) -> None:
        base.check_least("num_classes", self.num_classes, 2)
        base.check_least("num_instances", self.num_instances, 2)
        if not 0 <= self.min_fraction < 1:
            raise ValueError(f"task.min_fraction = {self.min_fraction} must be in [0, 1)")

    @property
    def labels(self) -> tuple[tuple[str, int], ...]:
        return (("semantics", self.num_classes), ("instances", self.num_instances))

    def labelled(self, source: Source) -> Source:
        """ValueError where the head is not of the source's classes."""
        if source.num_semantics != self.num_classes:
            raise ValueError(
                f"task.num_classes = {self.num_classes}, but {source.name} has {source.num_semantics} classes, "
                "void included"
            )
        return source

    def prepare(self, batch: Batch) -> Batch:
        """ValueError where a map has more segments than the instance head can tell apart."""
        labels = panoptic_labels(batch["semantics"], batch["instances"], self.num_classes, self.num_instances)
        return {"context": self.context(batch["image"])} | dict(zip(self.needs, labels, strict=True))

    def loss(self, outputs: base.Arrays, batch: base.Arrays) -> tuple[jax.Array, base.Arrays]:
        terms = {
            name: base.mean_by_image(optax.softmax_cross_entropy_with_integer_labels(outputs[name], batch[name]))
            for name, _ in self.labels
        }
        return sum(terms.values()), terms

    def predict(self, outputs: base.Arrays) -> base.Arrays:
        """Returns {"semantics", "instances"}: int32 (B, H, W), see `panoptic_from_logits`."""
        maps = panoptic_from_logits(outputs["semantics"], outputs["instances"], self.min_fraction)
        return dict(zip(self.needs, maps, strict=True))

    def rows(self, items: Sequence[Item], columns: Mapping[str, Sequence[base.Maps]]) -> np.ndarray:
        columns = {"ground truth": items} | dict(columns)
        pairs = {title: [base.stacked(maps, name) for name, _ in self.labels] for title, maps in columns.items()}
        return panoptic_rows(base.stacked(items, "image"), pairs)

    def write(self, stem: pathlib.Path, maps: base.Maps) -> list[str]:
        """STEM_panoptic.png, coloured, and STEM_panoptic.npz with `semantics` and `instances`."""
        picture, data = f"{stem}_panoptic.png", f"{stem}_panoptic.npz"
        save_png(picture, colour_panoptic(maps["semantics"], maps["instances"]))
        with atomic_path(data) as temporary:
            np.savez_compressed(temporary, **maps)
        return [picture, data]

    def evaluation(self, data: base.EvaluationData) -> base.Evaluation:
        scorer = PanopticScorer(data.train, data.eval["baseline_images"], data.data["resolution"])
        return base.Evaluation(scorer, data.test, self)


class PanopticScorer:
    """Panoptic quality; baseline: the most frequent class at each place of the training maps, a segment each."""

    def __init__(self, train: Source, baseline_images: int, resolution: int):
        self._seen = {"training_images": min(baseline_images, len(train))}
        self._quality = PanopticQuality(train.num_semantics, train.things)
        self._baseline = PanopticQuality(train.num_semantics, train.things)
        maps = (plain_resize(item, resolution)["semantics"][None] for item in some_items(train, baseline_images))
        self._majority = majority_class_map(maps, train.num_semantics)
        self.shown = base.Shown()

    def update(self, maps: base.Maps, truths: Sequence[Item]) -> None:
        self.shown.add((plain_resize(truth, maps["semantics"].shape[1]) for truth in truths), maps)
        for i, truth in enumerate(truths):
            size = truth["semantics"].shape
            true = truth["semantics"][None], truth["instances"][None]
            crowd = truth["crowd"][None] if "crowd" in truth else None
            predicted = (resize_nearest(maps[name][i], size)[None] for name in ("semantics", "instances"))
            self._quality.update(*predicted, *true, crowd_BxHxW=crowd)
            majority = resize_nearest(self._majority, size)[None]
            self._baseline.update(majority, np.zeros_like(majority), *true, crowd_BxHxW=crowd)

    def compute(self) -> dict[MetricKey, float | int]:
        quality = {MetricKey(name): value for name, value in self._quality.compute().items()}
        return quality | {BASELINE: self._baseline.compute()["pq"]}

    def protocols(self) -> dict[MetricKey, dict[str, Any]]:
        return {BASELINE: self._seen}
