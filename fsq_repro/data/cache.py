"""Data sets made on first use: written once to the cache directory as `.npy` files, memory-mapped ever after."""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from absl import logging

from fsq_repro.files import atomic_directory

ArraySpec = tuple[tuple[int, ...], str]  # shape, dtype


def cache_dir() -> pathlib.Path:
    """Returns the cache directory: `$FSQ_REPRO_CACHE`, else `~/.cache/fsq_repro`."""
    return pathlib.Path(os.environ.get("FSQ_REPRO_CACHE") or "~/.cache/fsq_repro").expanduser()


def fingerprint(*values: Any) -> str:
    """Twelve hexadecimal digits that change when one of the JSON-serialisable values does."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def cached_arrays(
    name: str, key: Mapping[str, Any], specs: Mapping[str, ArraySpec], fill: Callable[[dict[str, np.ndarray]], None]
) -> dict[str, np.ndarray]:
    """Returns read-only memory-mapped arrays, building them if this key was never built.

    The arrays of one key live in one directory, `name` and a hash. It is filled under a temporary name and renamed when
    complete, so a reader never sees half a data set, and of two processes that build at once the first to finish wins
    and the other takes its files. The JSON-serialisable `key` determines every byte that `fill` writes, a version among
    it; `specs` have shape and dtype of each array.
    """
    root = cache_dir()
    final = root / f"{name}-{fingerprint(key, specs)}"
    if not final.is_dir():
        logging.info("Building %s in %s (once)", name, root)
        try:
            with atomic_directory(final) as partial:
                arrays = {
                    field: np.lib.format.open_memmap(partial / f"{field}.npy", mode="w+", shape=shape, dtype=dtype)
                    for field, (shape, dtype) in specs.items()
                }
                fill(arrays)
                for array in arrays.values():
                    array.flush()
        except OSError:
            if not final.is_dir():
                raise
    return {field: np.load(final / f"{field}.npy", mmap_mode="r") for field in specs}
