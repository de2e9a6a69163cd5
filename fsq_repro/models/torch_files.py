"""State dicts of PyTorch, read without PyTorch: the files of `torch.save` as {name: NumPy array}.

Both of torch's formats are read (`torch/serialization.py`): the zip archive (since 1.6) and the older sequence of
pickles with the numbers behind them, in which pytorch-fid's Inception weights are published. A pickle can run any code,
so `tensor_pickle` reads it, with a handful of names that are all harmless. Nothing becomes larger than the file: there
is no compression in it, and no tensor has more elements than the file has bytes.
"""

import hashlib
import io
import math
import os
import pathlib
import pickle
import struct
import zipfile
from typing import Any, NamedTuple

import numpy as np

from fsq_repro.files import in_one_line
from fsq_repro.models import tensor_pickle
from fsq_repro.models.tensor_pickle import Refused, checked_pairs

ZIP_START = b"PK\x03\x04"
LEGACY_START = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # torch's magic number, the first of five pickles
LEGACY_PROTOCOL = 1001
# torch's storage classes -> NumPy's names of their numbers.
STORAGE_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


def read_state_dict(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], str]:
    """Reads a file that `torch.save(module.state_dict(), path)` wrote, in either format.

    Returns ({name: array}, SHA-256 of the file in hex). The arrays have the tensors' shapes and dtypes and are
    read-only; tensors that share memory share it here too.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is not of `torch.save`, is truncated or damaged, or holds anything but a dict of tensors.
    """
    if not pathlib.Path(path).is_file():
        raise FileNotFoundError(f"There is no weight file at {os.fspath(path)!r}.")
    content = pathlib.Path(path).read_bytes()
    try:
        arrays = _read(content)
    except Refused as e:
        raise ValueError(f"The weight file {path} {in_one_line(e)}.") from None
    except Exception as e:  # a damaged pickle or archive can raise nearly anything
        detail = f"{type(e).__name__}: {in_one_line(e)}"
        raise ValueError(f"The weight file {path} is truncated or damaged ({detail}).") from e
    return arrays, hashlib.sha256(content).hexdigest()


class _Storage(NamedTuple):
    """Numbers that lie elsewhere in the file, under a key."""

    dtype: str  # NumPy's name
    key: str
    count: int


class _Tensor(NamedTuple):
    """A view of a storage; offset and strides count elements. Nothing here has been checked yet."""

    storage: Any
    offset: Any
    shape: Any
    strides: Any


FUNCTIONS = {
    ("collections", "OrderedDict"): lambda pairs=(): dict(checked_pairs(pairs)),  # Python 2 gives it pairs
    # What follows the data: requires_grad, backward_hooks and, since torch 2.1, metadata.
    ("torch._utils", "_rebuild_tensor_v2"): lambda storage, offset, size, stride, *_: _Tensor(
        storage, offset, size, stride
    ),
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    **{("torch", name): dtype for name, dtype in STORAGE_DTYPES.items()},
}


class _Storages(dict[str, _Storage]):
    """Those that a pickle names, by their keys."""

    def add(self, pid: Any) -> _Storage:
        match pid:
            # The archive's five fields, or the older format's six, whose last once told views of storages.
            case ("storage", str(dtype), str(key), _, int(count), *rest) if rest in ([], [None]):
                storage = _Storage(dtype, key, count)
            case _:
                raise Refused("names a storage in a way that torch.save does not")
        if dtype not in STORAGE_DTYPES.values() or count < 0 or self.setdefault(key, storage) != storage:
            raise Refused(f"names storage {key} as {count} numbers of type {dtype}, which it cannot be")
        return storage


def _read(content: bytes) -> dict[str, np.ndarray]:
    if content.startswith(ZIP_START):
        state, numbers = _read_zip(content)
    elif content.startswith(LEGACY_START):
        state, numbers = _read_legacy(content)
    else:
        raise Refused("is not a PyTorch file: it begins as neither of the two formats of torch.save")
    if not isinstance(state, dict):
        raise Refused(f"holds a {type(state).__name__}, but must hold a dict of tensors")
    for name, tensor in state.items():
        if not (isinstance(name, str) and isinstance(tensor, _Tensor) and isinstance(tensor.storage, _Storage)):
            raise Refused(f"holds {str(name)!r}, which is no tensor, but must hold a dict of tensors")
    most = len(content)
    return {name: _view(name, tensor, numbers[tensor.storage.key], most) for name, tensor in state.items()}


def _read_zip(content: bytes) -> tuple[Any, dict[str, np.ndarray]]:
    """Returns (the unpickled object, {storage key: its numbers (count,)}) of an archive.

    It has one folder with `data.pkl`, the storages `data/KEY` and, since torch 2.1, `byteorder`.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise Refused("is a compressed zip archive, but torch.save does not compress")
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise Refused(f"is a zip archive with {len(pickles)} files data.pkl, but torch.save writes one")
        folder = pickles[0].removesuffix("data.pkl")
        storages = _Storages()
        state = tensor_pickle.load(io.BytesIO(archive.read(pickles[0])), FUNCTIONS, storages.add)
        if sum(s.count * np.dtype(s.dtype).itemsize for s in storages.values()) > len(content):
            raise Refused("names storages that are larger than the whole file")
        order = archive.read(f"{folder}byteorder") if f"{folder}byteorder" in names else b"little"
        numbers = {}
        for key, storage in storages.items():
            file, dtype = f"{folder}data/{key}", np.dtype(storage.dtype)
            if archive.getinfo(file).file_size != storage.count * dtype.itemsize:
                raise Refused(f"should have {storage.count} numbers of type {dtype} in {file}, but has not")
            stored = np.frombuffer(archive.read(file), dtype.newbyteorder({b"little": "<", b"big": ">"}[order]))
            numbers[key] = stored.astype(dtype, copy=False)  # to this machine's byte order
    return state, numbers


def _read_legacy(content: bytes) -> tuple[Any, dict[str, np.ndarray]]:
    """As `_read_zip`, of the older format.

    Five pickles (magic number, protocol, system, object, storage keys), then for each key the count as int64 and the
    numbers, little-endian on every machine.
    """
    file = io.BytesIO(content)
    storages = _Storages()
    _magic, protocol, _system, state, keys = (tensor_pickle.load(file, FUNCTIONS, storages.add) for _ in range(5))
    if not isinstance(protocol, int) or protocol != LEGACY_PROTOCOL:
        raise Refused(f"has the format's protocol {protocol!r}, but must have {LEGACY_PROTOCOL}")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or len(set(keys)) < len(keys):
        raise Refused("has no list of its storages behind its tensors")
    numbers = {}
    for key in keys:
        storage = storages[key]
        (count,) = struct.unpack("<q", file.read(8))
        if count != storage.count:
            raise Refused(f"should have {storage.count} numbers in storage {key}, but has {count}")
        dtype = np.dtype(storage.dtype).newbyteorder("<")
        stored = np.frombuffer(content, dtype, count, offset=file.tell())
        numbers[key] = stored.astype(storage.dtype, copy=False)
        file.seek(stored.nbytes, io.SEEK_CUR)
    return state, numbers


def _view(name: str, tensor: _Tensor, numbers: np.ndarray, most: int) -> np.ndarray:
    """The tensor as a read-only view of its storage (count,); by strides of 0 it may have more elements, but `most`."""
    offset, shape, strides = tensor.offset, tuple(tensor.shape), tuple(tensor.strides)
    if not all(isinstance(number, int) for number in (offset, *shape, *strides)):
        raise Refused(f"has {name} with a shape, strides or an offset that are no whole numbers")
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if min((offset, *shape, *strides)) < 0 or (0 not in shape and last >= len(numbers)) or math.prod(shape) > most:
        raise Refused(
            f"has {name} of shape {shape}, strides {strides} and offset {offset}, which does not fit into a storage of "
            f"{len(numbers)} numbers"
        )
    byte_strides = [stride * numbers.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(numbers[offset:], shape, byte_strides, writeable=False)
