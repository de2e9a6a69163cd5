"""The lock of a run directory: who holds it is named, and the dead do not hold it."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from fsq_repro.errors import UserError
from fsq_repro.runtime.run_lock import run_lock

# Holds the lock, starts a process that lives on, and waits.
HOLDER = """
import pathlib, subprocess, sys
from fsq_repro.runtime.run_lock import run_lock
with run_lock(pathlib.Path(sys.argv[1]), "training"):
    print(subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL).pid, flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_told_of_the_first(tmp_path):
    run = tmp_path / "new"
    sentence = rf"new is in use: process {os.getpid()} on {socket.gethostname()} is training it; wait for it"
    for _ in range(2):  # it can be taken again
        with run_lock(run, "training"), pytest.raises(UserError, match=sentence), run_lock(run, "evaluating"):
            pytest.fail("two hold it")
    with pytest.raises(KeyError), run_lock(run, "training"):
        raise KeyError
    with run_lock(run, "evaluating"), run_lock(tmp_path, "training"):  # another directory
        pass
    assert not (run / "lock").exists()


def test_a_lock_on_a_file_that_is_gone_does_not_count(tmp_path, monkeypatch):
    """The holder removes it between the other's opening and locking it."""
    flock, opened = fcntl.flock, []

    def remove_first(file, how):
        opened.append(file)
        if len(opened) == 1:
            (tmp_path / "lock").unlink()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with run_lock(tmp_path, "training"):
        assert len(opened) == 2 and opened[0].closed
        with pytest.raises(UserError, match="is in use"), run_lock(tmp_path, "training"):
            pytest.fail("two hold it")


@pytest.mark.parametrize("place, reason", [("file/run", "Not a directory"), ("file", "File exists")])
def test_a_directory_that_cannot_be_written_is_one_sentence(tmp_path, place, reason):
    (tmp_path / "file").touch()
    sentence = f"^the run directory .*{place} cannot be written: {reason}$"
    with pytest.raises(UserError, match=sentence), run_lock(tmp_path / place, "training"):
        pytest.fail("there is no directory")


def test_a_killed_process_holds_nothing_even_if_its_children_live(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    child = int(holder.stdout.readline())
    try:
        with pytest.raises(UserError, match=f"process {holder.pid} on"), run_lock(tmp_path, "evaluating"):
            pytest.fail("two hold it")
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
        with run_lock(tmp_path, "training"):
            assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    finally:
        os.kill(child, signal.SIGKILL)
