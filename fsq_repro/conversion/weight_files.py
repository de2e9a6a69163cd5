"""Reads files of weights and finds a model's arrays in them by name and shape.

Formats: flax's msgpack (MaskGIT) and `.npz` with names joined by "/" (big_vision). Nothing is unpickled.
"""

import collections
import dataclasses
import hashlib
import os
import pathlib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.serialization import msgpack_restore
from flax.traverse_util import flatten_dict

from fsq_repro.files import in_one_line
from fsq_repro.models.npz_files import npz_names, open_npz, read_array

ZIP_START = b"PK\x03\x04"
NUMBERED = re.compile(r"(.*)_(\d+)", re.DOTALL)
IN_LOWER_CASE = {"Encoder": "encoder", "Decoder": "decoder"}
SHOWN = 3  # names of each kind in an error


def read_arrays(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], str]:
    """Reads an `.npz` file or a checkpoint in flax's msgpack.

    Returns ({name, joined by "/": array}, SHA-256 of the file in hex). What is no array is an object array without
    axes. FileNotFoundError where there is no such file, ValueError for another, truncated or damaged one.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no weight file {path}")
    with open(path, "rb") as f:
        sha256 = hashlib.file_digest(f, "sha256").hexdigest()
        f.seek(0)
        is_zip = f.read(len(ZIP_START)) == ZIP_START
    try:
        if is_zip:
            with open_npz(path) as archive:
                tree = {name: read_array(archive, path, name) for name in npz_names(archive)}
        else:
            tree = msgpack_restore(path.read_bytes())
        if not isinstance(tree, dict):
            raise TypeError(f"it holds a {type(tree).__name__}")
        flat = flatten_dict(tree, sep="/")
    except Exception as e:  # damaged files raise nearly anything
        known = "a truncated or damaged .npz file" if is_zip else "no .npz file and no whole msgpack of flax either"
        raise ValueError(f"the weight file {path} is {known} ({type(e).__name__}: {in_one_line(e)})") from e
    return {name: x if isinstance(x, np.ndarray) else np.array(None) for name, x in flat.items()}, sha256


@dataclasses.dataclass(frozen=True)
class Place:
    """A model's arrays in a file."""

    prefix: str  # what all names have in front, "" or such as "params/"
    names: dict[str, str]  # {published name: name in the file}, of those that are in both
    missing: list[str]  # published names that the file lacks
    surplus: list[str]  # names behind the prefix that are not published ones
    unlike: list[str]  # what is wrong with arrays that have another shape, or no floating-point numbers

    @property
    def fits(self) -> bool:
        return not (self.missing or self.surplus or self.unlike)


def locate(arrays: Mapping[str, Any], wanted: Mapping[str, Any]) -> Place:
    """Finds a model's arrays among those of a file, by today's names or the older ones of `linen_names`.

    Args:
      arrays: {name in the file: anything with shape and dtype}.
      wanted: {published name: anything with shape}; each is there once, and behind the prefix there is no other.

    Raises ValueError where there is no such place, or more than one.
    """
    near = []
    for names in ({name: name for name in arrays}, linen_names(arrays)):
        places = [_place(prefix, names, arrays, wanted) for prefix in _prefixes(names, wanted)]
        fitting = [place for place in places if place.fits]
        if len(fitting) > 1:
            prefixes = ", ".join(repr(place.prefix) for place in fitting)
            raise ValueError(
                f"the model's arrays are there more than once, behind {in_one_line(prefixes)}; keep one of them"
            )
        if fitting:
            return fitting[0]
        near += places
    if not near:
        others = f"{len(arrays)} others ({_first(arrays)})"
        raise ValueError(f"it has none of the model's {len(wanted)} names ({_first(wanted)}), but {others}")
    place = max(near, key=lambda place: len(place.names))
    problems = (
        (f"of {len(wanted)} names missing", place.missing),
        ("surplus", place.surplus),
        ("of another shape or type", place.unlike),
    )
    found = "; ".join(f"{len(items)} {words} ({_first(items)})" for words, items in problems if items)
    raise ValueError(f"behind the prefix {in_one_line(repr(place.prefix))}, {found}")


def linen_names(names: Collection[str]) -> dict[str, str]:
    """{today's name: older name} of parameters with older names; {} where two names would become one.

    Once the modules of one parent were numbered in one sequence, now each kind on its own: what was `LayerNorm_0`,
    `Dense_1`, `LayerNorm_2`, is `LayerNorm_0`, `Dense_0`, `LayerNorm_1`. `Encoder` and `Decoder` begin in lower case.
    """
    numbers = collections.defaultdict(set)  # (parent, kind) -> those of its modules
    for parent, part in {step for name in names for step in _steps(name)}:
        if match := NUMBERED.fullmatch(part):
            numbers[parent, match[1]].add(int(match[2]))

    def renamed(parent: str, part: str) -> str:
        if match := NUMBERED.fullmatch(part):
            return f"{match[1]}_{sorted(numbers[parent, match[1]]).index(int(match[2]))}"
        return IN_LOWER_CASE.get(part, part)

    found = {"/".join(renamed(*step) for step in _steps(name)): name for name in names}
    return found if len(found) == len(names) else {}


def _steps(name: str) -> list[tuple[str, str]]:
    """The parts of a name, each with what stands in front of it."""
    parts = name.split("/")
    return [("/".join(parts[:i]), part) for i, part in enumerate(parts)]


def _prefixes(names: Iterable[str], wanted: Mapping[str, Any]) -> list[str]:
    """All that stands in front of a wanted name."""
    starts = ((name, start) for name in names for start in (0, *(match.end() for match in re.finditer("/", name))))
    return list(dict.fromkeys(name[:start] for name, start in starts if name[start:] in wanted))


def _place(prefix: str, names: Mapping[str, str], arrays: Mapping[str, Any], wanted: Mapping[str, Any]) -> Place:
    behind = {name.removeprefix(prefix): old for name, old in names.items() if name.startswith(prefix)}
    common = {name: behind[name] for name in wanted if name in behind}
    unlike = []
    for name, old in common.items():
        x, shape = arrays[old], tuple(wanted[name].shape)
        if tuple(x.shape) != shape or not jnp.issubdtype(x.dtype, jnp.floating):
            unlike.append(f"{name} is {x.dtype} {tuple(x.shape)} there and {shape} by the config")
    missing = [name for name in wanted if name not in behind]
    return Place(prefix, common, missing, [name for name in behind if name not in wanted], unlike)


def _first(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(in_one_line(name) for name in names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
