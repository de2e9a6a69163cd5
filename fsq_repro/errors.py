"""Errors that a user can act on: scripts print their one sentence and exit with code 2 (`cli.py`)."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

BUILD_ERRORS = (ValueError, FileNotFoundError)


class UserError(Exception):
    """Something the user can mend: the message is one sentence that names the field, its value and what is allowed."""


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turns the `ValueError`s of lower layers, raised while a run is built from its config, into `UserError`s."""
    try:
        yield
    except BUILD_ERRORS as e:
        raise UserError(str(e)) from e


def explained_items(items: Iterable[T]) -> Iterator[T]:
    """The same items; errors of making one are `explained`, those of what is done with it are not."""
    with explained():
        yield from items
