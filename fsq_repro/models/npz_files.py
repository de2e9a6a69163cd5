"""The .npz files that others made: arrays in a zip archive. What is wrong with one is told in one sentence.

Nothing is unpickled. What a file will hold once it is decompressed is known, and limited, before a byte of it is.
"""

import contextlib
import math
import os
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

import numpy as np

from fsq_repro.files import in_one_line, printable

MAX_GROWTH = 20  # a file may decompress to so many times its size,
MAX_SMALL = 2**30  # or to so many bytes


@contextlib.contextmanager
def open_npz(path: str | os.PathLike) -> Iterator[zipfile.ZipFile]:
    """The archive that an .npz file is; what is wrong with the file, now or while it is read, becomes ValueError."""
    try:
        with zipfile.ZipFile(path) as archive:
            size, limit = sum(x.file_size for x in archive.infolist()), MAX_GROWTH * os.path.getsize(path)
            if size > max(limit, MAX_SMALL):
                raise ValueError(
                    f"{printable(path)} would decompress to {size:,} bytes, but must to at most {MAX_GROWTH} times its "
                    f"own size or {MAX_SMALL:,}."
                )
            yield archive
    except (FileNotFoundError, IsADirectoryError) as e:
        raise ValueError(f"there is no file {printable(path)}.") from e
    except ValueError:
        raise
    except Exception as e:  # a damaged archive can raise nearly anything
        raise ValueError(f"{printable(path)} cannot be read as an .npz file: {in_one_line(e)}.") from e


def npz_names(archive: zipfile.ZipFile) -> list[str]:
    """Names of the arrays in an .npz file."""
    return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


@contextlib.contextmanager
def open_array(
    archive: zipfile.ZipFile, path: str | os.PathLike, name: str
) -> Iterator[tuple[tuple[int, ...], bool, np.dtype, IO[bytes]]]:
    """Shape, whether in Fortran order, dtype, and the stream of the values.

    ValueError where the array's header is damaged, tells of more values than there are, or of Python objects.
    """
    with archive.open(f"{name}.npy") as stream:
        try:
            major, minor = np.lib.format.read_magic(stream)
            shape, fortran_order, dtype = getattr(np.lib.format, f"read_array_header_{major}_{minor}")(stream)
            if dtype.hasobject:
                raise ValueError("it holds Python objects")
            found = archive.getinfo(f"{name}.npy").file_size - stream.tell()
            if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > found:
                raise ValueError("it ends before its last value")
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError):
            raise
        except Exception as e:  # NumPy parses the header as Python
            raise ValueError(f"{printable(path)} has no readable array {name}: {in_one_line(e)}.") from e
        yield shape, fortran_order, dtype, stream


def read_array(archive: zipfile.ZipFile, path: str | os.PathLike, name: str) -> np.ndarray:
    """A whole array, read-only; ValueError as of `open_array`."""
    with open_array(archive, path, name) as (shape, fortran_order, dtype, stream):
        return np.ndarray(
            shape, dtype, stream.read(math.prod(shape) * dtype.itemsize), order="F" if fortran_order else "C"
        )
