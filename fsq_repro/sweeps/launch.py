"""Sweeps on a SLURM cluster: each task of a sweep is a job, submitted through submitit.

Tasks that wait for the same jobs make one job array, such as all of stage I. What needs another task starts after that
one's job succeeded, and SLURM removes it if that one failed. A job that is preempted, or comes to its time limit, saves
a checkpoint, goes back into the queue and resumes. Everything that SLURM and submitit write lies in DIR/slurm.
"""

import ast
import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import submitit
from submitit.core.utils import FailedJobError

from fsq_repro.errors import UserError
from fsq_repro.runtime.run_dir import write_json
from fsq_repro.sweeps.sweep import ROOT, Task, nothing_known, survey
from fsq_repro.sweeps.up_to_date import DataHashes

# SLURM sends it to all processes of a job before it preempts the job or stops it at its time limit.
REQUEUE_SIGNAL = signal.Signals[f"SIG{submitit.JobEnvironment.USR_SIG}"]
# Exit codes after SIGTERM: the training loop saved and left; or there was nothing to save.
STOPPED = (130, -signal.SIGTERM)
STOPPED_WAIT_S = 600.0
# Times that a job goes back into the queue at its time limit: the paper's 1M steps outlive any.
MAX_TIMEOUTS = 100


@dataclasses.dataclass
class Job:
    """A task in its job: submitit calls it, in each process of a job of several; the first of them evaluates."""

    task: Task
    needed: tuple[Task, ...]  # that must have finished first
    _process: subprocess.Popen | None = dataclasses.field(default=None, init=False)

    def __call__(self) -> None:
        """Trains and evaluates; RuntimeError, which fails the job, for a failed script or an unfinished needed task."""
        for needed in self.needed:
            if reason := needed.outdated(nothing_known):
                raise RuntimeError(f"{self.task.name} is left out: {needed.path} is not ready, {reason}")
        self._run(self.task.train, os.environ)
        if self.task.evaluate and submitit.JobEnvironment().global_rank == 0:
            self._run(self.task.evaluate, os.environ | {"JAX_NUM_PROCESSES": "1"})

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Ends the script, which saves first; returns what submitit puts back into the queue: the same commands."""
        if self._process is not None:
            self._process.terminate()
            # Not Popen.wait: this is called by a signal that may have come within one. The script may have ended, too.
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        return submitit.helpers.DelayedSubmission(Job(self.task, self.needed))

    def _run(self, command: tuple[str, ...], environment: dict[str, str]) -> None:
        # The script inherits the blocked signal, which would kill it; what stops it is `checkpoint`'s SIGTERM.
        signal.pthread_sigmask(signal.SIG_BLOCK, {REQUEUE_SIGNAL})
        self._process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {REQUEUE_SIGNAL})
        code = self._process.wait()
        if code in STOPPED:
            # SLURM is about to kill the job, because it was cancelled or preempted, and puts it back into the queue if
            # it was preempted. A job that ends now counts as failed, and what needs it is removed.
            time.sleep(STOPPED_WAIT_S)
        if code:
            raise RuntimeError(f"{command[0]} of {self.task.name} failed with exit code {code}")


def slurm_executor(folder: pathlib.Path, settings: dict[str, str], *, name: str) -> submitit.SlurmExecutor:
    """submitit's executor for SLURM jobs that write into `folder`.

    Args:
      folder: on a file system that the nodes share.
      settings: parameters of submitit's SlurmExecutor -> values: sbatch's options (`partition`, `time` in minutes,
        `gpus_per_node`, ...), `array_parallelism`, `setup`, `signal_delay_s`; any other option of sbatch through
        `additional_parameters="{'reservation': 'x'}"`. Python literals are read as such, the rest as text.
      name: the jobs' name in SLURM's queue.

    UserError for an unknown parameter, no time limit, or a machine without SLURM.
    """
    allowed = sorted(submitit.SlurmExecutor._valid_parameters() - {"dependency"})
    unknown = sorted(settings.keys() - set(allowed))
    if unknown:
        raise UserError(
            f"--slurm={unknown[0]}={settings[unknown[0]]} is not a parameter of the jobs; choose from "
            f"{', '.join(allowed)}"
        )
    parameters = {"job_name": name, "stderr_to_stdout": True} | {k: _literal(v) for k, v in settings.items()}
    limit = parameters.get("time")
    if type(limit) is not int or limit < 1:
        raise UserError(f"--slurm=time={limit}: give the jobs' time limit in minutes, a whole number above 0")
    more = parameters.get("additional_parameters", {})
    if not isinstance(more, dict):
        raise UserError(f"--slurm=additional_parameters={more} is not a Python dict of sbatch options")
    parameters["additional_parameters"] = {"requeue": True, "kill-on-invalid-dep": "yes"} | more
    try:
        executor = submitit.SlurmExecutor(folder, max_num_timeout=MAX_TIMEOUTS)
    except RuntimeError:  # no srun
        raise UserError("--launcher=slurm needs a machine from which SLURM jobs are submitted: no srun here") from None
    executor.update_parameters(**parameters)
    return executor


def queued_jobs() -> set[str]:
    """Ids of this user's jobs that SLURM has not done with; JOB_INDEX for those of an array.

    Raises UserError where SLURM's controller does not answer.
    """
    command = ["squeue", "--me", "--array", "--noheader", "--format=%i"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"the SLURM queue cannot be read: {' '.join(done.stderr.split())}")
    return set(done.stdout.split())


def submit(
    tasks: list[Task], executor: submitit.Executor, queued: set[str], data_hashes: DataHashes = nothing_known
) -> tuple[dict[str, str], dict[str, str]]:
    """Submits the tasks of `sweep.plan` that are neither done nor in the queue; UserError where sbatch refused.

    The folder of `slurm_executor`'s executor keeps the job ids, in jobs.json; `queued` is of `queued_jobs`. Returns
    names of the tasks to be done -> ids of their jobs, and names of those that cannot be -> why: `sweep.survey` refused
    them or what they need.
    """
    record = executor.folder / "jobs.json"
    known = json.loads(record.read_text()) if record.exists() else {}
    by_name = {task.name: task for task in tasks}
    left, refused = survey(tasks, data_hashes)
    for task in tasks:
        if missing := [name for name in task.needs if name in refused]:
            refused.setdefault(task.name, f"it needs {missing[0]}")
    done = by_name.keys() - left.keys() - refused.keys()
    jobs = {name: job for name, job in known.items() if name in left and name not in refused and job in queued}
    todo = [task for task in tasks if task.name not in done | jobs.keys() | refused.keys()]
    while todo:
        arrays: dict[str, list[Task]] = {}  # by what they wait for
        for task in todo:
            needed = [name for name in task.needs if name not in done]
            if all(name in jobs for name in needed):
                arrays.setdefault(":".join(["afterok", *(jobs[name] for name in needed)]), []).append(task)
        for dependency, array in arrays.items():
            executor.update_parameters(dependency=dependency if ":" in dependency else None)
            try:
                submitted = executor.submit_array(
                    [Job(task, tuple(by_name[name] for name in task.needs)) for task in array]
                )
            except FailedJobError as e:
                raise UserError(f"sbatch refused the jobs of {array[0].name}: {' '.join(str(e).split())}") from None
            jobs |= {task.name: job.job_id for task, job in zip(array, submitted, strict=True)}
            write_json(record, known | jobs)
        todo = [task for task in todo if task.name not in jobs]
    return jobs, refused


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
