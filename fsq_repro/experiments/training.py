"""Training of a run directory: the loop, and what the directory says of it before, meanwhile and afterwards."""

import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from fsq_repro.experiments.experiment import Experiment
from fsq_repro.runtime import startup
from fsq_repro.runtime.run_dir import OF_THE_MACHINE, RunDir, config_fingerprint, is_among
from fsq_repro.trainers import loop


def train_run(
    experiment: Experiment,
    run: RunDir,
    config: ConfigDict,
    *,
    name: str,
    sweep: str,
    config_file: str,
    command: Sequence[str],
    checkpoint: int | None = None,
) -> int:
    """Trains and keeps the record; returns the exit code, 130 after a signal.

    Args:
      experiment: of `config`.
      name, sweep: of the run, in tables.
      config_file, command: where the config comes from, and the words of the command line.
      checkpoint: step to continue from; the last by default.
    """
    is_main = jax.process_index() == 0
    if is_main:
        facts = experiment.facts | {"run": name, "sweep": sweep, "overrides": _overrides(command)}
        facts |= {"config_fingerprint": config_fingerprint(config)}
        facts |= {"versions": startup.versions(), "git_revision": startup.git_revision()}
        record = run.start_record(status="training", device=startup.device_description(), **facts)
        origin = {key: record[key] for key in ("versions", "git_revision")}
        run.write_config(config, file=config_file, command=command, **origin)

    found = run.record["status"] if is_main else ""
    before, started = run.record.get("wall_time_s", 0.0) if is_main else 0.0, time.monotonic()

    def note_time(**facts: Any) -> None:
        """Also where a run is killed, its record has the time up to the last checkpoint."""
        if is_main:
            run.update_record(wall_time_s=before + time.monotonic() - started, **facts)

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
            checkpoint,
        )
        status = "finished"
    except loop.Interrupted as e:
        print(e, file=sys.stderr)
        status = "interrupted"
    finally:
        if (found, status) != ("finished", "finished"):  # one that was finished already took no time
            note_time(status=status, **({"validation": run.last_check()} if is_main else {}))
    return 0 if status == "finished" else 130


def _overrides(command: Sequence[str]) -> dict[str, str]:
    """The config fields that the command line sets -> values as they stand there, without `OF_THE_MACHINE`."""
    parts = (word.removeprefix("--config.").partition("=") for word in command if word.startswith("--config."))
    return {field: value for field, _, value in parts if not is_among(field, OF_THE_MACHINE)}
