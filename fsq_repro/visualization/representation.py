"""What single codes and their arrangement mean to the decoder (paper appendix A.3, Figures 8 and 9).

Three experiments on a trained autoencoder: grids of codes drawn independently from the code histogram (a "soup of
patches"), grids of one code repeated, and the upper half of one image's codes over the lower half of another's, beside
the same stitch of the pixels. Takes functions and arrays only.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from fsq_repro.data.images import to_uint8
from fsq_repro.metrics.reconstruction import Batches
from fsq_repro.metrics.usage import CodebookUsage

NUM_SOUPS = 3
NUM_CONSTANT = 3
NUM_PAIRS = 3


def representation_study(
    encode: Callable[[np.ndarray], np.ndarray],
    decode: Callable[[np.ndarray], np.ndarray],
    batches: Batches,
    *,
    expected_count: int,
    codebook_size: int,
    seed: int,
) -> dict[str, Any]:
    """Runs the three experiments in one pass over a split and one call of the decoder.

    The same seed and split give the same study whatever the batch size (up to the networks' rounding).

    Args:
      encode: images float32 (B, H, W, 3) in [0, 1] -> code indices int (B, h, w).
      decode: code indices int32 (n, h, w) -> images float (n, H, W, 3), [0, 1] nominal.
      batches, expected_count: as for `evaluate_reconstructions`.
      codebook_size: number of codes, K.
      seed: draws the soups and the images to stitch.

    Returns, pictures as uint8 (n, H, W, 3):
      counts_K: int64 (K,), how often the split uses each code.
      soups: 3 decoded grids of independent draws from `counts_K`.
      constant_codes: the commonest codes, at most 3, commonest first.
      constant_shares: their shares of all tokens.
      constants: decoded grids of each of these codes.
      tops, bottoms: 3 + 3 different images of the split, drawn at random.
      latent_stitches: decoded: upper half of the codes of `tops` over the lower half of the codes of `bottoms`.
      pixel_stitches: upper half of `tops` over lower half of `bottoms`, the images themselves (no autoencoder).

    Raises ValueError for another number of images than expected, fewer than six, or an index outside 0..K-1.
    """
    picked = 2 * NUM_PAIRS
    if expected_count < picked:
        raise ValueError(f"stitching {NUM_PAIRS} pairs needs at least {picked} images, the split has {expected_count}.")
    soup_rng, pair_rng = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
    order = {int(n): place for place, n in enumerate(pair_rng.choice(expected_count, picked, replace=False))}
    images: list[np.ndarray | None] = [None] * picked
    tokens: list[np.ndarray | None] = [None] * picked
    usage, seen = CodebookUsage(codebook_size), 0
    for batch in batches:
        image, mask = batch["image"], batch["mask"]
        indices = np.asarray(encode(image))
        usage.update(indices[mask])
        for row in np.flatnonzero(mask):
            if seen in order:
                images[order[seen]], tokens[order[seen]] = image[row], indices[row]
            seen += 1
    if seen != expected_count:
        raise ValueError(f"the study saw {seen} images, the split has {expected_count}.")

    tops, bottoms = np.split(to_uint8(np.stack(images)), 2)
    top_tokens, bottom_tokens = np.split(np.stack(tokens).astype(np.int32), 2)
    grid = top_tokens.shape[1:]
    constant = constant_grids(usage.counts_K, NUM_CONSTANT, grid)
    soup = iid_grids(usage.counts_K, NUM_SOUPS, grid, soup_rng)
    grids = [soup, constant, stitch_halves(top_tokens, bottom_tokens)]
    decoded = to_uint8(np.asarray(decode(np.concatenate(grids))))
    soups, constants, latent_stitches = np.split(decoded, np.cumsum([len(g) for g in grids])[:-1])
    constant_codes = constant[:, 0, 0].tolist()
    return {
        "counts_K": usage.counts_K,
        "soups": soups,
        "constant_codes": constant_codes,
        "constant_shares": (usage.counts_K[constant_codes] / usage.counts_K.sum()).tolist(),
        "constants": constants,
        "tops": tops,
        "bottoms": bottoms,
        "latent_stitches": latent_stitches,
        "pixel_stitches": stitch_halves(tops, bottoms),
    }


def iid_grids(counts_K: np.ndarray, num: int, grid: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Codes drawn independently from a histogram (Fig. 8): int32 (num, h, w) for `grid` = (h, w)."""
    return rng.choice(len(counts_K), size=(num, *grid), p=counts_K / counts_K.sum()).astype(np.int32)


def constant_grids(counts_K: np.ndarray, num: int, grid: tuple[int, int]) -> np.ndarray:
    """One grid filled with each of the commonest codes (Fig. 8): int32 (n, h, w) for `grid` = (h, w).

    Commonest first, the lower index first among equals. n = num, or the number of codes that occur if that is smaller.
    """
    codes = np.argsort(-counts_K, kind="stable")[: min(num, np.count_nonzero(counts_K))]
    return np.broadcast_to(codes[:, None, None], (len(codes), *grid)).astype(np.int32)


def stitch_halves(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """The first height // 2 rows of `top` over the other rows of `bottom` (Fig. 9): codes (n, h, w) or images."""
    half = top.shape[1] // 2
    return np.concatenate([top[:, :half], bottom[:, half:]], axis=1)
