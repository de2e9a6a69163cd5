"""Alternated optimisation: the published step, and that it is gradient descent on the codebook's loss."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.quantizers.alternated_vq import AlternatedVectorQuantizer
from tests.conftest import load_cases

pytestmark = pytest.mark.usefixtures("strict_dtypes")

GOLDEN = load_cases("quantizers_affine_vq")
Z, W, CODEBOOK = (GOLDEN[""][name] for name in ("z", "w", "codebook"))


@functools.partial(jax.jit, static_argnums=0)
def step(module, codebook, z, w):
    def objective(z):
        quantized, updated = module.apply({"quantizer": {"codebook": codebook}}, z, train=True, mutable=["quantizer"])
        return jnp.sum(quantized.codes * w) + quantized.loss, (quantized, updated["quantizer"]["codebook"])

    dz, (quantized, after) = jax.grad(objective, has_aux=True)(z)
    return quantized, after, dz


def test_published_step():
    """`loss` there is the distance to the new codes, whose weight on the encoder is 0."""
    want = GOLDEN["inplace_sgd"]
    quantized, after, dz = step(AlternatedVectorQuantizer(16, 5, codebook_lr=float(want["lr"])), CODEBOOK, Z, W)
    np.testing.assert_array_equal(quantized.indices, want["indices"])
    np.testing.assert_allclose(after, want["codebook_after"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(quantized.codes, want["codes"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.mean(np.square(Z - quantized.codes)), want["loss"], rtol=1e-5)
    np.testing.assert_allclose(dz, want["grad_z"], rtol=1e-5, atol=1e-5)
    committed, _, dz = step(AlternatedVectorQuantizer(16, 5, codebook_lr=5.0, commitment_cost=0.25), CODEBOOK, Z, 0 * W)
    np.testing.assert_allclose(committed.loss, 0.25 * want["loss"], rtol=1e-5)
    np.testing.assert_allclose(dz, 0.5 * (Z - np.asarray(committed.codes)) / Z.size, rtol=1e-4, atol=1e-8)
    assert np.abs(after - CODEBOOK).max() > 0.05  # indices are those from before, values those from after
