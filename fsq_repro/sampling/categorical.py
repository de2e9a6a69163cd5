"""Draws from softmax(logits) with one random number a token.

`jax.random.categorical` draws K Gumbel numbers a token. With the thousands of codes that there are here, those would
cost more than the network does on a CPU, and at each of the decoding steps.
"""

import jax
import jax.numpy as jnp
from jax import Array

BLOCK = 64  # codes summed at once: shorter sums than K, so faster and with less rounding


def categorical(key: Array, logits_SxK: Array) -> Array:
    """Samples by inverting the cumulative distribution: first the block of codes, then the code in it.

    Args:
      key: one PRNG key; its uniform numbers (S,) decide the tokens.
      logits_SxK: float32. Probabilities are resolved to 2^-23, the spacing of the uniform numbers.

    Returns:
      int32 (S,), tokens in 0..K-1.
    """
    S, K = logits_SxK.shape
    weights_SxK = jnp.exp(logits_SxK - jnp.max(logits_SxK, axis=1, keepdims=True))
    weights_SxNxB = jnp.pad(weights_SxK, ((0, 0), (0, -K % BLOCK))).reshape(S, -1, BLOCK)
    blocks_SxN = jnp.cumsum(jnp.sum(weights_SxNxB, axis=2), axis=1)
    target_S = jax.random.uniform(key, (S,), jnp.float32) * blocks_SxN[:, -1]

    block_S = jnp.sum(blocks_SxN <= target_S[:, None], axis=1).clip(max=blocks_SxN.shape[1] - 1)
    within_SxB = jnp.take_along_axis(weights_SxNxB, block_S[:, None, None], axis=1)[:, 0]
    before_S = jnp.take_along_axis(jnp.pad(blocks_SxN, ((0, 0), (1, 0))), block_S[:, None], axis=1)[:, 0]
    # The block's own sums may round to less than its total: never past its last code of positive weight.
    sums_SxB = before_S[:, None] + jnp.cumsum(within_SxB, axis=1)
    last_S = BLOCK - 1 - jnp.argmax(within_SxB[:, ::-1] > 0, axis=1)
    inner_S = jnp.minimum(jnp.sum(sums_SxB <= target_S[:, None], axis=1), last_S)
    return (block_S * BLOCK + inner_S).astype(jnp.int32)
