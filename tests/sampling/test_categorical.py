"""Sampling from softmax against a float64 inverse of the cumulative distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from fsq_repro.sampling.categorical import categorical

pytestmark = pytest.mark.usefixtures("strict_dtypes")


@pytest.mark.parametrize("num_codes", [1, 3, 64, 65, 1000, 4375])
def test_equals_the_float64_inverse(num_codes):
    logits = 3 * np.random.default_rng(num_codes).standard_normal((200, num_codes)).astype(np.float32)
    key = jax.random.key(1)
    tokens = jax.jit(categorical)(key, logits)
    p = scipy.special.softmax(logits.astype(np.float64), axis=1)
    uniform = np.asarray(jax.random.uniform(key, (200,)), np.float64)
    expected = (np.cumsum(p, axis=1) <= uniform[:, None]).sum(axis=1)
    assert (np.asarray(tokens) != expected).sum() <= 1  # one number may lie within rounding of an edge


def test_frequencies_follow_the_probabilities():
    logits = np.array([2.0, -1.0, 0.5, 0.0, -30.0], np.float32)
    tokens = jax.jit(categorical)(jax.random.key(0), np.tile(logits, (20_000, 1)))
    counts = np.bincount(tokens, minlength=5)
    expected = 20_000 * scipy.special.softmax(logits.astype(np.float64))
    assert (
        counts[4] == 0 and scipy.stats.chisquare(counts[:4], expected[:4] / expected[:4].sum() * 20_000).pvalue > 1e-3
    )


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-23, 0.5])
def test_codes_without_probability_never_come_out(monkeypatch, uniform):
    """Also at the ends of the uniform numbers, in blocks without any probability, and in the padding."""
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, dtype: jnp.full(shape, uniform, dtype))
    logits = np.full((3, 200), -np.inf, np.float32)
    logits[0, 70], logits[1, [5, 199]], logits[2, [64, 65, 130]] = 0, 0, [1, 2, 3]
    tokens = categorical(jax.random.key(0), jnp.asarray(logits))
    assert np.all(np.isfinite(logits[np.arange(3), tokens]))
