"""Cost in bits of tokens under a stage-2 model: what a lossless coder driven by it would spend (paper section 4.2).

A masked transformer with a deterministic uncovering schedule is a probability model: the tokens fall into groups,
each group is coded given all earlier ones, and -log2 p(tokens | label) is the sum over groups (Mentzer et al. 2023,
"M2T"). An autoregressive model needs one teacher-forced pass. `lossless_coder.py` turns the same distributions into an
actual bit stream.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

LogitsFn = Callable[[Array, Array], Array]  # tokens int (B, S), labels int (B,) -> logits float32 (B, S, K)


def masked_token_bits(
    logits_fn: LogitsFn, tokens_BxS: Array, labels_B: Array, groups: Sequence[np.ndarray], mask_id: int
) -> Array:
    """Bits of each token when groups are coded one after the other, each given all earlier ones.

    Runs the model once per group. Works under jit with `groups` static.

    Args:
      logits_fn: the model; positions of its input that are not known hold `mask_id`.
      tokens_BxS: int, 0..K-1 (a token beyond K - 1 gives NaN).
      groups: position arrays, each position of 0..S-1 in exactly one.

    Returns float32 (B, S), -log2 p; the sum over S is the cost of a sequence.
    """
    in_group_GxS = np.stack([np.isin(np.arange(tokens_BxS.shape[1]), group) for group in groups])
    known_GxS = np.cumsum(in_group_GxS, axis=0, dtype=np.int32) - in_group_GxS > 0
    mask = jnp.asarray(mask_id, tokens_BxS.dtype)

    def add_group(bits_BxS: Array, masks: tuple[Array, Array]) -> tuple[Array, None]:
        known_S, in_group_S = masks
        logits_BxSxK = logits_fn(jnp.where(known_S[None, :], tokens_BxS, mask), labels_B)
        return jnp.where(in_group_S[None, :], token_bits(logits_BxSxK, tokens_BxS), bits_BxS), None

    start_BxS = jnp.zeros(tokens_BxS.shape, jnp.float32)
    bits_BxS, _ = jax.lax.scan(add_group, start_BxS, (jnp.asarray(known_GxS), jnp.asarray(in_group_GxS)))
    return bits_BxS


def token_bits(logits_BxSxK: Array, tokens_BxS: Array) -> Array:
    """-log2 softmax(logits) at the tokens: float32 (B, S, K), int (B, S) -> float32 (B, S).

    Of an autoregressive model's teacher-forced logits these are the costs -log2 p(token i | tokens before i, label). A
    token beyond K - 1 gives NaN.
    """
    log_p_BxSxK = jax.nn.log_softmax(logits_BxSxK, axis=-1)
    log_p_BxS = jnp.take_along_axis(log_p_BxSxK, tokens_BxS[..., None], axis=-1)[..., 0]
    return log_p_BxS * (-1.0 / math.log(2.0))
