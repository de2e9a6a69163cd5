"""The training step as it is compiled: one program for the loop, the benchmark and the dry run.

The train state is donated and stays where it is, split over `fsdp`; the networks are gathered at the start of the step;
what is frozen and the metrics are on each device whole.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from fsq_repro.runtime import sharding


def place_state(shapes: Any, mesh: Mesh) -> Any:
    """Shapes of a train state -> the same with the places of its arrays on the mesh."""
    return jax.tree.map(sharding.placed, shapes, sharding.state_sharding(shapes, mesh))


def init_state(initial: Callable[[jax.Array], Any], key: jax.Array, mesh: Mesh) -> Any:
    """The initial state of a trainer's `init_state`, made where its arrays belong."""
    shapes = jax.eval_shape(initial, key)
    return jax.jit(initial, out_shardings=sharding.state_sharding(shapes, mesh))(key)


def lower_step(train_step: Callable, state: Any, frozen: Any, batch: Any, mesh: Mesh) -> jax.stages.Lowered:
    """Lowers a trainer's `train_step`, (state, frozen, batch) -> (state, metrics), for the mesh.

    `state`, `frozen` and `batch` are arrays, or shapes with their places: as `init_state` or `place_state` gives them,
    replicated, and split over the mesh.
    """
    places = (sharding.state_sharding(state, mesh), sharding.replicated(mesh))
    step = jax.jit(sharding.gathering(train_step, mesh), donate_argnums=0, out_shardings=places)
    with sharding.tracing_for(mesh):
        return step.lower(state, frozen, batch)
