"""UViM's three tasks: what the label autoencoder is given, its loss, and what its logits mean (paper 4.4).

Follows google-research/big_vision `trainers/proj/uvim/{depth,colorization,panoptic}_task.py`. A task has a host's half,
`prepare` (NumPy, in the data pipeline), and a device's half, the other methods. A new task is a class here, a scorer in
`uvim_scoring.py` and a line in `label_autoencoder_factory.TASKS`.

Prepared batches hold `context` float32 (B, H, W, 3) in [-1, 1], what both stages see of the image, and one array for
each label: int32 classes (B, H, W), or float32 (B, H, W, C) values in [-1, 1].
"""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fsq_repro.data import dense_labels
from fsq_repro.metrics.panoptic_quality import panoptic_from_logits

Batch = dict[str, np.ndarray]
Arrays = dict[str, jax.Array]


class Task(Protocol):
    """One dense task.

    Attributes:
      name: in configs and records.
      labels: pairs of (label, channels) of `LabelAutoencoder`.
    """

    name: str

    @property
    def labels(self) -> tuple[tuple[str, int], ...]: ...

    def prepare(self, batch: Batch) -> Batch:
        """A batch of the pipeline -> a prepared batch, see the module; `mask` and `label` are left out."""
        ...

    def inputs(self, batch: Arrays) -> Arrays:
        """Prepared batch -> the autoencoder's labels, float32 (B, H, W, channels) each."""
        ...

    def loss(self, outputs: Arrays, batch: Arrays) -> tuple[jax.Array, Arrays]:
        """The autoencoder's outputs and a prepared batch -> (loss of each image, its terms), float32 (B,)."""
        ...

    def predict(self, outputs: Arrays) -> Arrays:
        """The autoencoder's outputs -> the prediction as maps."""
        ...


def one_hot(batch: Arrays, labels: tuple[tuple[str, int], ...]) -> Arrays:
    """Class maps int32 (B, H, W) of a batch -> float32 (B, H, W, channels)."""
    return {name: jax.nn.one_hot(batch[name], channels) for name, channels in labels}


def mean_by_image(x: jax.Array) -> jax.Array:
    """(B, ...) -> (B,)."""
    return jnp.mean(x, axis=range(1, x.ndim))


@dataclasses.dataclass(frozen=True)
class DepthTask:
    """Depth as classes: uniform bins of [0.001, 10] m; a prediction is the centre of the likeliest bin.

    Bin 0, where pixels without a measurement fall, costs nothing, and the mean is still over all pixels.
    """

    bins: int
    name: str = "depth"

    @property
    def labels(self) -> tuple[tuple[str, int], ...]:
        return (("depth", self.bins),)

    def prepare(self, batch: Batch) -> Batch:
        return {
            "context": dense_labels.to_signed(batch["image"]),
            "depth": dense_labels.depth_to_bins(batch["depth"], self.bins),
        }

    def inputs(self, batch: Arrays) -> Arrays:
        return one_hot(batch, self.labels)

    def loss(self, outputs: Arrays, batch: Arrays) -> tuple[jax.Array, Arrays]:
        bins_BxHxW = batch["depth"]
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels(outputs["depth"], bins_BxHxW)
        loss_B = mean_by_image(jnp.where(bins_BxHxW != 0, cross_entropy, 0.0))
        return loss_B, {"depth": loss_B}

    def predict(self, outputs: Arrays) -> Arrays:
        """Returns {"depth": float32 (B, H, W) in metres}."""
        centres_K = jnp.asarray(dense_labels.bins_to_depth(np.arange(self.bins), self.bins))
        return {"depth": centres_K[jnp.argmax(outputs["depth"], axis=-1)]}


@dataclasses.dataclass(frozen=True)
class ColorizationTask:
    """Colour as a regression: RGB in [-1, 1] by squared error, from the grey image."""

    name: str = "colorization"

    @property
    def labels(self) -> tuple[tuple[str, int], ...]:
        return (("color", 3),)

    def prepare(self, batch: Batch) -> Batch:
        grey = dense_labels.to_grey(batch["image"])
        return {"context": dense_labels.to_signed(grey), "color": dense_labels.to_signed(batch["image"])}

    def inputs(self, batch: Arrays) -> Arrays:
        return {"color": batch["color"]}

    def loss(self, outputs: Arrays, batch: Arrays) -> tuple[jax.Array, Arrays]:
        loss_B = mean_by_image(jnp.square(outputs["color"] - batch["color"]))
        return loss_B, {"color": loss_B}

    def predict(self, outputs: Arrays) -> Arrays:
        """Returns {"color": float32 (B, H, W, 3) in [0, 1]}."""
        return {"color": dense_labels.to_unit(outputs["color"])}


@dataclasses.dataclass(frozen=True)
class PanopticTask:
    """A class and a segment number for each pixel, 0 being void in both; the two cross-entropies are summed.

    Attributes:
      num_classes, num_instances: sizes of the two heads, void included.
      min_fraction: predicted segments on no more than this share of the pixels become void.
    """

    num_classes: int
    num_instances: int
    min_fraction: float = 0.0
    name: str = "panoptic"

    @property
    def labels(self) -> tuple[tuple[str, int], ...]:
        return (("semantics", self.num_classes), ("instances", self.num_instances))

    def prepare(self, batch: Batch) -> Batch:
        """ValueError where a map has more segments than the instance head can tell apart."""
        semantics, instances = dense_labels.panoptic_labels(
            batch["semantics"], batch["instances"], self.num_classes, self.num_instances
        )
        return {
            "context": dense_labels.to_signed(batch["image"]),
            "semantics": semantics,
            "instances": instances,
        }

    def inputs(self, batch: Arrays) -> Arrays:
        return one_hot(batch, self.labels)

    def loss(self, outputs: Arrays, batch: Arrays) -> tuple[jax.Array, Arrays]:
        terms = {
            name: mean_by_image(optax.softmax_cross_entropy_with_integer_labels(outputs[name], batch[name]))
            for name, _ in self.labels
        }
        return sum(terms.values()), terms

    def predict(self, outputs: Arrays) -> Arrays:
        """Returns {"semantics", "instances"}: int32 (B, H, W), see `panoptic_from_logits`."""
        semantics, instances = panoptic_from_logits(outputs["semantics"], outputs["instances"], self.min_fraction)
        return {"semantics": semantics, "instances": instances}
