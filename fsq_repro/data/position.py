"""Where an iterator over batches stands: the number of batches drawn, whatever the number of worker processes."""

from collections.abc import Callable
from typing import Any

import grain


class PlacedIterator(grain.DatasetIterator):
    """Batches from a position on, which is saved and restored as of any grain iterator.

    grain's own iterators keep a position for each worker process, and cannot continue with another number of them.
    """

    def __init__(self, start_at: Callable[[int], grain.DatasetIterator]):
        """`start_at` makes the iterator whose first batch is the one of this number, counted from 0."""
        super().__init__()
        self._start_at = start_at
        self._drawn, self._batches = 0, start_at(0)

    def __next__(self) -> Any:
        batch = next(self._batches)
        self._drawn += 1
        return batch

    def get_state(self) -> dict[str, int]:
        return {"next_index": self._drawn}

    def set_state(self, state: dict[str, Any]) -> None:
        """Moves to a position of `get_state`, or of one of grain's own iterators: the sum of its workers' positions."""
        drawn = sum(part["next_index"] for part in state.get("iterators_in_use_states", [state]))
        self._batches.close()
        self._drawn, self._batches = drawn, self._start_at(drawn)

    def start_prefetch(self) -> None:
        self._batches.start_prefetch()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._batches.close()
