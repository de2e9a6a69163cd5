"""BSQ: published values, the sphere, and entropies in groups."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.quantizers.bits import mean_code_probabilities, token_entropy
from fsq_repro.quantizers.bsq import BSQ
from fsq_repro.quantizers.normalization import unit_length
from tests.conftest import load_golden
from tests.quantizers.test_lfq import reversed_bits, run

pytestmark = pytest.mark.usefixtures("strict_dtypes")


@pytest.fixture(scope="module")
def golden():
    return load_golden("quantizers_bsq")[0]


@pytest.mark.parametrize(
    ("case", "fields"),
    [
        ("group3", {"entropy_group": 3}),
        ("group6", {"entropy_group": None}),
        ("group1_analytical", {}),
        (
            "group3_beta_temp",
            {
                "entropy_group": 3,
                "inverse_temperature": 10.0,
                "commitment_cost": 0.25,
                "entropy_ratio": 0.5,
                "diversity_weight": 2.0,
            },
        ),
    ],
)
def test_published_values(golden, case, fields):
    got_grad_z, got = run(BSQ(6, **{"entropy_ratio": 1.0} | fields), golden["z"], golden["w"])
    np.testing.assert_array_equal(reversed_bits(got.indices, 6), golden[f"{case}/indices"])
    np.testing.assert_allclose(got.codes, golden[f"{case}/codes"], rtol=1e-6)
    np.testing.assert_allclose(got.loss, golden[f"{case}/loss"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got.metrics["token_entropy"], golden[f"{case}/per_sample_entropy"], rtol=1e-5)
    np.testing.assert_allclose(got.metrics["batch_entropy"], golden[f"{case}/codebook_entropy"], rtol=1e-5)
    np.testing.assert_allclose(got.metrics.get("commitment_loss", 0), golden[f"{case}/commitment"], rtol=1e-5)
    np.testing.assert_allclose(got_grad_z, golden[f"{case}/grad_z"], rtol=1e-5, atol=1e-5)


def test_the_unscaled_gradient_is_that_of_vector_quantize_pytorch(golden):
    """Its entropy terms have log(max(p, 1e-5)), its commitment term is a mean over channels too."""
    want = {k.split("/")[1]: v for k, v in golden.items() if k.startswith("lucidrains/")}
    module = BSQ(6, gradient="ste", entropy_ratio=0.0, commitment_cost=0.25 / 6)

    def objective(z):
        quantized = module.apply({}, z, train=True)
        logits_NxD = (400 * 6**-0.5 * unit_length(z)).reshape(-1, 6)
        p, tokens = mean_code_probabilities(logits_NxD, 6), token_entropy(logits_NxD)
        batch = -jnp.sum(p * jnp.log(jnp.maximum(p, 1e-5)))
        loss = 0.1 * (tokens - batch) + quantized.loss
        return jnp.sum(quantized.codes * golden["w"]) + loss, (quantized, loss, tokens, batch)

    grad_z, (quantized, loss, tokens, batch) = jax.jit(jax.grad(objective, has_aux=True))(golden["z"])
    np.testing.assert_array_equal(reversed_bits(quantized.indices, 6), want["indices"])
    np.testing.assert_allclose(quantized.codes, want["codes"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(tokens, want["per_sample_entropy"], rtol=1e-4)  # theirs clamps here too
    np.testing.assert_allclose(batch, want["codebook_entropy"], rtol=1e-5)
    np.testing.assert_allclose(loss, want["loss"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(grad_z, want["grad_z"], rtol=1e-4, atol=1e-4)


def test_codes_are_on_the_sphere_and_only_the_direction_counts():
    module = BSQ(12, commitment_cost=0.1)
    z = jax.random.normal(jax.random.key(0), (64, 12))
    w = jax.random.normal(jax.random.key(1), (64, 12))
    gradient, quantized = run(module, z, w)
    np.testing.assert_allclose(np.linalg.norm(quantized.codes, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(np.sum(gradient * z, axis=1), 0, atol=1e-6)
    scaled_gradient, scaled = run(module, 1000 * z, w)
    np.testing.assert_array_equal(scaled.codes, quantized.codes)
    np.testing.assert_allclose(scaled.loss, quantized.loss, rtol=1e-5)
    np.testing.assert_allclose(1000 * scaled_gradient, gradient, rtol=1e-3, atol=1e-6)


def test_sums_over_groups_are_never_below_the_exact_entropy():
    z = jax.random.normal(jax.random.key(0), (64, 8)) @ jax.random.normal(jax.random.key(1), (8, 8))

    @jax.jit
    def batch_entropies(z):
        modules = [BSQ(8, entropy_group=g, inverse_temperature=8.0) for g in (None, 4, 2, 1)]
        return [module.apply({}, z, train=True).metrics["batch_entropy"] for module in modules]

    entropies = batch_entropies(z)
    assert all(a < b - 1e-3 for a, b in zip(entropies, entropies[1:], strict=False))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_bits": 36}, r"num_bits is 36, but must be an integer in 1\.\.30"),
        ({"num_bits": 4, "inverse_temperature": 0.0}, "inverse_temperature is 0.0, but must be finite and more than 0"),
        ({"num_bits": 4, "gradient": "rotation"}, "gradient is 'rotation', but must be one of scaled, ste"),
    ],
)
def test_bad_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        BSQ(**fields).apply({}, jnp.zeros((1, fields["num_bits"])), train=False)
