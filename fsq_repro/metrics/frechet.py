"""Frechet distance between two sets of features, from streaming moments.

The distance of Heusel et al. 2017 as the ADM suite computes it (openai/guided-diffusion `evaluations/evaluator.py`):
mean and `np.cov(..., rowvar=False)` of the features, |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). Everything is float64
on the host: in float32 the trace term loses the digits that matter.
"""

import dataclasses
import os

import numpy as np
import scipy.linalg

from fsq_repro.files import atomic_path


class Moments:
    """Count, mean and covariance of feature vectors seen one batch at a time.

    Batches are added by the pairwise update of Chan et al. 1979 on centred sums, so that no digits are lost to a large
    mean and any order of batches agrees to rounding.
    """

    def __init__(self) -> None:
        self.count = 0  # vectors seen
        self._mean_D = np.zeros(0)
        self._scatter_DxD = np.zeros((0, 0))  # sum of (x - mean)(x - mean)^T

    @classmethod
    def of(cls, features_NxD: np.ndarray) -> "Moments":
        """Of these vectors; ValueError as from `update`."""
        moments = cls()
        moments.update(features_NxD)
        return moments

    def update(self, features_NxD: np.ndarray) -> None:
        """Adds vectors (N, D), of the width of those before; ValueError for values that are not finite."""
        features_NxD = np.asarray(features_NxD, dtype=np.float64)
        if not np.isfinite(features_NxD).all():
            raise ValueError("features hold values that are not finite.")
        if len(features_NxD) == 0:
            return
        mean_D = features_NxD.mean(axis=0)
        centred_NxD = features_NxD - mean_D
        count, scatter_DxD = len(features_NxD), centred_NxD.T @ centred_NxD
        if self.count == 0:
            self.count, self._mean_D, self._scatter_DxD = count, mean_D, scatter_DxD
            return
        total = self.count + count
        delta_D = mean_D - self._mean_D
        self._scatter_DxD += scatter_DxD + np.outer(delta_D, delta_D) * (self.count * count / total)
        self._mean_D += delta_D * (count / total)
        self.count = total

    @property
    def mean(self) -> np.ndarray:
        """Mean vector, float64 (D,)."""
        return self._mean_D.copy()

    @property
    def covariance(self) -> np.ndarray:
        """Covariance, float64 (D, D), divided by count - 1 as np.cov does. ValueError for fewer than two images."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least two images, these moments have seen {self.count}.")
        return self._scatter_DxD / (self.count - 1)

    def save(self, path: str | os.PathLike) -> None:
        """Writes `mu`, `sigma` (the ADM suite's and pytorch-fid's names) and `count` to an .npz file, atomically."""
        with atomic_path(path) as temporary:
            np.savez(temporary, mu=self.mean, sigma=self.covariance, count=np.int64(self.count))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Moments":
        """Reads a file that `save` wrote."""
        with np.load(path) as file:
            moments, covariance_DxD = cls(), file["sigma"]
            moments.count, moments._mean_D = int(file["count"]), file["mu"]
        moments._scatter_DxD = covariance_DxD * (moments.count - 1)
        return moments


@dataclasses.dataclass(frozen=True, eq=False)
class Statistics:
    """Mean and covariance as the files of other suites hold them: for distances, but no more images can be added."""

    count: int | None  # images, at least two; None where the file does not say it
    mean: np.ndarray  # float64 (D,)
    covariance: np.ndarray  # float64 (D, D), divided by count - 1


def frechet_distance(a: Moments | Statistics, b: Moments | Statistics) -> float:
    """Frechet distance of two feature sets, float64.

    tr((C1 C2)^(1/2)) is taken as the sum of the singular values of A^T B, where A A^T = C1 and B B^T = C2: the same
    number as the matrix square root's trace, but never complex, and exact to rounding where a covariance is
    singular (fewer images than features). Agrees with the ADM suite's to 1e-6 relative for covariances of full rank.
    Raises ValueError for fewer than two images on a side, and for different feature widths.
    """
    covariance_a, covariance_b = a.covariance, b.covariance
    if covariance_a.shape != covariance_b.shape:
        raise ValueError(f"the feature widths differ: {len(covariance_a)} and {len(covariance_b)}.")
    delta_D = a.mean - b.mean
    trace_of_root = scipy.linalg.svdvals(covariance_factor(covariance_a).T @ covariance_factor(covariance_b)).sum()
    return float(delta_D @ delta_D + np.trace(covariance_a) + np.trace(covariance_b) - 2.0 * trace_of_root)


def covariance_factor(covariance_DxD: np.ndarray) -> np.ndarray:
    """F with F F^T = covariance.

    Eigenvalues below the rounding noise of the largest are zeros of a singular matrix: their roots would be 1e8 times
    the noise.
    """
    values_D, vectors_DxD = np.linalg.eigh(covariance_DxD)
    noise = len(values_D) * np.finfo(np.float64).eps * max(values_D[-1], 0.0)
    return vectors_DxD * np.sqrt(np.where(values_D > noise, values_D, 0.0))
