"""The one accumulator under every Frechet distance: what a feature network made of images, batch by batch."""

from collections.abc import Mapping

import numpy as np

from fsq_repro.metrics.frechet import Moments
from fsq_repro.metrics.inception_score import InceptionScore

POOL, SPATIAL, LOGITS = "pool", "spatial", "logits"  # kinds of outputs; the last two of Inception alone


class FeatureStatistics:
    """Moments, Inception score and, where wanted, the features themselves."""

    def __init__(self, *, keep_features: bool = False) -> None:
        """Precision and recall need kept features: 400 MB for 50,000 images and Inception."""
        self.pool = Moments()  # of the features of Frechet distances
        self.spatial: Moments | None = None  # of those of sFID; None until the network gives some
        self.score: InceptionScore | None = None  # None until the network gives logits
        self._keep_features, self._kept = keep_features, list[np.ndarray]()

    def update(self, outputs: Mapping[str, np.ndarray]) -> None:
        """Adds images by their outputs, any of `pool` (N, D), `spatial` (N, E) and `logits` (N, K).

        Raises ValueError for features that are not finite.
        """
        if POOL in outputs:
            self.pool.update(outputs[POOL])
            if self._keep_features:
                self._kept.append(outputs[POOL])
        if SPATIAL in outputs:
            self.spatial = self.spatial or Moments()
            self.spatial.update(outputs[SPATIAL])
        if LOGITS in outputs:
            self.score = self.score or InceptionScore()
            self.score.update(outputs[LOGITS])

    @property
    def features_NxD(self) -> np.ndarray:
        """The `pool` features of all images, where they were kept."""
        return np.concatenate(self._kept)
