"""Depth: the loss, errors at native sizes, baselines beside NumPy, refused fields and the files."""

import numpy as np
import pytest
from PIL import Image

from fsq_repro.data import dense_labels
from fsq_repro.data.choice import chosen_indices
from fsq_repro.metrics.table import MetricKey
from fsq_repro.tasks.depth import DepthScorer, DepthTask
from tests.tasks.helpers import DEPTH, SIZES, Items, batch, cross_entropy, enlarged, image, random_outputs

RMSE, IMAGES = MetricKey("rmse"), MetricKey("images")
MEAN_DEPTH, MEAN_MAP = MetricKey("rmse", baseline="mean_depth"), MetricKey("rmse", baseline="mean_map")


def test_depth_loss_leaves_out_bin_0_but_not_from_the_mean():
    task = DEPTH
    prepared, outputs = task.prepare(batch()), random_outputs(task)
    unmeasured = prepared["depth"] == 0
    assert unmeasured[:, 0].all() and 0 < unmeasured.mean() < 0.5
    loss_B, terms = task.loss(outputs, prepared)
    expected = np.where(unmeasured, 0, cross_entropy(outputs["depth"], prepared["depth"])).sum((1, 2)) / 16**2
    np.testing.assert_allclose(loss_B, expected, rtol=1e-5)
    np.testing.assert_array_equal(terms["depth"], loss_B)


def depth_items(rng, count, size=(8, 8)):
    """A quarter of the pixels, the first among them, were not measured or are beyond 10 m."""
    depths = rng.uniform(0.1, 9.9, (count, *size)).astype(np.float32)
    lost = rng.random(depths.shape) < 0.25
    lost[:, 0, 0] = True
    depths[lost] = rng.choice(np.float32([0, 10, 12]), lost.sum())
    return [{"image": image(rng, size), "depth": depth} for depth in depths]


def rmse(predictions, depths):
    """Per image over its valid pixels, then averaged over images that have some."""
    errors = []
    for prediction, depth in zip(predictions, depths, strict=True):
        squares = [(p - d) ** 2 for p, d in zip(prediction.ravel(), depth.ravel(), strict=True) if 0.001 < d < 10]
        errors += [np.sqrt(np.mean(np.float64(squares)))] if squares else []
    return np.mean(errors)


def test_depth_of_the_right_bins_errs_by_their_centres_only():
    rng = np.random.default_rng(0)
    items = depth_items(rng, 5)
    scorer = DepthScorer(Items(items), (8, 8), 5)
    true = np.stack([item["depth"] for item in items])
    predicted = dense_labels.bins_to_depth(dense_labels.depth_to_bins(true, 32), 32)
    scorer.update({"depth": predicted}, items)
    measured = scorer.compute()
    assert 0.01 < measured[RMSE] == pytest.approx(rmse(predicted, true), rel=1e-6)
    assert measured[RMSE] < 9.999 / 32 / 2 and measured[IMAGES] == 5


def test_depth_is_scored_at_the_size_of_each_truth():
    rng = np.random.default_rng(0)
    predicted = rng.uniform(0.1, 9.9, (4, 8, 8)).astype(np.float32)
    truths = [
        {"image": image(rng, size), "depth": enlarged(depth, size)}
        for depth, size in zip(predicted, SIZES, strict=True)
    ]
    scorer = DepthScorer(Items(depth_items(rng, 3)), SIZES[0], 3)
    scorer.update({"depth": predicted[:3]}, truths[:3])
    scorer.update({"depth": predicted[3:]}, truths[3:])
    measured = scorer.compute()
    assert measured[RMSE] == 0 and measured[MetricKey("delta1")] == 1 and measured[IMAGES] == 4
    assert MEAN_MAP not in measured  # the training maps have another size
    scorer.update({"depth": predicted[:1]}, truths[1:2])
    assert scorer.compute()[RMSE] > 0.1
    assert [item["depth"].shape for item in scorer.shown.items] == [(8, 8)] * 5
    picture = DEPTH.rows(scorer.shown.items, {"prediction": scorer.shown.maps})
    assert picture.shape[0] > 5 * 96 and picture.dtype == np.uint8


def test_depth_baselines_equal_their_definition():
    """Means over the valid pixels of the training images that are looked at."""
    rng = np.random.default_rng(0)
    train, items = depth_items(rng, 8), depth_items(rng, 3)
    for item in train:
        item["depth"][3, 5] = 0  # valid nowhere, so that the map has the mean there
    scorer = DepthScorer(Items(train), (8, 8), 4)
    true = np.stack([item["depth"] for item in items])
    scorer.update({"depth": np.ones_like(true)}, items)

    seen = np.stack([train[i]["depth"] for i in chosen_indices(8, 4)])
    valid = (seen > 0.001) & (seen < 10)
    mean = np.mean(seen[valid], dtype=np.float64)
    mean_map = np.full((8, 8), mean)
    for y, x in np.ndindex(8, 8):
        if valid[:, y, x].any():
            mean_map[y, x] = np.mean(seen[:, y, x][valid[:, y, x]], dtype=np.float64)
    assert mean_map[3, 5] == mean_map[0, 0] == mean
    measured = scorer.compute()
    assert measured[MEAN_DEPTH] == pytest.approx(rmse(np.full_like(true, mean), true), rel=1e-6)
    assert measured[MEAN_MAP] == pytest.approx(rmse(np.stack([mean_map] * 3), true), rel=1e-6)
    assert measured[MEAN_MAP] != pytest.approx(measured[MEAN_DEPTH], rel=1e-3)
    protocol = {"training_images": 4}
    assert scorer.protocols() == {MEAN_DEPTH: protocol, MEAN_MAP: protocol}
    all_of_them = DepthScorer(Items(train), (8, 8), 100)
    all_of_them.update({"depth": true}, items)
    assert all_of_them.protocols()[MEAN_MAP] == {"training_images": 8}


def test_depth_without_a_valid_pixel_is_skipped_and_counted():
    rng = np.random.default_rng(0)
    items = depth_items(rng, 4)
    items[1]["depth"] = np.zeros((8, 8), np.float32)
    predicted = np.full((4, 8, 8), 2, np.float32)
    scorer = DepthScorer(Items([items[1], *depth_items(rng, 2)]), (8, 8), 3)
    scorer.update({"depth": predicted}, items)
    measured = scorer.compute()
    assert (measured[IMAGES], measured[MetricKey("images_skipped")]) == (3, 1)
    assert measured[RMSE] == pytest.approx(rmse(predicted, [item["depth"] for item in items]), rel=1e-6)
    assert np.isfinite(measured[MEAN_MAP]) and DEPTH.rows(scorer.shown.items, {"prediction": scorer.shown.maps}).any()


def test_only_the_first_images_are_shown():
    items = depth_items(np.random.default_rng(0), 12)
    scorer = DepthScorer(Items(items), (8, 8), 3)
    predicted = np.arange(1, 13, dtype=np.float32)[:, None, None] * np.ones((8, 8), np.float32) / 2
    for part in (slice(0, 5), slice(5, 10), slice(10, 12)):
        scorer.update({"depth": predicted[part]}, items[part])
    assert all(shown is item for shown, item in zip(scorer.shown.items, items[:8], strict=True))
    assert [maps["depth"][0, 0] for maps in scorer.shown.maps] == [0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4]


def test_files_of_a_prediction(tmp_path):
    depth = np.linspace(1, 5, 35, dtype=np.float32).reshape(5, 7)
    files = DEPTH.write(tmp_path / "a", {"depth": depth})
    assert files == [f"{tmp_path}/a_depth.png", f"{tmp_path}/a_depth.npy"]
    np.testing.assert_array_equal(np.load(files[1]), depth)
    colours = np.asarray(Image.open(files[0])).astype(int).sum(axis=-1)
    assert colours.shape == (5, 7) and colours[0, 0] > colours[2, 3] > colours[4, 6]


def test_one_bin_is_refused():
    with pytest.raises(ValueError, match="^task.bins = 1 must be at least 2$"):
        DepthTask(1)
