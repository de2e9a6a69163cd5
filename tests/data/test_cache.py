import multiprocessing
import os
import pathlib
import time

import numpy as np
import pytest

from fsq_repro.data import cache

SPECS = {"x": ((4, 3), "int32"), "y": ((4,), "float32")}


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv("FSQ_REPRO_CACHE", str(tmp_path))  # processes that are started have it too
    return tmp_path


def fill(arrays):
    arrays["x"][:] = np.arange(12).reshape(4, 3)
    arrays["y"][:] = 0.5


def build_slowly(barrier, value):
    """Both processes are inside their build before either ends it."""

    def fill_slowly(arrays):
        barrier.wait(20)
        arrays["x"][:] = value
        time.sleep(0.1)

    arrays = cache.cached_arrays("set", {"version": 1}, {"x": ((1000,), "int64")}, fill_slowly)
    assert len(np.unique(arrays["x"])) == 1  # the winner's files, whole


def test_builds_once_and_maps_the_files(directory):
    calls = []
    for _ in range(2):
        arrays = cache.cached_arrays("set", {"v": 1}, SPECS, lambda a: (calls.append(1), fill(a)))
        assert isinstance(arrays["x"], np.memmap) and not arrays["x"].flags.writeable
        np.testing.assert_array_equal(arrays["x"], np.arange(12).reshape(4, 3))
    assert calls == [1]
    cache.cached_arrays("set", {"v": 2}, SPECS, lambda a: (calls.append(1), fill(a)))
    assert calls == [1, 1]


def test_an_interrupted_build_leaves_nothing(directory):
    def fail(arrays):
        fill(arrays)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.cached_arrays("set", {"v": 1}, SPECS, fail)
    assert not list(directory.iterdir())
    np.testing.assert_array_equal(cache.cached_arrays("set", {"v": 1}, SPECS, fill)["y"], 0.5)


def test_two_processes_may_build_at_once(directory):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    processes = [context.Process(target=build_slowly, args=(barrier, value)) for value in (1, 2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert len(list(directory.iterdir())) == 1


def test_cache_dir(monkeypatch):
    monkeypatch.setenv("FSQ_REPRO_CACHE", "/somewhere")
    assert cache.cache_dir() == pathlib.Path("/somewhere")
    monkeypatch.delenv("FSQ_REPRO_CACHE")
    monkeypatch.setenv("HOME", "/home/me")
    assert cache.cache_dir() == pathlib.Path("/home/me/.cache/fsq_repro")


def damage(file, how):
    content = file.read_bytes()
    file.write_bytes({"empty": b"", "cut": content[:-1], "header": content[:20], "foreign": b"\0" * len(content)}[how])


@pytest.mark.parametrize("how", ["empty", "cut", "header", "foreign", "missing", "of another shape"])
def test_damaged_files_are_made_again(directory, how, caplog):
    cache.cached_arrays("set", {"v": 1}, SPECS, fill)
    (file,) = directory.rglob("y.npy")
    if how == "missing":
        file.unlink()
    elif how == "of another shape":
        np.save(file, np.zeros(3, np.float32))
    else:
        damage(file, how)
    arrays = cache.cached_arrays("set", {"v": 1}, SPECS, fill)
    np.testing.assert_array_equal(arrays["y"], np.full(4, 0.5, np.float32))
    np.testing.assert_array_equal(arrays["x"], np.arange(12).reshape(4, 3))
    assert f"{file.parent} is damaged and made again" in caplog.text and len(list(directory.iterdir())) == 1


def test_what_killed_processes_left_is_deleted_and_living_ones_keep_theirs(directory, monkeypatch):
    final = directory / f"set-{cache.fingerprint({'v': 1}, SPECS)}"
    abandoned, fresh, living = (directory / f".{final.name}.{name}" for name in ("abandoned", "fresh", "living"))
    other = directory / ".set-of-another-key.x"
    for folder in (abandoned, fresh, living, other):
        folder.mkdir()
        (folder / "x.npy").write_bytes(b"half")
        os.utime(folder, (0, time.time() - (0 if folder == fresh else 2 * cache.ABANDONED_AFTER_S)))
    with cache._locked(living):
        cache.cached_arrays("set", {"v": 1}, SPECS, fill)
    assert {p.name for p in directory.iterdir()} == {final.name, fresh.name, living.name, other.name}


def test_a_cache_in_a_place_that_cannot_be_written(directory, monkeypatch):
    (directory / "file").write_text("")
    monkeypatch.setenv("FSQ_REPRO_CACHE", str(directory / "file" / "cache"))
    with pytest.raises(
        ValueError, match=r"file/cache cannot take 0.0 MB of set \(Not a directory\): make room there, or"
    ):
        cache.cached_arrays("set", {"v": 1}, SPECS, fill)


def test_an_error_of_what_fills_the_arrays_is_its_own(directory):
    def fail(arrays):
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        cache.cached_arrays("set", {"v": 1}, SPECS, fail)
    assert not list(directory.iterdir())
