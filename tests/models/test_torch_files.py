"""State dicts read without PyTorch: files of torch.save, files written here byte by byte, and what is refused."""

import dataclasses
import hashlib
import io
import pathlib
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from fsq_repro.models.torch_files import STORAGE_DTYPES, read_state_dict
from tests.golden.make_inception import example_state

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
SYSTEM = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


@dataclasses.dataclass(frozen=True)
class Name:
    """A module's attribute, as a pickle names it."""

    module: str
    name: str

    def __call__(self):
        """Never called; pickle wants it of what rebuilds an object."""


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """A view of a flat array, as torch pickles it."""

    storage: np.ndarray
    offset: int
    shape: tuple
    strides: tuple


class TorchPickler(pickle._Pickler):
    """Pickles names without importing them, and `Tensor`s as torch pickles tensors."""

    dispatch = dict(pickle._Pickler.dispatch)

    def __init__(self, file, view_metadata):
        super().__init__(file, protocol=2)
        self.view_metadata, self.storages = view_metadata, []

    def save_name(self, obj):
        self.write(f"c{obj.module}\n{obj.name}\n".encode())

    dispatch[Name] = save_name

    def reducer_override(self, obj):
        if not isinstance(obj, Tensor):
            return NotImplemented
        arguments = (obj.storage, obj.offset, obj.shape, obj.strides, False, OrderedDict())
        return Name("torch._utils", "_rebuild_tensor_v2"), arguments

    def persistent_id(self, obj):
        if not isinstance(obj, np.ndarray):
            return None
        if not any(obj is storage for storage in self.storages):
            self.storages.append(obj)
        key = str(next(i for i, storage in enumerate(self.storages) if obj is storage))
        kind = next(name for name, dtype in STORAGE_DTYPES.items() if dtype == obj.dtype.name)
        return ("storage", Name("torch", kind), key, "cpu", obj.size, *self.view_metadata)


def pickled(state, view_metadata=()):
    """(pickle, storages) of an object; arrays in a dict become tensors."""
    if isinstance(state, dict):
        state = OrderedDict(
            (k, Tensor(x.reshape(-1), 0, x.shape, tuple(s // x.itemsize for s in np.ascontiguousarray(x).strides)))
            if isinstance(x, np.ndarray)
            else (k, x)
            for k, x in state.items()
        )
    file = io.BytesIO()
    pickler = TorchPickler(file, view_metadata)
    pickler.dump(state)
    return file.getvalue(), pickler.storages


def write_zip(path, state, **others):
    """Writes what torch.save writes; `others` are further files of the archive, by name."""
    content, storages = pickled(state)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        for i, storage in enumerate(storages):
            archive.writestr(f"archive/data/{i}", storage.tobytes())
        for name, text in others.items():
            archive.writestr(f"archive/{name}", text)
    return path


def write_legacy(path, state):
    """Writes what torch.save wrote before 1.6."""
    content, storages = pickled(state, view_metadata=(None,))
    with open(path, "wb") as file:
        file.write(b"".join(pickle.dumps(x, protocol=2) for x in (MAGIC, PROTOCOL, SYSTEM)) + content)
        file.write(pickle.dumps([str(i) for i in range(len(storages))], protocol=2))
        for storage in storages:
            file.write(struct.pack("<q", storage.size) + storage.tobytes())
    return path


WRITERS = pytest.mark.parametrize("write", [write_zip, write_legacy])


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_files_of_torch_give_every_kind_of_tensor(form):
    file = GOLDEN / f"inception_example_{form}.pth"
    arrays, sha256 = read_state_dict(file)
    expected = example_state()
    assert list(arrays) == list(expected)
    for name, x in expected.items():
        assert arrays[name].dtype == x.dtype and arrays[name].shape == x.shape, name
        np.testing.assert_array_equal(arrays[name], x, err_msg=name)
    assert np.shares_memory(arrays["contiguous"], arrays["window"])
    assert sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert "torch" not in sys.modules


@WRITERS
def test_every_dtype_returns_as_it_was_written(write, tmp_path):
    rng = np.random.default_rng(0)
    state = {dtype: rng.integers(0, 2, (3, 5)).astype(dtype) for dtype in STORAGE_DTYPES.values()}
    arrays, _ = read_state_dict(write(tmp_path / "x.pth", state))
    for dtype, x in state.items():
        assert arrays[dtype].dtype == dtype
        np.testing.assert_array_equal(arrays[dtype], x)


@WRITERS
def test_offsets_and_strides_are_honoured(write, tmp_path):
    """By hand: 0 .. 11 from 1 on with strides (4, 2) is [[1, 3], [5, 7]]."""
    flat = np.arange(12, dtype=np.float32)
    state = {
        "window": Tensor(flat, 1, (2, 2), (4, 2)),
        "same": Tensor(flat, 0, (2,), (0,)),
        "end": Tensor(flat, 11, (), ()),
    }
    arrays, _ = read_state_dict(write(tmp_path / "x.pth", state))
    np.testing.assert_array_equal(arrays["window"], [[1, 3], [5, 7]])
    np.testing.assert_array_equal(arrays["same"], [0, 0])
    assert arrays["end"] == 11
    with pytest.raises(ValueError, match="read-only"):
        arrays["window"][0, 0] = 2


def test_big_endian_archives_are_read(tmp_path):
    file = write_zip(tmp_path / "x.pth", {"x": np.array([0.5, 1.5, 2.5], ">f4")}, byteorder="big")
    x = read_state_dict(file)[0]["x"]
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, [0.5, 1.5, 2.5])


@WRITERS
@pytest.mark.parametrize(
    "tensor",
    [
        Tensor(np.zeros(4, np.float32), 1, (2, 2), (2, 1)),  # one number too far
        Tensor(np.zeros(4, np.float32), -1, (2,), (1,)),
        Tensor(np.zeros(4, np.float32), 3, (2,), (-1,)),
        Tensor(np.zeros(4, np.float32), 0, (10**12,), (1,)),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(write, tensor, tmp_path):
    with pytest.raises(ValueError, match=r"x.pth has x of shape .* does not fit into a storage of 4 numbers\.$"):
        read_state_dict(write(tmp_path / "x.pth", {"x": tensor}))


@WRITERS
@pytest.mark.parametrize(
    "state, message",
    [
        ({"x": Name("posix", "system")}, "asks for posix.system, but only tensors in a dict may be in it"),
        ({"x": Name("torch._utils", "_rebuild_qtensor")}, "asks for torch._utils._rebuild_qtensor, but only tensors"),
        ({"x": Name("torch", "BFloat16Storage")}, "asks for torch.BFloat16Storage"),
        (
            {"state_dict": {"x": 1}, "epoch": 3},
            "holds 'state_dict', which is no tensor, but must hold a dict of tensors",
        ),
        ({"x": np.zeros(3, np.float32), "lr": 0.1}, "holds 'lr', which is no tensor"),
        ({"x": Tensor([1, 2], 0, (2,), (1,))}, "holds 'x', which is no tensor"),
        ([1, 2], "holds a list, but must hold a dict of tensors"),
    ],
)
def test_anything_but_tensors_is_refused(write, state, message, tmp_path):
    with pytest.raises(ValueError, match=f"^The weight file .*x.pth {message}"):
        read_state_dict(write(tmp_path / "x.pth", state))


@WRITERS
def test_code_in_a_pickle_is_never_run(write, tmp_path):
    class Attack:
        def __reduce__(self):
            return Name("posix", "system"), (f"touch {tmp_path}/ran",)

    with pytest.raises(ValueError, match=r"asks for posix.system"):
        read_state_dict(write(tmp_path / "x.pth", {"x": Attack()}))
    assert not (tmp_path / "ran").exists()


@WRITERS
def test_a_truncated_file_ends_in_one_sentence_wherever_it_is_cut(write, tmp_path):
    """Never an array from half a file; a legacy file cut within its magic number is not known as one."""
    whole = write(tmp_path / "x.pth", {"x": np.arange(40, dtype=np.float32), "y": np.arange(3)}).read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        with pytest.raises(
            ValueError, match=r"^The weight file .*cut.pth is (truncated or damaged \(|not a PyTorch file)"
        ):
            read_state_dict(tmp_path / "cut.pth")


@WRITERS
def test_damaged_bytes_give_arrays_or_one_sentence(write, tmp_path):
    """Whatever byte is changed: no other kind of error comes out."""
    whole = write(tmp_path / "x.pth", {"x": np.arange(4, dtype=np.float32)}).read_bytes()
    for i in range(len(whole)):
        (tmp_path / "bad.pth").write_bytes(whole[:i] + bytes([whole[i] ^ 0x55]) + whole[i + 1 :])
        try:
            arrays, _ = read_state_dict(tmp_path / "bad.pth")
        except ValueError as e:
            assert str(e).startswith("The weight file ")
        else:
            assert all(isinstance(x, np.ndarray) for x in arrays.values())


def test_foreign_and_missing_files_end_in_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no weight file at ''"):
        read_state_dict("")
    (tmp_path / "page.html").write_text("<html>")
    with pytest.raises(ValueError, match="page.html is not a PyTorch file: it begins as neither of the two formats"):
        read_state_dict(tmp_path / "page.html")
    np.savez(tmp_path / "x.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="x.npz is a zip archive with 0 files data.pkl, but torch.save writes one"):
        read_state_dict(tmp_path / "x.npz")


def test_storages_of_another_length_or_type_are_refused(tmp_path):
    file = write_zip(tmp_path / "x.pth", {"x": np.zeros(3, np.float32)})
    with zipfile.ZipFile(file) as archive:
        content = archive.read("archive/data.pkl")
    with zipfile.ZipFile(tmp_path / "short.pth", "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/data/0", b"\0" * 8)
    with pytest.raises(ValueError, match="should have 3 numbers of type float32 in archive/data/0, but has not"):
        read_state_dict(tmp_path / "short.pth")

    whole = write_legacy(tmp_path / "x.pth", {"x": np.zeros(3, np.float32)}).read_bytes()
    (tmp_path / "long.pth").write_bytes(whole[:-20] + struct.pack("<q", 4) + bytes(16))
    with pytest.raises(ValueError, match="should have 3 numbers in storage 0, but has 4"):
        read_state_dict(tmp_path / "long.pth")
    (tmp_path / "new.pth").write_bytes(whole.replace(pickle.dumps(PROTOCOL, 2), pickle.dumps(1002, 2), 1))
    with pytest.raises(ValueError, match="has the format's protocol 1002, but must have 1001"):
        read_state_dict(tmp_path / "new.pth")


@pytest.mark.parametrize(
    "pid, message",
    [
        (("module", "f4"), "names a storage in a way that torch.save does not"),
        (("storage", "float32", "0", "cpu", 3, ("1", 0, 3)), "names a storage in a way"),  # a view, before torch 0.4
        (("storage", "object", "0", "cpu", 3), "names storage 0 as 3 numbers of type object, which it cannot be"),
        (("storage", "float32", "0", "cpu", -1), "names storage 0 as -1 numbers"),
    ],
)
def test_storages_named_otherwise_are_refused(pid, message, tmp_path):
    file = io.BytesIO()
    pickler = pickle._Pickler(file, protocol=2)
    pickler.persistent_id = lambda obj: pid if obj is Ellipsis else None
    pickler.dump({"x": Ellipsis})
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("archive/data.pkl", file.getvalue())
    with pytest.raises(ValueError, match=f"x.pth {message}"):
        read_state_dict(tmp_path / "x.pth")
