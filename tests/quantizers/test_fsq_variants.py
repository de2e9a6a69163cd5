"""FSQ's other bounds and its noise: published numbers, and the traps that their ports fell into."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.quantizers.dithering import mix
from fsq_repro.quantizers.fsq import FSQ, codes_to_indices, indices_to_codes, quantize
from tests.conftest import load_golden

pytestmark = pytest.mark.usefixtures("strict_dtypes")

CASES = [(f"{l}/symmetric", "symmetric") for l in ("8x5x5x5", "7x5x5x5x5", "4x3x2")]
CASES += [(f"ifsq_{l}/f32", "ifsq") for l in ("17x17x17x17", "5x5x5x5", "9x7x5")]


@pytest.fixture(scope="module")
def golden():
    return load_golden("quantizers_fsq_variants")[0]


def inputs(golden, case):
    """Levels, z and w of a golden case."""
    group = case.split("/")[0]
    return tuple(int(l) for l in golden[f"{group}/levels"]), golden[f"{group}/z"], golden[f"{group}/w"]


@pytest.mark.parametrize(("case", "variant"), CASES)
def test_published_values(golden, case, variant):
    levels, z, w = inputs(golden, case)

    def objective(z):
        codes, indices = quantize(z, levels, variant)
        return jnp.sum(codes * w), (codes, indices)

    grad_z, (codes, indices) = jax.jit(jax.grad(objective, has_aux=True))(z)
    np.testing.assert_array_equal(indices, golden[f"{case}/indices"])
    np.testing.assert_allclose(codes, golden[f"{case}/codes"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(grad_z, golden[f"{case}/grad_z"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("group", ["dithered_5x5x5x5", "dithered_8x6x3x2"])
def test_published_noise(golden, group):
    levels, z, w = inputs(golden, group)
    recorded = {k: golden[f"{group}/train/{k}"] for k in ("keep_previous", "keep_unquantized", "uniform")}
    noisy, unquantized = (mask[:, None, None] for mask in (~recorded["keep_previous"], recorded["keep_unquantized"]))

    def objective(z):
        codes, indices = quantize(z, levels, "symmetric")
        read = mix(jnp.tanh(z), codes, noisy, unquantized, recorded["uniform"], levels)
        return jnp.sum(read * w), (codes, indices, read)

    grad_z, (codes, indices, read) = jax.jit(jax.grad(objective, has_aux=True))(z)
    np.testing.assert_array_equal(indices, golden[f"{group}/eval/indices"])
    np.testing.assert_allclose(codes, golden[f"{group}/eval/codes"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(read, golden[f"{group}/train/codes"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(grad_z, golden[f"{group}/train/grad_z"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", ["symmetric", "ifsq"])
def test_each_level_count_reaches_exactly_its_values(variant):
    """Evenly spaced from -1 to 1, mirrored at 0, also at infinity; and each survives the way to its index and back."""
    step, first = (1, 2) if variant == "symmetric" else (2, 3)
    groups = [tuple(range(start, start + 5 * step, step)) for start in range(first, 62, 5 * step)]
    z = np.concatenate([[np.inf], np.arctanh(np.linspace(0.000123, 0.99991, 2000))]).astype(np.float32)
    z = np.concatenate([z, -z])

    @jax.jit
    def run(z):
        outputs = [quantize(jnp.tile(z[:, None], 5), levels, variant) for levels in groups]
        backs = [
            (indices_to_codes(i, levels, variant), codes_to_indices(c, levels, variant))
            for (c, i), levels in zip(outputs, groups, strict=True)
        ]
        return outputs, backs

    for levels, (codes, indices), back in zip(groups, *run(z), strict=True):
        np.testing.assert_array_equal(codes, back[0])
        np.testing.assert_array_equal(indices, back[1])
        assert np.min(indices) >= 0 and np.max(indices) < math.prod(levels)
        for i, l in enumerate(levels):
            np.testing.assert_allclose(np.unique(codes[:, i]), np.linspace(-1, 1, l), atol=1e-6)
        np.testing.assert_array_equal(codes[: len(z) // 2], -codes[len(z) // 2 :])


def test_two_levels_are_the_sign():
    """Also of what is so small that 1/2 swallows it, and all of it in low precision."""
    z = np.array([1e-30, 1e-9, 1e-4, 3], np.float32)
    codes, _ = quantize(jnp.asarray(np.concatenate([z, -z]))[:, None], (2,), "symmetric")
    np.testing.assert_array_equal(codes[:, 0], [1] * 4 + [-1] * 4)


def test_noise_is_drawn_per_sample_and_of_a_bins_width():
    """Drawn per element, no sample would be wholly of one kind."""
    module = FSQ((8, 5), bound="symmetric", noise=True)
    z = jax.random.normal(jax.random.key(0), (400, 6, 2))
    run = jax.jit(lambda z, key, train: module.apply({}, z, train=train, rngs={"quantizer": key}), static_argnums=2)
    codes, values = run(z, jax.random.key(1), False).codes, jnp.tanh(z)
    quantized = run(z, jax.random.key(1), True)
    np.testing.assert_array_equal(module.codes_to_indices(codes), quantized.indices)
    kinds = [np.all(np.isclose(quantized.codes, kind, atol=1e-6), axis=(1, 2)) for kind in (codes, values)]
    noisy = ~kinds[0] & ~kinds[1]
    np.testing.assert_allclose([kinds[0].mean(), kinds[1].mean(), noisy.mean()], [0.25, 0.25, 0.5], atol=0.07)
    noise = np.asarray(quantized.codes - values)[noisy] * np.float32([7 / 2, 4 / 2])
    assert 0.49 < noise.max() <= 0.5 + 1e-6 and -0.5 - 1e-6 <= noise.min() < -0.49
    np.testing.assert_allclose(noise.std(axis=(0, 1)), 12**-0.5, rtol=0.05)
    one = jax.jit(lambda z: module.apply({}, z, train=True, rngs={"quantizer": jax.random.key(0)}))(z[0, 0])
    assert one.codes.shape == (2,)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"levels": (8, 2), "bound": "ifsq"}, "6% and 94%"),
        ({"levels": (8, 5), "bound": "ifsq"}, r"levels is \(8, 5\), but must be odd for the bound 'ifsq'"),
        ({"levels": (8, 1), "bound": "symmetric"}, "must be one or more integers in 2..1000"),
        ({"levels": (8, 5), "noise": True}, "noise is True, but the bound is 'paper' and must be 'symmetric'"),
    ],
)
def test_what_a_bound_does_not_allow_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        FSQ(**fields).apply({}, jnp.zeros((1, 2)), train=True)
