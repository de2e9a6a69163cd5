"""Trains what a config file describes, either stage; the same command resumes.

    python scripts/train.py --config=configs/tradeoff_autoencoder.py:quantizer=fsq,bits=10,scale=cpu \
        --workdir=runs/fsq_10 [--config.optimizer.learning_rate=2e-4] [--config.quantizer.levels="(8,8,8)"]
    python scripts/train.py --config=configs/tradeoff_maskgit.py:quantizer=fsq,bits=10,scale=cpu \
        --workdir=runs/fsq_10_maskgit --config.stage1=runs/fsq_10
"""

import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags
from ml_collections import config_flags

from fsq_repro.errors import explained
from fsq_repro.experiments.experiment import build_experiment
from fsq_repro.factories import common
from fsq_repro.runtime import cli, startup
from fsq_repro.runtime.output_flags import define_output_folder
from fsq_repro.runtime.run_dir import OF_THE_MACHINE, RunDir, config_fingerprint
from fsq_repro.trainers import loop

config_flags.DEFINE_config_file("config", None, "FILE.py:ARG, see configs/.", lock_config=True)
define_output_folder("workdir", None, "Run directory; the run resumes if it has a checkpoint.")
flags.DEFINE_string("run", "", "Name of the run in tables (the sweep sets it).")
flags.DEFINE_string("sweep", "", "Name of the sweep that the run belongs to (the sweep sets it).")
flags.mark_flags_as_required(["config", "workdir"])
FLAGS = flags.FLAGS


def main() -> int:
    run = RunDir(FLAGS.workdir)
    config = FLAGS.config
    startup.start(common.batch_sizes(config))
    with explained():
        experiment = build_experiment(config, run)

    is_main = jax.process_index() == 0
    if is_main:
        facts = experiment.facts | {"run": FLAGS.run or run.path.name, "sweep": FLAGS.sweep}
        facts |= {"overrides": overrides(sys.argv), "config_fingerprint": config_fingerprint(config)}
        facts |= {"versions": startup.versions(), "git_revision": startup.git_revision()}
        record = run.start_record(status="training", device=startup.device_description(), **facts)
        origin = {name: record[name] for name in ("versions", "git_revision")}
        file = config_flags.get_config_filename(FLAGS["config"])
        run.write_config(config, file=file, command=sys.argv, **origin)

    found = run.record["status"] if is_main else ""
    before, started = run.record.get("wall_time_s", 0.0) if is_main else 0.0, time.monotonic()

    def note_time(**facts: Any) -> None:
        """Also where a run is killed, its record has the time up to the last checkpoint."""
        if is_main:
            run.update_record(wall_time_s=before + time.monotonic() - started, **facts)

    def last_check() -> dict:
        return {"validation": run.last_check()} if is_main else {}

    status = "failed"
    try:
        loop.train(
            experiment.trainer,
            experiment.data_iterator,
            experiment.evaluation_batches,
            run.path,
            experiment.loop_config,
            experiment.start_from,
            note_time,
        )
        status = "finished"
    except loop.Interrupted as e:
        print(e, file=sys.stderr)
        status = "interrupted"
    finally:
        if (found, status) != ("finished", "finished"):  # one that was finished already took no time
            note_time(status=status, **last_check())
    return 0 if status == "finished" else 130


def overrides(argv: Sequence[str]) -> dict[str, str]:
    """The config fields that the command line sets -> values as they stand there, without `OF_THE_MACHINE`."""
    parts = (arg.removeprefix("--config.").partition("=") for arg in argv if arg.startswith("--config."))
    return {field: value for field, _, value in parts if field not in OF_THE_MACHINE}


if __name__ == "__main__":
    cli.run(main)
