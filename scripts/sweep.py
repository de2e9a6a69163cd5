"""Trains and evaluates all runs of a sweep; the same command goes on after an interruption.

python scripts/sweep.py --sweep=configs/sweeps/tradeoff.py:scale=cpu --workdir=runs/tradeoff [--seeds=3] [--parallel=2]
python scripts/sweep.py --sweep=configs/sweeps/guidance.py --workdir=runs/guidance \
    --set=eval.inception=pt_inception-2015-12-05-6726825d.pth \
    --launcher=slurm --slurm=partition=gpu --slurm=time=1440 --slurm=gpus_per_node=8 --slurm=cpus_per_task=64
"""

import pathlib
import sys

from absl import flags
from ml_collections import ConfigDict

from fsq_repro.errors import UserError
from fsq_repro.reporting.records import load_records
from fsq_repro.reporting.terminal import format_header, format_row
from fsq_repro.runtime import cli
from fsq_repro.sweeps.sweep import ROOT, Stopped, Task, load_runs, other_tokens, plan, run_sweep, select_runs, take_over

flags.DEFINE_string("sweep", None, "FILE.py:ARG, see configs/sweeps/.")
flags.DEFINE_string("workdir", None, "Each run lies in WORKDIR/NAME/seedK.")
flags.DEFINE_string("only", ".*", "Regular expression of whole names of runs: these, and the runs that they need.")
flags.DEFINE_integer("seeds", 1, "Number of seeds a run.", lower_bound=1)
flags.DEFINE_multi_string("set", [], "KEY=VALUE: a config field of every run, e.g. data.num_workers=8.")
flags.DEFINE_enum("launcher", "local", ("local", "slurm"), "On this machine, or as SLURM jobs.")
flags.DEFINE_integer("parallel", 1, "local: runs at a time, each on one CPU thread if above 1.", lower_bound=1)
flags.DEFINE_multi_string("slurm", [], "slurm: KEY=VALUE of each job; submitit's names: partition, time, ...")
flags.DEFINE_string("records", None, "A report's records/: runs of the same config there are taken as finished.")
flags.mark_flags_as_required(["sweep", "workdir"])
FLAGS = flags.FLAGS


def main() -> int:
    workdir = pathlib.Path(FLAGS.workdir)
    name = pathlib.Path(FLAGS.sweep.partition(":")[0]).stem
    runs = select_runs(load_runs(FLAGS.sweep), FLAGS.only)
    if FLAGS.slurm and FLAGS.launcher != "slurm":
        raise UserError(f"--slurm={FLAGS.slurm[0]} is for --launcher=slurm")
    tasks = plan(runs, workdir, sweep=name, seeds=FLAGS.seeds, overrides=settings("set"))
    if FLAGS.records:
        taken = take_over(tasks, pathlib.Path(FLAGS.records), data_hashes)
        print(f"{len(taken)} runs were finished elsewhere: {', '.join(taken) or 'none of this config'}")
    print(f"{len(runs)} runs x {FLAGS.seeds} seeds", flush=True)
    if FLAGS.launcher == "slurm":
        submit_jobs(tasks, workdir, name)
        return 0
    try:
        failed = run_sweep(tasks, on_finished=print_row, data_hashes=data_hashes, parallel=FLAGS.parallel)
    except Stopped as e:
        print(e, file=sys.stderr)
        return 130
    if failed:
        raise UserError(f"{len(failed)} runs failed: {', '.join(failed)}")
    return 0


def data_hashes(config: ConfigDict) -> dict[str, str]:
    from fsq_repro.experiments import data_hashes  # takes seconds

    return data_hashes.data_hashes(config, ROOT)


def settings(flag: str) -> dict[str, str]:
    found = {}
    for key, equals, value in (text.partition("=") for text in FLAGS[flag].value):
        if not key or not equals:
            raise UserError(f"--{flag}={key}{equals}{value} is not KEY=VALUE")
        found[key] = value
    return found


def submit_jobs(tasks: list[Task], workdir: pathlib.Path, name: str) -> None:
    try:
        from fsq_repro.sweeps import launch
    except ModuleNotFoundError as e:
        raise UserError(f"--launcher=slurm needs a package that is not installed, {e.name}") from e
    executor = launch.slurm_executor(workdir / "slurm", settings("slurm"), name=name)
    jobs, refused = launch.submit(tasks, executor, launch.queued_jobs(), data_hashes)
    print(f"{len(jobs)} runs are in SLURM's queue, {len(tasks) - len(jobs) - len(refused)} were evaluated before")
    for task_name, job in jobs.items():
        print(f"  {job:12s} {task_name:40s} {executor.folder / f'{job}_0_log.out'}")
    if jobs:
        print("squeue --me shows them; failed ones are submitted again by this command")
    print(f"report of the finished ones: python scripts/report.py --runs={workdir} --out=results/{workdir.name}")
    if refused:
        raise UserError(f"{len(refused)} runs were refused: {'; '.join(map(': '.join, refused.items()))}")


def print_row(path: pathlib.Path) -> None:
    """One line for a finished run; of one that was finished elsewhere before, whether its tokens are others now."""
    if FLAGS.records and other_tokens(path, pathlib.Path(FLAGS.records) / path.parent.name / path.name):
        print(f"{path}: its test tokens are not those of the record in {FLAGS.records}", flush=True)
    for record in load_records(path):
        print(f"{format_header(record)}\n{format_row(record)}", flush=True)


if __name__ == "__main__":
    cli.run(main)
