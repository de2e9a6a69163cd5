"""Dry runs of all runs of the paper's sweeps, and their tables. What is in the cache is not run again.

    python scripts/dry_run_table.py --out=results/dry_run.md [--only=REGEX] [--layouts=dp1,fsdp64]

Each run is traced and compiled for 1, 8 and 64 devices data-parallel (dp1, dp8, dp64) and for 8 with FSDP (fsdp8), and
traced for 64 with FSDP (fsdp64), whose compilation takes too long. That is minutes each at paper scale, so the work may
be done in pieces, one after the other; the table is of all that is in the cache, and --only='^$' writes it from that
alone. Delete the cache after a change that the numbers depend on.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

from absl import flags

from fsq_repro.errors import UserError, explained
from fsq_repro.files import atomic_path
from fsq_repro.profiling import dry_run_cache
from fsq_repro.reporting.dry_run import DryRunRow, dry_run_report
from fsq_repro.runtime import cli, output_flags, startup
from fsq_repro.sweeps.sweep import ROOT, Run, load_runs

LAYOUTS = {"dp1": (1, 1), "dp8": (8, 1), "dp64": (64, 1), "fsdp8": (8, 8), "fsdp64": (64, 64)}  # --devices and --fsdp
TRACED = ["fsdp64"]  # not compiled
SWEEPS = [
    "configs/sweeps/tradeoff.py:scale=paper,stages=both",
    "configs/sweeps/guidance.py:scale=paper",
    "configs/sweeps/uvim.py:scale=paper",
]

flags.DEFINE_multi_string("sweep", SWEEPS, "FILE.py:ARG, see configs/sweeps/; may be given several times.")
flags.DEFINE_string("only", "", "Regular expression of the names of the runs to do now, e.g. uvim/.*_fsq; all.")
flags.DEFINE_list("layouts", list(LAYOUTS), f"Of {', '.join(LAYOUTS)}, those to do now.")
output_flags.define_output_folder("cache", "results/dry_run", "Directory of the results, a SWEEP.json each.")
output_flags.define_output_file("out", "The Markdown file to write.", required=True)
FLAGS = flags.FLAGS


def main() -> None:
    unknown = [name for name in FLAGS.layouts if name not in LAYOUTS]
    if unknown:
        raise UserError(f"--layouts={unknown[0]} is not one of {', '.join(LAYOUTS)}")
    try:
        only = re.compile(FLAGS.only)
    except re.error as e:
        raise UserError(f"--only={FLAGS.only!r} is no regular expression: {e}") from e
    runs = [(pathlib.Path(sweep.partition(":")[0]).stem, run) for sweep in FLAGS.sweep for run in load_runs(sweep)]
    failed = []
    for sweep, run in runs:
        todo = [layout for layout in FLAGS.layouts if f"{run.name}/{layout}" not in dry_run_cache.read(cached(sweep))]
        for flag in ("--compile", "--nocompile"):
            missing = [layout for layout in todo if (layout in TRACED) == (flag == "--nocompile")]
            if only.search(f"{sweep}/{run.name}") and missing:
                print(f"{sweep}/{run.name}, {', '.join(missing)}", flush=True)
                if not dry_run(sweep, run, missing, flag):
                    failed.append(f"{sweep}/{run.name}, {', '.join(missing)}")
    rows = [row for sweep, run in runs if (row := row_of(sweep, run)).found]
    with explained():
        report = dry_run_report(rows, f"Dry runs, revision {startup.git_revision()[:12]}")
    with atomic_path(FLAGS.out) as temporary:
        temporary.write_text(report)
    print(FLAGS.out)
    if failed:
        raise UserError(f"{len(failed)} dry runs failed: {'; '.join(failed)}")


def dry_run(sweep: str, run: Run, layouts: list[str], flag: str) -> bool:
    """Puts a run's layouts into the cache, also those that came before a failure; returns whether there was none."""
    command = [sys.executable, "scripts/dry_run.py", f"--config={run.config}:{run.arg}", flag]
    command += [f"--config.{field}={value}" for field, value in run.overrides.items()]
    with tempfile.TemporaryDirectory() as folder:
        for layout in layouts:
            devices, fsdp = LAYOUTS[layout]
            command += [f"--devices={devices}", f"--fsdp={fsdp}", f"--json={folder}/{layout}.json"]
        try:
            return subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL).returncode == 0
        finally:
            files = pathlib.Path(folder).glob("*.json")
            dry_run_cache.add(cached(sweep), {f"{run.name}/{f.stem}": json.loads(f.read_text()) for f in files})


def cached(sweep: str) -> pathlib.Path:
    return pathlib.Path(FLAGS.cache) / f"{sweep}.json"


def row_of(sweep: str, run: Run) -> DryRunRow:
    """The run with what the cache holds of it."""
    found = dry_run_cache.read(cached(sweep))
    config = " ".join([f"{run.config}:{run.arg}", *(f"{field}={value}" for field, value in run.overrides.items())])
    names = [f"{run.name}/{layout}" for layout in LAYOUTS]
    return DryRunRow(sweep, run.name, config, [found[name] for name in names if name in found])


if __name__ == "__main__":
    cli.run(main)
