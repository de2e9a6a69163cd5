"""FSP: published values, losses and noise; bins of equal width."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.quantizers.fsp import DISTRIBUTIONS, FSP, UNIT_VARIANCE, bins, moment_errors, perturb
from tests.conftest import load_golden

pytestmark = pytest.mark.usefixtures("strict_dtypes")


@pytest.fixture(scope="module")
def golden():
    return load_golden("quantizers_fsp")[0]


CASES = [f"8x5x5x5/{name}{end}" for name in DISTRIBUTIONS for end in ("", "_inv")] + ["4x3/tanh"]


@pytest.mark.parametrize("case", CASES)
def test_published_values(golden, case):
    want = {k.rpartition("/")[2]: v for k, v in golden.items() if k.rpartition("/")[0] == case}
    name, _, inverse = case.partition("/")[2].partition("_")
    fields = {"skewness_weight": 0.06, "kurtosis_weight": 0.05, "variance_target": 1.0, "quantize_rate": 1.0}
    module = FSP(tuple(int(l) for l in want["levels"]), name, bool(inverse), **fields)

    def objective(z):
        quantized = module.apply({}, z, train=True)
        return jnp.sum(quantized.codes * want["w"]) + quantized.loss, quantized

    grad_z, got = jax.jit(jax.grad(objective, has_aux=True))(want["z"])
    np.testing.assert_array_equal(got.indices, want["indices"])
    np.testing.assert_allclose(got.codes, want["codes"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got.loss, want["loss"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(grad_z, want["grad_z"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("levels", ["8x5x5x5", "4x3"])
def test_published_noise(golden, levels):
    want = {k.rpartition("/")[2]: v for k, v in golden.items() if k.startswith(f"{levels}/tanh_perturb/")}
    levels = tuple(int(l) for l in want["levels"])
    p = DISTRIBUTIONS["tanh"].cdf(want["z"])
    middle = ((np.asarray(bins(p, levels)) + 0.5) / np.array(levels)).astype(np.float32)
    moved = perturb(p, middle, want["rand_perturb"], want["rand_select"], 0.25, levels)
    np.testing.assert_allclose((moved - 0.5) * UNIT_VARIANCE, want["codes"], rtol=1e-5, atol=1e-5)
    errors = moment_errors(jnp.asarray(want["z"]).reshape(-1, len(levels)), 0.8225)
    np.testing.assert_allclose(0.1 * errors["mean"] + 0.07 * errors["variance"], want["loss"], rtol=1e-5)


def test_a_training_step_reads_noise_of_a_bins_width_and_keeps_the_indices():
    levels = (8, 5)
    z = jax.random.logistic(jax.random.key(0), (4000, 2)) / 2
    run = jax.jit(lambda z, rate: FSP(levels, quantize_rate=rate).apply({}, z, train=True, rngs=rngs), static_argnums=1)
    rngs = {"quantizer": jax.random.key(1)}
    noisy, half = run(z, 0.0), run(z, 0.5)
    codes = FSP(levels).indices_to_codes(noisy.indices)
    np.testing.assert_array_equal(noisy.indices, half.indices)
    p = DISTRIBUTIONS["tanh"].cdf(z)
    np.testing.assert_array_equal(noisy.indices, bins(p, levels) @ np.array([1, 8]))
    moved = (np.asarray(noisy.codes) / UNIT_VARIANCE + 0.5 - np.asarray(p)) * np.array(levels)
    assert 0.49 < np.abs(moved).max() <= 0.5 + 1e-5 and not np.any(noisy.codes == codes)
    np.testing.assert_allclose(np.mean(half.codes == codes), 0.5, atol=0.03)
    # What is distributed as asked for is of variance 1, and has hardly a loss.
    np.testing.assert_allclose(np.std(noisy.codes, axis=0), 1, atol=0.03)
    assert noisy.loss < 1e-3


def test_bins_are_of_equal_width():
    """Not the outer ones half as wide, as rounding makes them."""
    p = jnp.asarray(np.linspace(0, 1, 6001, dtype=np.float32))
    levels = (2, 5, 8)
    digits = jax.jit(bins, static_argnums=1)(jnp.tile(p[:, None], 3), levels)
    for i, level in enumerate(levels):
        np.testing.assert_allclose(np.bincount(digits[:, i]), 6001 / level, atol=2)


def test_one_token_and_equal_tokens_have_finite_gradients():
    module = FSP((5, 3), skewness_weight=1.0, kurtosis_weight=1.0)
    loss = lambda z: module.apply({}, z, train=True, rngs={"quantizer": jax.random.key(0)}).loss  # noqa: E731
    gradients = jax.jit(lambda: [jax.grad(loss)(jnp.ones((n, 2))) for n in (1, 4)])
    assert all(np.isfinite(g).all() for g in gradients())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"distribution": "gauss"},
            "distribution is 'gauss', but must be one of tanh, sigmoid, normal, laplace, cauchy",
        ),
        ({"quantize_rate": 1.5}, "quantize_rate is 1.5, but must be in 0..1"),
        ({"mean_weight": -1.0}, "mean_weight is -1.0, but must be"),
    ],
)
def test_bad_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        FSP((5, 3), **fields).apply({}, jnp.zeros((1, 2)), train=False)
