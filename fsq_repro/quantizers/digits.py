"""One digit per channel and the one index that all make: mixed radix, the first channel varies fastest.

Digits are int32 and count a channel's values from 0; indices are made of them by integer arithmetic alone.
"""

import math
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

MAX_LEVEL = 1000


def as_integers(levels: Sequence[int], least: int, name: str = "levels") -> tuple[int, ...]:
    """Levels as a tuple of Python ints.

    Raises ValueError: they are no sequence of integers; `least` and the field's `name` are for the message.
    """
    try:
        return tuple(operator.index(l) for l in levels)
    except TypeError:
        raise ValueError(f"{name} is {levels!r}, but must be a sequence of integers in {least}..{MAX_LEVEL}.") from None


def check_levels(levels: Sequence[int], least: int = 2, name: str = "levels") -> tuple[int, ...]:
    """Levels as a tuple of Python ints.

    Raises ValueError: no levels, a level that is no integer in least..1000, or 2^31 codes or more (indices are int32).
    """
    checked = as_integers(levels, least, name)
    if not checked or min(checked) < least or max(checked) > MAX_LEVEL:
        raise ValueError(f"{name} is {checked}, but must be one or more integers in {least}..{MAX_LEVEL}.")
    if math.prod(checked) >= 2**31:
        raise ValueError(f"{name} is {checked}, {math.prod(checked)} codes, but int32 indices allow less than 2^31.")
    return checked


def digits_to_indices(digits: jax.Array, levels: tuple[int, ...]) -> jax.Array:
    """Digits (..., d) int32, channel i in [0, levels[i]) -> indices (...) int32."""
    return jnp.sum(digits * along_channels(_basis(levels), digits), axis=-1, dtype=jnp.int32)


def indices_to_digits(indices: jax.Array, levels: tuple[int, ...]) -> jax.Array:
    """Indices (...) integer in [0, prod(levels)) -> digits (..., d) int32."""
    indices = indices.astype(jnp.int32)[..., None]
    return indices // along_channels(_basis(levels), indices) % along_channels(np.array(levels), indices)


def look_up(digits: jax.Array, values: np.ndarray | jax.Array, levels: tuple[int, ...]) -> jax.Array:
    """Digits (..., d) int32 -> float32 (..., d): of channel i the value number digit.

    `values` (sum(levels),) are those of the channels one after another.

    A table and no formula: XLA compiles a division by a constant to a product with its reciprocal, which rounds
    differently from the division that the same line does when it is not jitted.
    """
    start = np.cumsum((0, *levels[:-1]))
    return jnp.asarray(values, jnp.float32)[digits + along_channels(start, digits)]


def along_channels(values: np.ndarray, like: jax.Array) -> np.ndarray:
    """One value per channel, in the dtype of `like` and with as many axes."""
    return values.reshape((1,) * (like.ndim - 1) + (-1,)).astype(like.dtype)


def _basis(levels: tuple[int, ...]) -> np.ndarray:
    return np.cumprod((1, *levels[:-1]))
