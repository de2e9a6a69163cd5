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


def chain(x: Array, name: str, *layers: tuple) -> Array:
    """`ConvNorm`s one after another, called name_1, name_2, ...; each layer is its arguments."""
    for i, layer in enumerate(layers, start=1):
        x = ConvNorm(*layer, name=f"{name}_{i}")(x)
    return x


def average_3x3(x: Array) -> Array:
    """Mean over each 3x3 window, of the pixels that lie within the map: (B, H, W, C) -> (B, H, W, C)."""
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)


def halve(x: Array) -> Array:
    """Maximum over 3x3 windows at every other pixel, without padding: (B, H, W, C) -> (B, (H-1)//2, (W-1)//2, C)."""
    return nn.max_pool(x, (3, 3), strides=(2, 2))


class BlockA(nn.Module):
    """Mixed_5b, 5c and 5d: 1x1, 5x5, two 3x3 and pooled branches, concatenated."""

    pool_filters: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        branches = [
            ConvNorm(64, name="branch1x1")(x),
            chain(x, "branch5x5", (48,), (64, (5, 5))),
            chain(x, "branch3x3dbl", (64,), (96, (3, 3)), (96, (3, 3))),
            ConvNorm(self.pool_filters, name="branch_pool")(average_3x3(x)),
        ]
        return jnp.concatenate(branches, axis=-1)


class BlockB(nn.Module):
    """Mixed_6a: halves the map."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        branches = [
            ConvNorm(384, (3, 3), 2, "VALID", name="branch3x3")(x),
            chain(x, "branch3x3dbl", (64,), (96, (3, 3)), (96, (3, 3), 2, "VALID")),
            halve(x),
        ]
        return jnp.concatenate(branches, axis=-1)


class BlockC(nn.Module):
    """Mixed_6b to 6e: 7x7 convolutions as pairs of 1x7 and 7x1."""

    filters: int  # between the convolutions of a branch

    @nn.compact
    def __call__(self, x: Array) -> Array:
        f = self.filters
        branches = [
            ConvNorm(192, name="branch1x1")(x),
            chain(x, "branch7x7", (f,), (f, (1, 7)), (192, (7, 1))),
            chain(x, "branch7x7dbl", (f,), (f, (7, 1)), (f, (1, 7)), (f, (7, 1)), (192, (1, 7))),
            ConvNorm(192, name="branch_pool")(average_3x3(x)),
        ]
        return jnp.concatenate(branches, axis=-1)


class BlockD(nn.Module):
    """Mixed_7a: halves the map."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        branches = [
            chain(x, "branch3x3", (192,), (320, (3, 3), 2, "VALID")),
            chain(x, "branch7x7x3", (192,), (192, (1, 7)), (192, (7, 1)), (192, (3, 3), 2, "VALID")),
            halve(x),
        ]
        return jnp.concatenate(branches, axis=-1)


class BlockE(nn.Module):
    """Mixed_7b and 7c: branches that end in a 1x3 and a 3x1 convolution side by side."""

    max_pool: bool  # in the last block: taken for an error of that graph, but its features are what FID is measured on

    @nn.compact
    def __call__(self, x: Array) -> Array:
        single = ConvNorm(384, name="branch3x3_1")(x)
        double = chain(x, "branch3x3dbl", (448,), (384, (3, 3)))
        pooled = nn.max_pool(x, (3, 3), padding="SAME") if self.max_pool else average_3x3(x)
        branches = [
            ConvNorm(320, name="branch1x1")(x),
            ConvNorm(384, (1, 3), name="branch3x3_2a")(single),
            ConvNorm(384, (3, 1), name="branch3x3_2b")(single),
            ConvNorm(384, (1, 3), name="branch3x3dbl_3a")(double),
            ConvNorm(384, (3, 1), name="branch3x3dbl_3b")(double),
            ConvNorm(192, name="branch_pool")(pooled),
        ]
        return jnp.concatenate(branches, axis=-1)


class InceptionV3(nn.Module):
    """The network up to its logits, always in evaluation mode."""

    @nn.compact
    def __call__(self, images: Array) -> InceptionOutputs:
        """Float32 images (B, 299, 299, 3) in [-1, 1] -> outputs.

        Other sides of at least 75 px run too; `spatial` then has another width.
        """
        x = ConvNorm(32, (3, 3), 2, "VALID", name="Conv2d_1a_3x3")(images)
        x = ConvNorm(32, (3, 3), 1, "VALID", name="Conv2d_2a_3x3")(x)
        x = halve(ConvNorm(64, (3, 3), name="Conv2d_2b_3x3")(x))
        x = ConvNorm(80, name="Conv2d_3b_1x1")(x)
        x = halve(ConvNorm(192, (3, 3), 1, "VALID", name="Conv2d_4a_3x3")(x))  # (B, 35, 35, 192)
        x = BlockA(32, name="Mixed_5b")(x)
        x = BlockA(64, name="Mixed_5c")(x)
        x = BlockA(64, name="Mixed_5d")(x)  # (B, 35, 35, 288)
        x = BlockB(name="Mixed_6a")(x)
        x = BlockC(128, name="Mixed_6b")(x)
        x = BlockC(160, name="Mixed_6c")(x)
        x = BlockC(160, name="Mixed_6d")(x)
        spatial = x[..., :SPATIAL_CHANNELS]  # the 1x1 branch comes first
        x = BlockC(192, name="Mixed_6e")(x)  # (B, 17, 17, 768)
        x = BlockD(name="Mixed_7a")(x)
        x = BlockE(False, name="Mixed_7b")(x)
        x = BlockE(True, name="Mixed_7c")(x)  # (B, 8, 8, 2048)
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
    positions = []
    for n in images.shape[1:3]:
        scale = np.float32(n) / np.float32(SIDE)
        centres = np.arange(SIDE, dtype=np.float32) + np.float32(0.5)
        positions.append(np.maximum(centres * scale - np.float32(0.5), np.float32(0)))
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
    missing, foreign = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys() - unread)
    for names, problem in ((missing, "lacks"), (foreign, "has, beyond those of the FID network,")):
        if names:
            raise ValueError(
                f"The Inception state dict {problem} {len(names)} arrays: {', '.join(names[:4])}"
                f"{' ...' if len(names) > 4 else ''}; it must be that of pytorch-fid's {PUBLISHED_FILE}."
            )
    for name, shape in expected.items():
        if state[name].shape != shape:
            raise ValueError(f"{name} has shape {state[name].shape}, but the FID Inception network needs {shape}.")
    variables = {}
    for name, (path, shape) in _places().items():
        axes = np.argsort(_TORCH_AXES[len(shape)])
        variables[path] = jnp.asarray(state[name].transpose(axes), jnp.float32)
    return unflatten_dict(variables)


@dataclasses.dataclass(frozen=True)
class InceptionNetwork:
    """The Inception network as a feature network (`feature_networks.py`), with what a record must say about it.

    Attributes:
      method: how images are resized, "adm" or "pytorch-fid".
      file_hash: SHA-256 of the weight file.
      params: the variables, to be handed to `apply` (an argument of the jitted function, not a constant in it).
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
