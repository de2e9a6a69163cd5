"""Sweeps: a list of runs, each trained and evaluated in processes of its own.

A sweep file offers `get_runs(arg) -> list[Run]`. Run `name` with seed K lies in DIR/name/seedK. Finished runs are
skipped, an interrupted one resumes, a failed one is named at the end while the others go on.
"""

import concurrent.futures
import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable

from fsq_repro.runtime.errors import UserError, explained

ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Run:
    """One point of a sweep.

    Attributes:
      name: folder and name in tables.
      config: config file, from the repository's root.
      arg: the part behind the colon.
      overrides: config fields -> values, as on the command line.
      inputs: config fields -> runs that must have finished first and whose directories, of the same seed, the fields
        get (stage II's `stage1`).
      one_seed: trained with seed 0 alone, which then serves the runs of all seeds that need it.
    """

    name: str
    config: str
    arg: str = ""
    overrides: dict[str, str] = dataclasses.field(default_factory=dict)
    inputs: dict[str, str] = dataclasses.field(default_factory=dict)
    one_seed: bool = False


def load_runs(sweep: str) -> list[Run]:
    """Runs of FILE:ARG, each behind those that it needs.

    Raises:
      UserError: no such file, an argument that the file refuses, or a run behind one that does not exist.
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


def run_sweep(
    runs: list[Run],
    workdir: pathlib.Path,
    *,
    sweep: str,
    seeds: int,
    on_finished: Callable[[pathlib.Path], None],
    parallel: int = 1,
) -> list[str]:
    """Trains and evaluates every run with every seed; returns the names of those that failed.

    Args:
      runs: see `load_runs`.
      workdir: DIR above.
      sweep: the sweep's name, for the records.
      seeds: number of seeds, 0 .. seeds - 1.
      on_finished: called with each run's directory, also of those that had finished before.
      parallel: runs at a time, for CPUs: small networks use two processes of one thread each better than one of two.
    """
    todo = [(run, seed) for run in runs for seed in range(1 if run.one_seed else seeds)]
    alone = {run.name for run in runs if run.one_seed}
    environment = os.environ | (_one_thread() if parallel > 1 else {})
    finished: dict[tuple[str, int], concurrent.futures.Future[bool]] = {}
    seconds: list[float] = []

    def work(i: int, run: Run, seed: int) -> bool:
        path, name, title = workdir / run.name / f"seed{seed}", f"{run.name}/seed{seed}", f"[{i + 1}/{len(todo)}]"
        # What a run needs stands before it, so it has a worker already.
        needed = {field: (a, 0 if a in alone else seed) for field, a in run.inputs.items()}
        missing = [f"{a}/seed{s}" for a, s in needed.values() if not finished[a, s].result()]
        if missing:
            print(f"{title} {name}: left out, {missing[0]} failed", flush=True)
            return False
        if not _is_evaluated(path):
            print(f"{title} {name}", flush=True)
            started = time.monotonic()
            overrides = {"seed": seed} | run.overrides
            overrides |= {field: (workdir / a / f"seed{s}").resolve() for field, (a, s) in needed.items()}
            prefix = f"    {name}: " if parallel > 1 else "    "
            if not _train_and_evaluate(run, overrides, path, sweep, environment, prefix):
                print(f"{title} {name} FAILED; its output is in {path / 'log.txt'}", flush=True)
                return False
            seconds.append(time.monotonic() - started)
            left = sum(not _is_evaluated(workdir / r.name / f"seed{s}") for r, s in todo)
            minutes = left * sum(seconds) / len(seconds) / 60 / parallel
            print(
                f"{title} {name} took {seconds[-1] / 60:.1f} min; {left} runs left, about {minutes:.0f} min", flush=True
            )
        on_finished(path)
        return True

    with concurrent.futures.ThreadPoolExecutor(parallel) as pool:
        for i, (run, seed) in enumerate(todo):
            finished[run.name, seed] = pool.submit(work, i, run, seed)
    return [f"{name}/seed{seed}" for (name, seed), future in finished.items() if not future.result()]


def _one_thread() -> dict[str, str]:
    """Environment of a process that is to keep to one core: XLA's threads and those of NumPy's matrix products."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false"
    return {"XLA_FLAGS": flags.strip(), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def _is_evaluated(path: pathlib.Path) -> bool:
    try:
        record = json.loads((path / "record.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return record.get("status") == "finished" and bool(record.get("figures"))


def _train_and_evaluate(
    run: Run, overrides: dict, path: pathlib.Path, sweep: str, environment: dict, prefix: str
) -> bool:
    train = [
        "scripts/train.py",
        f"--config={run.config}:{run.arg}",
        f"--workdir={path.resolve()}",
        f"--run={run.name}",
        f"--sweep={sweep}",
        *(f"--config.{key}={value}" for key, value in overrides.items()),
    ]
    path.mkdir(parents=True, exist_ok=True)
    evaluate = ["scripts/evaluate.py", f"--workdir={path.resolve()}"]
    return all(_call(command, path / "log.txt", environment, prefix) for command in (train, evaluate))


def _call(command: list[str], log_file: pathlib.Path, environment: dict, prefix: str) -> bool:
    """Runs a script of this repository; its output goes to the terminal and to `log_file`."""
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
    )
    with open(log_file, "a") as log:
        for line in process.stdout:
            print(prefix + line, end="", flush=True)
            log.write(line)
    return process.wait() == 0
