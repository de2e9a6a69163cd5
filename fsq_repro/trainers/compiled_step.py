"""The training step as it is compiled, one program for the loop, the benchmark and the dry run; and the check of a run.

The train state is donated and stays where it is, split over `fsdp`; the networks are gathered at the start of the step;
what is frozen and the metrics are on each device whole.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from fsq_repro.metrics.usage import CodebookUsage
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
    return step.lower(state, frozen, batch)


def make_totals(measure: Callable, codebook_size: int, mesh: Mesh) -> Callable[[Any, Iterable[dict]], tuple]:
    """A function (variables, batches) -> (`CodebookUsage.compute()`, {figure: its sum in float64}, examples).

    `measure` is (variables, batch) -> (codes int32 (B, ...), {figure: (B, ...)}); it is jitted. Padding is left out.
    """

    def masked(variables: Any, batch: dict) -> tuple[jax.Array, dict[str, jax.Array], jax.Array]:
        return *measure(variables, batch), batch["mask"]

    # Replicated outputs: each process then holds the values of the global batch.
    masked = jax.jit(masked, out_shardings=sharding.replicated(mesh))

    def totals(variables: Any, batches: Iterable[dict]) -> tuple[dict, dict[str, float], int]:
        usage, sums, count = CodebookUsage(codebook_size), {}, 0
        for batch in batches:
            codes, figures, mask_B = jax.tree.map(np.asarray, masked(variables, sharding.put_batch(batch, mesh)))
            usage.update(codes[mask_B])
            count += int(mask_B.sum())
            for name, values in figures.items():
                sums[name] = sums.get(name, 0.0) + float(values[mask_B].sum(dtype=np.float64))
        return usage.compute(), sums, count

    return totals
