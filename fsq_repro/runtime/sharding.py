"""One mesh with the axes `data` and `fsdp`; jit with NamedSharding does the rest (no pmap).

Batches are split over both axes. Parameters and optimiser states are replicated over `data` and, where `fsdp` > 1,
split over `fsdp` along their largest divisible axis. A step gathers the parameters, once, and nothing else.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

SMALL = 2**14  # arrays under this many elements are not worth a gather
NETWORKS = ("params", "discriminator_params", "quantizer_state")  # fields of a train state that a step computes with


def make_mesh(fsdp: int = 1, devices: list | None = None) -> Mesh:
    """Mesh (data = devices / fsdp, fsdp) over all devices, or those given; ValueError if `fsdp` does not divide them.

    Axes are Auto: `jax.make_mesh` alone makes them Explicit, under which a gather from a codebook does not trace.
    """
    devices = jax.devices() if devices is None else devices
    if fsdp < 1 or len(devices) % fsdp:
        raise ValueError(f"mesh.fsdp = {fsdp} must divide the number of devices, {len(devices)}")
    shape, auto = (len(devices) // fsdp, fsdp), (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh(shape, ("data", "fsdp"), axis_types=auto, devices=devices)


def tracing_for(mesh: Mesh) -> Any:
    """Context in which a program is traced for the mesh: `jax.sharding.get_abstract_mesh` tells its size."""
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P(("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def state_sharding(abstract_state: Any, mesh: Mesh) -> Any:
    """Pytree of shardings for a train state: split over `fsdp` along the largest axis that it divides."""
    size = mesh.shape["fsdp"]

    def one(x: jax.ShapeDtypeStruct) -> NamedSharding:
        axes = [i for i in np.argsort(x.shape)[::-1] if x.shape[i] % size == 0]
        if size == 1 or x.size < SMALL or not axes:
            return replicated(mesh)
        spec = [None] * len(x.shape)
        spec[axes[0]] = "fsdp"
        return NamedSharding(mesh, P(*spec))

    return jax.tree.map(one, abstract_state)


def placed(x: jax.ShapeDtypeStruct, place: NamedSharding) -> jax.ShapeDtypeStruct:
    """The shape of an array with its place."""
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)


def gathered(state: Any, mesh: Mesh, fields: tuple[str, ...] = NETWORKS) -> Any:
    """A train state with those of `fields` that it has on every device whole; in jit or out of it."""
    if mesh.shape["fsdp"] == 1:
        return state
    found = {name: getattr(state, name) for name in fields if hasattr(state, name)}
    return state.replace(**jax.lax.with_sharding_constraint(found, replicated(mesh)))


def gathering(train_step: Callable, mesh: Mesh) -> Callable:
    """`train_step` on a state that is split over `fsdp`: networks are gathered first, optimiser states stay split.

    Left to itself XLA's partitioner may split products along the parameters' axes instead and exchange activations:
    in UViM's stage I 1,000 times as many bytes as there are parameters.
    """
    if mesh.shape["fsdp"] == 1:
        return train_step  # itself: jax knows compiled functions by their identity
    return lambda state, frozen, batch: train_step(gathered(state, mesh), frozen, batch)


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's part of a batch -> global arrays, split over the mesh."""
    sharding = batch_sharding(mesh)
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}


def put_local(x: Any, mesh: Mesh) -> Any:
    """A tree of arrays for a mesh of this process's devices: split over them if their number divides the batch."""
    divides = len(jax.tree.leaves(x)[0]) % mesh.size == 0
    return jax.device_put(x, batch_sharding(mesh) if divides else replicated(mesh))
