"""Pictures for people: originals over reconstructions, saved as PNG."""

import os

import numpy as np
from PIL import Image

from fsq_repro.files import atomic_path

COLUMNS = 8
MIN_TILE_PX = 96  # smaller images are enlarged, so that a 32 px crop can be looked at
GAP_PX = 4  # twice this between pairs


def reconstruction_grid(originals_NxHxWx3: np.ndarray, reconstructions_NxHxWx3: np.ndarray) -> np.ndarray:
    """Rows of originals, each over the row of its reconstructions, on white.

    Small images are enlarged by whole factors without interpolation. Up to eight pairs share a row.

    Args:
      originals_NxHxWx3, reconstructions_NxHxWx3: uint8, at least one pair.

    Returns:
      uint8 (height, width, 3).

    Raises:
      ValueError: no pair, other dtypes, or shapes that differ.
    """
    a, b = originals_NxHxWx3, reconstructions_NxHxWx3
    if a.dtype != np.uint8 or b.dtype != np.uint8 or a.ndim != 4 or a.shape != b.shape or len(a) == 0:
        raise ValueError(
            f"a grid needs two uint8 arrays of one (N, H, W, 3) shape with N >= 1, got {a.dtype} {a.shape} and "
            f"{b.dtype} {b.shape}."
        )
    factor = -(-MIN_TILE_PX // min(a.shape[1:3])) if min(a.shape[1:3]) < MIN_TILE_PX else 1
    height, width = a.shape[1] * factor, a.shape[2] * factor
    columns = min(COLUMNS, len(a))
    rows = -(-len(a) // columns)
    pair_height = 2 * height + GAP_PX
    canvas = np.full(
        (rows * (pair_height + 2 * GAP_PX) + 2 * GAP_PX, columns * (width + GAP_PX) + GAP_PX, 3), 255, dtype=np.uint8
    )
    for n, pair in enumerate(zip(a, b, strict=True)):
        top = 2 * GAP_PX + (n // columns) * (pair_height + 2 * GAP_PX)
        left = GAP_PX + (n % columns) * (width + GAP_PX)
        for k, image in enumerate(pair):
            tile = image.repeat(factor, axis=0).repeat(factor, axis=1)
            y = top + k * (height + GAP_PX)
            canvas[y : y + height, left : left + width] = tile
    return canvas


def save_png(path: str | os.PathLike, image_HxWx3: np.ndarray) -> None:
    """Writes a uint8 image as PNG, atomically; missing folders are made."""
    with atomic_path(path) as temporary:
        Image.fromarray(image_HxWx3).save(temporary, format="PNG")
