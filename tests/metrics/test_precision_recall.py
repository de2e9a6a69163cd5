"""Precision and recall against a brute-force oracle by differences, hand-made sets, ties and blocks."""

import numpy as np
import pytest

from fsq_repro.metrics import precision_recall as module
from fsq_repro.metrics.precision_recall import precision_recall


def oracle(reference, samples, k):
    """The definition, pair by pair in float64."""

    def distances(a, b):
        return ((a[:, None, :].astype(np.float64) - b[None, :, :]) ** 2).sum(axis=-1)

    def radii(x):
        return np.sort(distances(x, x), axis=1)[:, k]  # place 0 is the point itself

    d = distances(reference, samples)
    precision = (d <= radii(reference)[:, None]).any(axis=0).mean()
    recall = (d <= radii(samples)[None, :]).any(axis=1).mean()
    return precision, recall


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("elements, columns", [(2**24, 4096), (300, 7), (1, 1)])
def test_equals_the_oracle_whatever_the_blocks(k, elements, columns, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", elements)
    monkeypatch.setattr(module, "BLOCK_COLUMNS", columns)
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((90, 4)).astype(np.float32)
    samples = (rng.standard_normal((61, 4)) * 1.3 + 0.8).astype(np.float32)
    expected = oracle(reference, samples, k)
    assert min(expected) > 0.1 and max(expected) < 1 and expected[0] != expected[1]
    assert precision_recall(reference, samples, neighbours=k) == expected
    assert precision_recall(samples, reference, neighbours=k) == expected[::-1]


def test_equals_an_independent_implementation_on_2000_by_2000_features():
    """Distances from differences, one point at a time, and radii by sorting."""
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((2000, 24)).astype(np.float32)
    samples = (rng.standard_normal((2000, 24)) * 1.05 + 0.1).astype(np.float32)

    def distances(point, others):
        return ((others.astype(np.float64) - point) ** 2).sum(axis=1)

    def radii(x):
        return np.array([np.sort(distances(point, x))[3] for point in x])  # place 0 is the point itself

    def covered(points, centres):
        r = radii(centres)
        return np.mean([(distances(point, centres) <= r).any() for point in points])

    expected = covered(samples, reference), covered(reference, samples)
    assert min(expected) > 0.1 and max(expected) < 0.99
    assert precision_recall(reference, samples) == expected


def test_a_large_common_mean_costs_no_digits():
    rng = np.random.default_rng(1)
    reference, samples = rng.standard_normal((80, 4)), rng.standard_normal((70, 4)) * 1.5
    assert precision_recall(reference + 1e8, samples + 1e8) == oracle(reference, samples, 3)


def test_identical_far_and_half_overlapping_sets():
    rng = np.random.default_rng(2)
    a, b, c = (rng.standard_normal((50, 3)) + 100 * n for n in range(3))
    assert precision_recall(a, a.copy()) == (1.0, 1.0)
    assert precision_recall(a, b) == (0.0, 0.0)
    assert precision_recall(np.concatenate([a, b]), np.concatenate([a, c])) == (0.5, 0.5)
    # Samples that miss a mode lose recall, samples outside the reference lose precision.
    assert precision_recall(np.concatenate([a, b]), a) == (1.0, 0.5)
    assert precision_recall(a, np.concatenate([a, b])) == (0.5, 1.0)


def test_points_on_a_line():
    """k = 1: balls of radii 1, 1, 2 around 0, 1, 3, the last reaches 4; of 2.5 around 4, 6.5, the first reaches 3."""
    reference, samples = np.array([[0.0], [1.0], [3.0]]), np.array([[4.0], [6.5]])
    assert precision_recall(reference, samples, neighbours=1) == (0.5, 1 / 3)
    # A ball includes its border: 2 is at distance 1 from 1, whose ball has radius 1.
    assert precision_recall(np.array([[0.0], [1.0], [50.0], [51.0]]), np.array([[2.0], [90.0]]), neighbours=1)[0] == 0.5


@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_coinciding_points_have_balls_of_their_own_point_only(shift):
    """Four copies of each point: the third nearest other point is at distance zero."""
    points = (np.random.default_rng(3).standard_normal((40, 64)) + shift).astype(np.float32)
    copies = np.repeat(points, 4, axis=0)
    assert precision_recall(copies, copies[::-1].copy()) == (1.0, 1.0)
    for few in (8, 20, 80):  # without a floor under the radii, rounding leaves out some of the first 20
        assert precision_recall(copies, copies[:few]) == (1.0, few / 160)
    assert precision_recall(copies, copies + np.float32(0.001)) == (0.0, 0.0)


def test_refusals():
    x = np.zeros((5, 2))
    with pytest.raises(ValueError, match="3 neighbours need more than 3 sample features, got 3"):
        precision_recall(x, x[:3])
    with pytest.raises(ValueError, match="more than 3 reference features, got 3"):
        precision_recall(x[:3], x)
