"""MaskGIT's iterative parallel decoding (paper, section 4.3; google-research/maskgit `libml/parallel_decode.py`)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fsq_repro.sampling.categorical import categorical
from fsq_repro.sampling.guidance import LogitsFn
from fsq_repro.sampling.mask_schedules import decoding_schedule


def sample_keys(key: Array, indices_B: Array) -> Array:
    """One PRNG key a sample, folded from its index among all samples: (B,) keys.

    A sample then does not depend on the batch, the device or the process that makes it.

    Args:
      key: one PRNG key.
      indices_B: int32 (B,), global indices of the samples.
    """
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, indices_B)


def parallel_decode(
    logits_fn: LogitsFn,
    keys_B: Array,
    labels_B: Array,
    *,
    num_tokens: int,
    mask_id: int,
    num_steps: int = 12,
    choice_temperature: float = 4.5,
) -> Array:
    """Samples token sequences, all masked at first, in `num_steps` network calls.

    Each step samples every masked token from softmax(logits) at temperature 1 and then masks again those of lowest
    confidence, log p(sampled) + choice_temperature (1 - ratio) Gumbel noise, as many as `decoding_schedule` says. Known
    tokens never change. Tokens are ranked, where the published code compares with a cut-off: ties there
    (saturated probabilities) mask fewer tokens than planned.

    Args:
      logits_fn: (tokens int32 (B, S), labels int32 (B,)) -> float32 logits (B, S, K) of the K codes.
      keys_B: PRNG keys (B,), see `sample_keys`.
      labels_B: int32 (B,).
      num_tokens: S.
      mask_id: the token id of "masked"; not one of the codes 0..K-1.
      num_steps: T; 12 in the paper.
      choice_temperature: 4.5 in the paper.

    Returns:
      int32 (B, S), values in 0..K-1.

    Raises:
      ValueError: T is not positive, or `choice_temperature` is negative or not finite.
    """
    masked_T = decoding_schedule(num_tokens, num_steps)
    if not 0 <= choice_temperature < float("inf"):
        raise ValueError(f"choice_temperature must be finite and at least 0, got {choice_temperature}.")
    ratios_T = np.arange(1, num_steps + 1) / num_steps
    noise_scales_T = (choice_temperature * (1 - ratios_T)).astype(np.float32)

    def step(tokens_BxS: Array, xs: tuple[Array, Array, Array]) -> tuple[Array, None]:
        t, masked_after, noise_scale = xs
        logits_BxSxK = logits_fn(tokens_BxS, labels_B).astype(jnp.float32)
        keys_2xB = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, t)), out_axes=1)(keys_B)
        sampled_BxS = jax.vmap(categorical)(keys_2xB[0], logits_BxSxK)
        unknown_BxS = tokens_BxS == mask_id
        tokens_BxS = jnp.where(unknown_BxS, sampled_BxS, tokens_BxS)

        chosen_BxS = jnp.take_along_axis(logits_BxSxK, sampled_BxS[..., None], axis=-1)[..., 0]
        log_p_BxS = chosen_BxS - jax.nn.logsumexp(logits_BxSxK, axis=-1)
        noise_BxS = jax.vmap(lambda key: jax.random.gumbel(key, (num_tokens,), jnp.float32))(keys_2xB[1])
        confidence_BxS = jnp.where(unknown_BxS, log_p_BxS + noise_scale * noise_BxS, jnp.inf)
        ranks_BxS = jnp.argsort(jnp.argsort(confidence_BxS, axis=1), axis=1)  # stable: ties by position
        return jnp.where(ranks_BxS < masked_after, mask_id, tokens_BxS), None

    xs = (jnp.arange(num_steps), jnp.asarray(masked_T, jnp.int32), jnp.asarray(noise_scales_T))
    tokens_BxS, _ = jax.lax.scan(step, jnp.full((len(labels_B), num_tokens), mask_id, jnp.int32), xs)
    return tokens_BxS


@dataclasses.dataclass(frozen=True)
class ParallelSampler:
    """`parallel_decode` as a token sampler, see `registry`.

    Attributes:
      num_steps, choice_temperature: see `parallel_decode`.
    """

    num_steps: int
    choice_temperature: float

    def __call__(self, logits_fn: LogitsFn, keys_B: Array, labels_B: Array, num_tokens: int, mask_id: int) -> Array:
        """Tokens int32 (B, S); arguments as of `parallel_decode`."""
        return parallel_decode(
            logits_fn, keys_B, labels_B, num_tokens=num_tokens, mask_id=mask_id, **dataclasses.asdict(self)
        )

    def protocol(self) -> dict[str, Any]:
        """What a record says of the samples."""
        return {"sampler": f"parallel, {self.num_steps} steps, cosine", "choice_temperature": self.choice_temperature}
