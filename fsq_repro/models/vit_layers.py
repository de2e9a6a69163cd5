"""The Vision Transformer of big_vision, shared by UViM's stages: patch embedding, learned positions, pre-norm encoder.

Follows google-research/big_vision (models/vit.py) without dropout, which all of UViM's configs have at 0. Modules and
parameters carry the published names (`encoderblock_0/MultiHeadDotProductAttention_0/query/kernel`), so published
checkpoints, AugReg's ViTs among them, load by name. Parameters are float32, `dtype` is that of the computation.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from fsq_repro.models.autoencoder import space_to_depth

KERNEL_INIT = nn.initializers.xavier_uniform()
LAYER_NORM_EPSILON = 1e-6


def position_init(width: int, scale: float = 1.0) -> nn.initializers.Initializer:
    """Initializer of learned position embeddings (1, tokens, width): normal with deviation scale / sqrt(width)."""
    return nn.initializers.normal(stddev=scale * width**-0.5)


def check_sizes(width: int, num_heads: int) -> None:
    """ValueError unless `num_heads` divides `width`."""
    if num_heads < 1 or width < 1 or width % num_heads:
        raise ValueError(f"num_heads is {num_heads}, but must be at least 1 and divide the width of {width}.")


class PatchEmbed(nn.Module):
    """Images (B, H, W, C) -> one token for each patch, in raster order: (B, H/patch * W/patch, width).

    The published strided convolution of the same `kernel` (patch, patch, C, width) and `bias`, computed as the matrix
    product that it is: the gradient of XLA's convolution is slower on CPUs. H and W must be multiples of `patch`.
    """

    width: int
    patch: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Array) -> Array:
        B, _, _, C = images.shape
        shape = (self.patch, self.patch, C, self.width)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape).astype(self.dtype)
        bias_D = self.param("bias", nn.initializers.zeros, (self.width,)).astype(self.dtype)
        pixels_BxTxP = space_to_depth(images, self.patch).reshape(B, -1, self.patch**2 * C).astype(self.dtype)
        return pixels_BxTxP @ kernel.reshape(-1, self.width) + bias_D[None, None, :]


class MlpBlock(nn.Module):
    """Dense, GELU (the tanh form), Dense: (B, T, width) -> (B, T, width)."""

    mlp_width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BxTxD: Array) -> Array:
        shared = {"kernel_init": KERNEL_INIT, "bias_init": nn.initializers.normal(1e-6), "dtype": self.dtype}
        y = nn.gelu(nn.Dense(self.mlp_width, **shared)(x_BxTxD))
        return nn.Dense(x_BxTxD.shape[-1], **shared)(y)


class EncoderBlock(nn.Module):
    """Self-attention, then MLP, each behind a LayerNorm and added to its input: (B, T, width) -> (B, T, width)."""

    num_heads: int
    mlp_width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BxTxD: Array) -> Array:
        check_sizes(x_BxTxD.shape[-1], self.num_heads)
        y = nn.LayerNorm(LAYER_NORM_EPSILON, dtype=self.dtype)(x_BxTxD)
        x_BxTxD += nn.MultiHeadDotProductAttention(
            self.num_heads, kernel_init=KERNEL_INIT, dtype=self.dtype, attention_fn=jax.nn.dot_product_attention
        )(y)
        y = nn.LayerNorm(LAYER_NORM_EPSILON, dtype=self.dtype)(x_BxTxD)
        return x_BxTxD + MlpBlock(self.mlp_width, self.dtype)(y)


class Encoder(nn.Module):
    """`depth` blocks and a last LayerNorm; every token sees all tokens: (B, T, width) -> (B, T, width).

    With `remat` each block is computed again in the backward pass instead of keeping its activations.
    """

    depth: int
    num_heads: int
    mlp_width: int
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BxTxD: Array) -> Array:
        block_class = nn.remat(EncoderBlock) if self.remat else EncoderBlock
        for i in range(self.depth):
            x_BxTxD = block_class(self.num_heads, self.mlp_width, self.dtype, name=f"encoderblock_{i}")(x_BxTxD)
        return nn.LayerNorm(LAYER_NORM_EPSILON, dtype=self.dtype, name="encoder_norm")(x_BxTxD)
