"""Codebook usage against np.unique, scipy's entropy and a Monte-Carlo uniform source."""

import itertools

import numpy as np
import pytest
import scipy.stats

from fsq_repro.metrics.usage import CodebookUsage


def test_metrics_equal_independent_ones():
    indices = np.random.default_rng(0).zipf(1.3, size=(40, 4, 4)) % 500
    usage = CodebookUsage(500)
    for batch in np.split(indices, 8):
        usage.update(batch.astype(np.int32))
    figures = usage.compute()
    codes, counts = np.unique(indices, return_counts=True)
    assert usage.counts_K.dtype == np.int64
    assert figures["tokens"] == 640
    assert figures["codes_used"] == len(codes)
    assert figures["usage"] == len(codes) / 500
    assert figures["entropy_bits"] == pytest.approx(scipy.stats.entropy(counts, base=2), rel=1e-12)
    assert figures["perplexity"] == pytest.approx(np.exp(scipy.stats.entropy(counts)), rel=1e-12)


def test_uniform_usage_is_what_uniform_draws_show():
    draws = np.random.default_rng(0).integers(0, 4096, size=(200, 4096))
    usage = CodebookUsage(4096)
    usage.update(draws[0])
    simulated = np.mean([len(np.unique(d)) / 4096 for d in draws])
    assert usage.compute()["uniform_usage"] == pytest.approx(simulated, abs=1e-3)
    assert usage.compute()["uniform_usage"] == pytest.approx(0.632, abs=1e-3)


def test_uniform_usage_keeps_its_digits_for_huge_codebooks():
    usage = CodebookUsage(2**22)
    usage.update(np.zeros(1, np.int32))
    assert usage.compute()["uniform_usage"] == pytest.approx(2.0**-22, rel=1e-12)


def test_one_code_only():
    usage = CodebookUsage(16)
    usage.update(np.full((3, 4), 7))
    figures = usage.compute()
    assert (figures["codes_used"], figures["entropy_bits"], figures["perplexity"]) == (1, 0.0, 1.0)
    assert not np.signbit(figures["entropy_bits"])


def test_level_histograms_follow_fsq_order():
    levels = (3, 5, 4)
    # The first dimension varies fastest: enumerate digits with the last one as the slowest.
    digits = np.array([d[::-1] for d in itertools.product(range(4), range(5), range(3))])
    rng = np.random.default_rng(0)
    indices = rng.integers(0, 60, size=700)
    usage = CodebookUsage(60)
    usage.update(indices)
    histograms = usage.level_facts(levels)["level_histograms"]
    for i, level in enumerate(levels):
        np.testing.assert_array_equal(histograms[i], np.bincount(digits[indices, i], minlength=level))
    # The official notebook's worked example: digits (1, 3, 0) of levels [3, 5, 4] are index 10.
    one = CodebookUsage(60)
    one.update(np.array([10]))
    assert [int(np.argmax(h)) for h in one.level_facts(levels)["level_histograms"]] == [1, 3, 0]


def test_saturation_is_the_outermost_share():
    usage = CodebookUsage(12)
    usage.update(np.repeat([0, 1, 2, 3, 5], [2, 1, 1, 4, 2]))  # digits (0..3, 0..2)
    assert usage.level_facts((4, 3)) == {"level_histograms": [[2, 3, 1, 4], [8, 2, 0]], "saturation": [0.6, 0.8]}


def test_refusals():
    usage = CodebookUsage(10)
    with pytest.raises(ValueError, match="in 0..9, got values from 0 to 10"):
        usage.update(np.array([0, 10]))
    with pytest.raises(ValueError, match="got values from -1 to 3"):
        usage.update(np.array([-1, 3]))
    assert usage.counts_K.sum() == 0
    with pytest.raises(ValueError, match="at least 2, got 1"):
        CodebookUsage(1)
