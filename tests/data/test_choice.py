"""Items are chosen by a permutation: no period and no order of a source shows in the choice."""

import numpy as np
import pytest

from fsq_repro.data.choice import chosen_indices, some_items
from fsq_repro.data.tokens import TokenSource
from tests.tiny import NoiseSource


@pytest.mark.parametrize(("total", "count"), [(24_000, 10_000), (1000, 100), (7, 7), (7, 9), (5, 0)])
def test_different_positions_in_order_the_same_every_time(total, count):
    chosen = chosen_indices(total, count)
    assert len(chosen) == min(total, count) and (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, chosen_indices(total, count))
    assert not len(chosen) or (chosen[0] >= 0 and chosen[-1] < total)


@pytest.mark.parametrize("label", [lambda i: i % 12, lambda i: i // 2000], ids=["periodic", "ordered"])
@pytest.mark.parametrize("count", [10_000, 500])
def test_all_classes_are_there_about_equally_often(label, count):
    """A stride of 24,000 / 10,000 meets 5 of 12 classes where item i has class i mod 12."""
    counts = np.bincount(label(chosen_indices(24_000, count)), minlength=12)
    expected = count / 12
    assert len(counts) == 12 and np.abs(counts - expected).max() < 4 * np.sqrt(expected)


def test_items_are_those_of_the_source():
    source = NoiseSource(64)
    chosen = some_items(source, 10)
    assert len(chosen) == 10 and chosen.name == source.name
    for i, index in enumerate(chosen_indices(64, 10)):
        np.testing.assert_array_equal(chosen[i]["image"], source[int(index)]["image"])


@pytest.mark.parametrize("process_count", [1, 3])
def test_tokens_of_each_process(process_count):
    tokens = np.arange(40)[:, None, None]
    whole = TokenSource(
        name="x", tokens_NxVxS=tokens, labels_N=np.arange(40), total=40 * process_count, process_count=process_count
    )
    some = whole.some_items(20)
    rows = chosen_indices(40, -(-20 // process_count))
    np.testing.assert_array_equal(some.tokens_NxVxS[:, 0, 0], rows)
    np.testing.assert_array_equal(some.labels_N, rows)
    assert some.total == len(rows) * process_count
    assert len(whole.some_items(1000)) == 40 and whole.some_items(1000).total == whole.total
