"""Every cache on a disk that is too small: one sentence before anything is computed, nothing left, all else intact."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections import namedtuple

import pytest

from fsq_repro.data import cache, photos, scenes
from fsq_repro.data.folder import Folder
from fsq_repro.data.photos import Photos
from fsq_repro.data.scenes import Scenes
from fsq_repro.data.tokens import encode_source
from tests.data.image_files import drawn, save
from tests.tiny import NoiseSource


def never(*_, **__):
    raise AssertionError("something was computed before the disk was asked")


def open_folder(tmp_path):
    for i in range(30):
        save(tmp_path / "pictures" / f"{i}.png", drawn(i, 40, 40))
    return Folder(tmp_path / "pictures", "train")


def encode(_):
    options = {"tokenizer": "a", "num_tokens": 4096, "resolution": 16, "mirrored": True, "batch_size": 8}
    return encode_source(NoiseSource(20), never, **options)


CACHES = {  # what makes each, and how it is called in the message
    "photos": (lambda _: Photos("test", 32), "photos-test-32px"),
    "scenes": (lambda _: Scenes("test", 32), "scenes-test-32px"),
    "folder": (open_folder, "folder-train"),
    "tokens": (encode, "tokens-noise-train"),
}


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("FSQ_REPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(photos, "draw_box", never)
    monkeypatch.setattr(scenes, "make_scene", never)
    return tmp_path


def no_long_files(_):
    """The kernel refuses files above 10 kB, as it refuses those that find no room."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    return "File too large"


def no_blocks(patch):
    def refuse(descriptor, offset, length):
        if length > 10_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    patch.setattr(os, "posix_fallocate", refuse)
    return "No space left on device"


def little_room(patch):
    Usage = namedtuple("Usage", "total used free")
    patch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12 - 10_000, 10_000))
    return r"No space left on device: \d+.\d MB are needed and 0.0 MB free"


@pytest.mark.parametrize("name", CACHES)
@pytest.mark.parametrize("fill_the_disk", [no_long_files, no_blocks, little_room])
def test_one_sentence_and_nothing_left(root, name, fill_the_disk, monkeypatch):
    earlier = cache.cached_arrays("earlier", {}, {"x": ((10,), "int32")}, lambda a: a["x"].fill(7))["x"]
    before = {p: p.read_bytes() for p in (root / "cache").rglob("*.npy")}
    make, called = CACHES[name]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with monkeypatch.context() as patch:
        try:
            reason = fill_the_disk(patch)
            with pytest.raises(ValueError, match=rf"/cache cannot take \d+.\d MB of {called} \({reason}\): make room"):
                make(root)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {p: p.read_bytes() for p in (root / "cache").rglob("*.npy")} == before and (earlier == 7).all()
    assert [p.name for p in (root / "cache").iterdir() if p.is_dir()] == [next(iter(before)).parent.name]


ON_A_SMALL_DISK = """
import os, shutil, sys
from fsq_repro.data import cache

def build(name, count):
    return cache.cached_arrays(name, {}, {"x": ((count,), "uint8")}, lambda arrays: arrays["x"].fill(7))["x"]

if sys.argv[1] != "ask":  # as if another process had taken the room in between
    shutil.disk_usage = lambda _: shutil._ntuple_diskusage(2**62, 0, 2**62)
if sys.argv[1] == "none":
    del os.posix_fallocate
earlier = build("earlier", 300_000)
for _ in range(3):
    try:
        build("large", 900_000)
    except ValueError as e:
        assert "cannot take 0.9 MB of large (No space left on device" in str(e), e
    else:
        raise AssertionError
    assert len(os.listdir(cache.cache_dir())) == 1
assert (earlier == 7).all() and (build("small", 500_000) == 7).all()
"""


@pytest.mark.parametrize("guard", ["ask", "allocate", "none"])
def test_a_disk_of_1_mb(tmp_path, guard):
    """A real one, in a name space of its own; without either guard the process dies of SIGBUS without a word."""
    mount = f"mount -t tmpfs -o size=1m tmpfs {tmp_path} && "
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*unshare, f"{mount} true"], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    run = subprocess.run(
        [*unshare, f"{mount} exec {sys.executable} - {guard}"],
        input=ON_A_SMALL_DISK,
        env=os.environ | {"FSQ_REPRO_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == (-signal.SIGBUS if guard == "none" else 0), run.stderr
