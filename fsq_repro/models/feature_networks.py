"""Feature networks for Frechet distances: three of ImageNet on images of 64 px, and FID's Inception.

The distances of AlexNet, VGG16 and EfficientNet-Lite0 are called FD-alexnet and the like and cannot be compared with
published FID, which is measured on Inception features (`inception.py`, weights by path). They need no download: the
weights come with installed packages (`pretrained.py`, `efficientnet_lite.py`).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from fsq_repro.models import efficientnet_lite
from fsq_repro.models.conv_stacks import STACKS, conv_taps
from fsq_repro.models.inception import InceptionNetwork, load_inception
from fsq_repro.models.pretrained import FILE_HASHES, load_lpips_weights

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FEATURE_SIDE = 64
NETWORKS = (*FILE_HASHES, "efficientnet", "inception")


@dataclasses.dataclass(frozen=True)
class FeatureNetwork:
    """A feature network for Frechet distances, with what a record must say about it.

    `dim` is the number of features, `file_hash` the weight file's SHA-256; `features` maps params and images of 64 px
    in [0, 1] to features. `params` are to be handed to `apply`: an argument of the jitted function, no constant in it.
    """

    name: str
    dim: int
    file_hash: str
    features: Callable[[Any, Array], Array]
    params: Any = dataclasses.field(repr=False, compare=False)

    resize = f"antialiased bicubic to {FEATURE_SIDE} px (jax.image.resize), none at {FEATURE_SIDE} px"

    def apply(self, params: Any, images: Array) -> Array:
        """Float32 images (B, H, W, 3) in [0, 1] -> float32 features (B, dim); pure, to be jitted by the caller.

        Resize to 64 px first. Full float32 precision on every device, so that distances measured on different machines
        can be compared.
        """
        return self.features(params, resize_antialiased(images, FEATURE_SIDE, "bicubic"))


def stack_features(name: str, params: Any, images: Array) -> Array:
    """AlexNet's or VGG16's: ImageNet mean and standard deviation, last convolution after ReLU, mean over space."""
    x = normalize_imagenet(images)
    taps = conv_taps(STACKS[name], params["convolutions"], x, precision=lax.Precision.HIGHEST)
    return jnp.mean(taps[-1], axis=(1, 2))


def load_feature_network(name: str, path: str = "", resize: str = "adm") -> FeatureNetwork | InceptionNetwork:
    """The feature network "alexnet", "vgg16", "efficientnet" or "inception".

    Only "inception" takes a weight file (`path`) and a choice of `resize` ("adm" or "pytorch-fid").

    Raises ValueError for another name, a path where none belongs or a file that does not fit, FileNotFoundError where
    the weights are missing.
    """
    if name == "inception":
        return load_inception(path, resize)
    if name not in NETWORKS:
        raise ValueError(f"feature network is {name!r}, but must be one of {sorted(NETWORKS)}.")
    if path:
        raise ValueError(f"feature network {name!r} takes no weight file, but its path is {path!r}.")
    if name == "efficientnet":
        params, file_hash = efficientnet_lite.load_efficientnet_lite()
        return FeatureNetwork(name, efficientnet_lite.FEATURES, file_hash, efficientnet_lite.features, params)
    params = {"convolutions": load_lpips_weights(name)["convolutions"]}
    dim, features = STACKS[name].layers[-1].filters, functools.partial(stack_features, name)
    return FeatureNetwork(name, dim, FILE_HASHES[name], features, params)


def resize_antialiased(images: Array, side: int, method: str) -> Array:
    """(B, H, W, C) -> (B, side, side, C), which leaves images alone that have the size already."""
    B, _, _, C = images.shape
    return jax.image.resize(images, (B, side, side, C), method, antialias=True)


def normalize_imagenet(images: Array) -> Array:
    """[0, 1] -> zero mean and unit variance of ImageNet's channels, as torchvision's models expect."""
    mean, std = (jnp.asarray(v, jnp.float32).reshape(1, 1, 1, 3) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (images - mean) / std
