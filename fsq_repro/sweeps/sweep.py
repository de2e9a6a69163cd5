"""Sweeps: a list of runs, each trained and evaluated in processes of its own.

A sweep file offers `get_runs(arg) -> list[Run]`. Run `name` with seed K lies in DIR/name/seedK. Finished runs are
skipped, an interrupted one resumes, a failed one is named at the end while the others go on. `run_sweep` launches on
this machine, `launch.submit` on a SLURM cluster.
"""

import concurrent.futures
import contextlib
import dataclasses
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

from absl import flags
from ml_collections import ConfigDict, config_flags

from fsq_repro.errors import UserError, explained

ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Run:
    """One point of a sweep.

    `inputs`: config fields -> runs that must have finished first and whose directories, of the same seed, the fields
    get (stage II's `stage1`).
    """

    name: str  # folder and name in tables
    config: str  # config file, from the repository's root
    arg: str = ""  # the part behind the colon
    overrides: dict[str, str] = dataclasses.field(default_factory=dict)  # config fields -> values
    inputs: dict[str, str] = dataclasses.field(default_factory=dict)
    one_seed: bool = False  # trained with seed 0 alone, which then serves the runs of all seeds that need it
    evaluate: bool = True  # on the test split; a trial of a search is judged by its last check on validation


def load_runs(sweep: str) -> list[Run]:
    """Runs of FILE:ARG, each behind those that it needs.

    Raises UserError for no such file, an argument that the file refuses, or a run behind one that does not exist.
    """
    file, _, arg = sweep.partition(":")
    path = pathlib.Path(file)
    if not path.is_file():
        raise UserError(f"sweep file {file} does not exist; see configs/sweeps/")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with explained():
        runs = module.get_runs(arg)
    names = [r.name for r in runs]
    for i, run in enumerate(runs):
        if names.index(run.name) != i or not set(run.inputs.values()) <= set(names[:i]):
            raise UserError(f"sweep {file}: run {run.name!r} is there twice, or stands before one of {run.inputs}")
    return runs


def select_runs(runs: list[Run], only: str) -> list[Run]:
    """The runs whose whole name the regular expression `only` matches, and those that they need; in order.

    Raises UserError for no regular expression, or one that no name matches.
    """
    try:
        wanted = {run.name for run in runs if re.fullmatch(only, run.name)}
    except re.error as e:
        raise UserError(f"--only={only!r} is no regular expression: {e}") from e
    if not wanted:
        raise UserError(f"--only={only!r} matches no run of {', '.join(run.name for run in runs)}")
    for run in reversed(runs):  # each stands behind those that it needs
        if run.name in wanted:
            wanted |= set(run.inputs.values())
    return [run for run in runs if run.name in wanted]


@dataclasses.dataclass(frozen=True)
class Task:
    """A run with one seed: what a launcher trains and evaluates.

    `train` and `evaluate` are scripts and their arguments, called from the repository's root.
    """

    name: str  # RUN/seedK
    path: pathlib.Path  # the run directory
    needs: tuple[str, ...]  # names of the tasks that must have finished first
    train: tuple[str, ...]
    evaluate: tuple[str, ...]  # () where it is not

    @property
    def is_done(self) -> bool:
        return is_finished(self.path, evaluated=bool(self.evaluate))


def plan(
    runs: list[Run], workdir: pathlib.Path, *, sweep: str, seeds: int, overrides: dict[str, str] | None = None
) -> list[Task]:
    """Every run of `load_runs` with every seed below `seeds`, each behind those that it needs.

    `workdir` is DIR above, `sweep` the name in the records. `overrides`, config fields -> values, win over the runs'
    own; UserError for one that the sweep itself sets: the seed, or a run directory that a run needs.
    """
    overrides = overrides or {}
    alone = {run.name for run in runs if run.one_seed}
    tasks = []
    for run in runs:
        taken = sorted(overrides.keys() & {"seed", *run.inputs})
        if taken:
            raise UserError(f"--set={taken[0]}={overrides[taken[0]]}: the sweep itself sets {taken[0]} of {run.name}")
        for seed in range(1 if run.one_seed else seeds):
            needs = {field: f"{a}/seed{0 if a in alone else seed}" for field, a in run.inputs.items()}
            fields = {"seed": seed} | run.overrides | overrides
            fields |= {field: (workdir / name).resolve() for field, name in needs.items()}
            path = workdir / run.name / f"seed{seed}"
            train = (
                "scripts/train.py",
                f"--config={run.config}:{run.arg}",
                f"--workdir={path.resolve()}",
                f"--run={run.name}",
                f"--sweep={sweep}",
                *(f"--config.{key}={value}" for key, value in fields.items()),
            )
            evaluate = ("scripts/evaluate.py", f"--workdir={path.resolve()}") if run.evaluate else ()
            tasks.append(Task(f"{run.name}/seed{seed}", path, tuple(needs.values()), train, evaluate))
    return tasks


def read_config(task: Task) -> ConfigDict:
    """A run's config with its overrides, as scripts/train.py will read it; UserError where it cannot be set so."""
    argv = ["train.py", *(a for a in task.train if a.startswith("--config"))]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, lock_config=True, sys_argv=argv)
    try:
        with contextlib.chdir(ROOT):
            values(argv)
        return values["config"].value
    except (KeyError, AttributeError) as e:
        raise UserError(f"the config of run {task.name} has no field {' '.join(str(e.args[0]).split())}") from None
    except (flags.Error, TypeError, ValueError) as e:
        raise UserError(f"the config of run {task.name} cannot be set so: {' '.join(str(e).split())}") from None


def run_sweep(tasks: list[Task], *, on_finished: Callable[[pathlib.Path], None], parallel: int = 1) -> list[str]:
    """Trains and evaluates every task of `plan` on this machine; returns the names of those that failed.

    `on_finished` is called with each run's directory, also of those that had finished before. `parallel` runs at a time
    are for CPUs: small networks use two processes of one thread each better than one of two.
    """
    environment = dict(os.environ)
    if parallel > 1:  # each keeps to one core: devices and threads of XLA, threads of NumPy's matrix products
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip()
        environment |= {"JAX_NUM_CPU_DEVICES": "1", "XLA_FLAGS": flags}
        environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    finished: dict[str, concurrent.futures.Future[bool]] = {}
    minutes: list[float] = []

    def work(i: int, task: Task) -> bool:
        name, title = task.name, f"[{i + 1}/{len(tasks)}]"
        # What a task needs stands before it, so it has a worker already.
        missing = [needed for needed in task.needs if not finished[needed].result()]
        if missing:
            print(f"{title} {name}: left out, {missing[0]} failed", flush=True)
            return False
        if not task.is_done:
            print(f"{title} {name}", flush=True)
            started = time.monotonic()
            prefix = f"    {name}: " if parallel > 1 else "    "
            task.path.mkdir(parents=True, exist_ok=True)
            log = task.path / "log.txt"
            commands = [command for command in (task.train, task.evaluate) if command]
            if not all(_call(command, log, environment, prefix) for command in commands):
                print(f"{title} {name} FAILED; its output is in {log}", flush=True)
                return False
            minutes.append((time.monotonic() - started) / 60)
            left = sum(not other.is_done for other in tasks)
            expected = left * sum(minutes) / len(minutes) / parallel
            print(f"{title} {name} took {minutes[-1]:.1f} min; {left} runs left, about {expected:.0f} min", flush=True)
        on_finished(task.path)
        return True

    with concurrent.futures.ThreadPoolExecutor(parallel) as pool:
        for i, task in enumerate(tasks):
            finished[task.name] = pool.submit(work, i, task)
    return [name for name, future in finished.items() if not future.result()]


def take_over(tasks: list[Task], records: pathlib.Path, fingerprints: Mapping[str, str]) -> list[str]:
    """Takes runs that were finished elsewhere as finished: their records are put into the run directories.

    `records` is laid out as a report's `records/`; `fingerprints` are those of the tasks' configs, by name. A record is
    taken if it is of the same config, and if no run that is still to be trained needs the run's checkpoints, which
    records do not have: that one is trained again. Returns the names of those taken.
    """
    found = {
        task.name
        for task in tasks
        if not task.is_done
        and is_finished(records / task.name, evaluated=bool(task.evaluate))
        and _record(records / task.name).get("config_fingerprint") == fingerprints[task.name]
    }
    needed = {name for task in tasks if not task.is_done and task.name not in found for name in task.needs}
    taken = [task for task in tasks if task.name in found - needed]
    for task in taken:
        task.path.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(records / task.name / "record.json", task.path / "record.json")
    return [task.name for task in taken]


def other_tokens(path: pathlib.Path, recorded: pathlib.Path) -> bool:
    """Whether an autoencoder trained in `path` has other test tokens than the record in the directory `recorded`."""
    first, again = (_record(directory).get("tokens_sha256") for directory in (recorded, path))
    return bool(first and again) and first != again


def is_finished(path: pathlib.Path, *, evaluated: bool = True) -> bool:
    """Whether a run directory is that of a run trained to its end and, where that is asked, evaluated."""
    record = _record(path)
    return record.get("status") == "finished" and (bool(record.get("metrics")) or not evaluated)


def _record(path: pathlib.Path) -> dict:
    """The record in a directory; {} where there is none that can be read."""
    try:
        return json.loads((path / "record.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def _call(command: tuple[str, ...], log_file: pathlib.Path, environment: dict, prefix: str) -> bool:
    """Runs a script of this repository; its output goes to the terminal and to `log_file`."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "bufsize": 1}
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment, **pipes)
    with open(log_file, "a") as log:
        for line in process.stdout:
            print(prefix + line, end="", flush=True)
            log.write(line)
    return process.wait() == 0
