"""MaskGIT's vector quantizer: the published numbers, and each loss term on the tensor that it belongs to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.quantizers.vq import VectorQuantizer
from tests.conftest import load_cases, load_golden

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def test_published_losses_and_codes():
    arrays, weights = load_golden("maskgit_autoencoder")
    variables = {"params": {"codebook": jnp.asarray(weights["quantizer/codebook"] * 8)}}
    quantized = jax.jit(lambda v, z: VectorQuantizer(64, 16).apply(v, z, train=True))(variables, arrays["features"])
    np.testing.assert_array_equal(quantized.indices, arrays["indices"])
    np.testing.assert_allclose(quantized.codes, arrays["quantized"], rtol=1e-5, atol=1e-6)
    metrics = quantized.metrics
    np.testing.assert_allclose(quantized.loss, arrays["loss/quantizer_loss"], rtol=1e-4)
    np.testing.assert_allclose(metrics["commitment_loss"], arrays["loss/e_latent_loss"], rtol=1e-4)
    np.testing.assert_allclose(metrics["codebook_loss"], arrays["loss/q_latent_loss"], rtol=1e-4)
    np.testing.assert_allclose(metrics["entropy_loss"], arrays["loss/entropy_loss"], rtol=1e-4)


def gradients(**costs):
    """Loss, gradients with respect to codebook and z, and metrics."""
    module = VectorQuantizer(16, 4, **{"commitment_cost": 0.0, "codebook_cost": 0.0, "entropy_ratio": 0.0} | costs)
    codebook, z = (jax.random.normal(jax.random.key(i), (16 * (i + 1), 4)) for i in range(2))

    def loss(codebook, z):
        quantized = module.apply({"params": {"codebook": codebook}}, z, train=True)
        return quantized.loss, quantized.metrics

    (value, metrics), (d_codebook, d_z) = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(codebook, z)
    return value, d_codebook, d_z, metrics


def test_commitment_cost_acts_on_the_encoder_alone():
    _, codebook_1, z_1, _ = gradients(codebook_cost=1.0, commitment_cost=0.25)
    _, codebook_2, z_2, _ = gradients(codebook_cost=1.0, commitment_cost=0.75)
    np.testing.assert_array_equal(codebook_1, codebook_2)
    np.testing.assert_allclose(z_2, 3 * z_1, rtol=1e-6)
    assert np.abs(codebook_1).max() > 0 and np.abs(z_1).max() > 0


def test_codebook_cost_acts_on_the_codebook_alone():
    _, codebook_1, z_1, _ = gradients(codebook_cost=1.0)
    _, codebook_2, _, _ = gradients(codebook_cost=0.5)
    np.testing.assert_allclose(codebook_1, 2 * codebook_2, rtol=1e-6)
    assert not np.any(z_1) and np.any(codebook_1)


@pytest.mark.parametrize("name", ["commitment", "codebook", "entropy"])
def test_each_term_is_switched_on_by_its_weight(name):
    weight = {"entropy": "entropy_ratio"}.get(name, f"{name}_cost")
    value, _, _, metrics = gradients(**{weight: 0.3})
    assert set(metrics) == {f"{name}_loss", "usage", "perplexity"}
    np.testing.assert_array_equal(value, metrics[f"{name}_loss"])
    value, d_codebook, d_z, metrics = gradients()
    assert value == 0 and not np.any(d_codebook) and not np.any(d_z) and set(metrics) == {"usage", "perplexity"}


def test_the_decoder_does_not_train_the_codebook():
    module = VectorQuantizer(16, 4)
    codebook, z = (jax.random.normal(jax.random.key(i), (16, 4)) for i in range(2))
    grad = jax.grad(lambda c: jnp.sum(jnp.square(module.apply({"params": {"codebook": c}}, z, train=True).codes)))
    assert not np.any(jax.jit(grad)(codebook))


@pytest.mark.parametrize("case", ["plain", "sync", "affine", "affine_sync"])
def test_published_affine_and_synchronised_codes(case):
    """beta there weighs the codebook's term, 1 - beta the encoder's."""
    golden = load_cases("quantizers_affine_vq")
    want, shared = golden[case], golden[""]
    beta, sync_nu, affine_lr = (float(want[name]) for name in ("beta", "sync_nu", "affine_lr"))
    costs = {"commitment_cost": 1 - beta, "codebook_cost": beta, "entropy_ratio": 0.0}
    module = VectorQuantizer(16, 5, **costs, sync_nu=sync_nu, affine_lr=affine_lr)
    params = {"codebook": shared["codebook"]}
    if affine_lr:
        params |= {"affine_scale": shared["affine_scale"][0], "affine_bias": shared["affine_bias"][0]}

    @jax.jit
    def step(params, z):
        def objective(params, z):
            quantized = module.apply({"params": params}, z, train=True)
            return jnp.sum(quantized.codes * shared["w"]) + quantized.loss, quantized

        gradients, quantized = jax.grad(objective, (0, 1), has_aux=True)(params, z)
        return quantized, *gradients, module.apply({"params": params}, method="codewords")

    quantized, grads, dz, codebook = step(params, shared["z"])
    tolerance = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(codebook, want["effective_codebook"], **tolerance)
    np.testing.assert_array_equal(quantized.indices, want["indices"])
    np.testing.assert_allclose(quantized.codes, want["codes"], **tolerance)
    np.testing.assert_allclose(quantized.loss, want["loss"], **tolerance)
    np.testing.assert_allclose(dz, want["grad_z"], **tolerance)
    np.testing.assert_allclose(grads["codebook"], want["grad_codebook"], **tolerance)
    if affine_lr:
        np.testing.assert_allclose(grads["affine_scale"], want["grad_affine_scale"][0], rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(grads["affine_bias"], want["grad_affine_bias"][0], rtol=1e-5, atol=1e-4)


def test_initial_codebook_is_the_published_one():
    init = jax.jit(lambda key: VectorQuantizer(300, 64).init(key, jnp.zeros((1, 64)), train=False))
    codebook = init(jax.random.key(0))["params"]["codebook"]
    limit = (3 / 300) ** 0.5
    assert 0.98 * limit < np.abs(codebook).max() <= limit
    np.testing.assert_allclose(np.std(codebook), limit / 3**0.5, rtol=0.02)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("codebook_size", 0),
        ("codebook_size", 2**31),
        ("embedding_dim", 2.0),
        ("commitment_cost", -1.0),
        ("entropy_ratio", float("nan")),
        ("entropy_temperature", 0.0),
    ],
)
def test_bad_fields_are_refused(field, value):
    module = VectorQuantizer(**{"codebook_size": 16, "embedding_dim": 4} | {field: value})
    with pytest.raises(ValueError, match=f"{field} is {value}, but must be"):
        module.init(jax.random.key(0), jnp.zeros((1, 4)), train=False)
