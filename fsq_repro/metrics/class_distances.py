"""Does a class-conditional model follow its label? Frechet distances of its samples to each class's images.

Samples of class c should lie nearer to the images of c than to those of the other classes. A model that ignores its
label shows the same distance to both.
"""

from collections.abc import Mapping

import numpy as np
import scipy.linalg

from fsq_repro.metrics.frechet import Moments, covariance_factor


def moments_by_class(features_NxD: np.ndarray, labels_N: np.ndarray) -> dict[int, Moments]:
    """Moments of the features of each class that occurs, by ascending class; labels are N integers."""
    return {label: Moments.of(features_NxD[labels_N == label]) for label in np.unique(labels_N).tolist()}


def class_distances(samples: Mapping[int, Moments], references: Mapping[int, Moments]) -> tuple[float, float]:
    """Distances of every class's samples to every class's images.

    The values are those of `frechet_distance`; each covariance is factored once instead of once per pair. The bias of a
    Frechet distance grows as counts shrink, so values compare only at equal counts. `samples` are the model's by
    class, `references` the images'.

    Returns:
      own: mean over classes c of the distance from the samples of c to the images of c.
      other: mean over ordered pairs of different classes c, d of the distance from the samples of c to the images of d.

    Raises ValueError where the classes differ, and for fewer than two classes or fewer than two images in one.
    """
    classes = sorted(samples)
    if classes != sorted(references) or len(classes) < 2:
        raise ValueError(
            f"samples and references must have the same two or more classes, got {classes} and {sorted(references)}."
        )
    sample_terms, reference_terms = ({c: _terms(side[c]) for c in classes} for side in (samples, references))
    own, other = [], []
    for c in classes:
        distances = {d: _distance(sample_terms[c], reference_terms[d]) for d in classes}
        own.append(distances.pop(c))
        other.append(np.mean(list(distances.values())))
    return float(np.mean(own)), float(np.mean(other))


def _terms(moments: Moments) -> tuple[np.ndarray, float, np.ndarray]:
    """Mean (D,), trace of the covariance C, and F (D, rank) with F F^T = C."""
    factor_DxD = covariance_factor(moments.covariance)
    return moments.mean, float(np.trace(moments.covariance)), factor_DxD[:, factor_DxD.any(axis=0)]


def _distance(a: tuple[np.ndarray, float, np.ndarray], b: tuple[np.ndarray, float, np.ndarray]) -> float:
    (mean_a, trace_a, factor_a), (mean_b, trace_b, factor_b) = a, b
    delta_D = mean_a - mean_b
    # tr((Ca Cb)^(1/2)) is the sum of the singular values of Fa^T Fb.
    trace_of_root = scipy.linalg.svdvals(factor_a.T @ factor_b).sum()
    return float(delta_D @ delta_D + trace_a + trace_b - 2.0 * trace_of_root)
