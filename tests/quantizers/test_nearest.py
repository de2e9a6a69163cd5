"""Chunked nearest codeword and entropy term against float64 NumPy, and their memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.quantizers import nearest
from fsq_repro.quantizers.vq import VectorQuantizer

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def oracle(x_NxD, e_KxD, temperature):
    """Float64: distances, the entropy loss and its gradients with respect to x and e."""
    d_NxK = (x_NxD**2).sum(1)[:, None] - 2 * x_NxD @ e_KxD.T + (e_KxD**2).sum(1)
    a_NxK = -d_NxK / temperature
    a_NxK -= a_NxK.max(1, keepdims=True)
    log_p = a_NxK - np.log(np.exp(a_NxK).sum(1, keepdims=True))
    p = np.exp(log_p)
    mean_p = p.mean(0)
    loss = -(p * log_p).sum(1).mean() + (mean_p * np.log(mean_p + 1e-5)).sum()
    # dloss/dp of both terms, through the softmax, then through the distances
    dp = (-(log_p + 1) + np.log(mean_p + 1e-5) + mean_p / (mean_p + 1e-5)) / len(x_NxD)
    da = p * (dp - (p * dp).sum(1, keepdims=True))
    dd = -da / temperature
    dx = 2 * (dd.sum(1)[:, None] * x_NxD - dd @ e_KxD)
    de = 2 * (dd.sum(0)[:, None] * e_KxD - dd.T @ x_NxD)
    return d_NxK, loss, dx, de


@pytest.mark.parametrize(("N", "K", "chunk"), [(4096, 4096, 2**21), (1000, 64, 64 * 96), (1000, 64, 2**25)])
def test_values_and_gradients_equal_float64(monkeypatch, N, K, chunk):
    monkeypatch.setattr(nearest, "CHUNK_ELEMENTS", chunk)
    rng = np.random.default_rng(0)
    x_NxD, e_KxD = (rng.normal(0, 0.3, (n, 8)).astype(np.float32) for n in (N, K))
    temperature = 0.05
    d_NxK, loss, dx, de = oracle(x_NxD.astype(np.float64), e_KxD.astype(np.float64), temperature)
    indices = np.asarray(jax.jit(nearest.nearest_codes)(x_NxD, e_KxD))
    clear = np.partition(d_NxK, 1, axis=1)
    clear = clear[:, 1] - clear[:, 0] > 1e-5
    assert indices.dtype == np.int32 and clear.mean() > 0.99
    np.testing.assert_array_equal(indices[clear], d_NxK.argmin(1)[clear])
    entropy = jax.jit(jax.value_and_grad(nearest.entropy_loss, (0, 1)), static_argnums=2)
    got, (got_dx, got_de) = entropy(x_NxD, e_KxD, temperature)
    np.testing.assert_allclose(got, loss, rtol=1e-5)
    np.testing.assert_allclose(got_dx, dx, atol=1e-4 * np.abs(dx).max())
    np.testing.assert_allclose(got_de, de, atol=1e-4 * np.abs(de).max())


@pytest.mark.parametrize("chunk", [2**25, 12])
def test_ties_go_to_the_lowest_index(monkeypatch, chunk):
    monkeypatch.setattr(nearest, "CHUNK_ELEMENTS", chunk)
    codebook = jnp.array([[3.0], [1.0], [-1.0], [1.0]])
    tokens = jnp.array([[0.0], [1.0], [2.0], [9.0], [-1.0], [0.5], [1.0]])
    np.testing.assert_array_equal(nearest.nearest_codes(tokens, codebook), [1, 1, 0, 0, 2, 1, 1])


def test_temporaries_of_the_largest_codebook():
    """The full table would be 32 GiB. Compiled only, never run."""

    def loss(codebook, z):
        quantized = VectorQuantizer(2**16, 256).apply({"params": {"codebook": codebook}}, z, train=True)
        return quantized.loss + jnp.sum(quantized.codes)

    shapes = [jax.ShapeDtypeStruct((n, 256), jnp.float32) for n in (2**16, 131_072)]
    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(*shapes).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2 * 2**30


def test_a_small_batch_has_no_loop():
    text = jax.jit(jax.grad(nearest.entropy_loss), static_argnums=2).lower(
        jax.ShapeDtypeStruct((4096, 64), jnp.float32), jax.ShapeDtypeStruct((1024, 64), jnp.float32), 0.01
    )
    assert "while" not in text.as_text()
