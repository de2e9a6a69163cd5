"""Step time of a trainer and rate of sampling on this machine, beside what its matrix products could do."""

import time
from collections.abc import Iterator

import jax
import numpy as np

from fsq_repro.inference.image_generator import ImageGenerator
from fsq_repro.runtime import sharding
from fsq_repro.trainers.compiled_step import init_state, lower_step
from fsq_repro.trainers.loop import LoopConfig, Trainer
from fsq_repro.trainers.maskgit import MaskGITTrainer


def matrix_rate(n: int = 2048, repeats: int = 8, dtype: str = "float32") -> float:
    """Floating-point operations per second of an n x n matrix product."""
    x = jax.random.normal(jax.random.key(0), (n, n), dtype)
    product = jax.jit(lambda x: x @ x)
    product(x).block_until_ready()
    started = time.monotonic()
    for _ in range(repeats):
        y = product(x)
    y.block_until_ready()
    return repeats * 2 * n**3 / (time.monotonic() - started)


def measure_step(trainer: Trainer, iterator: Iterator[dict], config: LoopConfig, steps: int) -> dict[str, float]:
    """Times `steps` steps of the loop's program on prepared batches.

    The first step includes making the state and compiling. Operations are XLA's count, of all devices
    together; their rate is set beside that of a matrix product.
    """
    mesh = sharding.make_mesh(config.fsdp)
    batches = [sharding.put_batch(next(iterator), mesh) for _ in range(4)]
    started = time.monotonic()
    state = init_state(trainer.init_state, jax.random.key(config.seed), mesh)
    frozen = jax.device_put(trainer.load_frozen(), sharding.replicated(mesh))
    step = lower_step(trainer.train_step, state, frozen, batches[0], mesh).compile()
    state, metrics = step(state, frozen, batches[0])
    jax.block_until_ready(metrics)
    first = time.monotonic() - started
    started = time.monotonic()
    for i in range(steps):
        state, metrics = step(state, frozen, batches[i % 4])
    jax.block_until_ready((state, metrics))
    seconds = (time.monotonic() - started) / steps
    flops = step.cost_analysis()["flops"] * mesh.size  # the count is of one device's program
    rate = matrix_rate()
    return {
        "first_step_s": first,
        "step_s": seconds,
        "images_per_s": config.batch_size / seconds,
        "gflop_per_step": flops / 1e9,
        "gflop_per_s": flops / seconds / 1e9,
        "matrix_gflop_per_s": rate / 1e9,
        "share_of_matrix_rate": flops / seconds / rate,
    }


def measure_sampling(trainer: MaskGITTrainer, batch_size: int, batches: int) -> dict[str, float]:
    """Decoded samples a second, without guidance and with it (twice the network calls); initial weights."""
    params = jax.jit(trainer.init_state)(jax.random.key(0)).params
    image_generator = ImageGenerator(trainer.generator, params, trainer.tokenizer, step=0, batch_size=batch_size)
    rates = {}
    for name, guidance in (("samples_per_s", 0.0), ("guided_samples_per_s", 0.1)):
        image_generator.images(np.zeros(batch_size, np.int32), seed=0, guidance=guidance)  # compiles
        started = time.monotonic()
        image_generator.images(np.zeros(batches * batch_size, np.int32), seed=0, guidance=guidance)
        rates[name] = batches * batch_size / (time.monotonic() - started)
    return rates
