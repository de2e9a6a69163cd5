"""FSQ against float64 NumPy, the paper's numbers, and the traps that its ports fell into."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.quantizers.fsq import (
    FSQ,
    PAPER_LEVELS,
    bound,
    codes_to_indices,
    indices_to_codes,
    quantize,
    suggest_levels,
)

pytestmark = pytest.mark.usefixtures("strict_dtypes")

VARIANTS = ("paper", "corrected")  # test_fsq_variants.py has the others


def oracle_bound(z, levels, variant):
    """The paper's listing (appendix A.1) in float64; `corrected` has atanh for tan."""
    levels = np.array(levels)
    half = (levels - 1) * (1 - 1e-3) / 2
    offset = np.where(levels % 2 == 1, 0.0, 0.5)
    shift = (np.tan if variant == "paper" else np.arctanh)(offset / half)
    return np.tanh(z.astype(np.float64) + shift) * half - offset


def oracle_basis(levels):
    return np.cumprod([1, *levels[:-1]])


@pytest.mark.parametrize("levels", PAPER_LEVELS.values(), ids=str)
def test_indices_equal_float64(levels):
    z_NxD = np.random.default_rng(len(levels)).normal(0, 1.5, (200_000, len(levels))).astype(np.float32)
    cases = [(jnp.float32, "paper"), (jnp.bfloat16, "paper"), (jnp.float16, "paper"), (jnp.float32, "corrected")]

    @jax.jit
    def run(z):
        outputs = [quantize(z.astype(dtype), levels, variant) for dtype, variant in cases]
        return [(indices, codes_to_indices(codes, levels)) for codes, indices in outputs]

    for (dtype, variant), (indices, back) in zip(cases, run(z_NxD), strict=True):
        bounded = oracle_bound(z_NxD.astype(dtype), levels, variant)
        want = np.rint(bounded).astype(int) + np.array(levels) // 2
        got = np.asarray(indices)[:, None] // oracle_basis(levels) % np.array(levels)
        edge = np.abs(bounded - np.floor(bounded) - 0.5) < 1e-6
        assert (got == want)[~edge].all()
        assert (np.abs(got - want) <= 1).all()
        # No usage is lost to the dtype of the codes.
        np.testing.assert_array_equal(back, indices)


@pytest.mark.parametrize("levels", [*PAPER_LEVELS.values(), (47, 47, 47), (83, 5, 5), (26, 27, 38)], ids=str)
def test_round_trip_is_bitwise(levels):
    """(47, 47, 47) and the like lose codes in float32 where the index is cast from normalised codes."""
    indices = np.arange(math.prod(levels), dtype=np.int32)

    @jax.jit
    def round_trips(indices):
        codes = indices_to_codes(indices, levels)
        return codes, [codes_to_indices(codes.astype(d), levels) for d in (jnp.float32, jnp.bfloat16, jnp.float16)]

    codes, backs = round_trips(indices)
    digits = indices[:, None] // oracle_basis(levels) % np.array(levels)
    half = np.array(levels) // 2
    np.testing.assert_array_equal(codes, ((digits - half) / half).astype(np.float32))
    for back in backs:
        np.testing.assert_array_equal(back, indices)


def test_codes_are_the_same_bits_jitted_or_not():
    """A division by L // 2 would not be: XLA compiles one by a constant to a product with its reciprocal."""
    indices = jnp.arange(15 * 27 * 47, dtype=jnp.int32)
    jitted = jax.jit(indices_to_codes, static_argnums=1)(indices, (15, 27, 47))
    np.testing.assert_array_equal(indices_to_codes(indices, (15, 27, 47)), jitted)


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_level_count_reaches_exactly_its_values(variant):
    """As integers -(L-1)/2..(L-1)/2 or -L/2..L/2-1, also at infinity."""
    z = np.concatenate([[-np.inf], np.arctanh(np.linspace(-1, 1, 6001)[1:-1]), [np.inf]]).astype(np.float32)
    groups = [tuple(range(start, start + 5)) for start in range(3, 60, 5)] + [(60, 61, 62, 63, 64), (1000, 999)]
    for levels in groups:
        codes, indices = quantize(jnp.asarray(np.tile(z[:, None], len(levels))), levels, variant)
        assert np.min(indices) >= 0 and np.max(indices) < math.prod(levels)
        for i, l in enumerate(levels):
            integers = np.unique(np.rint(np.asarray(codes)[:, i].astype(np.float64) * (l // 2)))
            np.testing.assert_array_equal(integers, np.arange(l) - l // 2)


def test_corrected_bound_maps_zero_to_the_middle_of_a_bin():
    for start in range(3, 63, 5):
        assert not np.any(bound(jnp.zeros((1, 5)), tuple(range(start, start + 5)), "corrected"))
    # The published one is off for even levels, by little.
    np.testing.assert_allclose(bound(jnp.zeros(3), (8, 6, 4)), [-1.4e-5, -5e-5, -4e-4], rtol=0.1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_bound_and_gradient_equal_the_formula(variant):
    levels = (3, 4, 5, 6, 7, 8)
    z = np.random.default_rng(0).normal(0, 1, (1000, 6)).astype(np.float32)
    np.testing.assert_allclose(bound(jnp.asarray(z), levels, variant), oracle_bound(z, levels, variant), atol=2e-6)
    half = (np.array(levels) - 1) * (1 - 1e-3) / 2
    offset = np.where(np.array(levels) % 2, 0.0, 0.5)
    shift = (np.tan if variant == "paper" else np.arctanh)(offset / half)
    want = (1 - np.tanh(z.astype(np.float64) + shift) ** 2) * half / (np.array(levels) // 2)
    got = jax.jit(jax.grad(lambda z: jnp.sum(quantize(z, levels, variant)[0])))(z)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


EDGES = {  # between neighbouring codes, of the published formula
    3: (-0.550, 0.550),
    4: (-1.152, -0.347, 0.459),
    5: (-0.975, -0.256, 0.256, 0.975),
    6: (-1.304, -0.627, -0.203, 0.221, 0.898),
    7: (-1.202, -0.550, -0.168, 0.169, 0.550, 1.202),
    8: (-1.430, -0.794, -0.438, -0.144, 0.150, 0.507, 1.142),
}


def test_decision_edges():
    run = jax.jit(lambda z: [quantize(z[:, None], (level,))[1] for level in EDGES])
    for shift, first in ((-1e-3, 0), (1e-3, 1)):
        for level, edges in EDGES.items():
            indices = run(np.float32(list(edges) + [0.0] * (7 - len(edges))) + np.float32(shift))[level - 3]
            np.testing.assert_array_equal(indices[: len(edges)], np.arange(first, first + len(edges)))


def test_example_of_the_official_notebook():
    z = jnp.array([0.25, 0.6, -7.0])
    np.testing.assert_allclose(bound(z, (3, 5, 4)), [0.24467, 1.07303, -1.99850], atol=1e-5)
    codes, index = quantize(z, (3, 5, 4))
    np.testing.assert_array_equal(codes, [0, 0.5, -1])
    assert index == 10
    # tanh's limits at half = (L - 1)(1 - eps) / 2, less the offset
    ends = bound(jnp.array([[-jnp.inf] * 2, [jnp.inf] * 2]), (8, 5))
    np.testing.assert_allclose(ends, [[-3.9965, -1.998], [2.9965, 1.998]], rtol=1e-6)


def test_all_codes_are_used_in_low_precision():
    module = FSQ((8, 6, 5), bound="corrected")
    z = 1.3 * jax.random.normal(jax.random.key(0), (40_000, 3))
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        indices = jax.jit(lambda z: module.apply({}, z, train=False).indices)(z.astype(dtype))
        assert len(np.unique(indices)) == 240


def test_indices_list_all_codes_and_the_module_has_no_variables():
    module = FSQ((5, 3))
    codebook = module.apply({}, jnp.arange(15), method="indices_to_codes")
    assert codebook.shape == (15, 2)
    np.testing.assert_array_equal(codebook[:6], [[-1, -1], [-0.5, -1], [0, -1], [0.5, -1], [1, -1], [-1, 0]])
    assert not jax.tree.leaves(module.init(jax.random.key(0), jnp.zeros((1, 2)), train=True))


def test_nothing_of_the_size_of_the_codebook_is_built():
    """2^30 codes; a codebook of them would take 20 GiB."""
    step = jax.jit(lambda z: FSQ((64,) * 5).apply({}, z, train=True))
    compiled = step.lower(jax.ShapeDtypeStruct((128, 5), jnp.float32)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2**20


def test_suggest_levels():
    for bits, levels in PAPER_LEVELS.items():
        assert suggest_levels(2**bits) == levels == suggest_levels(math.prod(levels))
        assert abs(math.log2(math.prod(levels)) - bits) < 0.1
    assert suggest_levels(4096) == (7, 5, 5, 5, 5)  # not [7, 5, 5, 5], as printed in A.4.1
    for size in (0, -5, 32, 2**13, 2**20):
        with pytest.raises(ValueError, match=f"codebook_size is {size}, .* levels for 2\\^4, 2\\^6, "):
            suggest_levels(size)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ((), "must be one or more integers in 3..1000"),
        ((8, 1), "must be one or more integers in 3..1000"),
        ((8, 2), "6% and 94%"),
        ((8, -5), "must be one or more integers in 3..1000"),
        ((1001,), "must be one or more integers in 3..1000"),
        ((8, 5.0), "must be a sequence of integers"),
        (("8", "5"), "must be a sequence of integers"),
        (8, "must be a sequence of integers"),
        ((8,) * 11, "less than 2\\^31"),
    ],
)
def test_bad_levels_are_refused(levels, message):
    with pytest.raises(ValueError, match=message):
        quantize(jnp.zeros((1, 2)), levels)
    with pytest.raises(ValueError, match=message):
        _ = FSQ(levels).codebook_size


def test_bad_bound_is_refused():
    with pytest.raises(ValueError, match="bound is 'tan', but must be one of paper, corrected, symmetric, ifsq"):
        FSQ((8, 5), bound="tan").apply({}, jnp.zeros((1, 2)), train=False)


def test_standardised_inputs_cannot_reach_the_usage_that_the_paper_reports():
    """Vectors of mean 0 and variance 1, as UViM's dictionary gets them, meet 1,572 of the 4,375 codes at most (found
    with 10^8 draws); the paper's FSQ uses 99%, so the standardisation cannot have stayed in front of it."""
    z = np.random.default_rng(0).standard_normal((1_000_000, 5), dtype=np.float32)
    z = (z - z.mean(axis=1, keepdims=True)) / z.std(axis=1, keepdims=True)
    _, indices = jax.jit(lambda z: quantize(z, (7, 5, 5, 5, 5)))(z)
    assert 0.34 < len(np.unique(indices)) / 4375 <= 1572 / 4375


def test_the_implicit_codebook_has_every_code_at_its_index():
    codebook = FSQ((4, 3)).codebook()
    assert codebook.shape == (12, 2) and len(np.unique(codebook, axis=0)) == 12
    np.testing.assert_array_equal(FSQ((4, 3)).codes_to_indices(codebook), np.arange(12))
