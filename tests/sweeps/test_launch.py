"""SLURM jobs of a sweep, with submitit's local executor and with a stand-in for sbatch; see also tests/slurm."""

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest
import submitit
from ml_collections import ConfigDict

from fsq_repro.errors import UserError
from fsq_repro.runtime.run_dir import RunDir
from fsq_repro.sweeps import launch
from fsq_repro.sweeps.launch import Job, slurm_executor, submit
from fsq_repro.sweeps.sweep import Task

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Counts steps; as the training loop, saves and ends with code 130 after SIGTERM, and goes on from what was saved. Ends
# with the second argument or, where that is "until_stopped", with the first SIGTERM, and a little later when resumed.
FAKE_TRAIN = """
import json, os, pathlib, signal, sys, time
path = pathlib.Path(sys.argv[1])
path.mkdir(parents=True, exist_ok=True)
stopping = []
signal.signal(signal.SIGTERM, lambda *_: stopping.append(1))
saved = path / "checkpoint"
step = int(saved.read_text()) if saved.exists() else 0
steps = int(sys.argv[2]) if sys.argv[2] != "until_stopped" else step + 5 if step else 60_000
with open(path.parent.parent / "events.txt", "a") as events:
    print("start", path.parent.name, step, file=events)
(path / "pids.json").write_text(json.dumps([os.getpid(), os.getppid()]))
while step < steps:
    time.sleep(0.02)
    step += 1
    if stopping:
        saved.write_text(str(step))
        sys.exit(130)
if path.parent.name == "broken":
    sys.exit("out of luck")
(path / "record.json").write_text(json.dumps({"status": "finished", "metrics": []}))
"""
FAKE_EVALUATE = """
import json, os, pathlib, sys
path = pathlib.Path(sys.argv[1])
assert os.environ["JAX_NUM_PROCESSES"] == "1"
with open(path.parent.parent / "events.txt", "a") as events:
    print("evaluated", path.parent.name, file=events)
(path / "record.json").write_text(json.dumps({"status": "finished", "metrics": [{"metric": "usage"}]}))
"""


def fake_task(workdir: pathlib.Path, name: str, needs: tuple[str, ...] = (), *, steps: int | str = 1) -> Task:
    workdir.mkdir(exist_ok=True)
    (workdir / "train.py").write_text(FAKE_TRAIN)
    (workdir / "evaluate.py").write_text(FAKE_EVALUATE)
    path = workdir / name
    train = (str(workdir / "train.py"), str(path), str(steps))
    return Task(name, path, needs, train, (str(workdir / "evaluate.py"), str(path)), ConfigDict({"steps": 1}))


def set_evaluated(task: Task) -> None:
    (task.path / "checkpoints" / "1").mkdir(parents=True)
    (task.path / "record.json").write_text(json.dumps({"status": "finished", "metrics": [{"metric": "usage"}]}))


def events(workdir: pathlib.Path) -> list[str]:
    return (workdir / "events.txt").read_text().splitlines()


class OneAfterAnother(submitit.LocalExecutor):
    """submitit's local executor with SLURM's `afterok`: waits for those jobs, and starts nothing if one failed."""

    def _internal_process_submissions(self, submissions):
        self.jobs = getattr(self, "jobs", {})
        dependency = self.parameters.get("dependency") or "afterok"
        for job_id in dependency.split(":")[1:]:
            self.jobs[job_id].wait()
            if self.jobs[job_id].exception() is not None:
                return [submitit.LocalJob(self.folder, f"removed_{id(s)}") for s in submissions]
        started = super()._internal_process_submissions(submissions)
        self.jobs |= {job.job_id: job for job in started}
        return started


@pytest.fixture
def in_root(monkeypatch):
    """Jobs import this package from the folder that they are started in."""
    monkeypatch.chdir(ROOT)


def test_stage2_starts_after_its_stage1_and_not_at_all_after_a_failed_one(tmp_path, in_root):
    workdir = tmp_path / "runs"
    tasks = [
        fake_task(workdir, "a/seed0", steps=30),
        fake_task(workdir, "broken/seed0"),
        fake_task(workdir, "a_2/seed0", ("a/seed0",)),
        fake_task(workdir, "broken_2/seed0", ("broken/seed0",)),
    ]
    executor = OneAfterAnother(workdir / "slurm")
    jobs, _ = submit(tasks, executor, set())
    assert json.loads((workdir / "slurm" / "jobs.json").read_text()) == jobs and len(jobs) == 4
    executor.jobs[jobs["a_2/seed0"]].wait()
    a, a_2 = events(workdir).index("evaluated a"), events(workdir).index("start a_2 0")
    assert a < a_2 and "evaluated a_2" in events(workdir)
    assert not any("broken_2" in e or "evaluated broken" in e for e in events(workdir))
    assert "failed with exit code 1" in str(executor.jobs[jobs["broken/seed0"]].exception())


def test_a_preempted_job_saves_goes_back_into_the_queue_and_resumes(tmp_path, in_root):
    workdir = tmp_path / "runs"
    task = fake_task(workdir, "a/seed0", steps="until_stopped")
    executor = submitit.LocalExecutor(workdir / "slurm")
    (job,) = executor.submit_array([Job(task, ())])
    deadline = time.monotonic() + 300
    while not (pids := task.path / "pids.json").exists() or not pids.read_text():
        assert time.monotonic() < deadline and not job.done()
        time.sleep(0.05)
    script, parent = json.loads(pids.read_text())
    for pid in (script, parent):  # SLURM signals all processes of a job
        os.kill(pid, launch.REQUEUE_SIGNAL)
    job.wait()
    assert job.exception() is None
    starts = [int(e.split()[2]) for e in events(workdir) if e.startswith("start")]
    assert len(starts) == 2 and 0 == starts[0] < starts[1]
    assert events(workdir).count("evaluated a") == 1


def test_a_job_whose_script_slurm_stopped_waits_to_be_killed(tmp_path, monkeypatch):
    """SIGTERM without the requeue signal: a job that ended would count as failed, before SLURM requeues it."""
    monkeypatch.setattr(launch, "STOPPED_WAIT_S", 0.5)
    monkeypatch.setattr(launch, "ROOT", tmp_path)
    for script in ("import sys; sys.exit(130)", "import os; os.kill(os.getpid(), 15)"):
        (tmp_path / "stopped.py").write_text(script)
        started = time.monotonic()
        with pytest.raises(RuntimeError, match="stopped.py of a/seed0 failed"):
            Job(Task("a/seed0", tmp_path, (), ("stopped.py",), ("stopped.py",), ConfigDict()), ())()
        assert time.monotonic() - started >= 0.5


def test_a_job_refuses_to_start_before_what_it_needs(tmp_path):
    needed, task = fake_task(tmp_path / "runs", "a/seed0"), fake_task(tmp_path / "runs", "b/seed0", ("a/seed0",))
    with pytest.raises(RuntimeError, match="b/seed0 is left out: .*a/seed0 is not ready, it has not been trained"):
        Job(task, (needed,))()
    assert not task.path.exists()


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """Stand-ins for SLURM's commands: sbatch keeps what it is given as 1.sh, 2.sh, ... and answers with the number."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sbatch").write_text(
        f"#!/bin/sh\nn=$(($(ls {folder} | grep -c '^[0-9]*[.]sh$') + 1))\n"
        f"cp $1 {folder}/$n.sh\necho Submitted batch job $n\n"
    )
    (folder / "srun").write_text("")
    for file in folder.iterdir():
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return lambda n: (folder / f"{n}.sh").read_text() if (folder / f"{n}.sh").exists() else None


def test_arrays_and_dependencies_that_sbatch_gets(tmp_path, sbatch):
    """One array of what can start, one of each group that waits for the same; without what is evaluated or queued."""
    workdir = tmp_path / "runs"
    tasks = [fake_task(workdir, f"{name}/seed0") for name in ("done", "queued", "a", "b")]
    tasks += [
        fake_task(workdir, f"{name}_2/seed{seed}", (f"{name}/seed0",))
        for name, seed in (("done", 0), ("queued", 0), ("a", 0), ("b", 0), ("b", 1))
    ]
    set_evaluated(tasks[0])
    settings = {"time": "90", "partition": "gpu", "setup": "['module load cuda']", "gpus_per_node": "8"}
    executor = slurm_executor(workdir / "slurm", settings, name="tradeoff")
    (workdir / "slurm").mkdir()
    (workdir / "slurm" / "jobs.json").write_text(
        json.dumps({"queued/seed0": "77_3", "a/seed0": "66", "old/seed0": "5"})
    )
    jobs, refused = submit(tasks, executor, queued={"77_3"})
    assert not refused and jobs == {
        "queued/seed0": "77_3",
        "a/seed0": "1_0",
        "b/seed0": "1_1",
        "done_2/seed0": "1_2",
        "queued_2/seed0": "2",
        "a_2/seed0": "3",
        "b_2/seed0": "4_0",
        "b_2/seed1": "4_1",
    }
    assert "--array=0-2%3" in sbatch(1) and "--dependency" not in sbatch(1)
    for n, dependency in ((2, "afterok:77_3"), (3, "afterok:1_0"), (4, "afterok:1_1")):
        assert f"#SBATCH --dependency={dependency}\n" in sbatch(n)
        assert ("--array" in sbatch(n)) == (n == 4)
    for n in (1, 2, 3, 4):
        for line in ("--time=90", "--partition=gpu", "--gpus-per-node=8", "--job-name=tradeoff", "--requeue"):
            assert f"#SBATCH {line}\n" in sbatch(n)
        assert "--kill-on-invalid-dep=yes" in sbatch(n) and "\nmodule load cuda\n" in sbatch(n)
    assert json.loads((workdir / "slurm" / "jobs.json").read_text()) == jobs | {"old/seed0": "5"}
    assert submit(tasks, executor, queued=set(jobs.values())) == (jobs, {}) and sbatch(5) is None


def test_runs_trained_otherwise_and_what_needs_them_are_not_submitted(tmp_path, sbatch):
    """The others are; a run whose config asks for more is submitted again."""
    workdir = tmp_path / "runs"
    tasks = [fake_task(workdir, f"{name}/seed0") for name in ("bad", "longer", "done")]
    tasks += [fake_task(workdir, f"{name}_2/seed0", (f"{name}/seed0",)) for name in ("bad", "longer")]
    tasks.append(fake_task(workdir, "bad_3/seed0", ("bad_2/seed0",)))
    for task, config in zip(tasks, ({"steps": 1, "rate": 2}, {"steps": 0}, {"steps": 1}), strict=False):
        set_evaluated(task)
        RunDir(task.path).write_config(ConfigDict(config | {"optimizer": {"schedule": "constant"}}))
        task.config.update({"optimizer": {"schedule": "constant"}})
    (workdir / "longer" / "seed0" / "checkpoints" / "1").rmdir()
    jobs, refused = submit(tasks, slurm_executor(workdir / "slurm", {"time": "60"}, name="s"), queued=set())
    assert jobs == {"longer/seed0": "1", "longer_2/seed0": "2"}
    assert refused.keys() == {"bad/seed0", "bad_2/seed0", "bad_3/seed0"}
    assert "(rate: 2 -> None)" in refused["bad/seed0"] and refused["bad_3/seed0"] == "it needs bad_2/seed0"


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"time": "60", "partitoin": "gpu"}, "--slurm=partitoin=gpu is not .* choose from account, .* wckey"),
        ({"time": "60", "dependency": "singleton"}, "--slurm=dependency=singleton is not"),
        ({"partition": "gpu"}, "--slurm=time=None: .* minutes"),
        ({"time": "1-00:00:00"}, "--slurm=time=1-00:00:00: .* minutes"),
        ({"time": "60", "additional_parameters": "reservation"}, "not a Python dict"),
    ],
)
def test_bad_parameters_of_jobs(tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        slurm_executor(tmp_path / "slurm", settings, name="s")
    assert not (tmp_path / "slurm").exists()


def test_no_slurm_here_and_jobs_that_sbatch_refuses(tmp_path, monkeypatch, sbatch):
    executor = slurm_executor(tmp_path / "slurm", {"time": "60"}, name="s")
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/sh\necho invalid partition: gpu >&2\nexit 1\n")
    with pytest.raises(UserError, match="sbatch refused the jobs of a/seed0: .*invalid partition"):
        submit([fake_task(tmp_path / "runs", "a/seed0")], executor, set())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no srun here"):
        slurm_executor(tmp_path / "slurm", {"time": "60"}, name="s")


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--set=evol.inception=x", "the config of run fsq_8/seed0 has no field 'evol'"),
        ("--set=batch_size=many", "batch_size=many"),
        ("--set=batch_size", "--set=batch_size is not KEY=VALUE"),
        ("--slurm=time=60", "--slurm=time=60 is for --launcher=slurm"),
    ],
)
def test_the_script_refuses_before_anything_starts(tmp_path, flag, message):
    command = ["scripts/sweep.py", "--sweep=configs/sweeps/tradeoff.py:scale=smoke", f"--workdir={tmp_path / 'runs'}"]
    done = subprocess.run([sys.executable, *command, flag], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "runs").exists()


def test_only_the_launcher_for_slurm_needs_submitit(tmp_path):
    without = "import runpy, sys; sys.modules['submitit'] = None; sys.argv = sys.argv[1:]; "
    without += "runpy.run_path(sys.argv[0], run_name='__main__')"
    sweep = "--sweep=configs/sweeps/tradeoff.py:scale=smoke"
    command = [sys.executable, "-c", without, "scripts/sweep.py", sweep, f"--workdir={tmp_path / 'runs'}"]
    for flag, message in (("--only=none", "matches no run"), ("--launcher=slurm", "not installed, submitit")):
        done = subprocess.run([*command, flag], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 2 and message in done.stderr, done.stderr
