"""Files and directories that appear complete or not at all, and the check of a path that will be written."""

import contextlib
import errno
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

MAX_QUOTED = 400  # characters


def printable(path: str | os.PathLike) -> str:
    r"""A path as text that any terminal and file takes: bytes of a name that are no UTF-8 are shown as \xNN."""
    return os.fspath(path).encode(errors="surrogateescape").decode(errors="backslashreplace")


def in_one_line(text: object) -> str:
    """What a file or an error says, as a part of a sentence: in one line, printable, and short."""
    plain = "".join(c if c.isprintable() else " " for c in str(text))
    return " ".join(plain.split())[:MAX_QUOTED].rstrip(".") or type(text).__name__


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path` (same suffix) that replaces `path` when the block ends without an error.

    Missing parent folders are made, and `~` is the user's home. After an error `path` is as it was and the temporary
    file is gone.
    """
    path = pathlib.Path(path).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.stem[:50]}.", suffix=path.suffix, dir=path.parent)
    os.close(descriptor)
    temporary = pathlib.Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp makes files that only their owner can read
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """As `atomic_path`, for a directory; OSError where `path` is there already and not empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_room(folder: pathlib.Path, num_bytes: int) -> None:
    """OSError (ENOSPC) where the disk of an existing folder has less than this free."""
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        needs = f"{os.strerror(errno.ENOSPC)}: {num_bytes / 1e6:,.1f} MB are needed and {free / 1e6:,.1f} MB free"
        raise OSError(errno.ENOSPC, needs, str(folder))


def check_output(path: str | os.PathLike, *, is_folder: bool = False) -> None:
    """Finds out, before the work for it is done, whether a file or folder can be written; ValueError with the reason.

    A temporary file is made in the folder where the first missing one would be, and is gone again: permissions alone
    do not tell of a read-only disk. Nothing else is written.
    """
    path = pathlib.Path(path).expanduser()
    kind, start = ("folder", path) if is_folder else ("file", path.parent)
    nearest = next(p for p in (start, *start.absolute().parents) if os.path.lexists(p))
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.stat(path)  # tells of names that are too long, and of links in a circle
        if path.exists() and not (path.is_dir() if is_folder else path.is_file()):
            what = "a folder" if path.is_dir() else "a file" if path.is_file() else "a device"
            raise ValueError(f"it must be a {kind} or a name that is free, and is {what}")
        with tempfile.NamedTemporaryFile(prefix=".check.", dir=nearest):
            pass
    except OSError as e:
        raise ValueError(f"no {kind} can be written in {printable(nearest)} ({e.strerror})") from e
