"""Dot-product attention laid out for the CPU, where most of a small transformer's time went into its softmax."""

import jax
import jax.numpy as jnp
from jax import Array


def attend(
    query_BxTxHxD: Array, key_BxLxHxD: Array, value_BxLxHxD: Array, mask: Array | None = None, keep: Array | None = None
) -> Array:
    """softmax(q k^T / sqrt(D)) v in the dtype of `value`: (B, T, H, D); equals `jax.nn.dot_product_attention`.

    Products of the given dtype, scores and softmax in float32. Heads come before positions and keys before queries:
    reductions over an axis that is not the last, and products of contiguous matrices, are vectorized by XLA's CPU
    compiler, and the whole takes two thirds of the time there.

    Args:
      mask: bool, broadcast to (B, H, T, L), False where a query may not look at a key.
      keep: float32, broadcast to (B, H, T, L), what the probabilities are multiplied by (dropout).
    """
    scale = query_BxTxHxD.shape[-1] ** -0.5
    q_BxHxTxD, k_BxHxLxD, v_BxHxLxD = (x.swapaxes(1, 2) for x in (query_BxTxHxD, key_BxLxHxD, value_BxLxHxD))
    scores = jnp.einsum("bhld,bhtd->bhlt", k_BxHxLxD, q_BxHxTxD, preferred_element_type=jnp.float32) * scale
    if mask is not None:
        scores = jnp.where(mask.swapaxes(-1, -2), scores, jnp.finfo(jnp.float32).min)
    p_BxHxLxT = jax.nn.softmax(scores, axis=-2)
    if keep is not None:
        p_BxHxLxT *= keep.swapaxes(-1, -2)
    return jnp.einsum("bhlt,bhld->bhtd", p_BxHxLxT.astype(value_BxLxHxD.dtype), v_BxHxLxD).swapaxes(1, 2)
