"""Pictures of dense predictions: one colour range a row, grey where invalid, the same colours whatever the ids."""

import numpy as np

from fsq_repro.data import scenes
from fsq_repro.visualization.dense_pictures import (
    GAP_PX,
    INVALID_GREY,
    TITLE_PX,
    colour_depth,
    colour_panoptic,
    depth_rows,
    panoptic_rows,
    titled_rows,
)


def test_depth_colours_darken_with_distance_and_invalid_is_grey():
    depth = np.array([[1.0, 2.0, 3.0, 4.0, 9.0], [0.0, 10.0, np.nan, 0.5, 1.0]])
    colours = colour_depth(depth, 1.0, 4.0)
    assert colours.dtype == np.uint8
    brightness = colours[0].astype(int).sum(axis=-1)
    assert (np.diff(brightness[:4]) < -50).all()
    np.testing.assert_array_equal(colours[0, 4], colours[0, 3])  # beyond the range: the colour of its end
    np.testing.assert_array_equal(colours[1, 3], colours[0, 0])
    assert (colours[1, :3] == INVALID_GREY).all()
    # One depth only, or a range of nothing, is still a picture.
    assert np.isfinite(colour_depth(np.ones((2, 2)), 1.0, 1.0)).all()


def tile(picture, row, column, size=192):
    top, left = TITLE_PX + row * (size + GAP_PX), GAP_PX + column * (size + GAP_PX)
    return picture[top : top + size, left : left + size]


def test_depth_rows_share_the_range_of_the_first_map():
    depth = np.random.default_rng(0).uniform(1, 5, (2, 8, 8))
    depth[1] += 3
    images = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    prediction = depth.mean() + 0 * depth
    picture = depth_rows(images, {"ground truth": depth, "same": depth, "constant": prediction})
    assert picture.dtype == np.uint8
    assert picture.shape == (TITLE_PX + 2 * (192 + GAP_PX), 4 * (192 + GAP_PX) + GAP_PX, 3)
    for i in range(2):
        np.testing.assert_array_equal(tile(picture, i, 0)[::24, ::24], images[i])
        np.testing.assert_array_equal(tile(picture, i, 1), tile(picture, i, 2))
        expected = colour_depth(prediction[i], depth[i].min(), depth[i].max())
        np.testing.assert_array_equal(tile(picture, i, 3)[::24, ::24], expected)
    assert (tile(depth_rows(images, {"nothing": 0 * depth}), 0, 1) == INVALID_GREY).all()


def test_panoptic_colours_tell_classes_and_instances_but_not_ids():
    semantics = np.array([[0, 0, 1, 1, 2, 2, 2, 2]]).repeat(3, axis=0)
    instances = np.array([[0, 0, 0, 0, 5, 5, 3, 3]]).repeat(3, axis=0)
    colours = colour_panoptic(semantics, instances)
    seen = colours[1, [0, 2, 4, 7]]
    assert (seen[0] == 0).all()
    assert len(np.unique(seen, axis=0)) == 4
    np.testing.assert_array_equal(colours[1, [1, 3, 5]], np.zeros((3, 3)))  # outlines
    np.testing.assert_allclose(seen[2] / seen[2].max(), seen[3] / seen[3].max(), atol=0.01)  # one hue
    renumbered = np.array([9, 0, 0, 1, 0, 7])[instances]
    np.testing.assert_array_equal(colour_panoptic(semantics, renumbered), colours)


def test_panoptic_rows_of_scenes():
    items = [scenes.render_item(scenes.make_scene(scenes.SEED, "test", i), 32) for i in range(2)]
    images, semantics, instances = (np.stack([item[k] for item in items]) for k in ("image", "semantics", "instances"))
    maps = {"ground truth": (semantics, instances), "prediction": (semantics, 7 - instances)}
    picture = panoptic_rows(images, maps)
    for i in range(2):
        np.testing.assert_array_equal(tile(picture, i, 1), tile(picture, i, 2))
        colours = np.unique(tile(picture, i, 1).reshape(-1, 3), axis=0)
        segments = len(np.unique(semantics[i] * 10 + instances[i]))
        assert len(colours) == segments + 1  # and black


def test_columns_grow_with_their_titles_and_bad_columns_are_refused():
    images = np.zeros((1, 200, 200, 3), np.uint8)
    short, long = titled_rows({"a": images}), titled_rows({"a title that is wider than any tile of it": images})
    assert long.shape[0] == short.shape[0] and long.shape[1] > short.shape[1]
    assert (long[:TITLE_PX] < 128).any()
    assert (long[0] == 255).all() and (long[:, -GAP_PX:] == 255).all()  # the title is not cut
