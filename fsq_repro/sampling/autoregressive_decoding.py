"""Autoregressive decoding, one token after the other, with the model's cache."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from fsq_repro.sampling.categorical import categorical
from fsq_repro.sampling.guidance import StepFn


def autoregressive_decode(
    step_fn: StepFn, cache: Any, class_ids_B: Array, keys_B: Array, num_tokens: int, temperature: float = 1.0
) -> Array:
    """Samples token sequences from softmax(logits / temperature); position t of a sample uses fold_in(its key, t).

    Args:
      step_fn: (cache, ids int32 (B,), position int32 ()) -> (float32 logits (B, K) of the token at `position`, cache).
        `ids` are the class ids at position 0 and afterwards the tokens at `position` - 1. `guide_step` makes a guided
        one.
      cache: pytree that `step_fn` returns with the same shapes and dtypes.
      class_ids_B: int32 (B,), what the model is fed in front of the first token (a class, or a mark of the start).
      keys_B: PRNG keys (B,), see `parallel_decoding.sample_keys`.
      num_tokens: S.
      temperature: a Python number; 0 takes the most likely token, and the keys do not matter.

    Returns:
      int32 (B, S), values in 0..K-1.
    """

    def draw(logits_BxK: Array, position: Array) -> Array:
        if temperature == 0:
            return jnp.argmax(logits_BxK, axis=1).astype(jnp.int32)
        keys_at_position_B = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys_B, position)
        tokens_Bx1 = jax.vmap(categorical)(keys_at_position_B, logits_BxK[:, None] / temperature)
        return tokens_Bx1[:, 0]

    def step(carry: tuple[Any, Array], position: Array) -> tuple[tuple[Any, Array], Array]:
        cache, ids_B = carry
        logits_BxK, cache = step_fn(cache, ids_B, position)
        tokens_B = draw(logits_BxK.astype(jnp.float32), position)
        return (cache, tokens_B), tokens_B

    _, tokens_SxB = jax.lax.scan(step, (cache, class_ids_B), jnp.arange(num_tokens))
    return tokens_SxB.T
