"""Inception score against the published formula image by image, closed forms, batching and bad input."""

import numpy as np
import pytest
from scipy.special import softmax

from fsq_repro.metrics.inception_score import InceptionScore


def score_of(logits_NxK, split_size=5000, batches=1):
    score = InceptionScore(split_size=split_size)
    for batch in np.array_split(logits_NxK, batches):
        score.update(batch)
    return score.compute()


def oracle(logits_NxK, split_size):
    """The definition: exp of the mean over a split's images of KL(p(y|x) || p(y)), float64."""
    p_NxK = softmax(logits_NxK.astype(np.float64), axis=1)
    scores = []
    for start in range(0, len(p_NxK), split_size):
        part = p_NxK[start : start + split_size]
        divergences = [(p * np.log(p / part.mean(axis=0))).sum() for p in part]
        scores.append(np.exp(np.mean(divergences)))
    return np.mean(scores), np.std(scores)


@pytest.fixture(scope="module")
def drawn():
    return np.random.default_rng(0).normal(0, 2, (103, 17)).astype(np.float32)


@pytest.mark.parametrize("split_size, splits", [(5000, 1), (103, 1), (50, 3), (20, 6), (1, 103)])
@pytest.mark.parametrize("batches", [1, 7, 103])
def test_equals_the_definition_whatever_the_batches(drawn, split_size, splits, batches):
    figures = score_of(drawn, split_size, batches)
    mean, std = oracle(drawn, split_size)
    assert figures["inception_score"] == pytest.approx(mean, rel=1e-12)
    assert figures["inception_score_std"] == pytest.approx(std, rel=1e-9, abs=1e-12)
    assert -(-len(drawn) // split_size) == splits


def test_splits_of_5000_in_order():
    logits = np.random.default_rng(1).normal(size=(5003, 6))
    assert score_of(logits)["inception_score"] == pytest.approx(oracle(logits, 5000)[0], rel=1e-12)
    assert score_of(logits)["inception_score"] != score_of(logits[::-1])["inception_score"]


def test_closed_forms():
    """Certain and even over K classes: K. The same for all images, certain or not: 1. Probabilities of 0 count 0."""
    certain = 2000 * np.eye(6).repeat(3, axis=0)
    assert score_of(certain)["inception_score"] == pytest.approx(6, rel=1e-12)
    assert score_of(np.ones((9, 6)))["inception_score"] == pytest.approx(1, rel=1e-12)
    assert score_of(certain[:3])["inception_score"] == pytest.approx(1, rel=1e-12)
    # Two of three images alike: KL is 1/3 log 3 + 2/3 log(3/2) on average.
    expected = np.exp((np.log(3) + 2 * np.log(1.5)) / 3)
    two_and_one = np.array([[2000.0, 0], [2000, 0], [0, 2000]])
    assert score_of(two_and_one)["inception_score"] == pytest.approx(expected, rel=1e-12)
