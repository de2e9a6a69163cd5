"""Pictures for people: originals over reconstructions, samples by class, saved as PNG."""

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

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
    tiles_a, tiles_b = _enlarged(a), _enlarged(b)
    height, width = tiles_a.shape[1:3]
    columns = min(COLUMNS, len(a))
    rows = -(-len(a) // columns)
    pair_height = 2 * height + GAP_PX
    canvas = np.full(
        (rows * (pair_height + 2 * GAP_PX) + 2 * GAP_PX, columns * (width + GAP_PX) + GAP_PX, 3), 255, dtype=np.uint8
    )
    for n, pair in enumerate(zip(tiles_a, tiles_b, strict=True)):
        top = 2 * GAP_PX + (n // columns) * (pair_height + 2 * GAP_PX)
        left = GAP_PX + (n % columns) * (width + GAP_PX)
        for k, tile in enumerate(pair):
            y = top + k * (height + GAP_PX)
            canvas[y : y + height, left : left + width] = tile
    return canvas


def image_grid(images_NxHxWx3: np.ndarray) -> np.ndarray:
    """Images in rows of up to eight, on white; small ones enlarged as in `reconstruction_grid`. uint8 -> uint8."""
    tiles = _enlarged(images_NxHxWx3)
    n, height, width, _ = tiles.shape
    columns = min(COLUMNS, n)
    rows = -(-n // columns)
    canvas = np.full((rows * (height + GAP_PX) + GAP_PX, columns * (width + GAP_PX) + GAP_PX, 3), 255, np.uint8)
    for i, tile in enumerate(tiles):
        y, x = (i // columns) * (height + GAP_PX) + GAP_PX, (i % columns) * (width + GAP_PX) + GAP_PX
        canvas[y : y + height, x : x + width] = tile
    return canvas


def class_grid(
    names: Sequence[str], real_CxMxHxWx3: np.ndarray, samples_CxNxHxWx3: np.ndarray, sample_title: str
) -> np.ndarray:
    """One row a class: its name, some of its images, samples of it. uint8 images -> uint8 picture with a title row."""
    tiles = [[_enlarged(group) for group in row] for row in zip(real_CxMxHxWx3, samples_CxNxHxWx3, strict=True)]
    height, width = tiles[0][0].shape[1:3]
    num_real, num_samples = len(tiles[0][0]), len(tiles[0][1])
    font = ImageFont.load_default(size=18)
    name_px = 16 + max(int(font.getlength(name)) for name in names)
    middle = name_px + num_real * (width + GAP_PX) + 6 * GAP_PX
    title_px = 32
    size = (middle + num_samples * (width + GAP_PX), title_px + len(names) * (height + GAP_PX))
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    draw.text((name_px, 6), "training images", fill="black", font=font)
    draw.text((middle, 6), sample_title, fill="black", font=font)
    for c, (name, (real, samples)) in enumerate(zip(names, tiles, strict=True)):
        y = title_px + c * (height + GAP_PX)
        draw.text((8, y + height // 2 - 10), name, fill="black", font=font)
        for left, group in ((name_px, real), (middle, samples)):
            for i, tile in enumerate(group):
                picture.paste(Image.fromarray(tile), (left + i * (width + GAP_PX), y))
    return np.asarray(picture)


def _enlarged(images_NxHxWx3: np.ndarray) -> np.ndarray:
    """Whole-factor enlargement to at least `MIN_TILE_PX`."""
    factor = -(-MIN_TILE_PX // min(images_NxHxWx3.shape[1:3]))
    return images_NxHxWx3.repeat(factor, axis=1).repeat(factor, axis=2)


def save_png(path: str | os.PathLike, image_HxWx3: np.ndarray) -> None:
    """Writes a uint8 image as PNG, atomically; missing folders are made."""
    with atomic_path(path) as temporary:
        Image.fromarray(image_HxWx3).save(temporary, format="PNG")
