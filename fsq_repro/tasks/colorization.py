"""Colorization: colour as a regression from the grey image, and its files; scored in `colorization_scoring.py`."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from fsq_repro.data.dense_labels import to_grey, to_signed, to_unit
from fsq_repro.data.images import to_uint8, to_unit_float
from fsq_repro.data.pipeline import Batch
from fsq_repro.data.transforms import Item, center_crop
from fsq_repro.tasks.base import Arrays, Evaluation, EvaluationData, Maps, Task, mean_by_image, stacked
from fsq_repro.tasks.colorization_scoring import COLTRAN_PX, ListedColorization, split_colorization
from fsq_repro.visualization.dense_pictures import titled_rows
from fsq_repro.visualization.grids import save_png


@dataclasses.dataclass(frozen=True)
class ColorizationTask(Task):
    """RGB in [-1, 1] by squared error, from the grey image."""

    name: ClassVar[str] = "colorization"
    has_classes: ClassVar[bool] = False

    @property
    def labels(self) -> tuple[tuple[str, int], ...]:
        return (("color", 3),)

    def eval_transform(self, item: Item, resolution: int) -> Item:
        """Keeps the aspect, as the references of the Frechet distances do."""
        return center_crop(item, resolution)

    def context(self, images: np.ndarray) -> np.ndarray:
        return to_signed(to_grey(images))

    def prepare(self, batch: Batch) -> Batch:
        return {"context": self.context(batch["image"]), "color": to_signed(batch["image"])}

    def loss(self, outputs: Arrays, batch: Arrays) -> tuple[jax.Array, Arrays]:
        loss_B = mean_by_image(jnp.square(outputs["color"] - batch["color"]))
        return loss_B, {"color": loss_B}

    def predict(self, outputs: Arrays) -> Arrays:
        """Returns {"color": float32 (B, H, W, 3) in [0, 1]}."""
        return {"color": to_unit(outputs["color"])}

    def resized(self, maps: Maps, size: tuple[int, int]) -> Maps:
        """Colour as bytes, bicubic."""
        color = Image.fromarray(to_uint8(maps["color"]))
        return {"color": np.asarray(color.resize(size[::-1], Image.Resampling.BICUBIC))}

    def rows(self, items: Sequence[Item], columns: Mapping[str, Sequence[Maps]]) -> np.ndarray:
        images = stacked(items, "image")
        predicted = {title: stacked(maps, "color") for title, maps in columns.items()}
        return titled_rows({"input": to_uint8(to_grey(to_unit_float(images))), "ground truth": images} | predicted)

    def write(self, stem: pathlib.Path, maps: Maps) -> list[str]:
        """STEM_color.png."""
        save_png(f"{stem}_color.png", maps["color"])
        return [f"{stem}_color.png"]

    def check_evaluation(self, eval_fields: Mapping[str, Any]) -> None:
        names = {f"eval.{field}": eval_fields[field] for field in ("eval_names", "reference_names")}
        if len({bool(path) for path in names.values()}) > 1:
            told = " and ".join(f"{field} = {path!r}" for field, path in names.items())
            raise ValueError(f"{told} must both be given or both be empty")

    def evaluation(self, data: EvaluationData) -> Evaluation:
        """On the listed images, by the published protocol, where `config.eval` names lists; else on the whole split."""
        e, resolution = data.eval, data.data["resolution"]
        if not e["eval_names"]:
            scorers = data.make_scorers(resolution)
            scorer = split_colorization(data.train, data.test, scorers, resolution)
            return Evaluation(scorer, data.test, self)
        scorers = data.make_scorers(COLTRAN_PX)
        listed = ListedColorization(data.test, e["eval_names"], e["reference_names"], scorers, e["batch_size"])
        return Evaluation(listed, listed.source, listed, {"list": pathlib.Path(e["eval_names"]).name})
