"""A signal to a sweep ends its scripts, which save first; the same sweep goes on afterwards."""

import os
import signal
import threading
import time

import pytest
from ml_collections import ConfigDict

from fsq_repro.sweeps import sweep
from fsq_repro.sweeps.sweep import Task

# In a trainer's place: sleeps, saves and leaves after a signal; what was saved ends at once.
SLEEPER = """
import json, pathlib, signal, sys, time
path, stopping = pathlib.Path(sys.argv[1]), []
signal.signal(signal.SIGTERM, lambda *_: stopping.append(1))
(path / "started").touch()
saved = path / "saved"
while not stopping and not saved.exists():
    time.sleep(0.01)
if stopping:
    time.sleep(0.2)
    saved.touch()
    sys.exit(130)
(path / "record.json").write_text(json.dumps({"status": "finished", "metrics": []}))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_children_end_with_the_sweep_and_resume_with_it(tmp_path, monkeypatch, capsys, number):
    (tmp_path / "sleep.py").write_text(SLEEPER)
    monkeypatch.setattr(sweep, "ROOT", tmp_path)
    paths = [tmp_path / name for name in "abc"]
    tasks = [Task(path.name, path, (), ("sleep.py", str(path)), (), ConfigDict({"steps": 1})) for path in paths]
    before = signal.getsignal(number)

    def stop_when_two_run() -> None:
        deadline = time.monotonic() + 60
        while not all((path / "started").exists() for path in paths[:2]) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=stop_when_two_run)
    thread.start()
    words = "stopped by a signal; 3 runs are left, and the same command continues with them"
    with pytest.raises(sweep.Stopped, match=words):
        sweep.run_sweep(tasks, on_finished=lambda path: None, parallel=2)
    thread.join()
    # They had the time to save, the third never started, and nothing is said to have failed.
    assert [sorted(p.name for p in path.iterdir()) for path in paths[:2]] == [["log.txt", "saved", "started"]] * 2
    assert not paths[2].exists() and "FAILED" not in capsys.readouterr().out
    assert signal.getsignal(number) == before
    paths[2].mkdir()
    (paths[2] / "saved").touch()
    assert sweep.run_sweep(tasks, on_finished=lambda path: None, parallel=2) == []


def test_a_signal_before_a_script_starts_keeps_it_from_starting(tmp_path):
    with sweep.Children() as children:
        os.kill(os.getpid(), signal.SIGTERM)
        assert children.stopped
        assert not children.run(["nothing.py"], tmp_path, tmp_path / "log.txt", {}, "")
    assert not (tmp_path / "log.txt").exists()
