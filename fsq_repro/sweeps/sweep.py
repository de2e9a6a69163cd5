"""Sweeps: a list of runs, each trained and evaluated in processes of its own.

A sweep file offers `get_runs(arg) -> list[Run]`. Run `name` with seed K lies in DIR/name/seedK. Runs that are what is
asked for are skipped, an interrupted one resumes, one that was trained otherwise is refused; a failed one is named at
the end while the others go on. `run_sweep` launches on this machine, `launch.submit` on a SLURM cluster.
"""

import concurrent.futures
import contextlib
import dataclasses
import importlib.util
import os
import pathlib
import re
import shutil
import time
from collections.abc import Callable, Sequence

from absl import flags
from ml_collections import ConfigDict, config_flags

from fsq_repro.errors import UserError, explained
from fsq_repro.runtime.run_dir import RunDir, config_fingerprint
from fsq_repro.sweeps.children import Children
from fsq_repro.sweeps.up_to_date import DataHashes, outdated, read_record

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
    config: ConfigDict  # as scripts/train.py will read it

    def outdated(self, data_hashes: DataHashes, path: pathlib.Path | None = None) -> str:
        """`up_to_date.outdated` of the run directory, or of another `path`."""
        return outdated(path or self.path, self.config, data_hashes, evaluated=bool(self.evaluate))


class Stopped(Exception):
    """SIGTERM or SIGINT: the runs that were training saved; the same command goes on from there."""


def nothing_known(config: ConfigDict) -> dict[str, str]:
    """`DataHashes` where the data are not looked at: each training looks at its own."""
    return {}


def plan(
    runs: list[Run], workdir: pathlib.Path, *, sweep: str, seeds: int, overrides: dict[str, str] | None = None
) -> list[Task]:
    """Every run of `load_runs` with every seed below `seeds`, each behind those that it needs.

    `workdir` is DIR above, `sweep` the name in the records. `overrides`, config fields -> values, win over the runs'
    own; UserError for one that the sweep itself sets: the seed, or a run directory that a run needs; and for a config
    that cannot be read or set so.
    """
    overrides, workdir = overrides or {}, workdir.resolve()
    alone = {run.name for run in runs if run.one_seed}
    tasks = []
    for run in runs:
        taken = sorted(overrides.keys() & {"seed", *run.inputs})
        if taken:
            raise UserError(f"--set={taken[0]}={overrides[taken[0]]}: the sweep itself sets {taken[0]} of {run.name}")
        for seed in range(1 if run.one_seed else seeds):
            needs = {field: f"{a}/seed{0 if a in alone else seed}" for field, a in run.inputs.items()}
            fields = {"seed": seed} | run.overrides | overrides
            fields |= {field: workdir / name for field, name in needs.items()}
            path = workdir / run.name / f"seed{seed}"
            train = (
                "scripts/train.py",
                f"--config={run.config}:{run.arg}",
                f"--workdir={path}",
                f"--run={run.name}",
                f"--sweep={sweep}",
                *(f"--config.{key}={value}" for key, value in fields.items()),
            )
            evaluate = ("scripts/evaluate.py", f"--workdir={path}") if run.evaluate else ()
            name = f"{run.name}/seed{seed}"
            tasks.append(Task(name, path, tuple(needs.values()), train, evaluate, _read_config(name, train)))
    return tasks


def _read_config(name: str, train: Sequence[str]) -> ConfigDict:
    """A run's config with its overrides, as scripts/train.py will read it; UserError where it cannot be set so."""
    argv = ["train.py", *(a for a in train if a.startswith("--config"))]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, lock_config=True, sys_argv=argv)
    try:
        with contextlib.chdir(ROOT):
            values(argv)
        return values["config"].value
    except (KeyError, AttributeError) as e:
        raise UserError(f"the config of run {name} has no field {' '.join(str(e.args[0]).split())}") from None
    except (flags.Error, OSError, TypeError, ValueError) as e:
        raise UserError(f"the config of run {name} cannot be set so: {' '.join(str(e).split())}") from None


def survey(tasks: list[Task], data_hashes: DataHashes) -> tuple[dict[str, str], dict[str, str]]:
    """What is left of `plan`'s tasks: names of those to be trained or evaluated -> why; of those refused -> why.

    A run that is what is asked for is trained again where another needs its checkpoint and only its record is here.
    """
    todo, refused = {}, {}
    for task in reversed(tasks):  # each stands behind those that it needs
        try:
            reason = task.outdated(data_hashes)
        except UserError as e:
            refused[task.name] = str(e)
            continue
        waiting = [other.name for other in tasks if other.name in todo and task.name in other.needs]
        if not reason and waiting and not RunDir(task.path).trained_steps:
            reason = f"its checkpoint, which {waiting[0]} needs, is not here"
        if reason:
            todo[task.name] = reason
    return todo, refused


def run_sweep(
    tasks: list[Task],
    *,
    on_finished: Callable[[pathlib.Path], None],
    data_hashes: DataHashes = nothing_known,
    parallel: int = 1,
) -> list[str]:
    """Trains and evaluates every task of `plan` on this machine; returns the names of those that failed.

    `on_finished` is called with each run's directory, also of those that had finished before. `parallel` runs at a time
    are for CPUs: small networks use two processes of one thread each better than one of two. Raises Stopped.
    """
    environment = dict(os.environ)
    if parallel > 1:  # each keeps to one core: devices and threads of XLA, threads of NumPy's matrix products
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip()
        environment |= {"JAX_NUM_CPU_DEVICES": "1", "XLA_FLAGS": flags}
        environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    finished: dict[str, concurrent.futures.Future[bool]] = {}
    minutes: list[float] = []
    at_first, _ = survey(tasks, data_hashes)

    def work(i: int, task: Task) -> bool:
        name, title = task.name, f"[{i + 1}/{len(tasks)}]"
        # What a task needs stands before it, so it has a worker already.
        missing = [needed for needed in task.needs if not finished[needed].result()]
        if children.stopped:
            return False
        if missing:
            print(f"{title} {name}: left out, {missing[0]} failed", flush=True)
            return False
        try:
            reason = task.outdated(data_hashes) or at_first.get(name)
        except UserError as e:
            print(f"{title} {name} REFUSED: {e}", flush=True)
            return False
        if reason:
            print(f"{title} {name}: {reason}", flush=True)
            started = time.monotonic()
            prefix = f"    {name}: " if parallel > 1 else "    "
            task.path.mkdir(parents=True, exist_ok=True)
            log = task.path / "log.txt"
            command = (*task.train, *(("--evaluate",) if task.evaluate else ()))  # in one process: one start
            if not children.run(command, ROOT, log, environment, prefix):
                if not children.stopped:
                    print(f"{title} {name} FAILED; its output is in {log}", flush=True)
                return False
            minutes.append((time.monotonic() - started) / 60)
            left = len(survey(tasks, data_hashes)[0])
            expected = left * sum(minutes) / len(minutes) / parallel
            print(f"{title} {name} took {minutes[-1]:.1f} min; {left} runs left, about {expected:.0f} min", flush=True)
        on_finished(task.path)
        return True

    with Children() as children:
        with concurrent.futures.ThreadPoolExecutor(parallel) as pool:
            for i, task in enumerate(tasks):
                finished[task.name] = pool.submit(work, i, task)
        failed = [name for name, future in finished.items() if not future.result()]
        if children.stopped:
            raise Stopped(f"stopped by a signal; {len(failed)} runs are left, and the same command continues with them")
    return failed


def take_over(tasks: list[Task], records: pathlib.Path, data_hashes: DataHashes = nothing_known) -> list[str]:
    """Takes runs that were finished elsewhere as finished: their records are put into the run directories.

    `records` is laid out as a report's `records/`. A record is taken if its config and its data are the same, and if no
    run that is still to be trained needs the run's checkpoints, which records do not have: that one is trained again.
    Returns the names of those taken. UserError where `records` is no directory.
    """
    if not records.is_dir():
        raise UserError(f"--records={records} is not a directory; name a report's records/")

    def is_the_same(task: Task) -> bool:
        path = records / task.name
        if read_record(path).get("config_fingerprint") != config_fingerprint(task.config):
            return False
        with contextlib.suppress(UserError):
            return not task.outdated(data_hashes, path)
        return False

    todo, _ = survey(tasks, data_hashes)
    found = {task.name for task in tasks if task.name in todo and is_the_same(task)}
    needed = {name for task in tasks if task.name in todo.keys() - found for name in task.needs}
    taken = [task for task in tasks if task.name in found - needed]
    for task in taken:
        task.path.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(records / task.name / "record.json", task.path / "record.json")
    return [task.name for task in taken]


def other_tokens(path: pathlib.Path, recorded: pathlib.Path) -> bool:
    """Whether an autoencoder trained in `path` has other test tokens than the record in the directory `recorded`."""
    first, again = (read_record(directory).get("tokens_sha256") for directory in (recorded, path))
    return bool(first and again) and first != again
