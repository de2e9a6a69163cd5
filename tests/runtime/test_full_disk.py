"""A full disk ends a run in one sentence and leaves its checkpoints as they were."""

import errno
import os
import shutil
import sys
from collections import namedtuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import app

from fsq_repro.runtime import cli
from fsq_repro.runtime.checkpoints import Checkpoints

Usage = namedtuple("Usage", "total used free")


def iterator():
    return iter(grain.MapDataset.range(8).repeat().to_iter_dataset())


def test_a_checkpoint_is_not_begun_where_it_has_no_room(tmp_path, monkeypatch):
    state, data = {"x": jnp.arange(500_000.0), "key": jax.random.key(0)}, iterator()
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, state, data)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - 5 * 10**6, 5 * 10**6))
    with pytest.raises(OSError, match=r"5.0 MB are needed and 5.0 MB free") as e:
        checkpoints.save(2, state, data)
    assert e.value.errno == errno.ENOSPC and e.value.filename == str(tmp_path / "checkpoints")
    assert sorted(tmp_path.rglob("*")) == before and checkpoints.steps == [1]
    np.testing.assert_array_equal(checkpoints.restore(state)["x"], state["x"])
    monkeypatch.undo()
    checkpoints.save(2, state, data)
    assert checkpoints.steps == [1, 2]


def test_what_a_killed_save_left_is_deleted(tmp_path):
    state, directory = {"x": jnp.arange(5.0)}, tmp_path / "checkpoints"
    checkpoints = Checkpoints(directory)
    checkpoints.save(1, state, iterator())
    checkpoints.close()
    shutil.copytree(directory / "1", directory / "2.orbax-checkpoint-tmp")
    Checkpoints(directory, create=False).close()  # who only reads deletes nothing
    assert (directory / "2.orbax-checkpoint-tmp").exists()
    Checkpoints(directory).close()
    assert [p.name for p in directory.iterdir() if p.is_dir()] == ["1"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES])
def test_scripts_say_it_in_one_sentence(number, tmp_path, monkeypatch, capsys):
    def main():
        raise OSError(number, os.strerror(number), str(tmp_path / "file"))

    monkeypatch.setattr(sys, "argv", ["scripts/any.py"])
    monkeypatch.setattr(app, "run", lambda guarded, flags_parser: guarded(flags_parser(sys.argv)))
    if number == errno.EACCES:
        with pytest.raises(PermissionError):
            cli.run(main)
        return
    with pytest.raises(SystemExit) as e:
        cli.run(main)
    assert e.value.code == 2
    sentence = f"error: {os.strerror(number)} ({tmp_path}/file); make room and start the same command again\n"
    assert capsys.readouterr().err == sentence
