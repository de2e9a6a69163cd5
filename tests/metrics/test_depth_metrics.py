"""Depth errors: worked by hand, invalid pixels, images without any, and the constant baseline."""

import numpy as np
import pytest

from fsq_repro.metrics.depth_metrics import DepthMetrics, mean_valid_depth, valid_depth


def measured(predictions, depth):
    metrics = DepthMetrics()
    metrics.update(np.asarray(predictions), np.asarray(depth))
    return metrics


def test_one_image_by_hand():
    # Errors 0, 1, 2, 0 m; ratios 1, 2, 1.5, 1; 1.25^2 = 1.5625 and 1.25^3 = 1.953125.
    figures = measured([[[1.0, 2.0], [6.0, 5.0]]], [[[1.0, 1.0], [4.0, 5.0]]]).compute()
    expected = {
        "rmse": np.sqrt(5 / 4),
        "abs_rel": (1 + 0.5) / 4,
        "log10": (np.log10(2) + np.log10(1.5)) / 4,
        "delta1": 0.5,
        "delta2": 0.75,
        "delta3": 0.75,
        "images": 1,
        "images_skipped": 0,
    }
    assert figures == pytest.approx(expected, rel=1e-12)
    # The limits themselves are outside: 1.25 is exact in binary.
    figures = measured([[[1.25, 1.0]]], [[[1.0, 1.25]]]).compute()
    assert (figures["delta1"], figures["delta2"]) == (0.0, 1.0)


def test_invalid_pixels_do_not_count():
    limits = np.array([1e-3, 10.0], np.float32)
    np.testing.assert_array_equal(valid_depth(limits), [False, False])
    np.testing.assert_array_equal(
        valid_depth(np.nextafter(limits, np.float32(1))), [True, True]
    )  # both one step inwards
    np.testing.assert_array_equal(valid_depth(np.array([0, -1, np.nan, np.inf, 80])), [False] * 5)

    depth = np.array([[[2.0, 0.0, 10.0], [np.nan, 1e-3, 4.0]]], np.float32)
    predictions = np.array([[[3.0, 7.0, 1.0], [np.nan, -5.0, 4.0]]], np.float32)
    figures = measured(predictions, depth).compute()
    assert figures["rmse"] == pytest.approx(np.sqrt(1 / 2), rel=1e-12)
    assert figures["abs_rel"] == pytest.approx(0.25, rel=1e-12)


def test_figures_are_of_images_not_of_pixels():
    # Root mean squared errors 1 (four pixels) and 3 (one pixel): 2 over images; over pixels it would be 1.61.
    depth = np.array([[[2.0, 2.0], [2.0, 2.0]], [[0, 0], [0, 2.0]]])
    assert measured(depth + np.array([1.0, 3.0])[:, None, None], depth).compute()["rmse"] == pytest.approx(2.0)


def test_images_without_a_valid_pixel_are_skipped_and_counted():
    depth = np.array([[[0.0, 11.0]], [[1.0, 0.0]], [[0.0, 0.0]]])
    figures = measured(np.full_like(depth, 2.0), depth).compute()
    assert (figures["rmse"], figures["images"], figures["images_skipped"]) == (1.0, 1, 2)
    with pytest.raises(ValueError, match="not defined: 2 had no valid pixel"):
        measured(np.ones((2, 1, 2)), np.zeros((2, 1, 2))).compute()


def test_parts_in_any_order_equal_the_whole_bitwise():
    rng = np.random.default_rng(0)
    depth, predictions = rng.uniform(0, 11, (17, 4, 5)), rng.uniform(0.1, 10, (17, 4, 5))
    depth[3] = 0
    parts = DepthMetrics()
    for part in (slice(12, 17), slice(0, 5), slice(5, 12)):
        parts.update(predictions[part], depth[part])
    whole = measured(predictions, depth).compute()
    assert parts.compute() == whole
    assert (whole["images"], whole["images_skipped"]) == (16, 1)


def test_constant_baseline():
    # Valid: 1, 2, 3 and 6 m in arrays of different sizes, so that the mean is over pixels.
    train = [np.array([[1.0, 0.0, 2.0, 3.0]]), np.array([[6.0, 10.0]])]
    mean = mean_valid_depth(train)
    assert mean == pytest.approx(3.0, rel=1e-12)
    depth = np.array([[[1.0, 5.0]]])
    assert measured(np.full_like(depth, mean), depth).compute()["rmse"] == pytest.approx(2.0, rel=1e-12)
    with pytest.raises(ValueError, match="mean depth is not defined"):
        mean_valid_depth([np.zeros((2, 2))])


def test_mean_depth_keeps_its_digits():
    # Float32 sums of 4 million depths would be off in the third digit.
    assert mean_valid_depth([np.full((1000, 1000), 2.3, np.float32)] * 4) == pytest.approx(2.3, rel=1e-7)


def test_broken_predictions_are_refused():
    metrics = DepthMetrics()
    with pytest.raises(ValueError, match="positive and finite, got values down to 0.0"):
        metrics.update(np.array([[[1.0]], [[0.0]]]), np.ones((2, 1, 1)))
