"""Dense labels against loops over pixels, the published worked example, float32 TensorFlow arithmetic and jax.image."""

import jax
import numpy as np
import pytest

from fsq_repro.data import scenes
from fsq_repro.data.dense_labels import (
    bins_to_depth,
    depth_to_bins,
    make_canonical,
    panoptic_labels,
    to_grey,
    to_signed,
    to_unit,
)
from fsq_repro.data.transforms import resize_nearest


@pytest.mark.parametrize("num_bins", [2, 32, 256])
def test_depth_bins_are_uniform_and_their_centres_come_back(num_bins):
    edges = np.linspace(0.001, 10, num_bins + 1)
    centres = bins_to_depth(np.arange(num_bins), num_bins)
    assert centres.dtype == np.float32
    np.testing.assert_allclose(centres, (edges[:-1] + edges[1:]) / 2, rtol=1e-6)
    np.testing.assert_array_equal(depth_to_bins(centres, num_bins), np.arange(num_bins))

    depth = np.random.default_rng(0).uniform(0.001, 10, (3, 20, 20)).astype(np.float32)
    bins = depth_to_bins(depth, num_bins)
    assert bins.dtype == np.int32
    np.testing.assert_array_equal(bins, np.digitize(depth, edges) - 1)
    assert np.abs(bins_to_depth(bins, num_bins) - depth).max() <= 9.999 / num_bins / 2 + 1e-6


def test_depth_outside_the_range_goes_to_the_end_bins():
    # Four bins of 2.49975 m: edges 0.001, 2.50075, 5.0005, 7.50025, 10.
    depth = np.array([0.0, -3.0, 0.001, 2.5, 2.501, 7.5, 7.501, 9.999, 10.0, 80.0])
    np.testing.assert_array_equal(depth_to_bins(depth, 4), [0, 0, 0, 0, 1, 2, 3, 3, 3, 3])


def test_canonical_ids_of_the_published_example():
    # big_vision pp_ops_test.py `test_make_canonical`, its -1 (there: not annotated) left out.
    ids = np.array([[1, 0, 3, 3, 0], [1, 0, 3, 3, 0], [1, 0, 2, 2, 2], [1, 0, 0, 0, 0]])
    expected = np.array([[2, 0, 1, 1, 0], [2, 0, 1, 1, 0], [2, 0, 3, 3, 3], [2, 0, 0, 0, 0]])
    canonical = make_canonical(ids)
    np.testing.assert_array_equal(canonical, expected)
    assert canonical.dtype == np.int32


def test_canonical_ids_equal_a_loop_over_masks():
    rng = np.random.default_rng(0)
    for _ in range(30):
        ids = rng.integers(0, 9, size=(rng.integers(1, 7), rng.integers(1, 7)))
        keys = []
        for number in dict.fromkeys(ids.ravel()):  # in order of first appearance, as tf.unique
            if number:
                y, x = np.argwhere(ids == number).mean(axis=0)
                keys.append((round(x + ids.shape[0] * y, 9), number))
        expected = np.zeros_like(ids)
        for rank, (_, number) in enumerate(sorted(keys, key=lambda k: k[0]), 1):  # a stable sort
            expected[ids == number] = rank
        np.testing.assert_array_equal(make_canonical(ids), expected)
        np.testing.assert_array_equal(make_canonical(rng.permutation(np.arange(1, 50))[ids] * (ids > 0)), expected)


def test_panoptic_labels_of_scenes_tell_all_segments_apart():
    items = [scenes.render_item(scenes.make_scene(scenes.SEED, "test", i), 32) for i in range(4)]
    semantics, instances = (np.stack([item[k] for item in items]) for k in ("semantics", "instances"))
    classes, ids = panoptic_labels(semantics, instances, len(scenes.SEMANTIC_NAMES), 10)
    np.testing.assert_array_equal(classes, semantics)
    for i, item in enumerate(items):
        triples = np.unique(np.stack([item["semantics"], item["instances"], ids[i]], axis=-1).reshape(-1, 3), axis=0)
        pairs = len(np.unique(triples[:, :2], axis=0))
        assert len(triples) == pairs  # one id a segment,
        assert sorted(triples[:, 2]) == list(range(1, pairs + 1))  # another for each, floor and walls included


def test_void_is_zero_in_both_channels_and_nowhere_else():
    semantics = np.array([[[0, 0, 2], [1, 1, 2]]])
    instances = np.array([[[5, 0, 0], [0, 3, 0]]])
    classes, ids = panoptic_labels(semantics, instances, 3, 4)
    np.testing.assert_array_equal(classes, semantics)
    # Keys x + 2 y: 2 + 1 = 3 for class 2, 0 + 2 = 2 and 1 + 2 = 3 for class 1; of the two 3s class 2 appears first.
    np.testing.assert_array_equal(ids, [[[0, 0, 2], [1, 3, 2]]])


def test_grey_is_the_published_luma_and_keeps_greys():
    grey = np.repeat(np.arange(256)[:, None], 3, axis=1).astype(np.float32) / 255
    np.testing.assert_array_equal(to_grey(grey), grey)

    rgb = np.random.default_rng(0).integers(0, 256, size=(2, 40, 40, 3)).astype(np.uint8)
    ours = to_grey(rgb.astype(np.float32) / 255)
    weights = np.array([0.2989, 0.5870, 0.1140], np.float32)
    unit = rgb.astype(np.float32) * np.float32(1 / 255)
    published = ((unit * weights).sum(-1) * np.float32(255.5)).astype(np.uint8)  # tf's float32 arithmetic
    assert ours.dtype == np.float32
    assert ours.shape == rgb.shape
    np.testing.assert_array_equal(np.rint(ours * 255), np.repeat(published[..., None], 3, axis=-1))


def test_value_ranges():
    images = np.array([0, 0.25, 0.5, 1], np.float32)
    np.testing.assert_array_equal(to_signed(images), [-1, -0.5, 0, 1])
    np.testing.assert_array_equal(to_unit(to_signed(images)), images)
    np.testing.assert_array_equal(to_unit(np.array([-1.5, 2.0])), [0, 1])


@pytest.mark.parametrize("size", [(3, 5), (16, 12), (7, 40), (426, 31)])
def test_nearest_resize_equals_jax(size):
    maps = np.random.default_rng(0).integers(0, 1000, size=(16, 12, 2))
    expected = jax.image.resize(maps, (*size, 2), "nearest")
    np.testing.assert_array_equal(resize_nearest(maps, size), expected)


def test_refusals():
    one = np.ones((1, 2, 2), np.int32)
    with pytest.raises(ValueError, match="num_instances must be at least 5 for void and 4 segments, got 4"):
        panoptic_labels(one, np.arange(4).reshape(1, 2, 2), 2, 4)
    with pytest.raises(ValueError, match=r"semantics must lie in 0..1, got values from 2 to 2"):
        panoptic_labels(2 * one, one, 2, 4)
    with pytest.raises(ValueError, match="instances must not be negative, got -1"):
        panoptic_labels(one, -one, 2, 4)
    with pytest.raises(ValueError, match="integers of one shape, got float64"):
        panoptic_labels(one * 1.0, one, 2, 4)
