"""Readers of files that others made, each as a target for fuzzing: it takes a file's bytes and keeps to its promise.

The promise: a file is read, or refused by a ValueError of one sentence; no code of it is run. What a target raises
besides is a finding.
"""

import io
import pathlib
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable

import numpy as np

from fsq_repro.conversion.weight_files import locate, read_arrays
from fsq_repro.data.image_reader import read_image
from fsq_repro.metrics.image_sets import NpzImages
from fsq_repro.metrics.lossless_coder import LosslessCoder
from fsq_repro.metrics.reference_statistics import holds_statistics, read_reference
from fsq_repro.metrics.table import MetricKey
from fsq_repro.models.torch_files import read_state_dict
from fsq_repro.reporting.records import load_records

LONGEST = 1000  # characters of a sentence, without the file's name
ACTIONS = ("os.", "shutil.", "socket.", "subprocess.", "ctypes.", "pickle.find_class", "winreg.")  # as audited
HARMLESS = ("os.listdir", "os.scandir", "os.putenv")
_FOLDER = tempfile.TemporaryDirectory(prefix="fuzz.", dir="/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None)
FILE = pathlib.Path(_FOLDER.name) / "x"
RUN = pathlib.Path(_FOLDER.name) / "run"
RUN.mkdir()
_reading = False


class Finding(Exception):
    """A promise was broken."""


def _audit(event: str, _: tuple) -> None:
    if _reading and event.startswith(ACTIONS) and event not in HARMLESS:
        raise Finding(f"a reader caused {event}")


sys.addaudithook(_audit)


def run(name: str, content: bytes) -> str | None:
    """Gives a target the bytes; returns the sentence of a refusal, None where the file was read."""
    global _reading
    _reading = True
    try:
        TARGETS[name](content)
    except ValueError as e:
        sentence = str(e).replace(str(FILE), "x")
        if not sentence.isprintable() or not 10 <= len(sentence) <= LONGEST:
            raise Finding(f"{len(sentence)} characters, one sentence was wanted: {sentence[:2000]!r}") from e
        return sentence
    finally:
        _reading = False
    return None


def _torch(content: bytes) -> None:
    """A .pth file."""
    FILE.write_bytes(content)
    arrays, _ = read_state_dict(FILE)
    for x in arrays.values():
        if x.size > len(content):
            raise Finding(f"an array of {x.size} elements came from {len(content)} bytes")
        x.tobytes()


def _torch_pickle(content: bytes) -> None:
    """The pickle of a .pth file; the archive around it is whole, and has two storages."""
    _torch(zipped({"a/data.pkl": content, "a/data/0": bytes(16), "a/data/1": bytes(8)}))


def _weights(content: bytes) -> None:
    """A file of weights in msgpack, or an .npz file."""
    FILE.write_bytes(content)
    arrays, _ = read_arrays(FILE)
    locate(arrays, {"layer/kernel": np.zeros((2, 3), np.float32), "layer/bias": np.zeros(3, np.float32)})


def _npz(content: bytes) -> None:
    """An .npz file where statistics or images are wanted."""
    FILE.write_bytes(content)
    if holds_statistics(FILE):
        read_reference(FILE)
    else:
        for batch in NpzImages(FILE).batches(4):
            assert batch.dtype == np.uint8 and batch.shape[3] == 3


def _npy(content: bytes) -> None:
    """An array in a whole .npz file: as images, as statistics, as weights."""
    refusals = []
    for members in ({"arr_0.npy": content}, {"mu.npy": content, "sigma.npy": content}):
        for read in (_npz, _weights):
            try:
                read(zipped(members))
            except ValueError as e:
                refusals.append(e)
    if refusals:
        raise max(refusals, key=lambda e: len(str(e)))


def _image(content: bytes) -> None:
    """An image of any kind."""
    FILE.write_bytes(content)
    image = read_image(FILE)
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


def _logits(tokens_BxS: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
    return np.sin(np.cumsum(tokens_BxS, 1)[..., None] + labels_B[:, None, None] + np.arange(5.0)).astype(np.float32)


CODER = LosslessCoder(_logits, groups=(np.array([0, 2]), np.array([1, 3])), mask_id=5, batch_size=2)
LABELS = np.arange(3, dtype=np.int32)


def _coder(content: bytes) -> None:
    """A stream of the lossless coder: what is decoded from it is what it was made of."""
    words = np.frombuffer(content[: len(content) // 4 * 4], "<u4")
    tokens_NxS = CODER.decode(words, LABELS, 4)
    assert tokens_NxS.shape == (3, 4) and tokens_NxS.min() >= 0 and tokens_NxS.max() < 5


def _record(content: bytes) -> None:
    """A run's record.json; a refused one is told in a warning, which is raised here."""
    (RUN / "record.json").write_bytes(content)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        records = load_records(RUN)
    for record in records:
        hash(record.setting), str(record.setting), record.bits, record.measured(MetricKey("psnr"))
    if told:
        raise ValueError(str(told[-1].message).replace(str(RUN), ""))
    assert records


TARGETS: dict[str, Callable[[bytes], None]] = {
    "torch": _torch,
    "torch_pickle": _torch_pickle,
    "weights": _weights,
    "npz": _npz,
    "npy": _npy,
    "image": _image,
    "coder": _coder,
    "record": _record,
}


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()
