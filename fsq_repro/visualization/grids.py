"""Pictures for people: originals over reconstructions, samples by class, saved as PNG."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage.util import montage

from fsq_repro.files import atomic_path

COLUMNS = 8
MIN_TILE_PX = 96  # smaller images are enlarged, so that a 32 px crop can be looked at
GAP_PX = 4  # twice this between pairs


def reconstruction_grid(originals_NxHxWx3: np.ndarray, reconstructions_NxHxWx3: np.ndarray) -> np.ndarray:
    """Rows of originals, each over the row of its reconstructions, on white.

    Small images are enlarged by whole factors without interpolation. Up to eight pairs share a row.
    uint8 (N, H, W, 3), at least one pair -> uint8 (height, width, 3).
    """
    tiles_a, tiles_b = enlarged(originals_NxHxWx3), enlarged(reconstructions_NxHxWx3)
    gap = np.full((len(tiles_a), GAP_PX, *tiles_a.shape[2:]), 255, np.uint8)
    pairs = _montage(np.concatenate([gap, tiles_a, gap, tiles_b], axis=1))
    return np.pad(pairs, [(0, GAP_PX), (0, 0), (0, 0)], constant_values=255)


def image_grid(images_NxHxWx3: np.ndarray) -> np.ndarray:
    """Images in rows of up to eight, on white; small ones enlarged as in `reconstruction_grid`. uint8 -> uint8."""
    return _montage(enlarged(images_NxHxWx3))


def _montage(tiles_NxHxWx3: np.ndarray) -> np.ndarray:
    """Tiles in rows of up to eight, `GAP_PX` of white around each."""
    columns = min(COLUMNS, len(tiles_NxHxWx3))
    rows = -(-len(tiles_NxHxWx3) // columns)
    white = (255, 255, 255)
    return montage(tiles_NxHxWx3, fill=white, grid_shape=(rows, columns), padding_width=GAP_PX, channel_axis=-1)


def class_grid(names: Sequence[str], groups: Mapping[str, np.ndarray]) -> np.ndarray:
    """One row per class: its name, then groups of images side by side, each under its title.

    Groups are title -> uint8 (N, H, W, 3) for each of the names, where N may differ -> uint8 (height, width, 3).
    """
    tiles = {title: [enlarged(images) for images in group] for title, group in groups.items()}
    height, width = next(iter(tiles.values()))[0].shape[1:3]
    font = ImageFont.load_default(size=18)
    name_px, title_px, between_px = 16 + max(int(font.getlength(name)) for name in names), 32, 6 * GAP_PX
    widths = [max(map(len, rows)) * (width + GAP_PX) + between_px for rows in tiles.values()]
    picture = Image.new("RGB", (name_px + sum(widths), title_px + len(names) * (height + GAP_PX)), "white")
    draw = ImageDraw.Draw(picture)
    left = name_px
    for (title, rows), group_width in zip(tiles.items(), widths, strict=True):
        draw.text((left, 6), title, fill="black", font=font)
        for c, row in enumerate(rows):
            for i, tile in enumerate(row):
                picture.paste(Image.fromarray(tile), (left + i * (width + GAP_PX), title_px + c * (height + GAP_PX)))
        left += group_width
    for c, name in enumerate(names):
        draw.text((8, title_px + c * (height + GAP_PX) + height // 2 - 10), name, fill="black", font=font)
    return np.asarray(picture)


def enlarged(images_NxHxW: np.ndarray, least_px: int = MIN_TILE_PX) -> np.ndarray:
    """Whole-factor enlargement of (N, H, W, ...) to at least `least_px` a side."""
    factor = -(-least_px // min(images_NxHxW.shape[1:3]))
    return images_NxHxW.repeat(factor, axis=1).repeat(factor, axis=2)


def save_png(path: str | os.PathLike, image_HxWx3: np.ndarray) -> None:
    """Writes a uint8 image as PNG, atomically; missing folders are made."""
    with atomic_path(path) as temporary:
        Image.fromarray(image_HxWx3).save(temporary, format="PNG")
