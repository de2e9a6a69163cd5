"""Some items of a data set, chosen by a permutation: a stride over an ordered source can miss whole classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fsq_repro.data.sources import Source

SEED = 0
CHOICE = f"by a permutation, seed {SEED}"  # what a protocol says


def chosen_indices(total: int, count: int) -> np.ndarray:
    """`count` different numbers of 0 .. total - 1 in rising order, int64; all of them where there are no more."""
    return np.sort(np.random.default_rng(SEED).permutation(total)[:count])


class Chosen:
    """The items of a source at some positions; whatever else it has is as of the source."""

    def __init__(self, source: Source, indices: Sequence[int] | np.ndarray) -> None:
        self._source, self._indices = source, indices

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_source"), name)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return self._source[int(self._indices[index])]


def some_items(source: Source, count: int) -> Source:
    """`count` items of a source, or all that it has."""
    return Chosen(source, chosen_indices(len(source), count))
