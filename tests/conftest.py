"""Test process: four CPU devices, rank promotion refused, quick compilation, one compilation cache for all runs."""

import json
import os
import pathlib
import zlib

import jax
import numpy as np
import pytest

from fsq_repro.runtime import startup

ROOT = pathlib.Path(__file__).resolve().parent.parent

# The tests' programs run a few times at most: compiled in a quarter of the time, they may run slower.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", str(ROOT / ".jax_cache"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def pytest_collection_finish():
    startup.collect_rarely()


@pytest.fixture
def strict_dtypes():
    """Strict dtype promotion, for tests of maths (parts of optax and flax fail under it)."""
    with jax.numpy_dtype_promotion("strict"):
        yield


def golden_weights(shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """Weights of the golden files, drawn by the recipe they were measured with: {published name: float32 array}.

    x ~ N(0, 1) from a generator seeded with the CRC-32 of the name; `scale` and `gamma` 1 + 0.1 x, `bias` and `beta`
    0.1 x, arrays of two or more axes x / sqrt(fan-in), others 0.1 x.
    """
    weights = {}
    for name, shape in shapes.items():
        x = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
        last = name.split("/")[-1]
        if last in ("scale", "gamma"):
            x = 1 + 0.1 * x
        elif last in ("bias", "beta") or len(shape) < 2:
            x = 0.1 * x
        else:
            x = x / np.sqrt(np.prod(shape[:-1]))
        weights[name] = x.astype(np.float32)
    return weights


def load_golden(name: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns (measured arrays, weights by published name) of tests/golden/NAME.npz."""
    with np.load(ROOT / "tests" / "golden" / f"{name}.npz") as f:
        arrays = {k: f[k] for k in f.files if k != "shapes"}
        weights = golden_weights(json.loads(str(f["shapes"])) if "shapes" in f.files else {})
    return arrays, weights


def load_cases(name: str) -> dict[str, dict[str, np.ndarray]]:
    """Measured arrays of tests/golden/NAME.npz by case, those that all cases share under ""."""
    cases: dict[str, dict[str, np.ndarray]] = {}
    with np.load(ROOT / "tests" / "golden" / f"{name}.npz") as f:
        for key in f.files:
            case, _, array = key.rpartition("/")
            cases.setdefault(case, {})[array] = f[key]
    return cases
