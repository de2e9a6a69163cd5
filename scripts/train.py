"""Trains what a config file describes, either stage; the same command resumes.

    python scripts/train.py --config=configs/tradeoff_autoencoder.py:quantizer=fsq,bits=10,scale=cpu \
        --workdir=runs/fsq_10 [--config.optimizer.learning_rate=2e-4] [--config.quantizer.levels="(8,8,8)"]
    python scripts/train.py --config=configs/tradeoff_maskgit.py:quantizer=fsq,bits=10,scale=cpu \
        --workdir=runs/fsq_10_maskgit --config.stage1=runs/fsq_10

Tuples are written with or without brackets: --config.quantizer.levels=8,8,8 is the same. Where the last checkpoint is
damaged, --checkpoint=STEP continues from an earlier one.
"""

import contextlib
import sys

import jax
from absl import flags
from ml_collections import config_flags

from fsq_repro.errors import UserError, explained
from fsq_repro.experiments.experiment import build_experiment
from fsq_repro.experiments.registry import kind_of
from fsq_repro.experiments.training import train_run
from fsq_repro.factories import common
from fsq_repro.runtime import cli, startup
from fsq_repro.runtime.output_flags import define_output_folder
from fsq_repro.runtime.run_dir import RunDir
from fsq_repro.runtime.run_lock import run_lock

config_flags.DEFINE_config_file("config", None, "FILE.py:ARG, see configs/.", lock_config=True)
define_output_folder("workdir", None, "Run directory; the run resumes if it has a checkpoint.")
flags.DEFINE_integer("checkpoint", None, "Step of the checkpoint to continue from, where the last one is damaged.")
flags.DEFINE_boolean("evaluate", False, "Then do what scripts/evaluate.py does, without a second start.")
flags.DEFINE_string("run", "", "Name of the run in tables (the sweep sets it).")
flags.DEFINE_string("sweep", "", "Name of the sweep that the run belongs to (the sweep sets it).")
flags.mark_flags_as_required(["config", "workdir"])
FLAGS = flags.FLAGS


def main() -> int:
    run, config = RunDir(FLAGS.workdir), FLAGS.config
    startup.start(common.batch_sizes(config))
    if FLAGS.evaluate and jax.process_count() > 1:
        raise UserError("--evaluate is for one process; after a training by several call scripts/evaluate.py")
    with explained():
        experiment = build_experiment(config, run)
    with run_lock(run.path, "training") if jax.process_index() == 0 else contextlib.nullcontext():
        code = train_run(
            experiment,
            run,
            config,
            name=FLAGS.run or run.path.name,
            sweep=FLAGS.sweep,
            config_file=config_flags.get_config_filename(FLAGS["config"]),
            command=sys.argv,
            checkpoint=FLAGS.checkpoint,
        )
        if FLAGS.evaluate and not code:
            kind_of(config).evaluate(run)
    return code


if __name__ == "__main__":
    cli.run(main)
