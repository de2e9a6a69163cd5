"""The level sets of a sweep over levels and dimensions."""

import math

import pytest

from fsq_repro.quantizers.fsq import PAPER_LEVELS, check_levels
from fsq_repro.quantizers.level_sets import level_sets


@pytest.mark.parametrize("bits", [4, 6, 8, 8.5, 9, 10, 11, 12, 13, 14, 16, 20, 30])
def test_sets_are_near_the_size_valid_and_few(bits):
    sets = level_sets(bits)
    assert 1 < len(sets) <= 40 and len(set(sets)) == len(sets)
    for levels in sets:
        assert check_levels(levels) == tuple(sorted(levels, reverse=True))
        assert abs(math.log2(math.prod(levels)) - bits) <= 0.1
        assert levels[0] <= 2 * levels[-1]
    assert [len(s) for s in sets] == sorted(len(s) for s in sets)
    # One set for each number of dimensions and each smallest level, those over 8 counted as one.
    assert len({(len(s), min(s[-1], 9)) for s in sets}) == len(sets)


@pytest.mark.parametrize("bits", PAPER_LEVELS)
def test_the_papers_own_sets_are_among_them(bits):
    assert PAPER_LEVELS[bits] in level_sets(bits)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_the_smallest_levels_of_fig_10_occur(bits):
    assert {3, 4, 5, 8} <= {s[-1] for s in level_sets(bits)}


def test_ends_of_the_list_and_limits():
    sets = level_sets(10)
    assert sets[0] == (32, 32) and sets[-1] == (4, 3, 3, 3, 3, 3)
    assert all(min(s) >= 5 for s in level_sets(10, min_level=5))
    assert max(len(s) for s in level_sets(10, max_dimensions=4)) == 4
    assert set(level_sets(10, tolerance_bits=0.01)) < set(sets)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="bits is 31"):
        level_sets(31)
    with pytest.raises(ValueError, match="min_level is 2"):
        level_sets(10, min_level=2)
    with pytest.raises(ValueError, match="bits is 2, but no levels"):
        level_sets(2)
