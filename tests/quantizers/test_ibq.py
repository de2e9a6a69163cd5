"""IBQ: the published values, a gradient that reaches codes which no token chose, and the choice by inner product."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.quantizers import nearest
from fsq_repro.quantizers.ibq import IndexBackpropagationQuantizer
from tests.conftest import load_cases

pytestmark = pytest.mark.usefixtures("strict_dtypes")

GOLDEN = load_cases("quantizers_ibq")
Z, W, CODEBOOK = (GOLDEN[""][name] for name in ("z", "w", "codebook"))


def step(module, codebook, z, w):
    @jax.jit
    def gradients(codebook, z):
        def objective(codebook, z):
            quantized = module.apply({"params": {"codebook": codebook}}, z, train=True)
            return jnp.sum(quantized.codes * w) + quantized.loss, quantized

        grads, quantized = jax.grad(objective, (0, 1), has_aux=True)(codebook, z)
        return quantized, *grads

    return gradients(codebook, z)


@pytest.mark.parametrize("chunk", [2**20, 16 * 7])  # one chunk, and several with padding
@pytest.mark.parametrize(("case", "ratio"), [("plain", 0.0), ("entropy", 0.05)])
def test_published_values_and_gradients(monkeypatch, case, ratio, chunk):
    monkeypatch.setattr(nearest, "CPU_CHUNK_ELEMENTS", chunk)
    want = GOLDEN[case]
    quantized, d_codebook, dz = step(IndexBackpropagationQuantizer(16, 5, entropy_ratio=ratio), CODEBOOK, Z, W)
    np.testing.assert_array_equal(quantized.indices, want["indices"])
    np.testing.assert_array_equal(quantized.codes, CODEBOOK[want["indices"]])
    np.testing.assert_allclose(quantized.codes, want["codes"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(quantized.loss, want["loss"], rtol=1e-5, atol=1e-5)
    tolerance = 1e-4 if ratio else 1e-5
    np.testing.assert_allclose(dz, want["grad_z"], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(d_codebook, want["grad_codebook"], rtol=tolerance, atol=tolerance)
    if ratio:
        np.testing.assert_allclose(quantized.metrics["entropy_loss"], ratio * want["entropy_loss"], rtol=1e-5)


def test_the_decoder_trains_codes_that_no_token_chose():
    module = IndexBackpropagationQuantizer(
        16, 5, propagated_cost=0.0, commitment_cost=0.0, codebook_cost=0.0, entropy_ratio=0.0
    )
    quantized, d_codebook, _ = step(module, CODEBOOK, Z[:1, :2], W[:1, :2])
    unused = np.setdiff1d(np.arange(16), quantized.indices)
    assert len(unused) >= 14 and np.all(np.any(np.asarray(d_codebook)[unused] != 0, axis=1))


def test_the_forward_pass_takes_the_largest_inner_product_and_the_inverse_the_nearest_code():
    module = IndexBackpropagationQuantizer(3, 2)
    variables = {"params": {"codebook": jnp.array([[1.0, 0.0], [3.0, 0.0], [0.0, 1.0]])}}
    z = jnp.array([[1.0, 0.1], [0.1, 1.0]])
    forward, inverse = jax.jit(
        lambda z: (module.apply(variables, z, train=False), module.apply(variables, z, method="codes_to_indices"))
    )(z)
    np.testing.assert_array_equal(forward.indices, [1, 2])
    np.testing.assert_array_equal(inverse, [0, 2])
