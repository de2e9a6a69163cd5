"""Dry runs on disk: one file a sweep, one line a dry run, so that a change is seen in a diff."""

import json
import os
import pathlib

from fsq_repro.errors import UserError
from fsq_repro.files import atomic_path


def read(file: str | os.PathLike) -> dict[str, dict]:
    """RUN/LAYOUT -> what `scripts/dry_run.py --json` wrote; {} where there is no file, UserError for a damaged one."""
    path = pathlib.Path(file)
    try:
        return json.loads(path.read_text()) if path.exists() else {}
    except ValueError as e:
        raise UserError(f"{path} is no valid JSON ({e}); delete it, or bring it back from git") from None


def add(file: str | os.PathLike, found: dict[str, dict]) -> None:
    """Puts dry runs into the file, in the place of those of the same names."""
    found = read(file) | found
    lines = [f"{json.dumps(name)}:{json.dumps(found[name], separators=(',', ':'))}" for name in sorted(found)]
    with atomic_path(file) as temporary:
        temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n")
