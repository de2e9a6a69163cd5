"""Autoregressive decoding with a cache against a loop without one, and its statistics and independence of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from fsq_repro.sampling.autoregressive_decoding import autoregressive_decode
from fsq_repro.sampling.guidance import guide_step
from fsq_repro.sampling.parallel_decoding import sample_keys

pytestmark = pytest.mark.usefixtures("strict_dtypes")
S, K, NULL = 6, 5, 8  # ids: codes 0..4, classes 5..7, no class 8
RNG = np.random.default_rng(0)
LAST = RNG.standard_normal((NULL + 1, K)).astype(np.float32)  # what the last id adds
PAST = RNG.standard_normal((S, NULL + 1, K)).astype(np.float32)  # what the id at each earlier place adds


def logits_of_prefix(ids):
    """Uncached float64 logits of the token after the ids (class first)."""
    return LAST[ids[-1]].astype(np.float64) + sum(PAST[place, i] for place, i in enumerate(ids[:-1]))


def step_fn(past_BxK, ids_B, position):
    """The same model; its cache is the sum over the ids of earlier places."""
    logits = jnp.asarray(LAST)[ids_B] + past_BxK
    return logits, past_BxK + jnp.asarray(PAST)[position, ids_B]


def decode(indices, fn=step_fn, rows=1, **options):
    indices = jnp.asarray(indices, jnp.int32)
    keys = sample_keys(jax.random.key(5), indices)
    cache = jnp.zeros((rows * len(indices), K), jnp.float32)
    return jax.jit(lambda *a: autoregressive_decode(fn, *a, S, **options))(cache, K + indices % 3, keys)


@pytest.mark.parametrize("weight, options", [(0, {}), (0.7, {}), (0, {"temperature": 0.4})])
def test_tokens_equal_an_uncached_loop(weight, options):
    tokens = decode(range(12), guide_step(step_fn, weight, NULL), rows=2 if weight else 1, **options)
    assert (tokens.shape, tokens.dtype) == ((12, S), jnp.int32)
    for i in range(12):
        key = jax.random.fold_in(jax.random.key(5), i)
        sequence = []
        for t in range(S):
            conditional = logits_of_prefix([K + i % 3, *sequence])
            unconditional = logits_of_prefix([NULL, *sequence])
            logits = (conditional + weight * (conditional - unconditional)) / options.get("temperature", 1)
            uniform = float(jax.random.uniform(jax.random.fold_in(key, t), (1,))[0])
            sequence.append(int((np.cumsum(scipy.special.softmax(np.float64(logits))) <= uniform).sum()))
        np.testing.assert_array_equal(tokens[i], sequence)


@pytest.mark.parametrize("temperature", [0, 1e-7])
def test_temperature_zero_and_the_published_one_take_the_most_likely_token(temperature):
    tokens = decode(range(12), temperature=temperature)
    assert (tokens.shape, tokens.dtype) == ((12, S), jnp.int32)
    for i in range(12):
        sequence = []
        for _ in range(S):
            sequence.append(int(logits_of_prefix([K + i % 3, *sequence]).argmax()))
        np.testing.assert_array_equal(tokens[i], sequence)


def test_tokens_follow_the_model():
    tokens = np.asarray(decode(range(6000)))
    for label in range(3):
        rows = tokens[label::3]
        counts = np.bincount(rows[:, 0], minlength=K)
        p = scipy.special.softmax(logits_of_prefix([K + label]))
        assert scipy.stats.chisquare(counts, p * len(rows)).pvalue > 1e-3
        first = counts.argmax()
        second = rows[rows[:, 0] == first, 1]
        p = scipy.special.softmax(logits_of_prefix([K + label, first]))
        assert scipy.stats.chisquare(np.bincount(second, minlength=K), p * len(second)).pvalue > 1e-3


def test_a_sample_does_not_depend_on_batch_or_devices():
    guided = guide_step(step_fn, 0.3, NULL)
    indices = np.arange(16, dtype=np.int32)
    one = np.asarray(decode(indices, guided, rows=2))
    np.testing.assert_array_equal(decode(indices[5:], guided, rows=2), one[5:])
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.NamedSharding(mesh, jax.P("data"))
    np.testing.assert_array_equal(decode(jax.device_put(indices, split), guided, rows=2), one)
