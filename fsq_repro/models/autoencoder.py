"""MaskGIT's convolutional VQGAN autoencoder around any quantizer (paper section 4.2 and A.4.1).

Follows `maskgit/nets/vqgan_tokenizer.py` of google-research/maskgit: an encoder and a decoder of residual blocks
without attention, average pooling on the way down, nearest upsampling on the way up. The modules are called in such
an order that Linen's automatic parameter names equal the published ones, so published checkpoints load by name.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

NORM_GROUPS = 32  # Linen's default, which the published checkpoints were trained with.


def space_to_depth(x_BxHxWxC: Array, patch: int) -> Array:
    """Folds each patch of (patch, patch) pixels into the channels: (B, H, W, C) -> (B, H/p, W/p, p*p*C)."""
    B, H, W, C = x_BxHxWxC.shape
    x = x_BxHxWxC.reshape(B, H // patch, patch, W // patch, patch, C)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(B, H // patch, W // patch, patch * patch * C)


def depth_to_space(x_BxHxWxC: Array, patch: int) -> Array:
    """The inverse of `space_to_depth`: (B, H, W, p*p*C) -> (B, H*p, W*p, C)."""
    B, H, W, C = x_BxHxWxC.shape
    x = x_BxHxWxC.reshape(B, H, W, patch, patch, C // patch**2)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(B, H * patch, W * patch, C // patch**2)


def upsample_nearest(x_BxHxWxC: Array) -> Array:
    """Doubles height and width by repeating each value: (B, H, W, C) -> (B, 2H, 2W, C)."""
    B, H, W, C = x_BxHxWxC.shape
    return jnp.broadcast_to(x_BxHxWxC[:, :, None, :, None, :], (B, H, 2, W, 2, C)).reshape(B, 2 * H, 2 * W, C)


class ResBlock(nn.Module):
    """Norm, swish and 3x3 convolution, twice, plus the skip: (B, H, W, C) -> (B, H, W, filters).

    Where the channel count changes the published block applies its 1x1 shortcut convolution to the output of the main
    branch, so the input is lost there. `faithful_shortcut` keeps that, as its checkpoints need; False takes the input.
    """

    filters: int
    faithful_shortcut: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        skip = x
        for _ in range(2):
            x = nn.swish(nn.GroupNorm(NORM_GROUPS, dtype=self.dtype)(x))
            x = nn.Conv(self.filters, (3, 3), use_bias=False, dtype=self.dtype)(x)
        if skip.shape[-1] != self.filters:
            shortcut_input = x if self.faithful_shortcut else skip
            skip = nn.Conv(self.filters, (1, 1), use_bias=False, dtype=self.dtype)(shortcut_input)
        return x + skip


class Stack(nn.Module):
    """What encoder and decoder share; see `Autoencoder`."""

    filters: int
    channel_multipliers: tuple[int, ...]
    num_res_blocks: int
    stem_patch: int
    faithful_shortcut: bool
    dtype: Any

    def res_blocks(self, x: Array, multiplier: int) -> Array:
        for _ in range(self.num_res_blocks):
            x = ResBlock(self.filters * multiplier, self.faithful_shortcut, self.dtype)(x)
        return x


class Encoder(Stack):
    """Images (B, H, W, 3) -> latents (B, H/stride, W/stride, num_channels) of dtype `dtype`."""

    num_channels: int

    @nn.compact
    def __call__(self, images: Array) -> Array:
        x = space_to_depth(images, self.stem_patch)
        x = nn.Conv(self.filters, (3, 3), use_bias=False, dtype=self.dtype)(x)
        for level, multiplier in enumerate(self.channel_multipliers):
            if level > 0:
                x = nn.avg_pool(x, (2, 2), strides=(2, 2))
            x = self.res_blocks(x, multiplier)
        x = self.res_blocks(x, self.channel_multipliers[-1])
        x = nn.swish(nn.GroupNorm(NORM_GROUPS, dtype=self.dtype)(x))
        return nn.Conv(self.num_channels, (1, 1), dtype=self.dtype)(x)


class Decoder(Stack):
    """Codes (B, h, w, num_channels) -> images float32 (B, h*stride, w*stride, 3), not clipped."""

    @nn.compact
    def __call__(self, codes: Array) -> Array:
        x = nn.Conv(self.filters * self.channel_multipliers[-1], (3, 3), dtype=self.dtype)(codes)
        x = self.res_blocks(x, self.channel_multipliers[-1])
        for level, multiplier in reversed(list(enumerate(self.channel_multipliers))):
            x = self.res_blocks(x, multiplier)
            if level > 0:
                x = nn.Conv(self.filters * multiplier, (3, 3), dtype=self.dtype)(upsample_nearest(x))
        x = nn.swish(nn.GroupNorm(NORM_GROUPS, dtype=self.dtype)(x))
        x = nn.Conv(3 * self.stem_patch**2, (3, 3), dtype=self.dtype)(x)
        return depth_to_space(x.astype(jnp.float32), self.stem_patch)


class Autoencoder(nn.Module):
    """Encoder, quantizer and decoder; images are in [0, 1], reconstructions float32 and not clipped.

    Attributes:
      quantizer: any module of `fsq_repro.quantizers`; its `num_channels` is what the encoder emits.
      filters: width of the first level, a multiple of 32 (the groups of GroupNorm).
      channel_multipliers: width of each level over `filters`; all levels but the last halve the resolution.
      num_res_blocks: residual blocks a level.
      stem_patch: side of the pixel patches folded into channels around the network; 1 is the published one.
      faithful_shortcut: see `ResBlock`.
      dtype: of the computation; parameters are float32.

    Raises ValueError where the architecture or the image size cannot work.
    """

    quantizer: nn.Module
    filters: int = 128
    channel_multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    num_res_blocks: int = 2
    stem_patch: int = 1
    faithful_shortcut: bool = True
    dtype: Any = jnp.float32

    @property
    def stride(self) -> int:
        """Pixels per latent along each side."""
        return self.stem_patch * 2 ** (len(self.channel_multipliers) - 1)

    def setup(self):
        if self.filters < NORM_GROUPS or self.filters % NORM_GROUPS:
            raise ValueError(f"filters is {self.filters}, but must be a multiple of {NORM_GROUPS}: GroupNorm's groups.")
        if not self.channel_multipliers or self.stem_patch < 1:
            raise ValueError(
                f"channel_multipliers is {self.channel_multipliers} and stem_patch {self.stem_patch}, but at least one "
                "multiplier and a patch of at least 1 are needed."
            )
        body = {field: getattr(self, field) for field in Stack.__annotations__}
        self.encoder = Encoder(**body, num_channels=self.quantizer.num_channels)
        self.decoder = Decoder(**body)

    def encode(self, images: Array) -> Array:
        """Images (B, H, W, 3) in [0, 1] -> latents (B, H/stride, W/stride, num_channels), not yet quantized."""
        _, H, W, _ = images.shape
        if H % self.stride or W % self.stride:
            raise ValueError(f"Image size {H}x{W} is not divisible by the autoencoder's stride of {self.stride}.")
        return self.encoder(images)

    def decode(self, codes: Array) -> Array:
        """Codes (B, h, w, num_channels) -> float32 images (B, h*stride, w*stride, 3)."""
        return self.decoder(codes)

    def __call__(self, images: Array, *, train: bool):
        """Images (B, H, W, 3) -> (reconstructions float32 (B, H, W, 3), `Quantized`)."""
        quantized = self.quantizer(self.encode(images), train=train)
        return self.decode(quantized.codes), quantized
