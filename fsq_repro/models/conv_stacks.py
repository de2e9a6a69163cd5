"""The convolutional parts of torchvision's AlexNet and VGG16 as plain functions of their weights.

Both serve two ends: features of an evaluation (`feature_networks.py`) and the taps of LPIPS (`lpips.py`).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
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


def _vgg_blocks(*blocks: tuple[int, int]) -> tuple[Convolution, ...]:
    """Blocks of (convolutions, filters): a pool before each but the first, a tap after the last convolution of each."""
    return tuple(
        Convolution(filters, 3, pool_before=block > 0 and i == 0, tap=i == count - 1)
        for block, (count, filters) in enumerate(blocks)
        for i in range(count)
    )


ALEXNET = (
    Convolution(64, 11, stride=4),
    Convolution(192, 5, pool_before=True),
    Convolution(384, 3, pool_before=True),
    Convolution(256, 3),
    Convolution(256, 3),
)
VGG16 = _vgg_blocks((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
STACKS = {
    "alexnet": ConvStack(ALEXNET, pool_side=3, min_image_side=31),
    "vgg16": ConvStack(VGG16, pool_side=2, min_image_side=16),
}


def conv_taps(stack: ConvStack, weights: Any, x_BxHxWx3: Array, precision: lax.PrecisionLike = None) -> list[Array]:
    """The five tapped feature maps after ReLU, from shallow to deep; the last one is the stack's output.

    `x_BxHxWx3` are normalised images, float32; `weights` and `precision` as of `convolve`, a weight for each layer.

    Raises ValueError for images too small to survive the pools.
    """
    _, H, W, _ = x_BxHxWx3.shape
    if min(H, W) < stack.min_image_side:
        raise ValueError(f"Image size {H}x{W} is too small: this network needs {stack.min_image_side} px a side.")
    x, taps = x_BxHxWx3, []
    for layer, weight in zip(stack.layers, weights, strict=True):
        if layer.pool_before:
            x = nn.max_pool(x, (stack.pool_side, stack.pool_side), strides=(2, 2))
        # torchvision pads by side // 2, except AlexNet's first layer: 2 for a side of 11.
        x = convolve(x, weight, layer.stride, 2 if layer.side == 11 else layer.side // 2, precision)
        x = jax.nn.relu(x)
        if layer.tap:
            taps.append(x)
    return taps


def convolve(x: Array, weight: Any, stride: int, pad: int, precision: lax.PrecisionLike = None) -> Array:
    """Convolution with `pad` zeros at each edge and the weight's `kernel` (side, side, in, out) and `bias` (out,).

    `precision` None is the backend's default (reduced on TPUs and on GPUs with TF32).
    """
    kernel, bias = weight["kernel"], weight["bias"].reshape(1, 1, 1, -1)
    _, H, W, _ = x.shape
    if max(H, W) > 2:
        numbers, padding = ("NHWC", "HWIO", "NHWC"), ((pad, pad), (pad, pad))
        return bias + lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=numbers, precision=precision
        )
    # Maps smaller than any kernel (VGG16's last block at 32 px): XLA rewrites such a convolution into one that is up to
    # 60 times slower on CPU than this sum over the kernel's taps. The stride is 1 wherever maps are that small.
    padded = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    taps = np.ndindex(kernel.shape[:2])
    return bias + sum(jnp.matmul(padded[:, i : i + H, j : j + W], kernel[i, j], precision=precision) for i, j in taps)
