"""The part of a training split that serves for validation where a set has none of its own."""

import numpy as np

SHARE = 0.1
SEED = 19  # not that of `choice`: what is held out must not follow from what is looked at


def held_out(total: int) -> tuple[np.ndarray, np.ndarray]:
    """Divides 0 .. total - 1: (numbers that stay for training, numbers held out), int64, each in rising order.

    The part held out is `SHARE` of them, at least one, chosen by a permutation: some sets are ordered by class.
    """
    order = np.random.default_rng(SEED).permutation(total)
    count = num_held_out(total)
    return np.sort(order[count:]), np.sort(order[:count])


def num_held_out(total: int) -> int:
    """How many of `total` training items are held out."""
    return min(total, max(1, round(SHARE * total)))
