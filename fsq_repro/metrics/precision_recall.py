"""Precision and recall of generated samples in a feature space (Kynkaanniemi et al. 2019), as the ADM suite has them.

Each set's manifold is estimated by balls around its points that reach to the k-th nearest other point of the set.
Follows openai/guided-diffusion `evaluations/evaluator.py` (`ManifoldEstimator`, k = 3, squared distances, borders
included), with one difference: ADM multiplies in float16 and falls back to float32 where that overflows; here the
products are float64 of centred features, which costs seconds and leaves no rounding to argue about.
"""

from collections.abc import Iterator

import numpy as np

BLOCK_ELEMENTS = 2**24  # distances held at a time: 128 MiB
BLOCK_COLUMNS = 4096  # features converted to float64 at a time


def precision_recall(reference_NxD: np.ndarray, samples_MxD: np.ndarray, *, neighbours: int = 3) -> tuple[float, float]:
    """Precision and recall of samples against a reference set (paper Fig. 4; ADM suite: 10,000 references).

    Both depend on N and M: values compare only at equal counts. Features, a row an image, are of any real dtype. A set
    without more than `neighbours` points is a ValueError.

    Returns:
      precision: share of samples inside at least one reference ball.
      recall: share of references inside at least one sample ball.
    """
    for name, features in (("reference", reference_NxD), ("sample", samples_MxD)):
        if len(features) <= neighbours:
            raise ValueError(
                f"{neighbours} neighbours need more than {neighbours} {name} features, got {len(features)}."
            )
    centre_D = reference_NxD.mean(axis=0, dtype=np.float64)
    reference_radii_N = _squared_radii(reference_NxD, centre_D, neighbours)
    sample_radii_M = _squared_radii(samples_MxD, centre_D, neighbours)

    reference_inside_N = np.zeros(len(reference_NxD), dtype=bool)
    sample_inside_M = np.zeros(len(samples_MxD), dtype=bool)
    for rows, distances_RxM in _squared_distances(reference_NxD, samples_MxD, centre_D):
        reference_inside_N[rows] = (distances_RxM <= sample_radii_M[None, :]).any(axis=1)
        sample_inside_M |= (distances_RxM <= reference_radii_N[rows, None]).any(axis=0)
    return float(sample_inside_M.mean()), float(reference_inside_N.mean())


def _squared_radii(features_NxD: np.ndarray, centre_D: np.ndarray, neighbours: int) -> np.ndarray:
    """Squared distance of each point to its k-th nearest other point, float64 (N,)."""
    radii_N = np.empty(len(features_NxD))
    for rows, distances_RxN in _squared_distances(features_NxD, features_NxD, centre_D):
        own = np.arange(rows.start, rows.stop)
        distances_RxN[own - rows.start, own] = np.inf
        distances_RxN.partition(neighbours - 1, axis=1)
        radii_N[rows] = distances_RxN[:, neighbours - 1]
    # Where k points coincide the radius is zero and a sample on that very point must count as inside although its
    # distance comes out as rounding noise. So a radius is at least the error bound of a zero distance.
    squared_norms_N = np.concatenate([_squared_norms(x) for x in _blocks(features_NxD, centre_D)])
    return np.maximum(radii_N, 4 * features_NxD.shape[1] * np.finfo(np.float64).eps * squared_norms_N)


def _squared_distances(
    a_NxD: np.ndarray, b_MxD: np.ndarray, centre_D: np.ndarray
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields (slice of a's rows, squared distances of those rows to all of b, float64 (R, M)), never all at once.

    |u - v|^2 = |u|^2 + |v|^2 - 2 u.v about the centre: a large common mean would cost digits.
    """
    block_rows = max(1, BLOCK_ELEMENTS // len(b_MxD))
    for start in range(0, len(a_NxD), block_rows):
        rows = slice(start, min(start + block_rows, len(a_NxD)))
        u_RxD = a_NxD[rows] - centre_D[None, :]
        distances_RxM = np.empty((len(u_RxD), len(b_MxD)))
        column = 0
        for v_CxD in _blocks(b_MxD, centre_D):
            block_RxC = distances_RxM[:, column : column + len(v_CxD)]
            np.matmul(-2.0 * u_RxD, v_CxD.T, out=block_RxC)
            block_RxC += _squared_norms(v_CxD)[None, :]
            column += len(v_CxD)
        distances_RxM += _squared_norms(u_RxD)[:, None]
        yield rows, distances_RxM


def _blocks(features_NxD: np.ndarray, centre_D: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(features_NxD), BLOCK_COLUMNS):
        yield features_NxD[start : start + BLOCK_COLUMNS] - centre_D[None, :]


def _squared_norms(x_NxD: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", x_NxD, x_NxD)
