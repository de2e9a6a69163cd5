"""The convolutional parts of torchvision's AlexNet and VGG16 as plain functions of their weights.

Both serve two ends: features of an evaluation (`feature_networks.py`) and the taps of LPIPS (`lpips.py`).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax


class Convolution(NamedTuple):
    """One convolution with ReLU: its kernel's side, whether a max pool precedes it and whether LPIPS reads it."""

    filters: int
    side: int
    stride: int = 1
    pool_before: bool = False
    tap: bool = True


class ConvStack(NamedTuple):
    """A stack of convolutions with ReLU; max pools have stride 2 and no padding, as in torchvision."""

    layers: tuple[Convolution, ...]
    pool_side: int
    min_image_side: int  # below it nothing is left after the last pool


ALEXNET = ConvStack(
    (
        Convolution(64, 11, stride=4),
        Convolution(192, 5, pool_before=True),
        Convolution(384, 3, pool_before=True),
        Convolution(256, 3),
        Convolution(256, 3),
    ),
    pool_side=3,
    min_image_side=31,
)


def _vgg_blocks(*blocks: tuple[int, int]) -> tuple[Convolution, ...]:
    """Blocks of (convolutions, filters): a pool before each but the first, a tap after the last convolution of each."""
    return tuple(
        Convolution(filters, 3, pool_before=block > 0 and i == 0, tap=i == count - 1)
        for block, (count, filters) in enumerate(blocks)
        for i in range(count)
    )


VGG16 = ConvStack(_vgg_blocks((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), pool_side=2, min_image_side=16)

STACKS = {"alexnet": ALEXNET, "vgg16": VGG16}


def conv_taps(stack: ConvStack, weights: Any, x_BxHxWx3: Array, precision: lax.PrecisionLike = None) -> list[Array]:
    """The five tapped feature maps after ReLU, from shallow to deep; the last one is the stack's output.

    Args:
      weights: for each convolution a dict of `kernel` (side, side, in, filters) and `bias` (filters,).
      x_BxHxWx3: normalised images, float32.
      precision: of the convolutions; None is the backend's default (reduced on TPUs and on GPUs with TF32).

    Raises ValueError for images too small to survive the pools.
    """
    _, H, W, _ = x_BxHxWx3.shape
    if min(H, W) < stack.min_image_side:
        raise ValueError(f"Image size {H}x{W} is too small: this network needs {stack.min_image_side} px a side.")
    x, taps = x_BxHxWx3, []
    for layer, weight in zip(stack.layers, weights, strict=True):
        if layer.pool_before:
            x = nn.max_pool(x, (stack.pool_side, stack.pool_side), strides=(2, 2))
        x = _convolve(x, weight["kernel"], layer, precision)
        x = jax.nn.relu(x + weight["bias"].reshape(1, 1, 1, -1))
        if layer.tap:
            taps.append(x)
    return taps


def _convolve(x: Array, kernel: Array, layer: Convolution, precision: lax.PrecisionLike) -> Array:
    # torchvision pads by side // 2, except AlexNet's first layer: 2 for a side of 11.
    pad = 2 if layer.side == 11 else layer.side // 2
    _, H, W, _ = x.shape
    if max(H, W) > 2:
        return lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(layer.stride, layer.stride),
            padding=((pad, pad), (pad, pad)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=precision,
        )
    # Maps smaller than any kernel (VGG16's last block at 32 px): XLA rewrites such a convolution into one that is up to
    # 60 times slower on CPU than this sum over the kernel's taps. The stride is 1 wherever maps are that small.
    padded = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    taps = [(i, j) for i in range(layer.side) for j in range(layer.side)]
    return sum(jnp.matmul(padded[:, i : i + H, j : j + W], kernel[i, j], precision=precision) for i, j in taps)
