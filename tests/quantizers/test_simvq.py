"""SimVQ: the published values of two implementations, and a frozen codebook whose codes all move."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.quantizers.simvq import SimVectorQuantizer
from tests.conftest import load_cases

pytestmark = pytest.mark.usefixtures("strict_dtypes")

GOLDEN = load_cases("quantizers_simvq")
SHARED = GOLDEN[""]


@functools.partial(jax.jit, static_argnums=0)
def step(module, params, frozen, z, w):
    """(`Quantized`, gradients for parameters, frozen codebook and z, codebook)."""

    def objective(params, frozen, z):
        variables = {"params": params, "quantizer": {"frozen_codebook": frozen}}
        quantized = module.apply(variables, z, train=True)
        return jnp.sum(quantized.codes * w) + quantized.loss, (quantized, module.apply(variables, method="codewords"))

    gradients, (quantized, codebook) = jax.grad(objective, (0, 1, 2), has_aux=True)(params, frozen, z)
    return quantized, *gradients, codebook


@pytest.mark.parametrize(
    ("case", "fields"),
    [
        ("official", {}),
        ("official_legacy", {"commitment_cost": 1.0, "codebook_cost": 0.25}),
        ("lucidrains_ste", {"bias": False}),
        ("lucidrains_rotation", {"bias": False, "gradient": "rotation"}),
    ],
)
def test_published_values_and_gradients(case, fields):
    want, params = GOLDEN[case], {"kernel": SHARED["kernel_out_in"].T}
    if fields.get("bias", True):
        params["bias"] = SHARED["bias"]
    module = SimVectorQuantizer(16, 5, **fields)
    quantized, grads, frozen, dz, codebook = step(module, params, SHARED["frozen_codebook"], SHARED["z"], SHARED["w"])
    np.testing.assert_array_equal(quantized.indices, want["indices"])
    tolerance = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(quantized.codes, want["codes"], **tolerance)
    np.testing.assert_allclose(quantized.loss, want["loss"], **tolerance)
    np.testing.assert_allclose(dz, want["grad_z"], **tolerance)
    np.testing.assert_allclose(grads["kernel"], want["grad_kernel"].T, **tolerance)
    if "bias" in params:
        np.testing.assert_allclose(grads["bias"], want["grad_bias"], **tolerance)
    else:  # `decoded` reads the codes back: the frozen rows by themselves, without the layer, would be other vectors
        np.testing.assert_allclose(codebook, want["implicit_codebook"], **tolerance)
        np.testing.assert_allclose(codebook[want["indices"]], want["decoded"], **tolerance)
    assert not np.any(frozen)


def test_one_token_moves_every_code_and_not_the_frozen_codebook():
    module, z = SimVectorQuantizer(64, 8), jax.random.normal(jax.random.key(0), (1, 8))
    variables = jax.jit(lambda z: module.init(jax.random.key(1), z, train=True))(z)
    frozen = variables["quantizer"]["frozen_codebook"]
    np.testing.assert_allclose(np.std(frozen), 8**-0.5, rtol=0.1)
    assert np.abs(variables["params"]["kernel"]).max() <= 8**-0.5 and np.std(variables["params"]["bias"]) > 0
    _, grads, _, _, before = step(module, variables["params"], frozen, z, jnp.zeros_like(z))
    assert np.linalg.matrix_rank(grads["kernel"]) == 1
    params = jax.tree.map(lambda p, g: p - 0.1 * g, variables["params"], grads)
    *_, after = step(module, params, frozen, z, jnp.zeros_like(z))
    assert np.all(np.any(np.abs(after - before) > 1e-5, axis=1))
