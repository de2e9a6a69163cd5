"""Trains and evaluates all runs of a sweep; the same command goes on after an interruption.

python scripts/sweep.py --sweep=configs/sweeps/tradeoff.py:scale=cpu --workdir=runs/tradeoff [--seeds=3] [--parallel=2]
"""

import pathlib

from absl import flags

from fsq_repro.reporting.records import load_records
from fsq_repro.reporting.tables import format_header, format_row
from fsq_repro.runtime import cli
from fsq_repro.runtime.errors import UserError
from fsq_repro.runtime.sweep import load_runs, run_sweep

flags.DEFINE_string("sweep", None, "FILE.py:ARG, see configs/sweeps/.")
flags.DEFINE_string("workdir", None, "Each run lies in WORKDIR/NAME/seedK.")
flags.DEFINE_integer("seeds", 1, "Number of seeds a run.", lower_bound=1)
flags.DEFINE_integer("parallel", 1, "Runs at a time, each on one CPU thread if above 1.", lower_bound=1)
flags.mark_flags_as_required(["sweep", "workdir"])
FLAGS = flags.FLAGS


def main() -> None:
    runs = load_runs(FLAGS.sweep)
    print(f"{len(runs)} runs x {FLAGS.seeds} seeds", flush=True)
    failed = run_sweep(
        runs,
        pathlib.Path(FLAGS.workdir),
        sweep=pathlib.Path(FLAGS.sweep.partition(":")[0]).stem,
        seeds=FLAGS.seeds,
        on_finished=print_row,
        parallel=FLAGS.parallel,
    )
    if failed:
        raise UserError(f"{len(failed)} runs failed: {', '.join(failed)}")


def print_row(path: pathlib.Path) -> None:
    (record,) = load_records(path)
    print(f"{format_header(record)}\n{format_row(record)}", flush=True)


if __name__ == "__main__":
    cli.run(main)
