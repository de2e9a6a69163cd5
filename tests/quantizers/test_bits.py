"""Bits, their index and their entropies, against enumeration of all codes in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from fsq_repro.quantizers import nearest
from fsq_repro.quantizers.bits import mean_code_probabilities, quantize_signs, token_entropy
from fsq_repro.quantizers.lfq import LFQ
from fsq_repro.quantizers.normalization import unit_length

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def enumerated(logits_NxD):
    """Float64 (N, 2^D): the softmax over all codes of half the logits times the code, first bit lowest."""
    codes = np.array([c[::-1] for c in itertools.product((-1.0, 1.0), repeat=logits_NxD.shape[1])])
    a = logits_NxD.astype(np.float64) @ codes.T / 2
    p = np.exp(a - a.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def entropy(p):
    return -np.sum(np.where(p > 0, p * np.log(np.maximum(p, 1e-300)), 0))


@pytest.fixture(scope="module")
def logits():
    return np.random.default_rng(0).normal(0, 2, (37, 6)).astype(np.float32)


def test_token_entropy_equals_enumeration(logits):
    run = jax.jit(token_entropy)
    for scale in (0.1, 1.0, 100.0):
        want = np.mean([entropy(p) for p in enumerated(scale * logits)])
        np.testing.assert_allclose(run(np.float32(scale) * logits), want, rtol=2e-5)


@pytest.mark.parametrize(("group", "chunk"), [(6, 2**20), (6, 8 * 5), (3, 30), (1, 6)])
def test_mean_probabilities_and_gradient_equal_enumeration(monkeypatch, logits, group, chunk):
    """In one chunk, several, padded ones, and one token a chunk."""
    monkeypatch.setattr(nearest, "CPU_CHUNK_ELEMENTS", chunk)
    weights = np.random.default_rng(1).normal(size=(6 // group, 2**group)).astype(np.float32)

    def objective(logits):
        p = mean_code_probabilities(logits, group)
        return jnp.sum(p * weights), p

    got_gradient, got = jax.jit(jax.grad(objective, has_aux=True))(logits)
    groups = [enumerated(part) for part in np.split(logits, 6 // group, axis=1)]
    np.testing.assert_allclose(got, [p.mean(0) for p in groups], rtol=1e-5)
    # d/d logit of a product of Bernoulli distributions: p (bit - p(bit is 1))
    bits = np.arange(2**group)[:, None] >> np.arange(group) & 1
    centred = [p[:, :, None] * (bits - (p @ bits)[:, None]) for p in groups]
    want = [np.einsum("nkb,k->nb", c, w) / len(logits) for c, w in zip(centred, weights, strict=True)]
    np.testing.assert_allclose(got_gradient, np.concatenate(want, axis=1), rtol=1e-4, atol=1e-8)


def test_one_and_four_devices_give_the_same():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    z = jax.random.normal(jax.random.key(0), (16, 3, 3, 8))
    run = jax.jit(jax.value_and_grad(lambda z: LFQ(8, entropy_temperature=1.0).apply({}, z, train=True).loss))
    one = run(z)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        four = run(jax.device_put(z, NamedSharding(mesh, P("data"))))
    for a, b in zip(one, four, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-8)


def test_temporaries_of_2_to_the_18_codes():
    """Logits of all codes would take 128 GiB. Compiled only, never run."""
    loss = jax.grad(lambda z: LFQ(18).apply({}, z, train=True).loss)
    compiled = jax.jit(loss).lower(jax.ShapeDtypeStruct((131_072, 18), jnp.float32)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2**27


def test_more_bits_than_a_float_has_survive_the_round_trip():
    """An index summed up in float32 loses the low ones above 24 bits."""
    z = jnp.asarray(np.random.default_rng(0).normal(size=(500, 30)).astype(np.float32))
    indices = quantize_signs(z, 1.0)[1]
    want = (np.asarray(z) > 0) @ (2 ** np.arange(30))
    np.testing.assert_array_equal(indices, want)
    module = LFQ(30, entropy_ratio=0.0)
    np.testing.assert_array_equal(module.indices_to_codes(indices), np.sign(z))


def test_zero_is_minus_and_nan_is_seen():
    codes, index = quantize_signs(jnp.array([0.0, -0.0, jnp.nan, 1e-37]), 1.0)
    np.testing.assert_array_equal(codes, [-1, -1, np.nan, 1])
    assert index == 8


def test_unit_length_and_its_gradient():
    run = jax.jit(lambda x, w: (unit_length(x), jax.vjp(unit_length, x)[1](w)[0]))
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    w = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    want = x / length
    tangent = (w - np.sum(w * want, axis=1, keepdims=True) * want) / length
    for size in (1e-5, 1.0, 1e4, 1e30):
        u, gradient = run(np.float32(size) * x, w)
        np.testing.assert_allclose(u, want, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(gradient * np.float32(size), tangent, rtol=1e-4, atol=1e-5)
    for size in (0, 1e-30, 1e-7):  # divided by 1e-6 and not by what may be 0
        u, gradient = run(np.float32(size) * x, w)
        np.testing.assert_allclose(u, np.float32(size) * x / np.float32(1e-6), rtol=1e-5)
        np.testing.assert_allclose(gradient, 1e6 * w, rtol=1e-5)
