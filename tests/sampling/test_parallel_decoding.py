"""Parallel decoding against the published loop in NumPy, and its schedule, statistics and independence of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from fsq_repro.sampling.guidance import guide
from fsq_repro.sampling.mask_schedules import decoding_schedule
from fsq_repro.sampling.parallel_decoding import parallel_decode, sample_keys

pytestmark = pytest.mark.usefixtures("strict_dtypes")
S, K, MASK, NULL = 16, 10, 14, 3
RNG = np.random.default_rng(0)
BASE = 2 * RNG.standard_normal((NULL + 1, S, K)).astype(np.float32)  # by label, position, code
CONTEXT = RNG.standard_normal((MASK + 1, S, K)).astype(np.float32)  # what a token anywhere adds, by position, code


def logits_fn(tokens_BxS, labels_B):
    """Logits that depend on label, position and every token (masked ones too)."""
    return jnp.asarray(BASE)[labels_B] + jnp.asarray(CONTEXT)[tokens_BxS].mean(axis=1)


def decode(indices, fn=logits_fn, **kwargs):
    indices = jnp.asarray(indices, jnp.int32)
    keys = sample_keys(jax.random.key(5), indices)
    options = {"num_tokens": S, "mask_id": MASK} | kwargs
    return jax.jit(lambda k, l: parallel_decode(fn, k, l, **options))(keys, indices % NULL)


def published_loop(index, num_steps, choice_temperature):
    """google-research/maskgit's loop for one sample, in float64, with the same random numbers."""
    key = jax.random.fold_in(jax.random.key(5), index)
    ids = np.full(S, MASK)
    for step in range(num_steps):
        key_token, key_noise = jax.random.split(jax.random.fold_in(key, step))
        logits = BASE[index % NULL].astype(np.float64) + CONTEXT[ids].astype(np.float64).mean(axis=0)
        unknown = ids == MASK
        cumulative = np.cumsum(scipy.special.softmax(logits, axis=1), axis=1)
        uniform = np.asarray(jax.random.uniform(key_token, (S,)), np.float64)
        sampled = (cumulative <= uniform[:, None]).sum(axis=1)
        sampled = np.where(unknown, sampled, ids)
        if step == num_steps - 1:
            return sampled
        ratio = (step + 1) / num_steps
        selected = scipy.special.softmax(logits, axis=1)[np.arange(S), np.where(unknown, sampled, 0)]
        selected = np.where(unknown, selected, np.inf)
        mask_len = max(1, min(unknown.sum() - 1, int(np.floor(S * np.cos(np.pi / 2 * ratio)))))
        noise = np.asarray(jax.random.gumbel(key_noise, (S,)), np.float64)
        confidence = np.log(selected) + choice_temperature * (1 - ratio) * noise
        ids = np.where(confidence < np.sort(confidence)[mask_len], MASK, sampled)
    raise AssertionError


@pytest.mark.parametrize("num_steps, choice_temperature", [(12, 4.5), (5, 0.0), (1, 4.5)])
def test_tokens_equal_the_published_loop(num_steps, choice_temperature):
    tokens = decode(range(24), num_steps=num_steps, choice_temperature=choice_temperature)
    assert (tokens.shape, tokens.dtype) == ((24, S), jnp.int32)
    np.testing.assert_array_equal(tokens, [published_loop(i, num_steps, choice_temperature) for i in range(24)])


def seen_by_the_network(fn, **kwargs):
    """Tokens (T, B, S) that the network was shown at each step, and the result."""
    seen = []

    def spy(tokens_BxS, labels_B):
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), tokens_BxS, ordered=True)
        return fn(tokens_BxS, labels_B)

    tokens = np.asarray(decode(range(4), spy, **kwargs))
    jax.effects_barrier()
    return np.stack(seen), tokens


def all_equal(tokens_BxS, labels_B):
    return jnp.zeros((*tokens_BxS.shape, K), jnp.float32)


def saturated(tokens_BxS, labels_B):
    """All mass on one code, by position: every confidence is log 1 = 0, a tie."""
    codes_S = jnp.asarray(3 * np.arange(S) % K)
    return 1e4 * jnp.broadcast_to(jax.nn.one_hot(codes_S, K), (*tokens_BxS.shape, K))


@pytest.mark.parametrize("fn, choice_temperature", [(logits_fn, 4.5), (all_equal, 0.0), (saturated, 0.0)])
def test_every_step_masks_what_the_schedule_says(fn, choice_temperature):
    seen, tokens = seen_by_the_network(fn, num_steps=12, choice_temperature=choice_temperature)
    masked = (seen == MASK).sum(axis=-1)
    expected = np.concatenate([[S], decoding_schedule(S, 12)[:-1]])
    np.testing.assert_array_equal(masked, np.broadcast_to(expected[:, None], masked.shape))
    states = np.concatenate([seen, tokens[None]])
    for before, after in zip(states[:-1], states[1:], strict=True):  # known tokens never change
        np.testing.assert_array_equal(after[before != MASK], before[before != MASK])
    assert tokens.min() >= 0
    assert tokens.max() < K
    if fn is saturated:
        np.testing.assert_array_equal(tokens, np.broadcast_to(3 * np.arange(S) % K, tokens.shape))


@pytest.mark.parametrize("num_tokens", [1, 4])
def test_fewer_tokens_than_steps(num_tokens):
    tokens = np.asarray(decode(range(4), all_equal, num_tokens=num_tokens))
    assert tokens.shape == (4, num_tokens)
    assert MASK not in tokens


P = scipy.special.softmax(0.7 * np.random.default_rng(3).standard_normal(K))


def independent(tokens_BxS, labels_B):
    return jnp.broadcast_to(jnp.asarray(np.log(P), jnp.float32), (*tokens_BxS.shape, K))


def test_marginals_are_the_softmax_where_confidence_does_not_select():
    # One step selects nothing. Under a choice temperature of 1e6 the noise alone selects.
    for options in ({"num_steps": 1}, {"num_steps": 4, "choice_temperature": 1e6}):
        tokens = decode(range(600), independent, **options)
        counts = np.bincount(np.ravel(tokens), minlength=K)
        assert scipy.stats.chisquare(counts, P * counts.sum()).pvalue > 1e-3


def test_confidence_keeps_likely_tokens():
    tokens = decode(range(600), independent, num_steps=4, choice_temperature=0.0)
    share = np.bincount(np.ravel(tokens), minlength=K)[P.argmax()] / tokens.size
    assert share > P.max() + 0.1  # sampling error: 0.005


def test_a_sample_does_not_depend_on_batch_or_devices():
    guided = guide(logits_fn, 0.3, NULL)
    indices = np.arange(16, dtype=np.int32)
    one = np.asarray(decode(indices, guided))
    np.testing.assert_array_equal(decode(indices[5:], guided), one[5:])
    assert len(np.unique(one, axis=0)) == 16

    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.NamedSharding(mesh, jax.P("data"))

    def program(i):
        keys = sample_keys(jax.random.key(5), i)
        return parallel_decode(guided, keys, i % NULL, num_tokens=S, mask_id=MASK)

    compiled = jax.jit(program, in_shardings=split, out_shardings=split).lower(indices).compile()
    np.testing.assert_array_equal(compiled(jax.device_put(indices, split)), one)
    text = compiled.as_text()  # nothing of the size of the logits, nor anything else, travels between devices
    assert not [c for c in ("all-gather", "all-to-all", "all-reduce", "collective-permute") if c in text]


def test_refusals():
    with pytest.raises(ValueError, match="choice_temperature must be finite and at least 0, got -1"):
        decode(range(2), choice_temperature=-1.0)
    with pytest.raises(ValueError, match="num_steps must be positive, got 0"):
        decode(range(2), num_steps=0)
