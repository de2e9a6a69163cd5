"""LFQ: published values of three implementations, and each loss term by its weight and sign."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.quantizers.bits import mean_code_probabilities, token_entropy
from fsq_repro.quantizers.lfq import LFQ
from tests.conftest import load_golden

pytestmark = pytest.mark.usefixtures("strict_dtypes")


@pytest.fixture(scope="module")
def golden():
    return load_golden("quantizers_lfq")[0]


def reversed_bits(indices, d):
    """Indices whose first channel is the highest bit, of those whose it is the lowest."""
    bits = np.asarray(indices)[..., None] >> np.arange(d) & 1
    return bits @ (1 << np.arange(d)[::-1])


@functools.partial(jax.jit, static_argnums=0)
def run(module, z, w=0.0):
    """Gradient of sum(codes w) + loss for z, and the output."""

    def objective(z):
        quantized = module.apply({}, z, train=True)
        return quantized.loss + jnp.sum(quantized.codes * w), quantized

    return jax.grad(objective, has_aux=True)(z)


def test_open_magvit2(golden):
    want = {k.split("/")[1]: v for k, v in golden.items() if k.startswith("open_magvit2/")}
    grad_z, got = run(LFQ(6, normalize=False), want["z"], want["w"])
    np.testing.assert_array_equal(got.indices, want["indices"])
    np.testing.assert_array_equal(got.codes, want["codes"])
    np.testing.assert_allclose(got.loss, want["loss"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got.metrics["token_entropy"], want["per_sample_entropy"], rtol=1e-5)
    np.testing.assert_allclose(got.metrics["batch_entropy"], want["codebook_entropy"], rtol=1e-5)
    np.testing.assert_allclose(got.metrics["commitment_loss"], 0.25 * want["commitment"], rtol=1e-5)
    np.testing.assert_allclose(grad_z, want["grad_z"], rtol=1e-4, atol=1e-4)


# Case -> entropy weight, commitment weight, diversity weight, scale of codes, groups
CLAMPED = {
    "plain": (0.1, 0.0, 1.0, 1.0, 1),
    "commit": (0.1, 0.25, 2.5, 1.0, 1),
    "two_codebooks": (0.1, 0.25, 1.0, 1.0, 2),
    "scale": (0.1, 0.0, 1.0, 0.5, 1),
    "temperature": (0.02, 0.0, 1.0, 1.0, 1),
    "maskbit": (0.02, 0.25, 1.0, 1.0, 1),
}


@pytest.mark.parametrize("case", CLAMPED)
def test_implementations_with_a_clamped_logarithm(golden, case):
    """log(max(p, 1e-5)), put on our probabilities; the temperature of codes +-s is that of +-1 divided by s."""
    entropy_weight, commitment_weight, gamma, scale, groups = CLAMPED[case]
    z, w = golden[f"{case}/z"], golden[f"{case}/w"]
    d = z.shape[-1]
    temperature = 1 / float(golden.get(f"{case}/inv_temperature", 100.0))
    module = LFQ(d, entropy_ratio=0.0, commitment_cost=commitment_weight, normalize=False)

    def objective(z):
        x = 2 * jnp.tanh(z / 2) if case == "scale" else z
        quantized = module.apply({}, x / scale, train=True)
        logits_NxD = (4 / temperature * scale * x).reshape(-1, d)
        p = mean_code_probabilities(logits_NxD, d // groups)
        batch = -jnp.sum(p * jnp.log(jnp.maximum(p, 1e-5))) / groups
        tokens = token_entropy(logits_NxD) / groups
        loss = entropy_weight * (tokens - gamma * batch) + quantized.loss
        return jnp.sum(scale * quantized.codes * w) + loss, (quantized, loss, tokens, batch)

    grad_z, (quantized, loss, tokens, batch) = jax.jit(jax.grad(objective, has_aux=True))(z)
    indices = quantized.indices
    if groups == 2:
        indices = np.stack([indices % 8, indices // 8], axis=-1)
    if case != "maskbit":
        indices = reversed_bits(indices, d // groups)
    np.testing.assert_array_equal(indices, golden[f"{case}/indices"])
    np.testing.assert_array_equal(scale * quantized.codes, golden[f"{case}/codes"])
    np.testing.assert_allclose(tokens, golden[f"{case}/per_sample_entropy"], rtol=1e-4)  # theirs clamps here too
    np.testing.assert_allclose(batch, golden[f"{case}/codebook_entropy"], rtol=1e-5)
    np.testing.assert_allclose(loss, golden[f"{case}/loss"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(grad_z, golden[f"{case}/grad_z"], rtol=1e-4, atol=1e-4)


def test_each_code_has_its_index_first_channel_lowest():
    sizes = range(1, 7)
    all_codes = jax.jit(lambda: [LFQ(d).indices_to_codes(jnp.arange(2**d)) for d in sizes])()
    for d, codes in zip(sizes, all_codes, strict=True):
        np.testing.assert_array_equal(codes, 2.0 * (np.arange(2**d)[:, None] >> np.arange(d) & 1) - 1)


@pytest.mark.parametrize(
    ("name", "diversity_weight", "sign"), [("token_entropy", 0.0, -1), ("batch_entropy", 1000.0, 1)]
)
def test_a_step_makes_tokens_certain_and_the_batch_diverse(name, diversity_weight, sign):
    """With the wrong sign before the batch's term, as ports have had it, all tokens end at one code."""
    # At a temperature of 0.01 hardly any token is uncertain enough to have a gradient.
    fields = {"commitment_cost": 0.0, "entropy_temperature": 4.0, "normalize": False}
    module = LFQ(4, diversity_weight=diversity_weight, **fields)
    z = 0.3 + jax.random.normal(jax.random.key(0), (64, 4))
    gradient, before = run(module, z)
    _, after = run(module, z - 0.1 * gradient / np.abs(gradient).max())
    assert sign * (after.metrics[name] - before.metrics[name]) > 1e-3


def test_each_weight_is_of_its_term():
    z = jax.random.normal(jax.random.key(0), (64, 4))
    both = run(LFQ(4), z)[1].metrics
    twice = run(LFQ(4, entropy_ratio=0.2, commitment_cost=0.75, diversity_weight=2.0), z)[1].metrics
    np.testing.assert_allclose(twice["commitment_loss"], 3 * both["commitment_loss"], rtol=1e-6)
    np.testing.assert_allclose(
        twice["entropy_loss"], 0.2 * (both["token_entropy"] - 2 * both["batch_entropy"]), rtol=1e-5
    )
    _, none = run(LFQ(4, entropy_ratio=0.0, commitment_cost=0.0), z)
    assert none.loss == 0 and set(none.metrics) == {"usage", "perplexity"}


def test_normalisation_is_of_scale_alone():
    """All codes stay within reach, those of equal signs too, and the scale of z makes no difference."""
    codes = LFQ(3).indices_to_codes(jnp.arange(8))
    _, quantized = run(LFQ(3), 7.0 * codes)
    np.testing.assert_array_equal(quantized.indices, np.arange(8))
    np.testing.assert_allclose(quantized.metrics["commitment_loss"], 0, atol=1e-10)
    z = jax.random.normal(jax.random.key(0), (8, 3))
    np.testing.assert_allclose(run(LFQ(3), z)[1].loss, run(LFQ(3), 100 * z)[1].loss, rtol=1e-5)
    assert LFQ(3, normalize=False).ablation == "unnormalized" and LFQ(3).ablation == ""


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_bits": 31}, r"num_bits is 31, but must be an integer in 1\.\.30"),
        ({"num_bits": 0}, "num_bits is 0, but must be"),
        ({"num_bits": 24}, "entropy_group is None, but for 24 bits it must divide their number and be at most 20"),
        ({"num_bits": 6, "entropy_group": 4}, "entropy_group is 4, but for 6 bits it must divide"),
        ({"num_bits": 6, "entropy_temperature": 0.0}, "entropy_temperature is 0.0, but must be more than 0"),
        ({"num_bits": 6, "entropy_ratio": -1.0}, "entropy_ratio is -1.0, but must be a finite"),
    ],
)
def test_bad_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        LFQ(**fields).apply({}, jnp.zeros((1, fields["num_bits"])), train=False)
