"""Noise in place of quantization, for part of the samples of a training batch (Parker et al., arXiv 2411.19842).

Follows Stability-AI/stable-codec (`DitheredFSQ`): per sample, half of them get uniform noise of one bin's width, a
quarter nothing at all, a quarter is quantized. Another implementation, lucidrains/vector-quantize-pytorch, adds noise
of width 1 to the quantized values, which is half of their range whatever the levels.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fsq_repro.quantizers.digits import along_channels

NOISE_SHARE = 0.5  # of the samples, with noise
UNQUANTIZED_SHARE = 0.5  # of the other samples, left as they are


def dither(key: jax.Array, values: jax.Array, codes: jax.Array, levels: Sequence[int]) -> jax.Array:
    """Values and codes (B, ..., d), both in [-1, 1] -> what the decoder reads in training, float32 (B, ..., d).

    The gradient goes to `values` where they are read, and to `codes`.
    """
    noise_key, unquantized_key, uniform_key = jax.random.split(key, 3)
    per_sample = (*values.shape[:1], *(1,) * (values.ndim - 1)) if values.ndim > 1 else (1,)
    noisy = jax.random.bernoulli(noise_key, NOISE_SHARE, per_sample)
    unquantized = jax.random.bernoulli(unquantized_key, UNQUANTIZED_SHARE, per_sample)
    uniform = jax.random.uniform(uniform_key, values.shape, jnp.float32)
    return mix(values, codes.astype(jnp.float32), noisy, unquantized, uniform, levels)


def mix(
    values: jax.Array,
    codes: jax.Array,
    noisy: jax.Array,
    unquantized: jax.Array,
    uniform: jax.Array,
    levels: Sequence[int],
) -> jax.Array:
    """`dither` with its random numbers given: two masks that broadcast to (B, ..., d), and uniform ones in [0, 1)."""
    width = along_channels(2 / (np.array(levels) - 1), values)
    return jnp.where(noisy, values + (uniform - 0.5) * width, jnp.where(unquantized, values, codes))
