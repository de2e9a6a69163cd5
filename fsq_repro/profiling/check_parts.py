"""Parts of a check in processes of their own: one that breaks or hangs spoils neither the others nor what it had found.

A part prints its row of the table as it grows; the last counts.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Row = dict[str, Any]

MARK = "row: "


def emit(rows: Iterable[Row]) -> None:
    """Prints a row as it grows, for `run_part` to read."""
    for row in rows:
        print(MARK + json.dumps(row), flush=True)


def run_part(part: str, command: Sequence[str], seconds: float, environment: Mapping[str, str]) -> Row:
    """Runs a command for at most `seconds`; returns its last row.

    Where it broke or ran out of time the row says why in `failed`, unless it does already; what the command printed
    about that goes to our own standard error.
    """
    if seconds <= 0:
        return {"failed": f"{part}: not run, no time was left"}
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, env=environment)
        printed, errors = done.stdout, done.stderr
        reason = f"exit code {done.returncode}: {_last_line(errors)}" if done.returncode else ""
    except subprocess.TimeoutExpired as e:
        printed, errors, reason = e.stdout or b"", e.stderr or b"", f"stopped after {seconds:.0f} s, no time was left"
    lines = printed.decode(errors="replace").split("\n")
    rows = [json.loads(line[len(MARK) :]) for line in lines if line.startswith(MARK)]
    reason = reason or ("" if rows else "it printed no row")
    row = ({"failed": f"{part}: {reason}"} if reason else {}) | (rows[-1] if rows else {})
    if "failed" in row:
        sys.stderr.write(errors.decode(errors="replace"))
    return row


def run_until_it_fits(run: Callable[[int], Row]) -> Row:
    """Runs with the config's batch (0), and as long as the row says `out_of_memory` with a smaller one.

    The row's batch_size is halved once, and more often where its program_bytes, halved with it, would not be below its
    limit_bytes. `too_large` in the result lists the batches that did not fit.
    """
    batch_size, too_large = 0, []
    while True:
        row = run(batch_size)
        if not row.get("out_of_memory") or row["batch_size"] == 1:
            return row | {"too_large": too_large}
        too_large.append(row["batch_size"])
        batch_size, needed = row["batch_size"] // 2, (row.get("program_bytes") or 0) / 2
        while batch_size > 1 and needed > (row.get("limit_bytes") or float("inf")):
            batch_size, needed = batch_size // 2, needed / 2


def _last_line(text: bytes) -> str:
    lines = [line.strip() for line in text.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""
