"""From a config of any kind to its training step in shapes alone: no data, no arrays, no stage I."""

import dataclasses
import functools
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.sharding import Mesh
from ml_collections import ConfigDict

from fsq_repro.experiments.registry import KINDS, kind_of
from fsq_repro.factories import common, fields
from fsq_repro.profiling.program_costs import matrix_flops
from fsq_repro.runtime import sharding
from fsq_repro.trainers.compiled_step import place_state
from fsq_repro.trainers.loop import LoopConfig, Trainer


@dataclasses.dataclass(frozen=True, eq=False)
class AbstractExperiment:
    """What `dry_run` and `gpu_check` need of an experiment."""

    name: str
    trainer: Trainer  # a stage II has a stage I of shapes, which its step can be traced with, but nothing else
    loop_config: LoopConfig
    frozen: Any  # shapes of what `trainer.load_frozen` gives
    batch: dict[str, jax.ShapeDtypeStruct]  # shapes of a global batch
    tokens: int  # codes of one example
    dtype: str  # of the computation, "float32" or "bfloat16"

    @functools.cached_property
    def state(self) -> Any:
        """Shapes of the train state."""
        return jax.eval_shape(self.trainer.init_state, jax.random.key(self.loop_config.seed))

    def placed(self, mesh: Mesh) -> tuple[Any, Any, Any]:
        """Shapes of the step's arguments (train state, frozen networks, batch) with their places on the mesh."""
        frozen = jax.tree.map(lambda x: sharding.placed(x, sharding.replicated(mesh)), self.frozen)
        batch = jax.tree.map(lambda x: sharding.placed(x, sharding.batch_sharding(mesh)), self.batch)
        return place_state(self.state, mesh), frozen, batch

    @functools.cache  # noqa: B019 (an experiment lives as long as the process)
    def traced_step(self, mesh: Mesh) -> tuple[ClosedJaxpr, Any]:
        """The step on flat arguments and the shapes of its results, traced once for each mesh."""
        with sharding.tracing_for(mesh):
            return jax.make_jaxpr(self.trainer.train_step, return_shape=True)(self.state, self.frozen, self.batch)

    def replay_step(self, mesh: Mesh) -> Any:
        """`trainer.train_step` as it was traced; under its name, which is in the program's text."""
        program, results = self.traced_step(mesh)

        def train_step(*arguments: Any) -> Any:
            return jax.tree.unflatten(jax.tree.structure(results), jaxpr_as_fun(program)(*jax.tree.leaves(arguments)))

        return train_step

    def flops_per_step(self, mesh: Mesh) -> int:
        """See `matrix_flops`."""
        return matrix_flops(self.traced_step(mesh)[0])


def build_abstract(config: ConfigDict, stage1: ConfigDict | None = None) -> AbstractExperiment:
    """Builds and checks as `build_experiment` does, but opens no data and no stage I.

    `stage1` is the config of stage I where `config` is of a stage II that names no run directory in its `stage1`.
    ValueError and UserError say in one sentence which field has which value and what is allowed.
    """
    kind, stage1_model = kind_of(config), None
    fields.check_all(config)
    if kind.needs:
        if config.stage1 or stage1 is None:
            stage1 = kind.needs.open(config).config
        stage1_model = kind.abstract_stage1(KINDS[kind.needs.trainer].build_trainer(stage1, None))
    trainer = kind.build_trainer(config, stage1_model)
    return AbstractExperiment(
        name=config.experiment,
        trainer=trainer,
        loop_config=common.build_loop(config),
        frozen=kind.frozen_shapes(trainer),
        batch=kind.batch_shapes(config, trainer),
        tokens=kind.num_tokens(trainer),
        dtype=config.model.dtype,
    )
