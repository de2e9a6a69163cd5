"""From a config to all that the loop needs, whatever the kind of trainer: `config.trainer` chooses the factory."""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

from ml_collections import ConfigDict

from fsq_repro.data.cache import Progress
from fsq_repro.runtime import run_dir
from fsq_repro.trainers import factory, stage2_factory
from fsq_repro.trainers.loop import LoopConfig, Trainer


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What `loop.train` takes, and the facts for the run's record."""

    trainer: Trainer
    loop_config: LoopConfig
    data_iterator: Any
    evaluation_batches: Callable[[], Iterable[dict]]
    facts: dict


def build_experiment(config: ConfigDict, path: pathlib.Path, progress: Progress = iter) -> Experiment:
    """Builds and checks everything; writes nothing but caches of data.

    Args:
      config: as resolved.
      path: the run directory; a run there must be one of this config.
      progress: wraps the loop that encodes the data of stage II, e.g. `tqdm.tqdm`.

    Raises:
      ValueError, FileNotFoundError, UserError: one sentence that names the field, its value and what is allowed.
    """
    if config.trainer not in BUILDERS:
        raise ValueError(f"trainer = {config.trainer!r} is not one of {', '.join(BUILDERS)}")
    return BUILDERS[config.trainer](config, path, progress)


def _autoencoder(config: ConfigDict, path: pathlib.Path, progress: Progress) -> Experiment:
    trainer = factory.build_trainer(config)
    loop_config = factory.build_loop(config)
    run_dir.check_resumable(path, config)
    sources = {split: factory.build_source(config, split) for split in ("train", "validation")}
    iterator = factory.build_train_iterator(config, sources["train"])
    batches = factory.build_eval_batches(config, sources["validation"])
    trainer.load_frozen()
    return Experiment(
        trainer,
        loop_config,
        iterator,
        lambda: itertools.islice(batches, config.eval.batches),
        factory.run_facts(config, trainer),
    )


def _maskgit(config: ConfigDict, path: pathlib.Path, progress: Progress) -> Experiment:
    loop_config = factory.build_loop(config)
    run_dir.check_resumable(path, config)
    tokenizer = stage2_factory.load_stage1(config, fingerprint=stage2_factory.known_fingerprint(path))
    trainer = stage2_factory.build_trainer(config, tokenizer)
    sources = {split: stage2_factory.build_source(config, split) for split in ("train", "validation")}
    iterator = stage2_factory.build_train_iterator(config, trainer, sources["train"], progress)
    validation = stage2_factory.build_tokens(config, tokenizer, sources["validation"], progress)
    return Experiment(
        trainer,
        loop_config,
        iterator,
        lambda: itertools.islice(stage2_factory.build_eval_batches(config, validation), config.eval.batches),
        stage2_factory.run_facts(config, trainer),
    )


BUILDERS = {"autoencoder": _autoencoder, "maskgit": _maskgit}
