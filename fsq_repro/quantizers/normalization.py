"""Vectors brought to length 1."""

import jax
import jax.numpy as jnp

SHORT = 1e-6  # no entry above this: the vector is divided by it and not by its length


def unit_length(x: jax.Array) -> jax.Array:
    """x / |x| along the last axis, float32 (..., d) -> the same, whatever |x| but 0.

    Value and gradient are finite for every finite x: of a vector whose entries are all below 1e-6 in magnitude they are
    those of x / 1e-6. Entries are divided by the largest before they are squared, so that nothing overflows.
    """
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=-1, keepdims=True))  # x / |x| does not change with it
    x = x / jnp.maximum(largest, SHORT)
    squares = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x / jnp.sqrt(jnp.where(largest < SHORT, 1.0, squares))
