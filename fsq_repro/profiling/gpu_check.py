"""What `scripts/gpu_check.py` finds out: do the trainers run and resume on a machine, how fast, and in what memory.

All of it is on the first device and on random arrays: nothing is downloaded. It has been run on CPUs only, with
JAX 0.10.2, 0.11.2 and 0.12.0; no number of a GPU or TPU is known yet.

What is found comes in pieces, dicts ready for JSON, so that a piece that fails leaves those before it.
"""

import os
import pathlib
import statistics
import subprocess
import tempfile
import time
import traceback
from collections.abc import Iterator
from typing import Any

import grain
import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from fsq_repro.experiments.registry import kind_of
from fsq_repro.profiling.abstract import AbstractExperiment, build_abstract
from fsq_repro.profiling.accelerators import peak_rate
from fsq_repro.profiling.benchmark import matrix_rate
from fsq_repro.profiling.dry_run import dry_run
from fsq_repro.profiling.random_inputs import class_counts, random_batch, random_weights
from fsq_repro.runtime import sharding, startup
from fsq_repro.runtime.checkpoints import Checkpoints
from fsq_repro.trainers.compiled_step import init_state, lower_step

Found = dict[str, Any]


def device_facts() -> Iterator[Found]:
    """One piece: the first device, its driver, the versions, and `float32_error` that tells how products are rounded.

    That is the largest error of a product of float32 arrays over its largest entry.
    """
    device = jax.devices()[0]
    x = np.asarray(jax.random.normal(jax.random.key(0), (1024, 1024)))
    exact = x.astype(np.float64) @ x
    yield {
        "device": device.device_kind,
        "platform": device.platform,
        "runtime": " ".join(device.client.platform_version.split()),
        "driver": _driver(),
        "memory_limit": memory_stats(device).get("bytes_limit"),
        "float32_error": float(np.max(np.abs(jax.jit(lambda x: x @ x)(x) - exact)) / np.max(np.abs(exact))),
        "versions": startup.versions(),
        "revision": startup.git_revision(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def memory_stats(device: jax.Device) -> dict[str, int]:
    """What the device reports of its memory; {} where it does not, as CPUs."""
    return device.memory_stats() or {}


def _driver() -> str | None:
    """Version of NVIDIA's driver; None where there is none."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return None


def find(
    part: str, config: ConfigDict | None = None, stage1: ConfigDict | None = None, *, batch_size: int, quick: bool
) -> Iterator[Found]:
    """The row of a part ("device", "train", "time" or "bound") as it grows; after an error the last says what `failed`.

    `out_of_memory` stands beside it where a smaller batch may help. A `batch_size` of 0 is the config's.
    """
    if config and batch_size:
        config.batch_size = batch_size
    if part == "device":
        pieces = device_facts()
    elif part == "train":
        pieces = check_trainer(config, stage1)
    elif part == "time":
        pieces = measure_steps(config, stage1, seconds=0.1 if quick else 3.0, matrix_side=256 if quick else 8192)
    else:
        pieces = memory_bound(config, stage1)
    row: Found = {}
    try:
        for found in pieces:
            row |= found
            yield row
    except Exception as e:  # whatever it is, what has been found is kept
        traceback.print_exc()
        full = isinstance(e, MemoryError) or "RESOURCE_EXHAUSTED" in str(e) or "out of memory" in str(e).lower()
        reason = " ".join(f"{part}: {type(e).__name__}: {e}".split())
        yield row | {"failed": reason[:200]} | ({"out_of_memory": True} if full else {})


def check_trainer(config: ConfigDict, stage1: ConfigDict | None, steps: int = 3) -> Iterator[Found]:
    """Trains for 2 `steps`, and again with a checkpoint restored in the middle.

    Pieces: note, batch_size; compile_s; loss of the last step, all metrics finite; resume, see `compare_states`. The
    two trainings share one compiled program, as a run and its resumption do through the compilation cache.
    """
    experiment, note = _build(config, stage1)
    yield {"note": note, "batch_size": config.batch_size}
    mesh, started = _first_device(), time.monotonic()
    step = compile_step(experiment, mesh)
    yield {"compile_s": time.monotonic() - started}
    frozen = _frozen(config, experiment, mesh)
    counts = class_counts(config)

    def batches() -> grain.DatasetIterator:
        numbered = grain.MapDataset.range(2 * steps).map(lambda i: random_batch(experiment.batch, counts, i))
        return iter(numbered.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)))

    def train(state: Any, iterator: grain.DatasetIterator) -> tuple[Any, Found]:
        for _ in range(steps):
            state, metrics = step(state, frozen, sharding.put_batch(next(iterator), mesh))
            values = {name: float(x) for name, x in metrics.items()}
            if bad := [name for name, value in values.items() if not np.isfinite(value)]:
                raise FloatingPointError(f"{', '.join(bad)} not finite at step {int(state.step)}")
        return state, values

    iterator = batches()
    unbroken, _ = train(_initial(experiment, mesh), iterator)
    unbroken, metrics = train(unbroken, iterator)
    yield {"loss": metrics["loss"]}

    iterator = batches()
    state, _ = train(_initial(experiment, mesh), iterator)
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(pathlib.Path(folder))
        checkpoints.save(steps, state, iterator)
        del state
        iterator = batches()
        restored = checkpoints.restore(experiment.placed(mesh)[0], data_iterator=iterator)
        checkpoints.close()
    resumed, _ = train(restored, iterator)
    yield {"resume": compare_states(unbroken, resumed)}


def compare_states(a: Any, b: Any) -> Found:
    """How two trees of arrays differ.

    Returns:
      arrays: how many are not equal bitwise; largest: the largest difference of an entry; where: in which array.
    """
    arrays, largest, where = 0, 0.0, ""
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        x, y = (np.asarray(jax.random.key_data(z) if _is_key(z) else z) for z in (x, y))
        if x.tobytes() == y.tobytes():
            continue
        difference = float(np.max(np.abs(x.astype(np.float64) - y)))
        if not arrays or difference > largest:
            largest, where = difference, jax.tree_util.keystr(path, simple=True, separator="/")
        arrays += 1
    return {"arrays": arrays, "largest": largest, "where": where}


def measure_steps(
    config: ConfigDict, stage1: ConfigDict | None, *, seconds: float, matrix_side: int
) -> Iterator[Found]:
    """Times the step on one prepared batch, for about `seconds`; the process should have run nothing before.

    Pieces: note, batch_size; compile_s, tracing included, program_bytes by XLA's account, limit_bytes that JAX may use;
    step_s, the median of three blocks, flops of a step (`matrix_flops`), peak_flops_per_s of the accelerator, None
    where it is not known, loss; peak_bytes of the process, None where the device does not report it;
    matrix_flops_per_s of a product of `matrix_side` in the same dtype.

    MemoryError before anything is run where the program needs more than the limit.
    """
    experiment, note = _build(config, stage1)
    mesh, started = _first_device(), time.monotonic()
    device = mesh.devices.item()
    yield {"note": note, "batch_size": config.batch_size}
    step = compile_step(experiment, mesh)
    compile_s, limit = time.monotonic() - started, memory_stats(device).get("bytes_limit")
    needed = program_bytes(step)
    yield {"compile_s": compile_s, "program_bytes": needed, "limit_bytes": limit}
    if limit and needed > limit:
        raise MemoryError(f"the compiled step needs {needed:,} bytes, JAX may use {limit:,}")
    compilation_peak = memory_stats(device).get("peak_bytes_in_use")

    frozen = _frozen(config, experiment, mesh)
    batch = sharding.put_batch(random_batch(experiment.batch, class_counts(config), 0), mesh)
    state = _initial(experiment, mesh)

    def timed(count: int) -> float:
        nonlocal state, metrics
        started = time.monotonic()
        for _ in range(count):
            state, metrics = step(state, frozen, batch)
        jax.block_until_ready((state, metrics))
        return (time.monotonic() - started) / count

    metrics: Found = {}
    timed(2)  # warm
    count = int(np.clip(seconds / 3 / timed(1), 1, 100))
    step_s = statistics.median(timed(count) for _ in range(3))
    yield {
        "step_s": step_s,
        "flops": experiment.flops_per_step(mesh),
        "peak_flops_per_s": peak_rate(device.device_kind, experiment.dtype),
        "loss": float(metrics["loss"]),
    }
    peak = memory_stats(device).get("peak_bytes_in_use")
    yield {"peak_bytes": peak, "peak_of_compilation": peak is not None and peak == compilation_peak}
    yield {"matrix_flops_per_s": matrix_rate(matrix_side, dtype=experiment.dtype)}


def memory_bound(config: ConfigDict, stage1: ConfigDict | None) -> Iterator[Found]:
    """One piece: bound_bytes, the dry run's upper bound for the step on one device; the process should see the CPU."""
    experiment, _ = _build(config, stage1)
    found = dry_run(experiment, _first_device(), utilisation=1.0)
    yield {"bound_bytes": sum(found["memory"].values()) + found["compiled"]["temporaries"]}


def compile_step(experiment: AbstractExperiment, mesh: Mesh) -> jax.stages.Compiled:
    """The loop's program, from shapes alone."""
    return lower_step(experiment.replay_step(mesh), *experiment.placed(mesh), mesh).compile()


def program_bytes(step: jax.stages.Compiled) -> int:
    """Memory of one device that XLA has planned for the step: arguments, results and temporaries."""
    m = step.memory_analysis()
    sizes = (m.argument_size_in_bytes, m.output_size_in_bytes, m.temp_size_in_bytes)
    return sum(sizes) - m.alias_size_in_bytes  # what is donated is an argument and a result


def _build(config: ConfigDict, stage1: ConfigDict | None) -> tuple[AbstractExperiment, str]:
    """The experiment, without the perceptual loss where its weights are not installed, and a note that says so."""
    try:
        return build_abstract(config, stage1), ""
    except FileNotFoundError as e:
        if not config.get("loss", {}).get("perceptual"):
            raise
        config.loss.perceptual = 0.0
        return build_abstract(config, stage1), f"without the perceptual loss: {e}"


def _first_device() -> Mesh:
    return sharding.make_mesh(1, jax.devices()[:1])


def _initial(experiment: AbstractExperiment, mesh: Mesh) -> Any:
    return init_state(experiment.trainer.init_state, jax.random.key(experiment.loop_config.seed), mesh)


def _frozen(config: ConfigDict, experiment: AbstractExperiment, mesh: Mesh) -> Any:
    """The perceptual network's weights of a stage I; of a stage II, in place of a trained stage I, random ones."""
    frozen = random_weights(experiment.frozen) if kind_of(config).needs else experiment.trainer.load_frozen()
    return jax.device_put(frozen, sharding.replicated(mesh))


def _is_key(x: Any) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
