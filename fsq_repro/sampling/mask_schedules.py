"""Which tokens are masked: in training, in parallel decoding, and when tokens are coded losslessly group by group."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

# Real root of x^3 = x + 1; its powers drive Roberts' R2 sequence, the low-discrepancy sequence of the plane.
PLASTIC_NUMBER = 1.32471795724474602596


def masked_counts(r_B: Array, num_tokens: int) -> Array:
    """Number of masked tokens, ceil(cos(pi/2 (1 - r)) S), at least 1 (paper, section A.4.2).

    The rounding is that of real arithmetic, whatever the float32 cosine: the count is one more than the number of
    thresholds 2/pi arcsin(n/S), n = 1..S-1, which r exceeds. `r_B` is float32 (B,) in [0, 1], the counts int32 (B,).
    """
    exact = 2 / np.pi * np.arcsin(np.arange(1, num_tokens) / num_tokens)
    thresholds = exact.astype(np.float32)
    # Rounded down, so that a float32 r exceeds the float32 threshold exactly where it exceeds the true one.
    thresholds = np.where(thresholds > exact, np.nextafter(thresholds, np.float32(0)), thresholds)
    return (1 + jnp.searchsorted(jnp.asarray(thresholds), r_B, side="left")).astype(jnp.int32)


def random_masks(
    key: Array, batch_size: int, num_tokens: int, *, min_ratio: float = 0.45, bound: str = "resample"
) -> Array:
    """Training masks: ceil(cos(pi/2 (1 - r)) S) positions of each example, uniform without replacement.

    The paper (section A.4.2) lower-bounds r by r_min = 1 - 2/pi arccos(min_ratio), so that more than min_ratio S tokens
    are masked (0.45: at least 116 of 256, 29 of 64): steps that mask a single token made training unstable. It does not
    say how:

    - "resample" (default): r ~ U[r_min, 1]. The counts keep the cosine's smooth density.
    - "clip": r ~ U[0, 1], then max(r, r_min). A point mass: r_min = 29.7% of the examples have exactly the least count.

    One r an example. google-research/magvit draws one a device's batch; ours does not depend on the number of
    devices, and the loss of a batch varies less.

    Args:
      key: one PRNG key.
      batch_size: B, of the global batch. Inside jit the masks are the same however B is split over devices.
      num_tokens: S.
      min_ratio: least masked share in [0, 1]; 0 for no bound (one token is always masked).
      bound: "resample" or "clip".

    Returns:
      bool (B, S), True where the token is masked.

    Raises:
      ValueError: `min_ratio` or `bound` is not one of the above.
    """
    if not 0 <= min_ratio <= 1:
        raise ValueError(f"min_ratio must lie in [0, 1], got {min_ratio}.")
    r_min = 1 - 2 / math.pi * math.acos(min_ratio)
    key_r, key_positions = jax.random.split(key)
    r_B = jax.random.uniform(key_r, (batch_size,), jnp.float32)
    if bound == "resample":
        r_B = r_min + (1 - r_min) * r_B
    elif bound == "clip":
        r_B = jnp.maximum(r_B, r_min)
    else:
        raise ValueError(f"bound must be resample or clip, got {bound!r}.")
    # The paper's N_M > min_ratio S, which r_min alone gives only up to its rounding to float32.
    least = min(math.floor(round(min_ratio * num_tokens, 9)) + 1, num_tokens)
    counts_B = jnp.maximum(masked_counts(r_B, num_tokens), least)
    # Ranks, not values, are compared: equal random numbers cannot change the count.
    order_BxS = jnp.argsort(jax.random.bits(key_positions, (batch_size, num_tokens)), axis=1)
    ranks_BxS = jnp.argsort(order_BxS, axis=1)
    return ranks_BxS < counts_B[:, None]


def decoding_schedule(num_tokens: int, num_steps: int) -> np.ndarray:
    """How many tokens stay masked after each step of MaskGIT's parallel decoding (cosine schedule).

    After step t (0-based, ratio = (t+1)/T) it is max(1, min(masked - 1, floor(S cos(pi/2 ratio)))), where `masked`
    counts the tokens still masked before the step (google-research/maskgit `libml/parallel_decode.py`). The last entry
    is 0: the result is what the last step sampled, before masking again. With fewer tokens than steps the published
    rule leaves the last masked token masked, and sampled anew, until the last step.

    Returns int64 (T,) for `num_tokens` S and `num_steps` T; ValueError where T is not positive.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be positive, got {num_steps}.")
    schedule = np.zeros(num_steps, dtype=np.int64)
    masked = num_tokens
    for t in range(num_steps - 1):
        ratio = (t + 1) / num_steps
        masked = max(1, min(masked - 1, math.floor(num_tokens * math.cos(math.pi / 2 * ratio))))
        schedule[t] = masked
    return schedule


def m2t_groups(height: int, width: int, *, alpha: float = 2.2, num_groups: int = 12) -> list[np.ndarray]:
    """Deterministic uncovering order of M2T (arXiv 2304.07313, sections 3.4 and 4), for the compression cost.

    Positions are ranked by when Roberts' R2 sequence, quantised to the grid, first visits them (QLDS), and cut where
    the power schedule says: round(N ((i+1)/S)^alpha) positions lie in groups 0..i. Positions of one group are far
    apart. The sequence's offset and quantisation are those of wsxtyrdd/Masked-Transformer-For-Image-Compression
    `net/mit.py`, which floors the cuts where we round. The FSQ paper (section 4.2) names M2T's schedule and gives
    neither alpha nor S; 2.2 and 12 are M2T's main setting.

    Args:
      height, width: of the token grid, N = height width.
      alpha: exponent of the power schedule; above 1 the groups grow.
      num_groups: S.

    Returns:
      At most S int64 arrays of flat raster positions, in uncovering order; each position occurs once. Groups that
      round to nothing are left out.

    Raises:
      ValueError: `alpha` or `num_groups` is not positive.
    """
    for name, value in (("alpha", alpha), ("num_groups", num_groups)):
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value}.")
    order: dict[int, None] = {}  # a dict keeps the order of first visits
    n = 0
    while len(order) < height * width:
        n += 1
        row = round(height * ((0.5 + n / PLASTIC_NUMBER) % 1)) % height
        column = round(width * ((0.5 + n / PLASTIC_NUMBER**2) % 1)) % width
        order.setdefault(row * width + column)
    cuts = [round(height * width * ((i + 1) / num_groups) ** alpha) for i in range(num_groups - 1)]
    groups = np.split(np.array(list(order), dtype=np.int64), cuts)
    return [group for group in groups if len(group)]


def raster_groups(num_tokens: int) -> list[np.ndarray]:
    """One position a group, int64 (1,), in raster order: the uncovering order of autoregressive models."""
    return list(np.arange(num_tokens, dtype=np.int64)[:, None])
