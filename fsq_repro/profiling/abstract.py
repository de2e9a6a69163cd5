"""From a config to its training step in shapes alone, whatever the kind of trainer: no data, no arrays, no stage I."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr
from ml_collections import ConfigDict

from fsq_repro.factories import code_predictor as code_predictor_factory
from fsq_repro.factories import factory, stage1_link
from fsq_repro.factories import label_autoencoder as label_autoencoder_factory
from fsq_repro.factories import maskgit as maskgit_factory
from fsq_repro.inference.label_coder import LabelCoder
from fsq_repro.inference.tokenizer import Tokenizer
from fsq_repro.profiling.program_costs import matrix_flops
from fsq_repro.tasks.base import Task
from fsq_repro.trainers.autoencoder import AutoencoderTrainer
from fsq_repro.trainers.label_autoencoder import LabelAutoencoderTrainer, variables_of
from fsq_repro.trainers.loop import LoopConfig, Trainer


@dataclasses.dataclass(frozen=True)
class AbstractExperiment:
    """What `dry_run` needs of an experiment.

    Attributes:
      name: of the experiment.
      trainer: a stage II has a stage I of shapes, which its step can be traced with, but nothing else.
      loop_config: as for training.
      frozen: shapes of what `trainer.load_frozen` gives.
      batch: shapes of a global batch.
      tokens: codes of one example.
      dtype: of the computation, "float32" or "bfloat16".
    """

    name: str
    trainer: Trainer
    loop_config: LoopConfig
    frozen: Any
    batch: dict[str, jax.ShapeDtypeStruct]
    tokens: int
    dtype: str

    @functools.cached_property
    def state(self) -> Any:
        """Shapes of the train state."""
        return jax.eval_shape(self.trainer.init_state, jax.random.key(self.loop_config.seed))

    @functools.cached_property
    def traced_step(self) -> ClosedJaxpr:
        """The training step on flat arguments: no layout of devices is in it, so it is traced once for all."""
        return jax.make_jaxpr(self.trainer.train_step)(self.state, self.frozen, self.batch)

    @functools.cached_property
    def flops_per_step(self) -> int:
        """See `matrix_flops`."""
        return matrix_flops(self.traced_step)


class AbstractTokenizer(Tokenizer):
    """A stage-I autoencoder's modules and the shapes of its arrays."""

    def __init__(self, trainer: AutoencoderTrainer):
        state = jax.eval_shape(trainer.init_state, jax.random.key(0))
        self.model = trainer.model
        self.grid = trainer.resolution // trainer.model.stride
        self.variables = {"params": state.params, "quantizer": state.quantizer_state}


class AbstractLabelCoder(LabelCoder):
    """The same of UViM's stage I."""

    def __init__(self, trainer: LabelAutoencoderTrainer):
        self.model, self.task = trainer.model, trainer.task
        self.variables = variables_of(jax.eval_shape(trainer.init_state, jax.random.key(0)))


def build_abstract(config: ConfigDict, stage1: ConfigDict | None = None) -> AbstractExperiment:
    """Builds and checks as `experiments.build_experiment` does, but opens no data and no stage I.

    Args:
      config: as resolved.
      stage1: the config of stage I where `config` is of a stage II that names no run directory in `stage1`.

    Raises:
      ValueError, UserError: one sentence that names the field, its value and what is allowed.
    """
    if config.trainer not in BUILDERS:
        raise ValueError(f"trainer = {config.trainer!r} is not one of {', '.join(BUILDERS)}")
    return BUILDERS[config.trainer](config, stage1)


def _autoencoder(config: ConfigDict, stage1: ConfigDict | None) -> AbstractExperiment:
    trainer = factory.build_trainer(config)
    # The perceptual network's weights come with a package: the only arrays that are read.
    frozen = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), trainer.load_frozen())
    tokens = (config.data.resolution // trainer.model.stride) ** 2
    return _experiment(config, trainer, frozen, _images(config), tokens)


def _maskgit(config: ConfigDict, stage1: ConfigDict | None) -> AbstractExperiment:
    if config.stage1 or stage1 is None:
        stage1 = stage1_link.stage1_config(config, "autoencoder")
    tokenizer = AbstractTokenizer(factory.build_trainer(stage1))
    trainer = maskgit_factory.build_trainer(config, tokenizer)
    tokens = tokenizer.grid**2
    batch = _images(config)
    if not trainer.encode:
        batch["tokens"] = jax.ShapeDtypeStruct((config.batch_size, tokens), jnp.int32)
        del batch["image"]
    return _experiment(config, trainer, tokenizer.variables if trainer.encode else {}, batch, tokens)


def _uvim_stage1(config: ConfigDict, stage1: ConfigDict | None) -> AbstractExperiment:
    trainer = label_autoencoder_factory.build_trainer(config)
    return _experiment(config, trainer, {}, _dense(config, trainer.task), trainer.model.code_grid**2)


def _uvim_stage2(config: ConfigDict, stage1: ConfigDict | None) -> AbstractExperiment:
    if config.stage1 or stage1 is None:
        stage1 = stage1_link.stage1_config(config, "uvim_stage1", [("task", "task"), ("context", "context")])
    coder = AbstractLabelCoder(label_autoencoder_factory.build_trainer(stage1))
    trainer = code_predictor_factory.build_trainer(config, coder)
    return _experiment(config, trainer, coder.variables, _dense(config, coder.task), trainer.model.num_codes)


def _experiment(config: ConfigDict, trainer: Trainer, frozen: Any, batch: dict, tokens: int) -> AbstractExperiment:
    loop_config = factory.build_loop(config)
    return AbstractExperiment(config.experiment, trainer, loop_config, frozen, batch, tokens, config.model.dtype)


def _images(config: ConfigDict) -> dict[str, jax.ShapeDtypeStruct]:
    B, side = config.batch_size, config.data.resolution
    return {
        "image": jax.ShapeDtypeStruct((B, side, side, 3), jnp.float32),
        "label": jax.ShapeDtypeStruct((B,), jnp.int32),
    }


def _dense(config: ConfigDict, task: Task) -> dict[str, jax.ShapeDtypeStruct]:
    return task.prepared_shapes(config.batch_size, config.data.resolution)


BUILDERS = {
    "autoencoder": _autoencoder,
    "maskgit": _maskgit,
    "uvim_stage1": _uvim_stage1,
    "uvim_stage2": _uvim_stage2,
}
