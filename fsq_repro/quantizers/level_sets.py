"""Which levels give a codebook of a wanted size: for sweeps over dimensions and levels (section 5.1, Fig. 10)."""

import itertools
import math
from collections.abc import Iterator

from fsq_repro.quantizers.digits import MAX_LEVEL
from fsq_repro.quantizers.fsq import PAPER_LEVELS

MAX_SMALLEST = 8  # the largest smallest level that Fig. 10 tells apart


def level_sets(
    bits: float, min_level: int = 3, *, tolerance_bits: float = 0.1, max_dimensions: int | None = None
) -> list[tuple[int, ...]]:
    """FSQ levels whose product is near 2^bits, from two dimensions with many levels to many with few.

    For each number of dimensions d and each smallest level in min_level..8 there is at most one set: the one nearest to
    2^bits, the more even of equals, among those that are balanced (no level more than twice the smallest); the paper's
    own set (Table 1, A.4.1) takes the place of its d and smallest level. Where d dimensions need more than 8 levels
    each, there is also the most even set. Inside a set levels descend; sets are in the order of d, then of the smallest
    level, descending.

    `bits` is log2 of the codebook size, in 1..31; sets that miss it by more than `tolerance_bits` are left out (the
    paper's are all within 0.1), and those of more than `max_dimensions`. `min_level` is at least 3.

    Raises ValueError: bits or min_level out of range, or no set exists within the tolerance.
    """
    if not 1 <= bits < 31:
        raise ValueError(f"bits is {bits}, but must be at least 1 and less than 31.")
    if not 3 <= min_level <= MAX_LEVEL:
        raise ValueError(f"min_level is {min_level}, but must be in 3..{MAX_LEVEL}.")
    most = math.floor((bits + tolerance_bits) / math.log2(min_level))
    sets = []
    for d in range(2, min(most, max_dimensions or most) + 1):
        best: dict[int, tuple[tuple[bool, float, int], tuple[int, ...]]] = {}
        for candidate in _candidates(bits, d, min_level):
            error = abs(math.log2(math.prod(candidate)) - bits)
            if error > tolerance_bits or math.prod(candidate) >= 2**31:
                continue
            smallest = min(candidate[-1], MAX_SMALLEST + 1)
            own = bits in PAPER_LEVELS and candidate == PAPER_LEVELS[int(bits)]
            rank = (not own, round(error, 9), candidate[0] - candidate[-1])
            best[smallest] = min(best.get(smallest, (rank, candidate)), (rank, candidate))
        sets += [best[smallest][1] for smallest in sorted(best, reverse=True)]
    if not sets:
        least = f"no levels of at least {min_level} in two or more dimensions"
        raise ValueError(f"bits is {bits}, but {least} come within {tolerance_bits} bits of it.")
    return sets


def _candidates(bits: float, d: int, min_level: int) -> Iterator[tuple[int, ...]]:
    """Balanced sets of d levels, each descending, without regard to their product."""
    even = math.floor(2 ** (bits / d))  # the level of d equal ones, rounded down
    for smallest in range(min_level, min(MAX_SMALLEST, even + 1) + 1):
        for rest in itertools.combinations_with_replacement(range(2 * smallest, smallest - 1, -1), d - 1):
            yield (*rest, smallest)
    if even >= MAX_SMALLEST:
        levels = [l for l in (even + 1, even) if max(min_level, MAX_SMALLEST + 1) <= l <= MAX_LEVEL]
        yield from itertools.combinations_with_replacement(levels, d)
