"""Attention in our layout against JAX's and Linen's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fsq_repro.models.attention import attend
from fsq_repro.models.transformer_layers import SelfAttention

MASKS = {"none": None, "causal": np.tril(np.ones((5, 5), bool))[None, None]}


def heads(dtype=np.float32):
    draw = np.random.default_rng(0).standard_normal
    return [jnp.asarray(3 * draw((2, 5, 3, 4)), dtype) for _ in range(3)]


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("dtype, tolerance", [(jnp.float32, 1e-5), (jnp.bfloat16, 0.05)])
def test_values_and_gradients_are_those_of_jax(mask, dtype, tolerance):
    cotangent = jnp.asarray(np.random.default_rng(1).standard_normal((2, 5, 3, 4)), dtype)
    ours, theirs = (
        jax.vjp(lambda q, k, v, f=f: f(q, k, v, mask=mask), *heads(dtype))
        for f in (attend, jax.nn.dot_product_attention)
    )
    assert ours[0].dtype == dtype
    for a, b in zip((ours[0], *ours[1](cotangent)), (theirs[0], *theirs[1](cotangent)), strict=True):
        np.testing.assert_allclose(a.astype(np.float32), b.astype(np.float32), rtol=tolerance, atol=3 * tolerance)


def test_one_query_over_a_longer_cache_sees_what_the_mask_allows():
    query, key, value = heads()
    visible = (np.arange(5) <= 2)[None, None, None]
    np.testing.assert_allclose(
        attend(query[:, :1], key, value, visible), attend(query[:, :1], key[:, :3], value[:, :3]), rtol=1e-5, atol=1e-6
    )


def test_dropout_multiplies_the_probability_of_its_query_and_key():
    query, key, value = heads()
    keep = np.ones((1, 1, 5, 5), np.float32)
    keep[0, 0, 1, 4] = 0.0
    scores = np.einsum("bthd,blhd->bhtl", query, key) / 2.0
    p = np.exp(scores - scores.max(-1, keepdims=True))
    expected = np.einsum("bhtl,blhd->bthd", p / p.sum(-1, keepdims=True) * keep, value)
    np.testing.assert_allclose(attend(query, key, value, keep=keep), expected, rtol=1e-4, atol=1e-5)


def test_parameters_and_values_are_those_of_linen():
    x, key = np.random.default_rng(0).standard_normal((2, 5, 12)).astype(np.float32), jax.random.key(3)
    init = {"kernel_init": nn.initializers.truncated_normal(0.02)}
    theirs = nn.MultiHeadDotProductAttention(3, **init)
    ours = SelfAttention(dropout=0.0, deterministic=True, dtype=jnp.float32, num_heads=3)
    expected = theirs.init(key, x)
    jax.tree.map(np.testing.assert_array_equal, ours.init(key, x, None, None), expected)
    params = jax.tree.map(lambda w: w + 0.1, expected)  # with biases
    np.testing.assert_allclose(ours.apply(params, x, None, None), theirs.apply(params, x), rtol=1e-5, atol=1e-6)
