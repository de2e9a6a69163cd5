"""One process at a time works on a run directory: a second trainer would write into the first one's checkpoints.

The lock belongs to the open file `lock`, so that a process that died, however, does not hold it.
"""

import contextlib
import fcntl
import json
import logging
import os
import pathlib
import socket
from collections.abc import Iterator
from typing import TextIO

from fsq_repro.errors import UserError

log = logging.getLogger(__name__)


@contextlib.contextmanager
def run_lock(path: pathlib.Path, doing: str) -> Iterator[None]:
    """Holds the lock of a run directory, which is made if it is missing; to be taken by one process of several.

    Args:
      path: the run directory.
      doing: what another process is told that this one does with it: "training" or "evaluating".

    Raises UserError where another process holds it, with that one's host and id, or the directory cannot be written.
    """
    with _locked(path) as file:
        json.dump({"host": socket.gethostname(), "pid": os.getpid(), "doing": doing}, file)
        file.flush()
        try:
            yield
        finally:
            (path / "lock").unlink(missing_ok=True)


def _locked(path: pathlib.Path) -> TextIO:
    """The open file, emptied, with its lock; the lock is let go when the file is closed."""
    while True:
        try:
            path.mkdir(parents=True, exist_ok=True)
            file = open(path / "lock", "a")  # noqa: SIM115 (closed by the caller)
        except OSError as e:
            raise UserError(f"the run directory {path} cannot be written: {e.strerror}") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise UserError(f"{path} is in use: {_holder(path)}; wait for it, or end it first") from None
        except OSError as e:  # a file system without locks
            log.warning("%s cannot be locked (%s): see to it that no other process trains it", path, e.strerror)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path / "lock")):
                file.truncate(0)  # of what a killed process wrote
                return file
        file.close()  # it was removed between `open` and `flock`, by the process that held it


def _holder(path: pathlib.Path) -> str:
    try:
        found = json.loads((path / "lock").read_text())
        return f"process {found['pid']} on {found['host']} is {found['doing']} it"
    except (OSError, ValueError, KeyError):  # it has just come, or just gone
        return "another process has just started on it, or ended"
