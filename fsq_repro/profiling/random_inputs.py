"""Random arrays in the shapes of a training step's inputs, for steps without data and without a trained stage I."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from fsq_repro.experiments.registry import kind_of
from fsq_repro.quantizers import make_quantizer

Shapes = Mapping[str, jax.ShapeDtypeStruct]


def class_counts(config: ConfigDict) -> dict[str, int]:
    """Array of a batch -> how many classes or codes its integers are of."""
    task = kind_of(config).build_task(config)
    counts = {"label": config.data.get("num_classes", 1), "tokens": make_quantizer(**config.quantizer).codebook_size}
    return counts | dict(task.labels if task else ())


def random_batch(shapes: Shapes, counts: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
    """A batch of these shapes: floats uniform in [0, 1), integers uniform in 0 .. `counts[name]` - 1."""
    rng = np.random.default_rng(seed)

    def draw(name: str, x: jax.ShapeDtypeStruct) -> np.ndarray:
        if jnp.issubdtype(x.dtype, jnp.integer):
            return rng.integers(counts[name], size=x.shape, dtype=x.dtype)
        return rng.random(x.shape, np.float32).astype(x.dtype)

    return {name: draw(name, x) for name, x in shapes.items()}


def random_weights(shapes: Any) -> Any:
    """Arrays that keep activations in range: kernels normal with variance 1 / fan-in, vectors uniform in [0, 1)."""
    rng = np.random.default_rng(0)

    def draw(x: jax.ShapeDtypeStruct) -> np.ndarray:
        if len(x.shape) < 2:  # biases, scales, counts of codes
            return rng.random(x.shape, np.float32).astype(x.dtype)
        return (rng.standard_normal(x.shape, np.float32) / math.sqrt(math.prod(x.shape[:-1]))).astype(x.dtype)

    return jax.tree.map(draw, shapes)
