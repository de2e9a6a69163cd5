"""DiVeQ: the published codes and gradients with their noise, and restarts of codes that few steps used."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.quantizers.diveq import DiVeQ, directed
from tests.conftest import load_cases

pytestmark = pytest.mark.usefixtures("strict_dtypes")

GOLDEN = load_cases("quantizers_diveq")
SHARED = GOLDEN[""]


@jax.jit
def values_and_gradients(z, codebook, indices, noise, w):
    def objective(z, codebook):
        codes = directed(z, codebook[indices], noise)
        return jnp.sum(codes * w), codes

    gradients, codes = jax.grad(objective, (0, 1), has_aux=True)(z, codebook)
    return codes, *gradients


@pytest.mark.parametrize("case", ["official", "lucidrains"])
def test_published_values_and_gradients(case):
    want, codebook = GOLDEN[case], SHARED["codebook"]
    flat = {name: want.get(name, SHARED.get(name)) for name in ("z", "w", "grad_z", "codes")}
    z, w, grad_z, codes = (x.reshape(-1, 5) for x in flat.values())
    noise = want["noise"] if case == "official" else want["std"] * want["unit_noise"].reshape(-1, 5)
    indices = np.asarray(DiVeQ(16, 5).apply(variables_of(codebook), z, train=False).indices)
    np.testing.assert_array_equal(indices, want["indices"].reshape(-1))
    got, dz, d_codebook = values_and_gradients(z, codebook, indices, noise, w)
    for ours, theirs in ((got, codes), (dz, grad_z), (d_codebook, want["grad_codebook"])):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    if case == "official":
        np.testing.assert_array_equal(codebook[indices], want["inference_codes"])


def test_jacobians_are_those_of_the_length():
    z, q, noise = (0.5**i * jax.random.normal(jax.random.key(i), (1, 4)) for i in range(3))
    dz, dq = jax.jit(jax.jacobian(lambda z, q: directed(z, q, noise)[0], (0, 1)))(z, q)
    a = np.asarray(q - z, np.float64)[0]
    n = a + np.asarray(noise)[0]
    outer = np.outer(n / np.linalg.norm(n), a / np.linalg.norm(a))
    np.testing.assert_allclose(dz[:, 0], np.eye(4) - outer, atol=1e-6)
    np.testing.assert_allclose(dq[:, 0], outer, atol=1e-6)


def test_noise_is_a_standard_deviation():
    """The published argument `noise_var` is one too: 1e-3, not the root of it."""
    codebook, z = np.zeros((1, 400), np.float32), np.ones((50, 400), np.float32)
    quantized, _ = train(DiVeQ(1, 400), variables_of(codebook), z, 0)
    np.testing.assert_allclose(np.std(quantized.codes), 1e-3, rtol=0.05)


def variables_of(codebook):
    K = len(codebook)
    state = {"offset": np.zeros_like(codebook), "uses": np.zeros(K, np.int32), "steps": np.zeros((), np.int32)}
    return {"params": {"codebook": codebook}, "quantizer": state}


@functools.partial(jax.jit, static_argnums=0)
def train(module, variables, z, key):
    quantized, updated = module.apply(
        variables, z, train=True, mutable=["quantizer"], rngs={"quantizer": jax.random.key(key)}
    )
    return quantized, variables | updated


def test_codes_that_few_steps_used_become_copies_of_used_ones():
    module = DiVeQ(6, 2, restart_every=4, min_use=0.5)
    codebook = np.array([[1, 0], [0, 1], [-1, 0], [0, -1], [9, 9], [-9, 9]], np.float32)
    variables = variables_of(codebook)
    # Code 0 in all steps, 1 in two by one token each, 2 in one by three: what counts is steps, not tokens.
    for i, used in enumerate([[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 2, 2, 2]]):
        quantized, variables = train(module, variables, codebook[used] + 0.1, i)
        assert int(quantized.metrics["restarts"]) == (4 if i == 3 else 0)
    after = np.asarray(module.apply(variables, method="codewords"))
    np.testing.assert_array_equal(after[:2], codebook[:2])
    used = np.abs(after[2:, None] - codebook[:2]).max(-1)
    np.testing.assert_allclose(used.min(1), np.zeros(4), atol=1e-6)
    assert not np.any(variables["quantizer"]["uses"]) and variables["quantizer"]["steps"] == 0
    # The parameter is the optimizer's: restarts leave it alone.
    np.testing.assert_array_equal(variables["params"]["codebook"], codebook)


def test_where_no_code_is_used_enough_nothing_restarts():
    module = DiVeQ(4, 2, restart_every=1, min_use=2.0)
    codebook = np.eye(4, 2, dtype=np.float32) + np.arange(4, dtype=np.float32)[:, None]
    quantized, variables = train(module, variables_of(codebook), codebook + 0.1, 0)
    assert quantized.metrics["restarts"] == 0
    np.testing.assert_array_equal(module.apply(variables, method="codewords"), codebook)
