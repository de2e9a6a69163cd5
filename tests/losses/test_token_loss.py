"""The smoothed cross-entropy against the published value and a float64 oracle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from fsq_repro.losses.token_loss import is_likeliest, smoothed_cross_entropy
from tests.conftest import load_golden

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def oracle(logits, targets, weights, smoothing):
    """Loss and its gradient in float64, through the explicit smoothed one-hot targets."""
    B, _, V = logits.shape
    soft = np.eye(V)[targets] * (1 - smoothing) + smoothing / V
    log_p = scipy.special.log_softmax(logits.astype(np.float64), axis=-1)
    total = weights.sum(axis=1, keepdims=True)
    share = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0) / B
    return -(soft * log_p * share[..., None]).sum(), (np.exp(log_p) - soft) * share[..., None]


def random_case(smallest_weight_sum):
    rng = np.random.default_rng(0)
    logits = 3 * rng.standard_normal((4, 6, 11)).astype(np.float32)
    targets = rng.integers(0, 11, size=(4, 6)).astype(np.int32)
    weights = (np.arange(6)[None] < np.array([smallest_weight_sum, 2, 5, 6])[:, None]).astype(np.float64)
    return logits, targets, weights


def test_equals_the_published_loss():
    arrays, _ = load_golden("maskgit_transformer")
    loss = smoothed_cross_entropy(arrays["logits"], arrays["targets"], arrays["weights"], 0.1)
    np.testing.assert_allclose(loss, arrays["loss_smoothing_0_1"], rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("smallest_weight_sum", [0, 1])  # 0: an example without any weight
def test_value_and_gradient_equal_the_oracle(smoothing, smallest_weight_sum):
    logits, targets, weights = random_case(smallest_weight_sum)
    expected, expected_gradient = oracle(logits, targets, weights, smoothing)
    run = jax.jit(jax.value_and_grad(smoothed_cross_entropy))
    loss, gradient = run(logits, targets, weights.astype(np.float32), np.float32(smoothing))
    assert (loss.shape, loss.dtype) == ((), jnp.float32)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-7)
    np.testing.assert_array_equal(np.asarray(gradient)[weights == 0], 0.0)
    assert np.all(np.asarray(gradient)[weights > 0] != 0.0)


def test_an_example_counts_the_same_however_many_tokens_are_masked():
    logits, targets, weights = random_case(1)
    each = [smoothed_cross_entropy(logits[i : i + 1], targets[i : i + 1], weights[i : i + 1], 0.1) for i in range(4)]
    np.testing.assert_allclose(smoothed_cross_entropy(logits, targets, weights, 0.1), np.mean(each), rtol=1e-6)


def test_bfloat16_logits_give_a_float32_loss_of_their_values():
    logits, targets, weights = random_case(1)
    rounded = jnp.asarray(logits, jnp.bfloat16)
    loss = smoothed_cross_entropy(rounded, targets, weights, 0.1)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, oracle(np.asarray(rounded, np.float64), targets, weights, 0.1)[0], rtol=1e-6)


def test_the_likeliest_is_the_first_argmax():
    """Also among equals, which all logits are when a head starts at zero."""
    logits = np.random.default_rng(0).integers(0, 3, size=(8, 50, 7)).astype(np.float32)
    targets = np.random.default_rng(1).integers(0, 7, size=(8, 50)).astype(np.int32)
    expected = logits.argmax(-1) == targets
    np.testing.assert_array_equal(is_likeliest(logits, targets), expected)
    ties = (logits == logits.max(-1, keepdims=True)).sum(-1) > 1
    assert expected[ties].any() and (~expected)[ties].any()
