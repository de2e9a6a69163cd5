"""What a kind of experiment is: all that training, evaluation, import, benchmark and dry run need to know of it.

A new kind is a file with a subclass of `Kind` and a line in `registry.py`.
"""

import abc
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from fsq_repro.data.pipeline import Batch
from fsq_repro.data.sources import Source
from fsq_repro.factories import common
from fsq_repro.factories.stage1_link import Stage1Need
from fsq_repro.runtime.run_dir import RunDir
from fsq_repro.tasks.base import Task
from fsq_repro.trainers.loop import Trainer

Shapes = Any  # pytree of jax.ShapeDtypeStruct


class Kind(abc.ABC):
    """A kind of experiment; `config` is one of this kind, `stage1` what `load_stage1` gave.

    Whatever is wrong with a config or a run directory is told as ValueError, FileNotFoundError or UserError, in one
    sentence that names the field, its value and what is allowed.

    Attributes:
      needs: the run that `config.stage1` must name; None for a stage I.
    """

    needs: Stage1Need | None = None

    # ---- The trainer

    def load_stage1(self, config: ConfigDict, *, fingerprint: str | None = None) -> Any:
        """The model of the run in `config.stage1`, checked to be what the config says; None for a stage I.

        `fingerprint`: hash of the weights that the run of stage II was started with, if it was.
        """
        return None

    def abstract_stage1(self, trainer: Trainer) -> Any:
        """The same in shapes alone, of stage I's trainer; None for a stage I."""
        return None

    @abc.abstractmethod
    def build_trainer(self, config: ConfigDict, stage1: Any) -> Trainer: ...

    def start_from(self, config: ConfigDict, trainer: Trainer) -> Callable[[Any], Any]:
        """What a new run's initial state goes through: published weights come in here."""
        return lambda state: state

    def frozen_shapes(self, trainer: Trainer) -> Shapes:
        """Shapes of what `trainer.load_frozen` gives, also where its stage I is abstract."""
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), trainer.load_frozen())

    @abc.abstractmethod
    def num_tokens(self, trainer: Trainer) -> int:
        """Codes of one example."""

    def facts(self, config: ConfigDict, trainer: Trainer) -> dict:
        """What `record.json` says of a run before it has trained."""
        return common.run_facts(config, trainer, self.num_tokens(trainer)) | {"stage": 2 if self.needs else 1}

    # ---- Its data, by default images and their labels

    def build_task(self, config: ConfigDict) -> Task | None:
        """What prepares the batches; None where nothing does."""
        return None

    def build_source(self, config: ConfigDict, split: str) -> Source:
        return common.build_source(config, split)

    def trains_on_tokens(self, config: ConfigDict) -> bool:
        """Whether stage I makes tokens of all images before training, so that no image is read in it."""
        return False

    def build_items(self, config: ConfigDict, stage1: Any, source: Source) -> Any:
        """What batches are made of: the source, or its tokens."""
        return source

    def train_iterator(self, config: ConfigDict, task: Task | None, items: Any) -> Any:
        """This process's part of the training batches, as a grain iterator."""
        return common.build_train_iterator(config, items)

    def eval_batches(self, config: ConfigDict, task: Task | None, items: Any) -> Iterable[Batch]:
        """This process's part of the batches that cover the items once."""
        return common.build_eval_batches(config, items)

    def batch_shapes(self, config: ConfigDict, trainer: Trainer) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of a global training batch."""
        B, side = config.batch_size, config.data.resolution
        return {
            "image": jax.ShapeDtypeStruct((B, side, side, 3), jnp.float32),
            "label": jax.ShapeDtypeStruct((B,), jnp.int32),
        }

    # ---- Its evaluation

    @abc.abstractmethod
    def evaluate(self, run: RunDir, **options: Any) -> dict:
        """Measures a run; returns its record. Options: stage1, weights, step, networks, inception."""
