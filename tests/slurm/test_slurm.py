"""A sweep on a real SLURM of one node; tests/slurm/start.sh installs and starts one."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from fsq_repro.sweeps.launch import queued_jobs, slurm_executor, submit
from tests.sweeps.test_launch import events, fake_task

ROOT = pathlib.Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def slurm():
    if shutil.which("sbatch") is None or subprocess.run(["scontrol", "ping"], capture_output=True).returncode:
        pytest.skip("no SLURM answers here: tests/slurm/start.sh starts one")


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, subprocess.run(["squeue"], capture_output=True, text=True).stdout
        time.sleep(0.5)


@pytest.fixture
def in_root(monkeypatch):
    """Jobs import this package from the folder that they were submitted in."""
    monkeypatch.chdir(ROOT)


def test_dependencies_failure_and_preemption(tmp_path, in_root):
    """Stage II waits, also while its stage I is preempted; behind a failed stage I it is removed."""
    workdir = tmp_path / "runs"
    tasks = [
        fake_task(workdir, "a/seed0", steps="until_stopped"),
        fake_task(workdir, "broken/seed0"),
        fake_task(workdir, "a_2/seed0", ("a/seed0",)),
        fake_task(workdir, "broken_2/seed0", ("broken/seed0",)),
    ]
    executor = slurm_executor(workdir / "slurm", {"time": "30", "cpus_per_task": "1"}, name="test")
    jobs, _ = submit(tasks, executor, queued_jobs())
    assert jobs["a/seed0"].endswith("_0") and jobs["broken/seed0"].endswith("_1")
    assert submit(tasks, executor, queued_jobs())[0]["a_2/seed0"] == jobs["a_2/seed0"]  # it is in the queue

    wait_for((tmp_path / "runs" / "a" / "seed0" / "pids.json").exists, 300)
    subprocess.run(["scancel", "--signal=USR2", jobs["a/seed0"]], check=True)  # as SLURM does before it preempts
    wait_for(lambda: not queued_jobs() & set(jobs.values()), 600)

    starts = [int(e.split()[2]) for e in events(workdir) if e.startswith("start a ")]
    assert len(starts) == 2 and 0 == starts[0] < starts[1]
    order = [e for e in events(workdir) if "broken" not in e]
    assert order[2:] == ["evaluated a", "start a_2 0", "evaluated a_2"]
    assert [e for e in events(workdir) if "broken" in e] == ["start broken 0"]


def test_a_job_that_slurm_requeues_by_itself_resumes(tmp_path, in_root):
    """`scontrol requeue` is what preemption without a signal of its own does: SIGTERM, then SIGKILL."""
    workdir = tmp_path / "runs"
    task = fake_task(workdir, "a/seed0", steps="until_stopped")
    executor = slurm_executor(workdir / "slurm", {"time": "30"}, name="test")
    jobs, _ = submit([task], executor, queued_jobs())
    wait_for((task.path / "pids.json").exists, 300)
    subprocess.run(["scontrol", "requeue", jobs["a/seed0"]], check=True)
    wait_for(lambda: not queued_jobs() & set(jobs.values()), 600)
    starts = [int(e.split()[2]) for e in events(workdir) if e.startswith("start a ")]
    assert len(starts) == 2 and 0 == starts[0] < starts[1] and events(workdir)[-1] == "evaluated a"


def test_a_cancelled_job_does_not_come_back(tmp_path, in_root):
    workdir = tmp_path / "runs"
    task = fake_task(workdir, "a/seed0", steps="until_stopped")
    executor = slurm_executor(workdir / "slurm", {"time": "30"}, name="test")
    jobs, _ = submit([task], executor, queued_jobs())
    wait_for((task.path / "pids.json").exists, 300)
    subprocess.run(["scancel", jobs["a/seed0"]], check=True)
    wait_for(lambda: not queued_jobs() & set(jobs.values()), 120)
    time.sleep(10)
    assert not queued_jobs() & set(jobs.values()) and len(events(workdir)) == 1


def test_the_script_trains_and_evaluates_both_stages(tmp_path):
    sweep = tmp_path / "one_point.py"
    sweep.write_text(
        "from fsq_repro.sweeps.sweep import Run\n"
        "ARG = 'quantizer=fsq,bits=8,scale=smoke'\n"
        "def get_runs(arg):\n"
        "    return [\n"
        "        Run('fsq', 'configs/tradeoff_autoencoder.py', ARG),\n"
        "        Run('fsq_maskgit', 'configs/tradeoff_maskgit.py', ARG, inputs={'stage1': 'fsq'}),\n"
        "    ]\n"
    )
    command = [sys.executable, "scripts/sweep.py", f"--sweep={sweep}", f"--workdir={tmp_path / 'runs'}"]
    command += ["--launcher=slurm", "--slurm=time=60", "--slurm=cpus_per_task=2", "--set=eval.batch_size=16"]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(ROOT / ".jax_cache")}
    first = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert first.returncode == 0 and "2 runs are in SLURM's queue" in first.stdout, first.stderr
    jobs = set(json.loads((tmp_path / "runs" / "slurm" / "jobs.json").read_text()).values())
    wait_for(lambda: not queued_jobs() & jobs, 1800)
    for name, metric in (("fsq", "usage"), ("fsq_maskgit", "sampling_fd")):
        record = json.loads((tmp_path / "runs" / name / "seed0" / "record.json").read_text())
        assert record["status"] == "finished" and metric in {m["metric"] for m in record["metrics"]}, record
        config = json.loads((tmp_path / "runs" / name / "seed0" / "config.json").read_text())["config"]
        assert config["eval"]["batch_size"] == 16
    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "0 runs are in SLURM's queue, 2 were evaluated before" in again.stdout
