"""What counts as a difference."""

import math

import numpy as np
import pytest
import scipy.stats

from fsq_repro.reporting.groups import Statistic
from fsq_repro.reporting.verdicts import (
    NO,
    NOISE,
    NOT_MEASURED,
    ONE_SEED,
    PARTLY,
    UNDECIDED,
    YES,
    conclude,
    exactly,
    falls_with,
    is_positive,
    within,
)


def less(a, b):
    """Whether mean a lies below mean b."""
    return is_positive([(1, Statistic.of(b)), (-1, Statistic.of(a))])


@pytest.mark.parametrize("seed", range(200))
def test_the_verdict_is_welchs_t_test(seed):
    rng = np.random.default_rng(seed)
    n, m = rng.integers(2, 8, 2)
    a = rng.normal(0, rng.uniform(0.1, 3), n)
    b = rng.normal(rng.normal(0, 2), rng.uniform(0.1, 3), m)
    test = scipy.stats.ttest_ind(b, a, equal_var=False)
    expected = NOISE if test.pvalue > 0.05 else YES if test.statistic > 0 else NO
    assert less(list(a), list(b)) == expected
    # Units, places and sides change nothing.
    assert less(list(7 + 100 * a), list(7 + 100 * b)) == expected
    assert less(list(b), list(a)) == {YES: NO, NO: YES, NOISE: NOISE}[expected]


def test_the_verdicts_of_the_property_test_are_of_all_kinds():
    rng = np.random.default_rng(0)
    found = [less(list(rng.normal(0, 1, 3)), list(rng.normal(mean, 1, 3))) for mean in (-4, 0, 4) for _ in range(30)]
    assert {YES, NO, NOISE} == set(found)


@pytest.mark.parametrize(("errors", "verdict"), [(2.77, NOISE), (2.78, YES)])
def test_three_against_three_are_told_apart_by_2_78_standard_errors(errors, verdict):
    spread = np.array([-1.0, 0.0, 1.0])
    difference = errors * math.sqrt(2 / 3)  # in standard deviations
    assert less(list(spread), list(spread + difference)) == verdict


def test_a_bound_that_does_not_vary():
    values = [0.93, 0.95, 0.97]
    for bound in (0.85, 0.94, 1.1):
        test = scipy.stats.ttest_1samp(values, bound)
        expected = NOISE if test.pvalue > 0.05 else YES if test.statistic > 0 else NO
        assert is_positive([(1, Statistic.of(values)), (-1, exactly(bound))]) == expected


def test_the_verdicts_that_were_wrong():
    assert less([266.69], [266.92]) == ONE_SEED
    assert less([266.69], [266.92, 267.0, 266.8]) == ONE_SEED
    assert less([255.7, 266.7, 277.7], [256.3, 267.3, 278.3]) == NOISE  # +- 11 each
    assert falls_with([1, 2, 3], [2, 3, 1])[0] == UNDECIDED  # rho -0.5
    assert falls_with([1, 2, 3], [2, 3, 1])[1] == pytest.approx(-0.5)


@pytest.mark.parametrize("spread", [0.0, 1e-5, 1e-3, 1e-2, 1.0])
def test_a_worsening_of_1_percent_never_improves(spread):
    before = np.array([1 - spread, 1.0, 1 + spread])
    assert less(list(1.01 * before), list(before)) in ((NO,) if spread <= 1e-3 else (NO, NOISE))


def test_seeds_that_agree_to_the_last_digit():
    assert less([1.0, 1.0], [2.0, 2.0]) == YES
    assert less([2.0, 2.0], [1.0, 1.0]) == NO
    assert less([1.0, 1.0], [1.0, 1.0]) == NOISE


@pytest.mark.parametrize(
    ("verdicts", "all_of_a_claim", "bounds_of_a_value"),
    [
        ([], NOT_MEASURED, NOT_MEASURED),
        ([YES, YES], YES, YES),
        ([NO, NO], NO, NO),
        ([YES, NO], PARTLY, NO),
        ([YES, NO, NOISE], PARTLY, NO),
        ([YES, NOISE], NOISE, NOISE),
        ([NO, NOISE], NOISE, NO),
        ([NO, ONE_SEED], ONE_SEED, NO),
        ([NOISE, ONE_SEED], ONE_SEED, ONE_SEED),
        ([UNDECIDED], UNDECIDED, UNDECIDED),
    ],
)
def test_several_comparisons(verdicts, all_of_a_claim, bounds_of_a_value):
    assert (conclude(verdicts), within(verdicts)) == (all_of_a_claim, bounds_of_a_value)


@pytest.mark.parametrize(
    ("y", "verdict"),
    [
        ([5, 4, 3, 2], UNDECIDED),  # four points
        ([5, 4, 3, 2, 1], YES),
        ([1, 2, 3, 4, 5], NO),
        ([4, 5, 3, 2, 1], YES),  # rho -0.9
        ([4, 5, 2, 3, 1], UNDECIDED),  # rho -0.8
        ([1, 1, 1, 1, 1], UNDECIDED),
    ],
)
def test_rank_correlations(y, verdict):
    assert falls_with(range(len(y)), y)[0] == verdict
