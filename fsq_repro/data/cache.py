"""Data sets made on first use: written once to the cache directory as `.npy` files, memory-mapped ever after."""

import contextlib
import fcntl
import hashlib
import json
import logging
import math
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from fsq_repro.files import atomic_directory, check_room, printable

log = logging.getLogger(__name__)

ArraySpec = tuple[tuple[int, ...], str]  # shape, dtype
ABANDONED_AFTER_S = 60  # a process has locked what it builds by then


def cache_dir() -> pathlib.Path:
    """Returns the cache directory: `$FSQ_REPRO_CACHE`, else `~/.cache/fsq_repro`."""
    return pathlib.Path(os.environ.get("FSQ_REPRO_CACHE") or "~/.cache/fsq_repro").expanduser()


def fingerprint(*values: Any) -> str:
    """Twelve hexadecimal digits that change when one of the JSON-serialisable values does."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def cached_arrays(
    name: str, key: Mapping[str, Any], specs: Mapping[str, ArraySpec], fill: Callable[[dict[str, np.ndarray]], None]
) -> dict[str, np.ndarray]:
    """Returns read-only memory-mapped arrays, building them if this key was never built, or its files are damaged.

    The arrays of one key live in one directory, `name` and a hash. It is filled under a temporary name and renamed when
    complete, so a reader never sees half a data set, and of two processes that build at once the first to finish wins
    and the other takes its files. All room on the disk is taken before `fill` is called: a full disk ends a process
    that writes to mapped memory without a word. What a killed process left behind is deleted by the next build.

    Args:
      key: JSON-serialisable; determines every byte that `fill` writes, a version among it.
      specs: shape and dtype of each array.

    Raises ValueError where the cache directory cannot be written or has too little room.
    """
    root = cache_dir()
    final = root / f"{name}-{fingerprint(key, specs)}"
    if arrays := _load(final, specs):
        return arrays
    allocated = False
    try:
        _delete_abandoned(final)
        with atomic_directory(final) as partial, _locked(partial):
            arrays = _allocate(partial, specs)
            allocated = True
            fill(arrays)
            for array in arrays.values():
                array.flush()
    except OSError as e:
        if not allocated:
            size = sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in specs.values())
            raise ValueError(
                f"the cache {printable(root)} cannot take {size / 1e6:,.1f} MB of {name} ({e.strerror}): make room "
                "there, or set FSQ_REPRO_CACHE to another folder."
            ) from e
        if not final.is_dir():  # else another process was faster
            raise
    return _load(final, specs)


def _load(folder: pathlib.Path, specs: Mapping[str, ArraySpec]) -> dict[str, np.ndarray]:
    """The arrays in a folder; nothing where it is missing or damaged, and then deleted."""
    if not folder.is_dir():
        return {}
    try:
        arrays = {field: np.load(folder / f"{field}.npy", mmap_mode="r") for field in specs}
        if all((arrays[f].shape, arrays[f].dtype) == (shape, dtype) for f, (shape, dtype) in specs.items()):
            return arrays
    except PermissionError as e:
        raise ValueError(f"the cache {printable(folder)} cannot be read: {e.strerror}.") from e
    except (OSError, ValueError, EOFError, SyntaxError):
        pass  # an empty, cut or foreign file
    log.warning("%s is damaged and made again", folder)
    shutil.rmtree(folder, ignore_errors=True)
    return {}


def _allocate(folder: pathlib.Path, specs: Mapping[str, ArraySpec]) -> dict[str, np.ndarray]:
    """Writable memory-mapped arrays in new files, with their room on the disk; OSError where there is too little."""
    arrays = {}
    for field, (shape, dtype) in specs.items():
        file = folder / f"{field}.npy"
        arrays[field] = np.lib.format.open_memmap(file, mode="w+", shape=shape, dtype=dtype)
        size = file.stat().st_size
        check_room(folder, size)
        if hasattr(os, "posix_fallocate"):  # not on macOS
            with open(file, "r+b") as f:
                os.posix_fallocate(f.fileno(), 0, size)
    return arrays


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
    """Marks a folder as one that a living process fills; where a file system has no locks, nothing is deleted."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _delete_abandoned(final: pathlib.Path) -> None:
    """Deletes what killed processes left of earlier builds: they keep the disk full."""
    for partial in final.parent.glob(f".{final.name}.*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(partial, os.O_RDONLY)
            try:
                if time.time() - partial.stat().st_mtime > ABANDONED_AFTER_S:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(partial)
            finally:
                os.close(descriptor)
