"""Mask schedules against float64 oracles and the counts worked out from the paper's formulas."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from fsq_repro.sampling.mask_schedules import decoding_schedule, m2t_groups, masked_counts, random_masks, raster_groups

pytestmark = pytest.mark.usefixtures("strict_dtypes")
draw = jax.jit(random_masks, static_argnums=(1, 2), static_argnames=("min_ratio", "bound"))


@pytest.mark.parametrize("S", [1, 16, 64, 256])
def test_counts_equal_the_float64_formula(S):
    thresholds = (2 / np.pi * np.arcsin(np.arange(S + 1) / S)).astype(np.float32)
    r = np.concatenate(
        [np.random.default_rng(0).random(2000), thresholds, np.nextafter(thresholds, 0), np.nextafter(thresholds, 1)]
    ).astype(np.float32)
    counts = masked_counts(jnp.asarray(r), S)
    # The sine's form has no cancellation at small r; r = 0 masks one token, not none.
    expected = np.maximum(1, np.ceil(np.sin(np.pi / 2 * r.astype(np.float64)) * S)).astype(np.int32)
    assert counts.dtype == jnp.int32
    np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize(
    "bound, S, least",
    [("resample", 256, 116), ("resample", 64, 29), ("clip", 256, 116), ("clip", 20, 10), ("clip", 1, 1)],
)
def test_bounds_of_the_masks(bound, S, least):
    masks = draw(jax.random.key(0), 2000, S, bound=bound)
    assert (masks.shape, masks.dtype) == ((2000, S), jnp.bool_)
    counts = np.asarray(masks.sum(axis=1))
    assert counts.min() == least
    assert counts.max() == S


@pytest.mark.parametrize("bound, min_ratio", [("resample", 0.45), ("clip", 0.45), ("clip", 0.0)])
def test_counts_follow_the_bounded_cosine(bound, min_ratio):
    S, B = 64, 20000
    counts = np.asarray(draw(jax.random.key(1), B, S, min_ratio=min_ratio, bound=bound).sum(axis=1))
    r_min = 1 - 2 / math.pi * math.acos(min_ratio)
    # P(count <= n) from the inverse of the rule.
    edges = np.clip(2 / np.pi * np.arcsin(np.arange(S + 1) / S), r_min if bound == "resample" else 0, 1)
    p = np.diff(edges) / (1 - r_min if bound == "resample" else 1)
    least = math.floor(min_ratio * S) + 1
    p = np.concatenate([[p[:least].sum()], p[least:]])
    observed = np.bincount(counts - least, minlength=len(p))
    assert scipy.stats.chisquare(observed, B * p).pvalue > 1e-3
    if bound == "clip" and min_ratio == 0.45:
        assert p[0] > r_min > 0.297


def test_positions_are_uniform_and_differ_between_examples():
    S, B = 16, 20000
    masks = np.asarray(draw(jax.random.key(2), B, S))
    for n in (8, 12):  # exactly n of S: each position with probability n/S, each pair with n(n-1)/(S(S-1))
        rows = masks[masks.sum(axis=1) == n].astype(np.float64)
        pairs = rows.T @ rows / len(rows)
        expected = np.where(np.eye(S) > 0, n / S, n * (n - 1) / (S * (S - 1)))
        assert np.abs(pairs - expected).max() < 5 * 0.5 / math.sqrt(len(rows))


def test_all_may_be_masked_always():
    assert draw(jax.random.key(0), 8, 16, min_ratio=1.0).all()


def test_masks_do_not_depend_on_the_devices():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.NamedSharding(mesh, jax.P("data"))
    split = jax.jit(lambda key: random_masks(key, 8, 16), out_shardings=sharding)(jax.random.key(3))
    assert len(split.sharding.device_set) == 4
    np.testing.assert_array_equal(split, draw(jax.random.key(3), 8, 16))


def test_decoding_fixes_as_many_tokens_a_step_as_published():
    for S, fixed in (
        (256, [3, 6, 11, 15, 18, 22, 26, 27, 31, 31, 33, 33]),
        (64, [1, 2, 2, 4, 5, 5, 7, 6, 8, 8, 8, 8]),
    ):
        np.testing.assert_array_equal(-np.diff(decoding_schedule(S, 12), prepend=S), fixed)


@pytest.mark.parametrize("S", [1, 4, 12, 16, 256])
@pytest.mark.parametrize("T", [1, 2, 3, 12, 16])
def test_decoding_schedule_ends_with_all_tokens(S, T):
    schedule = decoding_schedule(S, T)
    assert schedule.shape == (T,)
    assert schedule[-1] == 0
    assert (schedule[:-1] >= 1).all()
    masked_before = np.concatenate([[S], schedule[:-1]])
    # A step fixes something, unless one token is all that is left.
    assert ((schedule < masked_before) | (masked_before == 1)).all()
    assert (schedule[:-1] <= np.maximum(1, S * np.cos(np.pi / 2 * np.arange(1, T) / T) + 1e-9)).all()


def test_decoding_schedule_where_the_cosine_is_rational():
    for T in (3, 6, 9, 12, 15, 48, 300):  # ratio 2/3: the cosine is 1/2 exactly
        assert decoding_schedule(256 * T, T)[2 * T // 3 - 1] == 128 * T


def test_m2t_group_sizes():
    def sizes(side, num_groups):
        return [len(group) for group in m2t_groups(side, side, num_groups=num_groups)]

    assert sizes(16, 12) == [1, 4, 7, 11, 14, 19, 22, 27, 31, 35, 40, 45]
    assert sizes(8, 8) == [1, 2, 4, 7, 9, 11, 14, 16]
    assert sizes(8, 12) == [1, 2, 3, 3, 5, 6, 6, 8, 9, 10, 11]  # the first group rounds to none


@pytest.mark.parametrize("height, width, num_groups", [(16, 16, 12), (8, 8, 12), (4, 4, 12), (3, 7, 5), (1, 1, 12)])
def test_groups_partition_the_grid(height, width, num_groups):
    for groups in (m2t_groups(height, width, num_groups=num_groups), raster_groups(height * width)):
        assert all(len(group) and group.dtype == np.int64 for group in groups)
        np.testing.assert_array_equal(np.sort(np.concatenate(groups)), np.arange(height * width))
    np.testing.assert_array_equal(np.concatenate(raster_groups(5)), np.arange(5))
    assert len(raster_groups(5)) == 5


def test_first_positions_are_those_of_the_sequence():
    # n = 1: (0.5 + 0.7549, 0.5 + 0.5698) mod 1 = (0.2549, 0.0698) -> round(4.08, 1.12); n = 2: (0.0098, 0.6397) ->
    # round(0.16, 10.23); n = 3: (0.7647, 0.2095) -> round(12.23, 3.35).
    np.testing.assert_array_equal(np.concatenate(m2t_groups(16, 16))[:3], [4 * 16 + 1, 10, 12 * 16 + 3])


def test_positions_of_one_group_are_far_apart():
    side = 16

    def spacing(positions):
        """Mean distance to the nearest neighbour on the torus, in units of the square lattice of as many points."""
        points = np.stack(np.divmod(positions, side), axis=1)
        offsets = np.abs(points[:, None] - points[None])
        offsets = np.minimum(offsets, side - offsets)
        distances = np.sqrt((offsets**2).sum(axis=-1)) + 1e9 * np.eye(len(points))
        return distances.min(axis=1).mean() * math.sqrt(len(points)) / side

    rng = np.random.default_rng(0)
    groups = m2t_groups(side, side)[1:]
    random = [[spacing(rng.permutation(side**2)[: len(group)]) for group in groups] for _ in range(50)]
    assert np.mean([spacing(group) for group in groups]) > np.mean(random, axis=1).max() + 0.1
    assert min(spacing(group) for group in groups) > 0.6  # the best random set of 40 or 45 points hardly reaches 0.67


def test_refusals():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"bound must be resample or clip, got 'none'"):
        random_masks(key, 2, 4, bound="none")
    with pytest.raises(ValueError, match=r"min_ratio must lie in \[0, 1\], got 1.5"):
        random_masks(key, 2, 4, min_ratio=1.5)
    with pytest.raises(ValueError, match="num_steps must be positive, got 0"):
        decoding_schedule(4, 0)
    for name in ("alpha", "num_groups"):
        with pytest.raises(ValueError, match=f"{name} must be positive, got 0"):
            m2t_groups(**({"height": 4, "width": 4} | {name: 0}))
