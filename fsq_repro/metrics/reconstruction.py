"""Stage-1 evaluation: one pass over a split gives feature statistics, PSNR, SSIM, usage and pictures (section 4.2).

Takes functions and arrays only. Batches may be padded to one shape: `mask` tells the real images, and the number of
real images is checked against the split's, since evaluations often lose or double some.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from fsq_repro.data.images import to_uint8, to_unit_float
from fsq_repro.metrics.feature_statistics import POOL, FeatureStatistics
from fsq_repro.metrics.image_quality import psnr, ssim
from fsq_repro.metrics.usage import CodebookUsage

Batches = Iterable[Mapping[str, np.ndarray]]  # `image` float32 (B, H, W, 3) in [0, 1] and `mask` bool (B,)

NUM_PICTURES = 16


@dataclasses.dataclass(frozen=True)
class ReconstructionEvaluation:
    """What one pass over a split measured.

    `values` are psnr (dB), ssim, mse (of the byte images / 255), and those of `CodebookUsage.compute`.
    """

    values: dict[str, float | int]
    tokens_sha256: str  # of all indices in order, as little-endian int32
    statistics: dict[str, FeatureStatistics]  # feature network -> of the reconstructions' `pool` features
    level_facts: Mapping[str, list | None]  # FSQ only: `CodebookUsage.level_facts`; else None for each
    originals: np.ndarray  # uint8 (n, H, W, 3), the first n <= 16 images of the split
    reconstructions: np.ndarray


def evaluate_reconstructions(
    reconstruct: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    features: Mapping[str, Callable[[np.ndarray], np.ndarray]],
    batches: Batches,
    *,
    expected_count: int,
    codebook_size: int,
    levels: Sequence[int] | None = None,
) -> ReconstructionEvaluation:
    """Reconstructs a whole split once and measures everything on it.

    Reconstructions are rounded to bytes first (`to_uint8`); every metric and feature is measured on the rounded images.

    Args:
      reconstruct: images float32 (B, H, W, 3) -> (reconstructions of that shape, indices int (B, ...)).
      features: name -> function from uint8 images (B, H, W, 3) to features (B, D).
      batches: masked-out images go through the functions and are then left out.
      expected_count: number of images that the split has.
      levels: FSQ's levels, for the per-dimension histograms.

    Raises ValueError for another number of images, an index out of range, or reconstructions that are not finite.
    """
    statistics = {name: FeatureStatistics() for name in features}
    usage, tokens = CodebookUsage(codebook_size), hashlib.sha256()
    per_image: dict[str, list[float]] = {"psnr": [], "ssim": [], "mse": []}
    originals, reconstructions = list[np.ndarray](), list[np.ndarray]()
    for batch in batches:
        image, mask = batch["image"], batch["mask"]
        reconstruction, indices = (np.asarray(x) for x in reconstruct(image))
        original_uint8, reconstruction_uint8 = to_uint8(image), to_uint8(reconstruction)
        for name, function in features.items():
            statistics[name].update({POOL: np.asarray(function(reconstruction_uint8))[mask]})
        usage.update(indices[mask])
        tokens.update(indices[mask].astype("<i4").tobytes())
        original_uint8, reconstruction_uint8 = original_uint8[mask], reconstruction_uint8[mask]
        per_image["psnr"].extend(psnr(original_uint8, reconstruction_uint8))
        per_image["ssim"].extend(ssim(original_uint8, reconstruction_uint8))
        error = to_unit_float(original_uint8).astype(np.float64) - to_unit_float(reconstruction_uint8)
        per_image["mse"].extend((error**2).mean(axis=(1, 2, 3)))
        wanted = NUM_PICTURES - sum(len(images) for images in originals)
        if wanted > 0:
            originals.append(original_uint8[:wanted])
            reconstructions.append(reconstruction_uint8[:wanted])
    if len(per_image["mse"]) != expected_count:
        raise ValueError(f"the evaluation saw {len(per_image['mse'])} images, the split has {expected_count}.")
    return ReconstructionEvaluation(
        values={name: float(np.mean(values)) for name, values in per_image.items()} | usage.compute(),
        tokens_sha256=tokens.hexdigest(),
        statistics=statistics,
        level_facts=usage.level_facts(levels) if levels else dict.fromkeys(("level_histograms", "saturation")),
        originals=np.concatenate(originals),
        reconstructions=np.concatenate(reconstructions),
    )
