"""From a config to all that the loop needs, whatever the kind of trainer: `config.trainer` chooses the factory."""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

from ml_collections import ConfigDict

from fsq_repro.factories import code_predictor as code_predictor_factory
from fsq_repro.factories import factory, stage1_link
from fsq_repro.factories import label_autoencoder as label_autoencoder_factory
from fsq_repro.factories import maskgit as maskgit_factory
from fsq_repro.inference.label_coder import load_stage1_coder
from fsq_repro.inference.tokenizer import load_stage1_tokenizer
from fsq_repro.runtime import run_dir
from fsq_repro.tasks.uvim_tasks import Task
from fsq_repro.trainers.loop import LoopConfig, Trainer


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What `loop.train` takes, and the facts for the run's record."""

    trainer: Trainer
    loop_config: LoopConfig
    data_iterator: Any
    evaluation_batches: Callable[[], Iterable[dict]]
    facts: dict
    start_from: Callable[[Any], Any] = lambda state: state  # a new run's state -> that with published weights in it


def build_experiment(config: ConfigDict, path: pathlib.Path) -> Experiment:
    """Builds and checks everything; writes nothing but caches of data.

    Args:
      config: as resolved.
      path: the run directory; a run there must be one of this config.

    Raises:
      ValueError, FileNotFoundError, UserError: one sentence that names the field, its value and what is allowed.
    """
    if config.trainer not in BUILDERS:
        raise ValueError(f"trainer = {config.trainer!r} is not one of {', '.join(BUILDERS)}")
    factory.check_inception(config)
    factory.check_devices(config)
    return BUILDERS[config.trainer](config, path)


def _autoencoder(config: ConfigDict, path: pathlib.Path) -> Experiment:
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


def _maskgit(config: ConfigDict, path: pathlib.Path) -> Experiment:
    loop_config = factory.build_loop(config)
    run_dir.check_resumable(path, config)
    tokenizer = load_stage1_tokenizer(config, fingerprint=stage1_link.known_fingerprint(path))
    trainer = maskgit_factory.build_trainer(config, tokenizer)
    sources = {split: maskgit_factory.build_source(config, split) for split in ("train", "validation")}
    iterator = maskgit_factory.build_train_iterator(config, trainer, sources["train"])
    validation = maskgit_factory.build_tokens(config, tokenizer, sources["validation"])
    return Experiment(
        trainer,
        loop_config,
        iterator,
        lambda: itertools.islice(maskgit_factory.build_eval_batches(config, validation), config.eval.batches),
        maskgit_factory.run_facts(config, trainer),
    )


def _uvim_stage1(config: ConfigDict, path: pathlib.Path) -> Experiment:
    trainer = label_autoencoder_factory.build_trainer(config)
    loop_config = factory.build_loop(config)
    run_dir.check_resumable(path, config)
    model = trainer.model
    facts = label_autoencoder_factory.run_facts(config, trainer, model.quantizer.codebook_size, model.code_grid**2) | {
        "stage": 1
    }
    return Experiment(trainer, loop_config, *_dense_data(config, trainer.task), facts)


def _uvim_stage2(config: ConfigDict, path: pathlib.Path) -> Experiment:
    loop_config = factory.build_loop(config)
    run_dir.check_resumable(path, config)
    coder = load_stage1_coder(config, fingerprint=stage1_link.known_fingerprint(path))
    trainer = code_predictor_factory.build_trainer(config, coder)
    facts = code_predictor_factory.run_facts(config, trainer)
    experiment = Experiment(trainer, loop_config, *_dense_data(config, coder.task), facts)
    if not config.model.encoder_init:
        return experiment
    start = code_predictor_factory.augreg_start(config.model.encoder_init, trainer)
    return dataclasses.replace(experiment, start_from=start)


def _dense_data(config: ConfigDict, task: Task) -> tuple[Any, Callable[[], Iterable[dict]]]:
    """Training batches, and the validation batches of the check during training."""
    sources = {split: label_autoencoder_factory.build_source(config, split) for split in ("train", "validation")}
    iterator = label_autoencoder_factory.build_train_iterator(config, task, sources["train"])
    batches = label_autoencoder_factory.build_eval_batches(config, task, sources["validation"])
    return iterator, lambda: itertools.islice(batches, config.eval.batches)


BUILDERS = {
    "autoencoder": _autoencoder,
    "maskgit": _maskgit,
    "uvim_stage1": _uvim_stage1,
    "uvim_stage2": _uvim_stage2,
}
