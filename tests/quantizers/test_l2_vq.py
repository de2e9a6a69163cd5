"""Vector quantization on the unit sphere: the published values, and what normalisation promises."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.quantizers.l2_vq import L2VectorQuantizer
from tests.conftest import load_cases

pytestmark = pytest.mark.usefixtures("strict_dtypes")

GOLDEN = load_cases("quantizers_l2_vq")
Z, W, CODEBOOK = (GOLDEN[""][name] for name in ("z", "w", "codebook"))


@functools.partial(jax.jit, static_argnums=0)
def step(module, codebook, z, w):
    def objective(codebook, z):
        quantized = module.apply({"params": {"codebook": codebook}}, z, train=True)
        return jnp.sum(quantized.codes * w) + quantized.loss, quantized

    gradients, quantized = jax.grad(objective, (0, 1), has_aux=True)(codebook, z)
    return quantized, *gradients


@pytest.mark.parametrize(("case", "ratio"), [("llamagen_entropy0p0", 0.0), ("llamagen_entropy0p1", 0.1)])
def test_published_values_and_gradients(case, ratio):
    want = GOLDEN[case]
    quantized, d_codebook, dz = step(L2VectorQuantizer(16, 5, entropy_ratio=ratio), CODEBOOK, Z, W)
    np.testing.assert_array_equal(quantized.indices, want["indices"])
    np.testing.assert_allclose(quantized.codes, want["codes"], rtol=1e-5, atol=1e-5)
    for name in ("codebook_loss", "commitment_loss", *(["entropy_loss"] if ratio else [])):
        np.testing.assert_allclose(quantized.metrics[name], want[name], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(quantized.loss, want["loss"], rtol=1e-5, atol=1e-5)
    tolerance = 1e-4 if ratio else 1e-5
    np.testing.assert_allclose(dz, want["grad_z"], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(d_codebook, want["grad_codebook"], rtol=tolerance, atol=tolerance)


def test_vit_vqgan_has_the_same_loss_and_codebook_gradient():
    want = GOLDEN["vit_vqgan"]
    quantized, d_codebook, dz = step(L2VectorQuantizer(16, 5), CODEBOOK, Z, W)
    np.testing.assert_array_equal(quantized.indices, want["indices"])
    np.testing.assert_allclose(quantized.codes, want["codes"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(quantized.loss, want["loss"], rtol=1e-5)
    np.testing.assert_allclose(d_codebook, want["grad_codebook"], rtol=1e-5, atol=1e-5)
    assert np.abs(dz - want["grad_z"]).max() > 0.1  # it passes the gradient to z, past the normalisation


def test_lengths_do_not_matter():
    module = L2VectorQuantizer(16, 5)
    scales = np.exp(np.random.default_rng(0).normal(size=(16, 1))).astype(np.float32)
    one, d_codebook, dz = step(module, CODEBOOK, Z, W)
    two, _, d2z = step(module, scales * CODEBOOK, 3 * Z, W)
    np.testing.assert_array_equal(one.indices, two.indices)
    np.testing.assert_allclose(one.codes, two.codes, atol=1e-6)
    np.testing.assert_allclose(one.loss, two.loss, rtol=1e-5)
    np.testing.assert_allclose(dz, 3 * d2z, atol=1e-5)
    for x, gradient in ((Z, dz), (CODEBOOK, d_codebook)):
        np.testing.assert_allclose(np.sum(x * np.asarray(gradient), axis=-1), 0, atol=1e-5)
    # What the decoder reads is of length 1, also where it comes from indices alone.
    decoded = module.apply({"params": {"codebook": scales * CODEBOOK}}, one.indices, method="indices_to_codes")
    np.testing.assert_allclose(np.linalg.norm(decoded, axis=-1), 1, rtol=1e-6)


def test_initial_codes_have_length_1():
    module = L2VectorQuantizer(300, 8)
    init = jax.jit(lambda key: module.init(key, jnp.zeros((1, 8)), train=False))
    codebook = init(jax.random.key(0))["params"]["codebook"]
    np.testing.assert_allclose(np.linalg.norm(codebook, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(np.mean(codebook, axis=0), np.zeros(8), atol=0.1)
