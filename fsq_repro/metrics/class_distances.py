"""Does a class-conditional model follow its label? Frechet distances of its samples to each class's images.

Samples of class c should lie nearer to the images of c than to those of the other classes. A model that ignores its
label shows the same distance to both.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
import scipy.linalg

from fsq_repro.metrics.frechet import Moments


@dataclasses.dataclass(frozen=True)
class ClassDistances:
    """Frechet distances of samples to reference images by class.

    Attributes:
      own: mean over classes c of the distance from the samples of c to the images of c.
      other: mean over ordered pairs of different classes c, d of the distance from the samples of c to the images of d.
      smallest_sample_count, smallest_reference_count: images of the class that has fewest; the bias of a Frechet
        distance grows as counts shrink, so values compare only at equal counts.
    """

    own: float
    other: float
    smallest_sample_count: int
    smallest_reference_count: int


def moments_by_class(features_NxD: np.ndarray, labels_N: np.ndarray) -> dict[int, Moments]:
    """Moments of the features of each class that occurs, by ascending class.

    Raises:
      ValueError: the labels are not N integers, or from `Moments.update`.
    """
    features_NxD, labels_N = np.asarray(features_NxD), np.asarray(labels_N)
    if labels_N.shape != features_NxD.shape[:1] or labels_N.dtype.kind not in "iu":
        raise ValueError(
            f"features {features_NxD.shape} need one integer label per row, got {labels_N.dtype} {labels_N.shape}."
        )
    return {label: Moments.of(features_NxD[labels_N == label]) for label in np.unique(labels_N).tolist()}


def class_distances(samples: Mapping[int, Moments], references: Mapping[int, Moments]) -> ClassDistances:
    """Distances of every class's samples to every class's images.

    The values are those of `frechet_distance`; each covariance is factored once instead of once per pair.

    Args:
      samples: class -> moments of the model's samples of that class.
      references: class -> moments of the images of that class.

    Raises:
      ValueError: the classes differ, fewer than two classes, fewer than two images in a class, or feature widths
        that differ.
    """
    classes = sorted(samples)
    if classes != sorted(references) or len(classes) < 2:
        raise ValueError(
            f"samples and references must have the same two or more classes, got {classes} and {sorted(references)}."
        )
    sample_terms = {c: _terms(samples[c]) for c in classes}
    reference_terms = {c: _terms(references[c]) for c in classes}
    own, other = [], []
    for c in classes:
        distances = {d: _distance(sample_terms[c], reference_terms[d]) for d in classes}
        own.append(distances.pop(c))
        other.append(np.mean(list(distances.values())))
    return ClassDistances(
        own=float(np.mean(own)),
        other=float(np.mean(other)),
        smallest_sample_count=min(m.count for m in samples.values()),
        smallest_reference_count=min(m.count for m in references.values()),
    )


def _terms(moments: Moments) -> tuple[np.ndarray, float, np.ndarray]:
    """Mean (D,), trace of the covariance C, and F (D, rank) with F F^T = C."""
    covariance_DxD = moments.covariance
    values_D, vectors_DxD = np.linalg.eigh(covariance_DxD)
    # As in frechet.py: eigenvalues below the rounding noise of the largest are zeros of a singular matrix.
    kept = values_D > len(values_D) * np.finfo(np.float64).eps * max(values_D[-1], 0.0)
    return moments.mean, float(np.trace(covariance_DxD)), vectors_DxD[:, kept] * np.sqrt(values_D[kept])[None, :]


def _distance(a: tuple[np.ndarray, float, np.ndarray], b: tuple[np.ndarray, float, np.ndarray]) -> float:
    (mean_a, trace_a, factor_a), (mean_b, trace_b, factor_b) = a, b
    if mean_a.shape != mean_b.shape:
        raise ValueError(f"the feature widths differ: {len(mean_a)} and {len(mean_b)}.")
    delta_D = mean_a - mean_b
    # tr((Ca Cb)^(1/2)) is the sum of the singular values of Fa^T Fb.
    trace_of_root = scipy.linalg.svdvals(factor_a.T @ factor_b).sum()
    return float(delta_D @ delta_D + trace_a + trace_b - 2.0 * trace_of_root)
