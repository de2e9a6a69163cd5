"""Scores colorized images by Frechet distance: on a whole split, or on the published lists of images (FID-5k)."""

from collections.abc import Iterable, Sequence

import numpy as np

from fsq_repro.data.dense_labels import to_grey, to_signed
from fsq_repro.data.images import to_uint8, to_unit_float
from fsq_repro.data.pipeline import Batch, eval_batches
from fsq_repro.data.sources import Source
from fsq_repro.data.transforms import Item, center_crop
from fsq_repro.metrics import colorization
from fsq_repro.metrics.colorization import ColorizationFigures
from fsq_repro.metrics.frechet import Moments
from fsq_repro.metrics.scoring import Chosen, Scorer
from fsq_repro.tasks.uvim_scoring import NUM_PICTURES, Maps
from fsq_repro.visualization.dense_pictures import titled_rows

COLTRAN_PX = 256  # of the images that are scored


class ColorizationScorer:
    """Frechet distances, squared error and colourfulness; baseline: the grey images themselves.

    Attributes:
      resolution: of the images that are scored.
    """

    def __init__(self, scorers: Sequence[Scorer], references: dict[tuple[str, str], Moments], resolution: int):
        """`references`: (network, name of the reference) -> moments of the reference images' features."""
        self.resolution = resolution
        self._scorers, self._references = {s.name: s for s in scorers}, references
        self._figures = {s.name: ColorizationFigures(s.features) for s in scorers}
        self._grey = {s.name: ColorizationFigures(s.features) for s in scorers}
        self._rows: list[tuple[np.ndarray, ...]] = []

    def scored(self, color_BxHxWx3: np.ndarray, truths: Sequence[Item]) -> tuple[np.ndarray, np.ndarray]:
        """Predictions in [0, 1] and items -> predicted and true images as they are scored, uint8 of one size."""
        true = [center_crop({"image": truth["image"]}, self.resolution)["image"] for truth in truths]
        return to_uint8(color_BxHxWx3), np.stack(true)

    def update(self, maps: Maps, truths: Sequence[Item]) -> None:
        predicted, true = self.scored(maps["color"], truths)
        grey = to_uint8(to_grey(to_unit_float(true)))
        for figures in self._figures.values():
            figures.update(predicted, true)
        for figures in self._grey.values():
            figures.update(grey, true)
        self._rows += list(zip(grey, true, predicted, strict=True))[: NUM_PICTURES - len(self._rows)]

    def compute(self) -> dict[str, float | int]:
        figures = {}
        for (network, reference), moments in self._references.items():
            ours, grey = (f[network].compute(moments) for f in (self._figures, self._grey))
            figures |= {
                f"cfd_{network}_{reference}": ours["frechet"],
                f"cfd_{network}_{reference}@grey": grey["frechet"],
                "mse": ours["mse"],
                "mse@grey": grey["mse"],
                "colourfulness": ours["colourfulness"],
                "colourfulness@truth": ours["colourfulness_originals"],
            }
        return figures

    def protocols(self) -> dict[str, dict]:
        return {
            f"cfd_{network}_{reference}{suffix}": self._scorers[network].protocol
            | {"scored_resolution": self.resolution, "reference": reference, "reference_count": moments.count}
            for (network, reference), moments in self._references.items()
            for suffix in ("", "@grey")
        }

    def picture(self) -> np.ndarray:
        grey, true, predicted = map(np.stack, zip(*self._rows, strict=True))
        return titled_rows({"input": grey, "ground truth": true, "prediction": predicted})


def split_colorization(
    train: Source, validation: Source, scorers: Sequence[Scorer], resolution: int
) -> ColorizationScorer:
    """Whole validation split, against the training split and against the validation images in their true colours."""
    sources = {"train": train, "validation": validation}
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
        self._batch_size = batch_size
        references = {}
        for scorer in scorers:
            moments = Moments()
            for start in range(0, len(reference), batch_size):
                items = [reference[i] for i in range(start, min(start + batch_size, len(reference)))]
                cropped = [colorization.coltran_crop(item["image"], COLTRAN_PX) for item in items]
                moments.update(scorer.features(np.stack(cropped)))
            references[scorer.name, "names"] = moments
        super().__init__(scorers, references, COLTRAN_PX)

    def scored(self, color_BxHxWx3: np.ndarray, truths: Sequence[Item]) -> tuple[np.ndarray, np.ndarray]:
        true = [colorization.coltran_crop(truth["image"], COLTRAN_PX) for truth in truths]
        return colorization.coltran_prediction(to_signed(color_BxHxWx3), COLTRAN_PX), np.stack(true)

    def batches(self, resolution: int) -> Iterable[Batch]:
        """Prepared batches of `source` for a model of this resolution, as of `uvim_tasks` but in ColTran's range."""

        def prepare(batch: Batch) -> Batch:
            images = colorization.to_coltran_range(to_uint8(batch["image"]))
            return {"context": colorization.coltran_grey(images), "color": images}

        return eval_batches(
            self.source,
            batch_size=self._batch_size,
            resolution=resolution,
            transform=lambda item, side: {**item, "image": colorization.coltran_crop(item["image"], side)},
            prepare=prepare,
        )
