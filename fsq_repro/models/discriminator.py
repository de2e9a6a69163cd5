"""MaskGIT's StyleGAN-style discriminator of the VQGAN loss (paper section 4.2, "other hyper-parameters as MaskGIT").

Follows `maskgit/nets/discriminator.py` of google-research/maskgit: no minibatch statistics, no equalised learning
rate. Linen's automatic parameter names equal the published ones.
"""

import math
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

INIT = nn.initializers.xavier_uniform()
# Channels at each resolution, before `channel_multiplier`.
WIDTHS = {4: 512, 8: 512, 16: 512, 32: 512, 64: 256, 128: 128, 256: 64, 512: 32}


def leaky_relu(x: Array) -> Array:
    return nn.leaky_relu(x, negative_slope=0.2)


def blur_pool(x_BxHxWxC: Array) -> Array:
    """Halves even height and width with the blur kernel [1,3,3,1] x [1,3,3,1] / 64 and zero padding.

    Equals a depthwise convolution of stride 2 with SAME padding. As a sum of shifted slices, one axis after the other,
    it makes the whole R1 step several times faster on CPU, where XLA's depthwise convolutions are slow.
    """
    x = x_BxHxWxC
    for axis in (1, 2):
        size = x.shape[axis]
        x = jnp.pad(x, [(1, 1) if a == axis else (0, 0) for a in range(4)])
        first, second, third, fourth = (lax.slice_in_dim(x, tap, tap + size - 1, 2, axis) for tap in range(4))
        x = (first + 3 * (second + third) + fourth) / 8
    return x


def _conv(filters: int, side: int, dtype: Any, use_bias: bool = True) -> nn.Conv:
    return nn.Conv(filters, (side, side), use_bias=use_bias, dtype=dtype, kernel_init=INIT)


class ResBlock(nn.Module):
    """Halves the resolution: (B, H, W, C) -> (B, H/2, W/2, filters)."""

    filters: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        main = leaky_relu(_conv(x.shape[-1], 3, self.dtype)(x))
        skip = _conv(self.filters, 1, self.dtype, use_bias=False)(blur_pool(x))
        main = leaky_relu(_conv(self.filters, 3, self.dtype)(blur_pool(main)))
        return (skip + main) / math.sqrt(2)


class Discriminator(nn.Module):
    """Square images (B, R, R, 3) -> float32 logits (B, 1), positive for "real".

    R must be a power of two from 8 to 512: the network halves it down to 4, and the table of widths ends at 512.

    Attributes:
      channel_multiplier: scales every width; 1 is the published network, fractions are for small runs.
      dtype: of the computation; parameters and logits are float32.

    Raises ValueError for other image sizes and for a multiplier that leaves no channel.
    """

    channel_multiplier: float = 1.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Array) -> Array:
        B, H, W, _ = images.shape
        if H != W or H < 8 or H not in WIDTHS:
            raise ValueError(f"Image size {H}x{W} does not suit the discriminator: it takes squares of 8, 16 ... 512.")
        multiplier = self.channel_multiplier
        width = {side: int(channels * multiplier) for side, channels in WIDTHS.items()}
        if width[H] < 1:
            raise ValueError(f"channel_multiplier is {multiplier}, but at {H} px it must be at least 1/{WIDTHS[H]}.")
        x = leaky_relu(_conv(width[H], 3, self.dtype)(images))
        while x.shape[1] > 4:
            x = ResBlock(width[x.shape[1] // 2], self.dtype)(x)
        x = leaky_relu(_conv(width[4], 3, self.dtype)(x)).reshape(B, -1)
        x = leaky_relu(nn.Dense(width[4], dtype=self.dtype, kernel_init=INIT)(x))
        return nn.Dense(1, dtype=self.dtype, kernel_init=INIT)(x).astype(jnp.float32)
