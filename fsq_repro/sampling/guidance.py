"""Classifier-free guidance of token models (paper, section 4.3).

Scales of other code bases, for the same guided logits: Halton-MaskGIT's w = a; LlamaGen's, ADM's and MAR's
s = l_0 + s (l_c - l_0) is s = 1 + a.
"""

import numbers
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

# (tokens int32 (B, S), labels int32 (B,)) -> float32 logits (B, S, K) of the K codes only.
LogitsFn = Callable[[Array, Array], Array]
# (cache, ids int32 (B,), position int32 ()) -> (float32 logits (B, K) of the token at `position`, cache).
StepFn = Callable[[Any, Array, Array], tuple[Array, Any]]


def guided_logits(conditional: Array, unconditional: Array, weight: float | Array) -> Array:
    """Guided logits l_c + a (l_c - l_0), of any one shape, in the logits' dtype (paper, section 4.3).

    The paper's text says that this pulls "towards" the unconditional prediction; its formula, which we follow, pushes
    away from it.
    """
    return conditional + weight * (conditional - unconditional)


def is_unguided(weight: float | Array) -> bool:
    """Whether `guide` and `guide_step` give back what they were given: the weight is the Python (or NumPy) number 0.

    Raises:
      ValueError: a Python number `weight` is negative or not finite.
    """
    if not isinstance(weight, numbers.Real):
        return False
    if not 0 <= weight < float("inf"):
        raise ValueError(f"guidance weight must be finite and at least 0, got {weight}.")
    return weight == 0


def guide(logits_fn: LogitsFn, weight: float | Array, null_label: int) -> LogitsFn:
    """Guides `logits_fn`: one network call on 2B rows, conditional and unconditional.

    Each example's two rows lie side by side, so splitting the batch over devices keeps the pair on one of them.

    Args:
      logits_fn: the network, already cut to the K codes.
      weight: a >= 0. The Python number 0 gives back `logits_fn` itself, at no cost; an array (traced or not) always
        takes the guided path.
      null_label: the label that stands for "no class" (what replaced dropped labels in training).

    Raises ValueError as `is_unguided`.
    """
    if is_unguided(weight):
        return logits_fn

    def guided(tokens_BxS: Array, labels_B: Array) -> Array:
        labels_2B = _pairs(labels_B, jnp.full_like(labels_B, null_label))
        return _combine(logits_fn(_pairs(tokens_BxS, tokens_BxS), labels_2B), weight)

    return guided


def guide_step(step_fn: StepFn, weight: float | Array, null_id: int) -> StepFn:
    """Guides one step of an autoregressive model; `guide` for the `step_fn` of `autoregressive_decode`.

    The class enters at position 0, as an id: there the unconditional row is fed `null_id` instead. Afterwards both rows
    are fed the same tokens.

    Args:
      step_fn: the network with a cache of 2B rows, those of example i at 2i (conditional) and 2i + 1; of B rows where
        `is_unguided(weight)`.
      weight: as in `guide`.
      null_id: the id that stands for "no class".

    Returns:
      A step that takes B ids and returns B rows of logits. `step_fn` itself if `weight` is the Python number 0.

    Raises ValueError as `is_unguided`.
    """
    if is_unguided(weight):
        return step_fn

    def guided(cache_2B: Any, ids_B: Array, position: Array) -> tuple[Array, Any]:
        null_ids_B = jnp.where(position == 0, jnp.full_like(ids_B, null_id), ids_B)
        logits_2BxK, cache_2B = step_fn(cache_2B, _pairs(ids_B, null_ids_B), position)
        return _combine(logits_2BxK, weight), cache_2B

    return guided


def _pairs(first: Array, second: Array) -> Array:
    """Two arrays (B, ...) -> (2B, ...) with the rows of each example side by side."""
    return jnp.stack([first, second], axis=1).reshape(-1, *first.shape[1:])


def _combine(logits_2B: Array, weight: float | Array) -> Array:
    """Logits (2B, ...) of side-by-side rows -> guided logits (B, ...)."""
    pairs = logits_2B.reshape(-1, 2, *logits_2B.shape[1:])
    return guided_logits(pairs[:, 0], pairs[:, 1], weight)
