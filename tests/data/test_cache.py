import multiprocessing
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
