"""From a config to all that the loop needs, whatever the kind of experiment."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

from ml_collections import ConfigDict

from fsq_repro.data.choice import some_items
from fsq_repro.data.pipeline import Batch
from fsq_repro.data.sources import Source
from fsq_repro.data.tokens import TokenSource
from fsq_repro.experiments.registry import kind_of
from fsq_repro.factories import common, scorers, split_sizes, stage1_link
from fsq_repro.runtime.run_dir import RunDir, open_run
from fsq_repro.trainers.loop import LoopConfig, Trainer


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What `loop.train` takes, and the facts for the run's record."""

    trainer: Trainer
    loop_config: LoopConfig
    data_iterator: Any
    evaluation_batches: Callable[[], Iterable[Batch]]
    facts: dict
    start_from: Callable[[Any], Any]  # a new run's state -> that with published weights in it


def build_experiment(config: ConfigDict, run: str | pathlib.Path | RunDir) -> Experiment:
    """Builds and checks everything; writes nothing but caches of data.

    Args:
      config: as resolved.
      run: the run directory; a run there must be one of this config.

    Raises:
      ValueError, FileNotFoundError, UserError: one sentence that names the field, its value and what is allowed.
    """
    kind = kind_of(config)
    scorers.check_inception(config)
    common.check_devices(config)
    loop_config = common.build_loop(config)
    run = open_run(run)
    run.check_resumable(config)
    known = stage1_link.known_fingerprint(run) if kind.needs else None
    stage1 = kind.load_stage1(config, fingerprint=known)
    trainer = kind.build_trainer(config, stage1)
    task = kind.build_task(config)
    sources = [kind.build_source(config, split) for split in ("train", "validation")]
    split_sizes.check_split_sizes(config, sources[0])
    train, validation = (kind.build_items(config, stage1, source) for source in sources)
    checked = _some_items(validation, config.eval.batches * config.eval.batch_size)
    iterator = kind.train_iterator(config, task, train)
    trainer.load_frozen()  # a missing file is told now
    return Experiment(
        trainer,
        loop_config,
        iterator,
        lambda: kind.eval_batches(config, task, checked),
        kind.facts(config, trainer),
        kind.start_from(config, trainer),
    )


def _some_items(items: Source | TokenSource, count: int) -> Source | TokenSource:
    """What the check during training looks at, of a source that may be ordered by class."""
    return items.some_items(count) if isinstance(items, TokenSource) else some_items(items, count)
