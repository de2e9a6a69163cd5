"""What a run will need, before it is paid for: the loop's training step is traced and compiled, nothing is allocated.

Of a compiled step the temporaries are an upper bound: XLA's CPU backend, which compiles here for virtual devices,
schedules and fuses less for memory than those of accelerators. It drops the barriers by which remat delays what it
computes again, so remat shows in the FLOPs alone (https://github.com/jax-ml/jax/issues/19822). The collectives too are
those of its program, see NOTES in reporting/dry_run.py.
"""

import collections
import dataclasses
import re
from typing import Any

import jax
from jax.sharding import Mesh

from fsq_repro.profiling.abstract import AbstractExperiment
from fsq_repro.profiling.accelerators import ACCELERATORS, Accelerator
from fsq_repro.profiling.program_costs import read_collectives
from fsq_repro.trainers.accumulation import check_division
from fsq_repro.trainers.compiled_step import lower_step

PARAMETER_FIELDS = ("params", "discriminator_params")
# The program is never run: its machine code is made quickly. Partitioning and buffers come before that.
QUICK_CODE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def dry_run(
    experiment: AbstractExperiment, mesh: Mesh, *, utilisation: float, compile_step: bool = True
) -> dict[str, Any]:
    """Traces the training step and, where `compile_step`, compiles it for the devices of `mesh`.

    Dry runs of one `experiment` on the same mesh trace it once. ValueError for a batch or microbatches that the
    devices do not divide, or a utilisation out of (0, 1].

    Returns:
      All that is found out, ready for JSON; bytes are of one device, FLOPs of all together.
      experiment, devices, fsdp, batch_size, steps, dtype: of the config and the mesh.
      parameters: module -> number of parameters; modules that differ only by their number are counted together.
      tokens_per_example, tokens_per_step: codes.
      flops_per_step, flops: of matrix products and convolutions, see `matrix_flops`; the second of all steps.
      memory: bytes that hold through a step: params and optimizer of all networks that are trained; other_state, the
        rest of the train state (averaged parameters, codebook state, rng, step); frozen networks, on each device whole;
        batch, this device's part.
      checkpoint_bytes: of the whole train state, before the checkpoint's compression.
      compiled: XLA's account of one device's program, None where the step was only traced: bytes of the arguments that
        the program uses; of temporaries (activations, gradients, work space, see the module); flops, elementwise
        operations included and bodies of loops once; collectives, see `read_collectives`.
      utilisation: assumed share of the peak rate.
      estimates: for each of `ACCELERATORS` step_seconds on these devices, images_per_second that the data pipeline must
        deliver to all of them, device_hours of the whole run without its evaluations, and fits: whether memory and
        temporaries stay below the device's memory; where they do not, the run may still fit, since temporaries are an
        upper bound. None where nothing was compiled.
    """
    config, trainer = experiment.loop_config, experiment.trainer
    check_division(config.batch_size, trainer.accumulate_steps, mesh.size)
    if not 0 < utilisation <= 1:
        raise ValueError(f"utilisation = {utilisation} must be in (0, 1]")
    state, frozen, batch = experiment.placed(mesh)
    flops_per_step = experiment.flops_per_step(mesh)
    memory = _memory(state, frozen, batch)
    compiled = needed = None
    if compile_step:
        compiled = _compile(lower_step(experiment.replay_step(mesh), state, frozen, batch, mesh))
        needed = sum(memory.values()) + compiled["temporaries"]

    def estimate(accelerator: Accelerator) -> dict[str, Any]:
        rate = getattr(accelerator, f"{experiment.dtype}_flops") * utilisation
        step_seconds = flops_per_step / rate / mesh.size
        return {
            "accelerator": dataclasses.asdict(accelerator),
            "step_seconds": step_seconds,
            "images_per_second": config.batch_size / step_seconds,
            "device_hours": flops_per_step * config.steps / rate / 3600,
            "fits": None if needed is None else needed <= accelerator.memory,
        }

    return {
        "experiment": experiment.name,
        "devices": mesh.size,
        "fsdp": mesh.shape["fsdp"],
        "batch_size": config.batch_size,
        "steps": config.steps,
        "dtype": experiment.dtype,
        "parameters": _parameters(state),
        "tokens_per_example": experiment.tokens,
        "tokens_per_step": experiment.tokens * config.batch_size,
        "flops_per_step": flops_per_step,
        "flops": flops_per_step * config.steps,
        "memory": memory,
        "checkpoint_bytes": sum(_bytes(x, x.shape) for x in jax.tree.leaves(state)),
        "compiled": compiled,
        "utilisation": utilisation,
        "estimates": [estimate(a) for a in ACCELERATORS],
    }


def _compile(step: jax.stages.Lowered) -> dict[str, Any]:
    compiled = step.compile(compiler_options=QUICK_CODE)
    analysis = compiled.memory_analysis()
    return {
        "arguments": analysis.argument_size_in_bytes,
        "temporaries": analysis.temp_size_in_bytes,
        "flops": compiled.cost_analysis()["flops"],
        "collectives": read_collectives(compiled.as_text()),
    }


def _memory(state: Any, frozen: Any, batch: Any) -> dict[str, int]:
    def on_device(tree: Any) -> int:
        return sum(_bytes(x, x.sharding.shard_shape(x.shape)) for x in jax.tree.leaves(tree))

    memory = dict.fromkeys(("params", "optimizer", "other_state"), 0)
    for field in dataclasses.fields(state):
        kind = "optimizer" if field.name.endswith("opt_state") else "other_state"
        memory["params" if field.name in PARAMETER_FIELDS else kind] += on_device(getattr(state, field.name))
    return memory | {"frozen": on_device(frozen), "batch": on_device(batch)}


def _bytes(x: jax.ShapeDtypeStruct, shape: tuple[int, ...]) -> int:
    """Bytes of a part of `x` of this shape; a typed key is what it stores."""
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        data = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(shape, x.dtype))
        return data.size * data.dtype.itemsize
    return jax.ShapeDtypeStruct(shape, x.dtype).size * x.dtype.itemsize


def _parameters(state: Any) -> dict[str, int]:
    counts = collections.Counter()
    for field in PARAMETER_FIELDS:
        prefix = "" if field == "params" else field.removesuffix("params").replace("_", "/")
        for name, module in getattr(state, field, {}).items():
            size = sum(x.size for x in jax.tree.leaves(module))
            counts[prefix + re.sub(r"_?\d+$", "", name)] += size
    return dict(counts)
