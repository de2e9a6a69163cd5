"""A training whose disk becomes full: it ends with a sentence, loses no checkpoint, and goes on when there is room.

The run directory lies on a file system of its own in memory (tmpfs), which only root may mount.
"""

import contextlib
import hashlib
import os
import pathlib
import random
import subprocess
import time
from collections.abc import Iterator

from fsq_repro.profiling.torture import Row, Torture, Training, difference, final_state, phase

SIZE = 48 * 2**20  # several times what a run takes


@contextlib.contextmanager
def small_disk(folder: pathlib.Path) -> Iterator[str]:
    """Mounts a small file system on the folder; gives "", or why it could not be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as e:
        yield f"not tried: {e.strerror}: mount"
        return
    if mounted.returncode:
        yield f"not tried, mounting a tmpfs needs root: {' '.join(mounted.stderr.split())}"
        return
    try:
        yield ""
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_disks(torture: Torture, kind: str, folder: pathlib.Path, count: int, seed: int) -> Row:
    """Fills the disk of `count` runs at random moments after their first checkpoint."""
    wanted, (*_, train_s) = torture.unbroken(kind)
    row, moments = Row(kind, "full disk"), random.Random(seed)
    with small_disk(folder / "small_disk") as reason:
        row.note = reason
        while not (row.note or row.problem) and row.during.total() < count:
            row.runs += 1
            run = folder / "small_disk" / f"disk{row.runs}"
            row.problem = _fill_one(row, kind, folder, run, moments.uniform(0, train_s / 2))
            row.problem = row.problem or difference(wanted, final_state(run))
    return row


def _fill_one(row: Row, kind: str, folder: pathlib.Path, run: pathlib.Path, delay: float) -> str:
    """What went wrong, "" if nothing did."""
    ballast = run.parent / "ballast"
    training = Training(kind, folder, run)
    while training.process.poll() is None and not _checkpoints(run):
        time.sleep(0.01)
    time.sleep(delay)
    _fill(ballast)
    before = _checkpoints(run)
    code = training.end()
    if code == 0:  # there was nothing left to write
        ballast.unlink()
        return ""
    row.during[phase(training.output, run)] += 1
    lines = training.output.strip().splitlines()
    if code < 0 or "Traceback" in training.output or not lines[-1].startswith("error: "):
        return f"exit code {code}, not a sentence: {lines[-1]}"
    if lost := [name for name, digest in _newest(before) if _checkpoints(run).get(name, digest) != digest]:
        return f"checkpoint {lost[0]} was changed"
    if not _checkpoints(run):
        return "no checkpoint was left"
    ballast.unlink()
    training = Training(kind, folder, run)
    if code := training.end():
        return f"exit code {code} after there was room: {training.last_line()}"
    row.resumes += "resumed from step" in training.output
    return ""


def _fill(ballast: pathlib.Path) -> None:
    """To the last byte."""
    with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass
        os.fsync(file.fileno())


def _checkpoints(run: pathlib.Path) -> dict[str, str]:
    """{step: digest of all its files} of the complete checkpoints."""
    found = {}
    for path in (run / "checkpoints").glob("[0-9]*"):
        if path.name.isdecimal():
            digest = hashlib.sha256()
            with contextlib.suppress(FileNotFoundError):  # an old one is being deleted
                for file in sorted(path.rglob("*")):
                    digest.update(file.read_bytes() if file.is_file() else b"")
                found[path.name] = digest.hexdigest()
    return found


def _newest(checkpoints: dict[str, str]) -> list[tuple[str, str]]:
    """The one that no save may delete."""
    return sorted(checkpoints.items(), key=lambda item: int(item[0]))[-1:]
