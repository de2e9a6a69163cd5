"""Errors of depth maps as published for NYU Depth v2: per image over its valid pixels, then averaged over images.

Follows google-research/big_vision `evaluators/proj/uvim/nyu_depth.py`. Scores depend on the crop and on which pixels
are valid (many papers' numbers cannot be compared for that reason): predictions and ground truth come here already
cropped and of one size, and the valid range is fixed.
"""

import math
from collections.abc import Iterable

import numpy as np

from fsq_repro.data.dense_labels import MAX_DEPTH, MIN_DEPTH

METRICS = ("rmse", "abs_rel", "log10", "delta1", "delta2", "delta3")


def valid_depth(depth: np.ndarray) -> np.ndarray:
    """Tells where the ground truth counts: 0.001 < depth < 10 m, limits rounded to the depth's own dtype; bool."""
    return (depth > MIN_DEPTH) & (depth < MAX_DEPTH)


class DepthMetrics:
    """Depth errors of every image seen, float64."""

    def __init__(self) -> None:
        self._per_image: list[tuple[float, ...]] = []  # kept, so that no order of summing differs
        self.skipped = 0  # images without a valid pixel, for which no error is defined

    def update(self, predictions_BxHxW: np.ndarray, depth_BxHxW: np.ndarray) -> None:
        """Measures a batch: predictions and ground truth (see `valid_depth`), floats, metres.

        Raises ValueError for a prediction on a valid pixel that is not positive and finite.
        """
        for prediction_HxW, depth_HxW in zip(predictions_BxHxW, depth_BxHxW, strict=True):
            valid = valid_depth(depth_HxW)
            if valid.any():
                pixels = prediction_HxW[valid].astype(np.float64), depth_HxW[valid].astype(np.float64)
                self._per_image.append(_errors(*pixels))
            else:
                self.skipped += 1

    def compute(self) -> dict[str, float | int]:
        """Errors averaged over the images measured.

        Returns:
          rmse: root of the mean squared error, metres.
          abs_rel: mean of |prediction - depth| / depth.
          log10: mean of |log10 prediction - log10 depth|.
          delta1, delta2, delta3: share of pixels with max(prediction / depth, depth / prediction) below 1.25, 1.25^2
            and 1.25^3.
          images, images_skipped: with and without a valid pixel; ValueError where all are without.
        """
        if not self._per_image:
            raise ValueError(f"depth errors of no images are not defined: {self.skipped} had no valid pixel.")
        images = len(self._per_image)
        means = (math.fsum(column) / images for column in zip(*self._per_image, strict=True))
        return dict(zip(METRICS, means, strict=True)) | {"images": images, "images_skipped": self.skipped}


def _errors(prediction_P: np.ndarray, depth_P: np.ndarray) -> tuple[float, ...]:
    """`METRICS` of one image's valid pixels, float64."""
    if not (np.isfinite(prediction_P) & (prediction_P > 0)).all():
        raise ValueError(f"predictions must be positive and finite, got values down to {prediction_P.min()}.")
    error = np.abs(prediction_P - depth_P)
    ratio = np.maximum(prediction_P / depth_P, depth_P / prediction_P)
    return (
        float(np.sqrt(np.mean(error**2))),
        float(np.mean(error / depth_P)),
        float(np.mean(np.abs(np.log10(prediction_P) - np.log10(depth_P)))),
        *(float(np.mean(ratio < 1.25**order)) for order in (1, 2, 3)),
    )


def mean_valid_depth(depths: Iterable[np.ndarray]) -> float:
    """Mean over all valid pixels of training depth maps, metres: the constant prediction that every model must beat.

    Maps are float arrays of any shape, metres; ValueError where no pixel is valid.
    """
    total, pixels = 0.0, 0
    for depth in depths:
        valid = np.asarray(depth)[valid_depth(depth)]
        total += valid.sum(dtype=np.float64)
        pixels += valid.size
    if not pixels:
        raise ValueError("the mean depth is not defined: no pixel is valid.")
    return float(total / pixels)
