"""Step time of a config on this machine, beside what its matrix products could do.

    python scripts/benchmark.py --config=configs/tradeoff_autoencoder.py:scale=cpu

Prints: time to the first step with a cold and with a warm compilation cache, step time, images/s, floating-point
operations a step (XLA's count) and their share of the measured rate of a matrix product.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

import jax
from absl import flags
from ml_collections import config_flags

from fsq_repro.runtime import cli, sharding, startup
from fsq_repro.runtime.errors import explained
from fsq_repro.trainers import factory

config_flags.DEFINE_config_file("config", None, "FILE.py:ARG, see configs/.", lock_config=True)
flags.DEFINE_integer("steps", 30, "Steps to time.", lower_bound=1)
flags.DEFINE_string("measure", "", "Internal: measure in this process, with this compilation cache.")
flags.mark_flags_as_required(["config"])
FLAGS = flags.FLAGS


def matrix_rate(n: int = 2048, repeats: int = 8) -> float:
    """Floating-point operations a second of an n x n float32 matrix product."""
    x = jax.random.normal(jax.random.key(0), (n, n))
    product = jax.jit(lambda x: x @ x)
    product(x).block_until_ready()
    started = time.monotonic()
    for _ in range(repeats):
        y = product(x)
    y.block_until_ready()
    return repeats * 2 * n**3 / (time.monotonic() - started)


def measure() -> dict:
    """Times this process's config; the first step includes making the state and compiling."""
    config = FLAGS.config
    with explained():
        trainer = factory.build_trainer(config)
        iterator = factory.build_train_iterator(config, factory.build_source(config, "train"))
    mesh = sharding.make_mesh(config.mesh.fsdp)
    batches = [sharding.put_batch(next(iterator), mesh) for _ in range(4)]
    started = time.monotonic()
    state = jax.jit(trainer.init_state)(jax.random.key(config.seed))
    frozen = trainer.load_frozen()
    step = jax.jit(trainer.train_step, donate_argnums=0).lower(state, frozen, batches[0]).compile()
    state, metrics = step(state, frozen, batches[0])
    jax.block_until_ready(metrics)
    first = time.monotonic() - started
    started = time.monotonic()
    for i in range(FLAGS.steps):
        state, metrics = step(state, frozen, batches[i % 4])
    jax.block_until_ready((state, metrics))
    seconds = (time.monotonic() - started) / FLAGS.steps
    flops = step.cost_analysis()["flops"]
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


def main() -> None:
    if FLAGS.measure:
        startup.start()
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        print("\n" + json.dumps(measure()))
        return
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
        results = []
        for _ in ("cold", "warm"):
            run = subprocess.run(
                [sys.executable, *sys.argv, "--measure=1"], env=environment, stdout=subprocess.PIPE, text=True
            )
            if run.returncode:
                sys.exit(run.returncode)
            results.append(json.loads(run.stdout.splitlines()[-1]))
    cold, warm = results
    print(f"device                         {startup.device_description()}")
    print(f"time to first step, cold cache {cold['first_step_s']:.1f} s")
    print(f"time to first step, warm cache {warm['first_step_s']:.1f} s")
    for name in ("step_s", "images_per_s", "gflop_per_step", "gflop_per_s", "matrix_gflop_per_s", "share_of_matrix_rate"):
        print(f"{name:30s} {warm[name]:.3g}")


if __name__ == "__main__":
    cli.run(main)
