"""Scores colorized images by Frechet distance: on a whole split, or on the published lists of images (FID-5k)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fsq_repro.data.choice import Chosen
from fsq_repro.data.dense_labels import to_grey, to_signed
from fsq_repro.data.images import to_uint8, to_unit_float
from fsq_repro.data.pipeline import Batch
from fsq_repro.data.sources import Source
from fsq_repro.data.transforms import Item, center_crop
from fsq_repro.metrics import colorization
from fsq_repro.metrics.colorization import ColourErrors
from fsq_repro.metrics.frechet import Moments, frechet_distance
from fsq_repro.metrics.scoring import Scorer
from fsq_repro.metrics.table import MetricKey
from fsq_repro.tasks.base import Maps, Shown

COLTRAN_PX = 256  # of the images that are scored
MEASURED = ("", "grey")  # the model, and the grey images themselves


class ColorizationScorer:
    """Frechet distances, squared error and colourfulness, at `resolution`; baseline: the grey images themselves."""

    def __init__(self, scorers: Sequence[Scorer], references: dict[tuple[str, str], Moments], resolution: int):
        """`references`: (network, name of the reference) -> moments of the reference images' features."""
        self.resolution = resolution
        self.shown = Shown()
        self._scorers, self._references = {s.name: s for s in scorers}, references
        self._moments = {(s.name, baseline): Moments() for s in scorers for baseline in MEASURED}
        self._errors = {baseline: ColourErrors() for baseline in MEASURED}

    def scored(self, color_BxHxWx3: np.ndarray, truths: Sequence[Item]) -> tuple[np.ndarray, np.ndarray]:
        """Predictions in [0, 1] and items -> predicted and true images as they are scored, uint8 of one size."""
        true = [center_crop({"image": truth["image"]}, self.resolution)["image"] for truth in truths]
        return to_uint8(color_BxHxWx3), np.stack(true)

    def update(self, maps: Maps, truths: Sequence[Item]) -> None:
        predicted, true = self.scored(maps["color"], truths)
        for baseline, images in zip(MEASURED, (predicted, to_uint8(to_grey(to_unit_float(true)))), strict=True):
            self._errors[baseline].update(images, true)
            for network, scorer in self._scorers.items():
                self._moments[network, baseline].update(scorer.features(images))
        self.shown.add(({"image": image} for image in true), {"color": predicted})

    def compute(self) -> dict[MetricKey, float | int]:
        ours, grey = (self._errors[baseline].compute() for baseline in MEASURED)
        errors = {
            MetricKey("mse"): ours["mse"],
            MetricKey("mse", baseline="grey"): grey["mse"],
            MetricKey("colourfulness"): ours["colourfulness"],
            MetricKey("colourfulness", baseline="truth"): ours["colourfulness_originals"],
        }
        measured = {}
        for (network, reference), moments in self._references.items():
            for baseline in MEASURED:
                distance = frechet_distance(self._moments[network, baseline], moments)
                measured[MetricKey("colorization_fd", network, reference, baseline)] = distance
            measured |= errors
        return measured

    def protocols(self) -> dict[MetricKey, dict[str, Any]]:
        return {
            MetricKey("colorization_fd", network, reference, baseline): self._scorers[network].protocol
            | {"scored_resolution": self.resolution, "reference": reference, "reference_count": moments.count}
            for (network, reference), moments in self._references.items()
            for baseline in MEASURED
        }


def split_colorization(train: Source, test: Source, scorers: Sequence[Scorer], resolution: int) -> ColorizationScorer:
    """Whole test split, against the training split and against the test images in their true colours."""
    sources = {"train": train, "test": test}
    references = {
        (scorer.name, name): scorer.reference_moments(source) for scorer in scorers for name, source in sources.items()
    }
    return ColorizationScorer(scorers, references, resolution)


class ListedColorization(ColorizationScorer):
    """The published protocol: images by name, against other images by name, with ColTran's crops and value range.

    Attributes:
      source: the items to be colorized.
    """

    def __init__(
        self, source: Source, eval_names: str, reference_names: str, scorers: Sequence[Scorer], batch_size: int
    ):
        """The scorers are of images of `COLTRAN_PX`.

        ValueError where a list cannot be read, names an image that `source` lacks, or its items have no names."""
        lists = [colorization.read_names(path) for path in (eval_names, reference_names)]
        if "file_name" not in source[0]:
            raise ValueError(f"eval.eval_names = {eval_names!r} needs images with file names; {source.name} has none")
        wanted = lists[0] + [name for name in lists[1] if name not in set(lists[0])]
        positions = colorization.select_by_name((source[i]["file_name"] for i in range(len(source))), wanted)
        place = dict(zip(wanted, positions, strict=True))
        self.source, reference = (Chosen(source, [place[name] for name in names]) for names in lists)
        references = {}
        for scorer in scorers:
            moments = Moments()
            for start in range(0, len(reference), batch_size):
                items = [reference[i] for i in range(start, min(start + batch_size, len(reference)))]
                moments.update(scorer.features(np.stack([self.eval_transform(x, COLTRAN_PX)["image"] for x in items])))
            references[scorer.name, "names"] = moments
        super().__init__(scorers, references, COLTRAN_PX)

    def scored(self, color_BxHxWx3: np.ndarray, truths: Sequence[Item]) -> tuple[np.ndarray, np.ndarray]:
        true = [self.eval_transform(truth, COLTRAN_PX)["image"] for truth in truths]
        return colorization.coltran_prediction(to_signed(color_BxHxWx3), COLTRAN_PX), np.stack(true)

    def eval_transform(self, item: Item, resolution: int) -> Item:
        """See `Preparation`: ColTran's crop."""
        return {**item, "image": colorization.coltran_crop(item["image"], resolution)}

    def prepare(self, batch: Batch) -> Batch:
        """As of `ColorizationTask`, but in ColTran's range."""
        images = colorization.to_coltran_range(to_uint8(batch["image"]))
        return {"context": colorization.coltran_grey(images), "color": images}
