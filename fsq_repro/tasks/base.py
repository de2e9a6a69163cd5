"""What a task of UViM is: all that is particular to one kind of dense label (paper 4.4).

Follows google-research/big_vision `trainers/proj/uvim/{depth,colorization,panoptic}_task.py`. A new task is a file with
a subclass of `Task` and a line in `registry.py`.

Prepared batches hold `context` float32 (B, H, W, 3) in [-1, 1], what both stages see of the image, and one array for
each label: int32 classes (B, H, W), or float32 (B, H, W, C) values in [-1, 1].
"""

import abc
import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from fsq_repro.data import transforms
from fsq_repro.data.dense_labels import to_signed
from fsq_repro.data.pipeline import Batch
from fsq_repro.data.sources import Source
from fsq_repro.data.transforms import Item
from fsq_repro.metrics.scoring import Scorer
from fsq_repro.metrics.table import MetricKey

Arrays = dict[str, jax.Array]
Maps = dict[str, np.ndarray]

NUM_PICTURES = 8


class Preparation(Protocol):
    """How batches of validation and test are made of items; a task's own, or that of another published protocol."""

    def eval_transform(self, item: Item, resolution: int) -> Item:
        """Brings an item to (resolution, resolution)."""

    def prepare(self, batch: Batch) -> Batch:
        """A batch of the pipeline -> a prepared batch, see the module; `mask` and `label` are left out."""


class TaskScorer(Protocol):
    """Metrics of one task over a split, and the first images for a picture."""

    shown: "Shown"

    def update(self, maps: Maps, truths: Sequence[Item]) -> None:
        """Adds predictions (B, H, W, ...) of a batch at the model's resolution.

        As published they are brought to the size of `truths`, B items of the source.
        """

    def compute(self) -> dict[MetricKey, float | int]:
        """Metrics of everything seen, those of the baselines too."""

    def protocols(self) -> dict[MetricKey, dict[str, Any]]:
        """What belongs to the protocol of single metrics, besides what all share."""


@dataclasses.dataclass(frozen=True)
class EvaluationData:
    """What a task may use in its evaluation."""

    train: Source  # of the task's items
    test: Source
    data: Mapping[str, Any]  # the fields of `config.data`
    eval: Mapping[str, Any]  # of `config.eval`
    make_scorers: Callable[[int], list[Scorer]]  # resolution -> the feature networks of `config.eval`, for such images


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How a task is evaluated."""

    scorer: TaskScorer
    source: Source  # the items that are predicted, in order
    preparation: Preparation  # makes the model's batches of them
    protocol: dict[str, Any] = dataclasses.field(default_factory=dict)  # what belongs to that of every metric


class Task(abc.ABC):
    """One dense task: a frozen dataclass with the fields of `config.task` but its name.

    Fields that cannot work raise ValueError when a task is made.
    """

    name: ClassVar[str]  # in configs and records
    needs: ClassVar[tuple[str, ...]] = ()  # labels that the data source must have, see `make_dense_source`
    has_classes: ClassVar[bool] = True  # whether labels are classes, which the autoencoder is given one-hot, or values

    # Data, on the host: NumPy

    def labelled(self, source: Source) -> Source:
        """A source with the labels that the task needs -> the source of its items. ValueError where they do not fit."""
        return source

    def flip(self, item: Item) -> Item:
        """Mirrors an item of the source left to right."""
        return transforms.flip(item)

    def eval_transform(self, item: Item, resolution: int) -> Item:
        """See `Preparation`."""
        return transforms.plain_resize(item, resolution)

    def context(self, images: np.ndarray) -> np.ndarray:
        """Images float32 (..., 3) in [0, 1] -> what the networks see of them, in [-1, 1]."""
        return to_signed(images)

    @abc.abstractmethod
    def prepare(self, batch: Batch) -> Batch:
        """See `Preparation`."""

    def prepared_shapes(self, batch_size: int, resolution: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of a prepared batch."""
        shape = (batch_size, resolution, resolution)
        return {"context": jax.ShapeDtypeStruct((*shape, 3), jnp.float32)} | {
            name: jax.ShapeDtypeStruct(*((shape, jnp.int32) if self.has_classes else ((*shape, C), jnp.float32)))
            for name, C in self.labels
        }

    # The autoencoder's ends, on the device

    @property
    @abc.abstractmethod
    def labels(self) -> tuple[tuple[str, int], ...]:
        """Pairs of (label, channels) of `LabelAutoencoder`."""

    def inputs(self, batch: Arrays) -> Arrays:
        """Prepared batch -> the autoencoder's labels, float32 (B, H, W, channels) each."""
        return {name: jax.nn.one_hot(batch[name], C) if self.has_classes else batch[name] for name, C in self.labels}

    @abc.abstractmethod
    def loss(self, outputs: Arrays, batch: Arrays) -> tuple[jax.Array, Arrays]:
        """The autoencoder's outputs and a prepared batch -> (loss of each image, its terms), float32 (B,)."""

    @abc.abstractmethod
    def predict(self, outputs: Arrays) -> Arrays:
        """The autoencoder's outputs -> the prediction as maps (B, H, W, ...)."""

    # Predictions, on the host

    def resized(self, maps: Maps, size: tuple[int, int]) -> Maps:
        """Maps (H, W, ...) of one image, as of `predict` -> maps of another height and width, as people get them."""
        return {name: transforms.resize_nearest(x, size) for name, x in maps.items()}

    @abc.abstractmethod
    def rows(self, items: Sequence[Item], columns: Mapping[str, Sequence[Maps]]) -> np.ndarray:
        """Pictures for people: image, ground truth and each model's column, uint8 (height, width, 3).

        Items of the source are of one size; `columns` are title -> what a model predicted for them, as of `resized`.
        """

    @abc.abstractmethod
    def write(self, stem: pathlib.Path, maps: Maps) -> list[str]:
        """Writes what `resized` gave for one image to files STEM_...; returns their names."""

    # Evaluation

    def check_evaluation(self, eval_fields: Mapping[str, Any]) -> None:
        """ValueError for what of `config.eval` the evaluation would refuse only after the training."""
        return

    @abc.abstractmethod
    def evaluation(self, data: EvaluationData) -> Evaluation:
        """How predictions are scored. ValueError where the data cannot be."""


class Shown:
    """The first images that a scorer sees, for a picture."""

    def __init__(self) -> None:
        self.items: list[Item] = []  # images and true maps, of one size
        self.maps: list[Maps] = []  # what was predicted for each, of the same size

    def add(self, items: Iterable[Item], maps: Maps) -> None:
        """Adds items and their predictions (B, H, W, ...) as long as there is room; the other items are not read."""
        for i, item in zip(range(NUM_PICTURES - len(self.items)), items, strict=False):
            self.items.append(item)
            self.maps.append({name: x[i] for name, x in maps.items()})


def check_least(field: str, value: int, least: int) -> None:
    """ValueError for a field of a task below `least`."""
    if value < least:
        raise ValueError(f"task.{field} = {value} must be at least {least}")


def mean_by_image(x: jax.Array) -> jax.Array:
    """(B, ...) -> (B,)."""
    return jnp.mean(x, axis=range(1, x.ndim))


def stacked(items: Sequence[Item | Maps], name: str) -> np.ndarray:
    """One array of all items, (N, ...)."""
    return np.stack([item[name] for item in items])
