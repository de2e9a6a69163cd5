"""Progress bars of long loops."""

from collections.abc import Iterable
from typing import TypeVar

import tqdm

T = TypeVar("T")


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterable[T]:
    """The same items, with a bar on stderr that goes away at the end; silent where stderr is no terminal.

    Args:
      items: what the loop goes over.
      description: what the loop does, in front of the bar.
      total: number of items, where `items` has no length.
    """
    return tqdm.tqdm(items, desc=description, total=total, disable=None, leave=False)
