"""InceptionV3 of 2015, the network of FID, sFID and the Inception score, with weights of pytorch-fid.

The graph of `inception-2015-12-05.tgz`, on which all published FIDs are measured, differs from torchvision's
InceptionV3 in its weights, in its 1008 classes and in its poolings: averages over the 3x3 windows leave the padding out
of the count, and the last block takes the maximum instead. Modules have torchvision's names, so that each parameter's
name in pytorch-fid's state dict (mseitzer/pytorch-fid `inception.py`) follows from its place in the tree.
"""

import dataclasses
import functools
import os
import warnings
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array, lax

from fsq_repro.models.torch_files import read_state_dict

SIDE = 299
FEATURES = 2048
CLASSES = 1008
SPATIAL_CHANNELS = 7  # of Mixed_6d, as the ADM suite takes them for sFID
BATCH_NORM_EPS = 1e-3
PUBLISHED_FILE = "pt_inception-2015-12-05-6726825d.pth"
PUBLISHED_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


class InceptionOutputs(NamedTuple):
    """What the metrics take from the network; float32.

    `spatial` holds the first 7 channels of `mixed_6/conv:0` (Mixed_6d's 1x1 branch after ReLU), flattened with the
    channel as the fastest index; `logits` are pool_3 times the classifier's weights, without its bias.
    """

    pool_3: Array  # (B, 2048), for FID, precision and recall
    spatial: Array  # (B, 17 * 17 * 7), for sFID
    logits: Array  # (B, 1008), for the Inception score


# Full float32 precision on every device, so that distances measured on different machines can be compared.
LAYER = {"use_bias": False, "precision": lax.Precision.HIGHEST}


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm on stored statistics, ReLU."""

    filters: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = nn.Conv(self.filters, self.kernel, self.stride, self.padding, **LAYER, name="conv")(x)
        return nn.relu(nn.BatchNorm(use_running_average=True, epsilon=BATCH_NORM_EPS, name="bn")(x))


def average_3x3(x: Array) -> Array:
    """Mean over each 3x3 window, of the pixels that lie within the map: (B, H, W, C) -> (B, H, W, C)."""
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)


def maximum_3x3(x: Array) -> Array:
    """In the last block: taken for an error of that graph, but its features are what FID is measured on."""
    return nn.max_pool(x, (3, 3), padding="SAME")


def halve(x: Array) -> Array:
    """Maximum over 3x3 windows at every other pixel, without padding: (B, H, W, C) -> (B, (H-1)//2, (W-1)//2, C)."""
    return nn.max_pool(x, (3, 3), strides=(2, 2))


class Block(nn.Module):
    """Branches, concatenated; each is its name and the arguments of its `ConvNorm`s, one after another.

    A layer in two parts is two convolutions side by side. `branch_pool` begins with the pooling.
    """

    pool: Callable[[Array], Array]
    branches: tuple[tuple, ...]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        outputs = []
        for branch, *layers in self.branches:
            y = self.pool(x) if branch == "branch_pool" else x
            for i, layer in enumerate(layers, start=1):
                name = f"{branch}_{i}" if len(layers) > 1 else branch
                if isinstance(layer[0], tuple):
                    sides = zip("ab", layer, strict=True)
                    y = jnp.concatenate([ConvNorm(*part, name=name + side)(y) for side, part in sides], axis=-1)
                else:
                    y = ConvNorm(*layer, name=name)(y)
            outputs.append(y)
        return jnp.concatenate(outputs, axis=-1)


DOWN = ((3, 3), 2, "VALID")
FORK = ((384, (1, 3)), (384, (3, 1)))


def _block_a(pooled: int) -> tuple:
    dbl = ("branch3x3dbl", (64,), (96, (3, 3)), (96, (3, 3)))
    return average_3x3, (("branch1x1", (64,)), ("branch5x5", (48,), (64, (5, 5))), dbl, ("branch_pool", (pooled,)))


def _block_c(f: int) -> tuple:
    """7x7 convolutions as pairs of 1x7 and 7x1, with `f` filters between those of a branch."""
    single = ("branch7x7", (f,), (f, (1, 7)), (192, (7, 1)))
    double = ("branch7x7dbl", (f,), (f, (7, 1)), (f, (1, 7)), (f, (7, 1)), (192, (1, 7)))
    return average_3x3, (("branch1x1", (192,)), single, double, ("branch_pool", (192,)))


def _block_e(pool: Callable[[Array], Array]) -> tuple:
    double = ("branch3x3dbl", (448,), (384, (3, 3)), FORK)
    return pool, (("branch1x1", (320,)), ("branch3x3", (384,), FORK), double, ("branch_pool", (192,)))


BLOCKS = {
    "Mixed_5b": _block_a(32),
    "Mixed_5c": _block_a(64),
    "Mixed_5d": _block_a(64),  # (B, 35, 35, 288)
    "Mixed_6a": (
        halve,
        (("branch3x3", (384, *DOWN)), ("branch3x3dbl", (64,), (96, (3, 3)), (96, *DOWN)), ("branch_pool",)),
    ),
    "Mixed_6b": _block_c(128),
    "Mixed_6c": _block_c(160),
    "Mixed_6d": _block_c(160),
    "Mixed_6e": _block_c(192),  # (B, 17, 17, 768)
    "Mixed_7a": (
        halve,
        (
            ("branch3x3", (192,), (320, *DOWN)),
            ("branch7x7x3", (192,), (192, (1, 7)), (192, (7, 1)), (192, *DOWN)),
            ("branch_pool",),
        ),
    ),
    "Mixed_7b": _block_e(average_3x3),
    "Mixed_7c": _block_e(maximum_3x3),  # (B, 8, 8, 2048)
}


class InceptionV3(nn.Module):
    """The network up to its logits, always in evaluation mode."""

    @nn.compact
    def __call__(self, images: Array) -> InceptionOutputs:
        """Float32 images (B, 299, 299, 3) in [-1, 1] -> outputs.

        Other sides of at least 75 px run too; `spatial` then has another width.
        """
        x = ConvNorm(32, *DOWN, name="Conv2d_1a_3x3")(images)
        x = ConvNorm(32, (3, 3), 1, "VALID", name="Conv2d_2a_3x3")(x)
        x = halve(ConvNorm(64, (3, 3), name="Conv2d_2b_3x3")(x))
        x = ConvNorm(80, name="Conv2d_3b_1x1")(x)
        x = halve(ConvNorm(192, (3, 3), 1, "VALID", name="Conv2d_4a_3x3")(x))  # (B, 35, 35, 192)
        for name, block in BLOCKS.items():
            x = Block(*block, name=name)(x)
            if name == "Mixed_6d":
                spatial = x[..., :SPATIAL_CHANNELS]  # the 1x1 branch comes first
        pool_3 = jnp.mean(x, axis=(1, 2))
        logits = nn.Dense(CLASSES, **LAYER, name="fc")(pool_3)
        return InceptionOutputs(pool_3, spatial.reshape(len(images), -1), logits)


def resize_adm(images: Array) -> Array:
    """Float32 images (B, H, W, 3) in [0, 1] -> (B, 299, 299, 3), what the graph itself makes of bytes 255 * images.

    TensorFlow 1's `resize_bilinear` without aligned corners: pixel i lies at i * H / 299 of the source, which shifts
    images up and left; no antialiasing. Then (bytes - 128) / 128, so that 1 becomes 0.9921875. The graph that the ADM
    suite feeds (openai/guided-diffusion `evaluations/evaluator.py`) begins with these three operations. Positions are
    float32, as in its kernel.
    """
    positions = [np.arange(SIDE, dtype=np.float32) * (np.float32(n) / np.float32(SIDE)) for n in images.shape[1:3]]
    return (_interpolate(images * 255.0, *positions) - 128.0) / 128.0


def resize_pytorch_fid(images: Array) -> Array:
    """Float32 images (B, H, W, 3) in [0, 1] -> (B, 299, 299, 3) in [-1, 1], as pytorch-fid feeds the network.

    `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`: the centre of pixel i lies at
    (i + 1/2) * H / 299 - 1/2 of the source, below zero taken as zero; no antialiasing. Then 2 x - 1. Positions are
    float32, as in torch's kernel.
    """
    half, centres = np.float32(0.5), np.arange(SIDE, dtype=np.float32) + np.float32(0.5)
    positions = [np.maximum(centres * (np.float32(n) / np.float32(SIDE)) - half, 0) for n in images.shape[1:3]]
    return 2.0 * _interpolate(images, *positions) - 1.0


RESIZES = {  # and what records say of them
    "adm": (
        resize_adm,
        f"bilinear to {SIDE} px as TensorFlow 1 (pixel i at i * scale), no antialiasing, (x - 128) / 128",
    ),
    "pytorch-fid": (resize_pytorch_fid, f"bilinear to {SIDE} px (half-pixel centres), no antialiasing, 2 x - 1"),
}


def _interpolate(images: Array, rows: np.ndarray, columns: np.ndarray) -> Array:
    """(B, H, W, C) at float32 positions `rows` (H',) in [0, H) and `columns` (W',) in [0, W) -> (B, H', W', C).

    Linear between neighbours, columns first; behind the last pixel its own value.
    """
    for axis, positions in ((2, columns), (1, rows)):
        low = np.floor(positions).astype(np.int32)
        high = np.minimum(low + 1, images.shape[axis] - 1)
        weight = (positions - low.astype(np.float32)).reshape([-1 if i == axis else 1 for i in range(4)])
        a, b = (jnp.take(images, index, axis=axis, mode="clip") for index in (low, high))
        images = a + (b - a) * weight
    return images


_TORCH_FIELDS = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
_TORCH_AXES = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}  # the tree's axes in torch's order, by their number


@functools.cache
def _places() -> dict[str, tuple[tuple[str, ...], tuple[int, ...]]]:
    """{state-dict name: (path in the tree of variables, shape in the state dict)}."""
    variables = jax.eval_shape(InceptionV3().init, jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)))
    places = {}
    for path, x in flatten_dict(variables).items():
        _, *modules, field = path
        places[".".join([*modules, _TORCH_FIELDS[field]])] = path, tuple(x.shape[i] for i in _TORCH_AXES[x.ndim])
    return places


def expected_shapes() -> dict[str, tuple[int, ...]]:
    """{state-dict name: shape} of the 471 arrays that are read.

    Not read are the classifier's bias and the batch norms' `num_batches_tracked`.
    """
    return {name: shape for name, (_, shape) in _places().items()}


def inception_variables(state: dict[str, np.ndarray]) -> dict[str, Any]:
    """State dict by pytorch-fid's names -> the variables {"params", "batch_stats"} of `InceptionV3`, float32.

    Raises ValueError where an array is missing, has another shape or has no place in the network (as the auxiliary
    classifier of torchvision's file, which holds another network's weights).
    """
    expected = expected_shapes()
    unread = {name for name in state if name == "fc.bias" or name.endswith(".num_batches_tracked")}
    missing, foreign = expected.keys() - state.keys(), state.keys() - expected.keys() - unread
    for names, problem in ((sorted(missing), "lacks"), (sorted(foreign), "has, beyond those of the FID network,")):
        if names:
            raise ValueError(
                f"The Inception state dict {problem} {len(names)} arrays: {', '.join(names[:4])}"
                f"{' ...' if len(names) > 4 else ''}; it must be that of pytorch-fid's {PUBLISHED_FILE}."
            )
    for name, shape in expected.items():
        if state[name].shape != shape:
            raise ValueError(f"{name} has shape {state[name].shape}, but the FID Inception network needs {shape}.")
    axes = {ndim: np.argsort(order) for ndim, order in _TORCH_AXES.items()}
    return unflatten_dict(
        {
            path: jnp.asarray(state[name].transpose(axes[len(shape)]), jnp.float32)
            for name, (path, shape) in _places().items()
        }
    )


@dataclasses.dataclass(frozen=True)
class InceptionNetwork:
    """The Inception network as a feature network (`feature_networks.py`), with what a record must say about it.

    `method` is how images are resized, "adm" or "pytorch-fid"; the rest is as of `FeatureNetwork` there.
    """

    name: ClassVar[str] = "inception"
    dim: ClassVar[int] = FEATURES

    method: str
    file_hash: str
    params: Any = dataclasses.field(repr=False, compare=False)

    @property
    def resize(self) -> str:
        """The resize in words."""
        return f"{self.method}: {RESIZES[self.method][1]}"

    def apply(self, params: Any, images: Array) -> InceptionOutputs:
        """Float32 images (B, H, W, 3) in [0, 1] -> outputs; pure, to be jitted by the caller."""
        return InceptionV3().apply(params, RESIZES[self.method][0](images))


def load_inception(path: str | os.PathLike, resize: str) -> InceptionNetwork:
    """The network with the weights of a `.pth` file, in either of torch's formats (`torch_files.py`).

    Args:
      path: of pytorch-fid's published file; another one is read with a warning, for its FIDs are nobody else's.
      resize: "adm" for the graph's own (figures of the ADM suite), "pytorch-fid" for that package's.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: another resize, or a file that is no state dict or not that of this network.
    """
    if resize not in RESIZES:
        raise ValueError(f"resize is {resize!r}, but must be one of {sorted(RESIZES)}.")
    state, file_hash = read_state_dict(path)
    if file_hash != PUBLISHED_SHA256:
        warnings.warn(
            f"the Inception weights {path} have SHA-256 {file_hash}, not that of {PUBLISHED_FILE}: their distances "
            "cannot be compared with published FIDs.",
            stacklevel=2,
        )
    return InceptionNetwork(resize, file_hash, inception_variables(state))
