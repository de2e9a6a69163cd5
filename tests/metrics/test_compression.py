"""Costs in bits against a joint distribution whose conditionals are known exactly."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.metrics.compression import masked_token_bits, token_bits

K, S, MASK = 3, 4, 3
LABELS = np.array([0, 1, 1, 0, 1], np.int32)
STATES_NxS = np.array(list(itertools.product(range(K), repeat=S)))  # all 81 sequences
JOINT_LxN = np.random.default_rng(0).dirichlet(np.full(K**S, 0.3), size=2) * 0.9 + 0.1 / K**S
TOKENS = np.random.default_rng(1).integers(0, K, size=(len(LABELS), S)).astype(np.int32)


def conditionals(tokens_BxS, labels_B, seen_BxSxS):
    """log p(x_i = k | the seen tokens), (B, S, K); seen[b, i, j]: position i may look at position j."""
    fits = ~seen_BxSxS[:, :, None, :] | (STATES_NxS[None, None, :, :] == tokens_BxS[:, None, None, :])
    joint_BxN = jnp.asarray(JOINT_LxN, jnp.float32)[labels_B]
    mass_BxSxN = jnp.where(fits.all(axis=-1), joint_BxN[:, None, :], 0.0)
    is_k_SxNxK = jnp.asarray(STATES_NxS.T[:, :, None] == np.arange(K)[None, None, :], jnp.float32)
    return jnp.log(jnp.einsum("bsn,snk->bsk", mass_BxSxN, is_k_SxNxK))  # not normalised


def masked_logits(tokens_BxS, labels_B):
    """Conditions on every token that is not masked, except the position's own."""
    not_own = ~jnp.eye(S, dtype=bool)[None, :, :]
    return conditionals(tokens_BxS, labels_B, not_own & (tokens_BxS != MASK)[:, None, :])


def causal_logits(tokens_BxS, labels_B):
    before = np.tril(np.ones((S, S), bool), -1)[None, :, :]
    return conditionals(tokens_BxS, labels_B, jnp.broadcast_to(before, (len(labels_B), S, S)))


def oracle(tokens_S, label, groups):
    """Bits by summing the joint table in float64."""
    bits, consistent = np.zeros(S), np.ones(len(STATES_NxS), bool)
    for group in groups:
        for i in group:
            agrees = STATES_NxS[:, i] == tokens_S[i]
            bits[i] = -np.log2(JOINT_LxN[label, consistent & agrees].sum() / JOINT_LxN[label, consistent].sum())
        for i in group:
            consistent = consistent & (STATES_NxS[:, i] == tokens_S[i])
    return bits


def joint_bits():
    index = [int(np.flatnonzero((STATES_NxS == t).all(axis=1))[0]) for t in TOKENS]
    return -np.log2(JOINT_LxN[LABELS, index])


@functools.cache
def masked_bits(groups):
    """One compiled function a grouping, as evaluation uses it."""
    groups = [np.array(g) for g in groups]
    return np.asarray(jax.jit(lambda t, l: masked_token_bits(masked_logits, t, l, groups, MASK))(TOKENS, LABELS))


SINGLETONS = [((0,), (1,), (2,), (3,)), ((2,), (0,), (3,), (1,))]
GROUPINGS = [*SINGLETONS, ((3,), (0, 2), (1,)), ((1, 0), (3, 2)), ((0, 1, 2, 3),)]


@pytest.mark.parametrize("groups", GROUPINGS, ids=str)
def test_each_token_costs_its_exact_conditional(groups, strict_dtypes):
    expected = [oracle(t, label, groups) for t, label in zip(TOKENS, LABELS, strict=True)]
    bits = masked_bits(groups)
    assert bits.dtype == np.float32
    np.testing.assert_allclose(bits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("groups", SINGLETONS, ids=str)
def test_chain_rule(groups):
    """One token at a time, in whatever order, the costs sum to -log2 p(sequence | label)."""
    np.testing.assert_allclose(masked_bits(groups).sum(axis=1), joint_bits(), rtol=1e-5)


def test_causal_pass_equals_raster_singletons(strict_dtypes):
    bits = np.asarray(jax.jit(lambda t, l: token_bits(causal_logits(t, l), t))(TOKENS, LABELS))
    np.testing.assert_allclose(bits, masked_bits(SINGLETONS[0]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(bits.sum(axis=1), joint_bits(), rtol=1e-5)


def test_the_model_sees_earlier_groups_only():
    seen = []

    def logits_fn(tokens_BxS, labels_B):
        jax.debug.callback(lambda t: seen.append(np.array(t)), tokens_BxS, ordered=True)
        return jnp.zeros((*tokens_BxS.shape, K))

    bits = masked_token_bits(logits_fn, jnp.asarray(TOKENS), LABELS, [[2], [0, 3], [1]], MASK)
    np.testing.assert_allclose(bits, np.log2(K), rtol=1e-6)  # uniform logits cost log2 K
    jax.effects_barrier()
    known = np.array([[0, 0, 0, 0], [0, 0, 1, 0], [1, 0, 1, 1]], bool)
    np.testing.assert_array_equal(np.stack(seen), np.where(known[:, None, :], TOKENS[None], MASK))


def test_a_token_outside_the_vocabulary_is_not_priced():
    tokens = jnp.asarray(TOKENS).at[0, 1].set(K)
    bits = np.asarray(token_bits(jnp.zeros((*tokens.shape, K)), tokens))
    assert np.isnan(bits[0, 1])
    assert np.isnan(bits).sum() == 1
