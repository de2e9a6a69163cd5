"""Class distances against frechet_distance pair by pair, a closed form, and a model that ignores its label."""

import numpy as np
import pytest

from fsq_repro.metrics.class_distances import class_distances, moments_by_class
from fsq_repro.metrics.frechet import Moments, frechet_distance


def drawn(seed, classes=(0, 3, 7), per_class=60, width=6):
    """Features whose class decides mean and covariance, in random order."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(classes, per_class))
    mixing = np.random.default_rng(99).standard_normal((8, width, width))
    x = rng.standard_normal((len(labels), width))
    return np.einsum("nd,nde->ne", x, mixing[labels]) + 2.0 * labels[:, None], labels


@pytest.mark.parametrize("per_class", [60, 4], ids=["full rank", "singular"])
def test_equals_frechet_distance_of_every_pair(per_class):
    samples, references = (moments_by_class(*drawn(seed, per_class=per_class)) for seed in (0, 1))
    own, other = class_distances(samples, references)
    expected = {(c, d): frechet_distance(samples[c], references[d]) for c in samples for d in references}
    assert own == pytest.approx(np.mean([expected[c, c] for c in samples]), rel=1e-6)
    assert other == pytest.approx(np.mean([v for (c, d), v in expected.items() if c != d]), rel=1e-6)


def test_closed_form_in_one_dimension():
    """(m1 - m2)^2 + (s1 - s2)^2 of {-s, s} around m, whose unbiased deviation is s sqrt 2."""

    def two_points(mean, s):
        return Moments.of(np.array([[mean - s], [mean + s]]))

    samples = {0: two_points(0.0, 1.0), 1: two_points(10.0, 2.0)}
    references = {0: two_points(1.0, 1.0), 1: two_points(10.0, 4.0)}
    own, other = class_distances(samples, references)
    assert own == pytest.approx((1.0 + 8.0) / 2)
    assert other == pytest.approx((100.0 + 18.0 + 81.0 + 2.0) / 2)


def test_tells_whether_the_label_is_followed():
    (features, labels), references = drawn(0, per_class=1000), moments_by_class(*drawn(1, per_class=1000))
    own, other = class_distances(moments_by_class(features, labels), references)
    assert own < 0.1 * other
    own, other = class_distances(moments_by_class(features, np.random.default_rng(5).permutation(labels)), references)
    assert own == pytest.approx(other, rel=0.1)


def test_moments_by_class():
    features, labels = drawn(0)
    keep = ~((labels == 3) & (np.cumsum(labels == 3) > 20))  # 20 of class 3 are left
    moments = moments_by_class(features[keep], labels[keep])
    assert {c: m.count for c, m in moments.items()} == {0: 60, 3: 20, 7: 60}
    for c, m in moments.items():
        np.testing.assert_allclose(m.mean, features[keep][labels[keep] == c].mean(axis=0), rtol=1e-12)


def test_refusals():
    moments = moments_by_class(*drawn(0))
    with pytest.raises(ValueError, match=r"same two or more classes, got \[0, 3\] and \[0, 3, 7\]"):
        class_distances({c: moments[c] for c in (0, 3)}, moments)
    with pytest.raises(ValueError, match=r"got \[0\] and \[0\]"):
        class_distances({0: moments[0]}, {0: moments[0]})
    with pytest.raises(ValueError, match="at least two images, these moments have seen 1"):
        class_distances(moments_by_class(np.eye(2), np.array([0, 1])), moments_by_class(np.eye(2), np.array([0, 1])))
