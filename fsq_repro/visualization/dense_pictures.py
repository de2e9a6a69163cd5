"""Pictures of dense predictions for people: rows of input | ground truth | predictions, each column under its title.

Depth is coloured near = bright, every column of a row over one range; panoptic maps have one hue a class, one shade an
instance and black outlines.
"""

import colorsys
from collections.abc import Mapping

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fsq_repro.data.dense_labels import make_canonical, segment_codes
from fsq_repro.metrics.depth_metrics import valid_depth
from fsq_repro.visualization.grids import enlarged

MIN_TILE_PX = 192  # smaller images are enlarged by whole factors, so that edges of a 64 px map can be looked at
GAP_PX = 6
TITLE_PX = 30
DEPTH_COLOURS = "inferno_r"
INVALID_GREY = 128
SHADES = (1.0, 0.72, 0.86, 0.58, 0.93, 0.65, 0.79, 0.51)  # neighbours in canonical order differ clearly


def colour_depth(depth_HxW: np.ndarray, nearest: float, farthest: float) -> np.ndarray:
    """Colours depth in metres from bright (`nearest`, and all nearer) to dark (`farthest`); invalid pixels are grey.

    Floats (H, W) -> uint8 (H, W, 3).
    """
    unit = (depth_HxW.astype(np.float64) - nearest) / max(farthest - nearest, 1e-6)
    valid = valid_depth(depth_HxW)
    colours = matplotlib.colormaps[DEPTH_COLOURS](np.where(valid, unit, 0).clip(0, 1), bytes=True)[..., :3]
    return np.where(valid[..., None], colours, np.uint8(INVALID_GREY))


def colour_panoptic(semantics_HxW: np.ndarray, instances_HxW: np.ndarray) -> np.ndarray:
    """Colours segments: the hue is the class's, the shade its place among the class's segments; void is black.

    Segments are counted in canonical order (rows of their centres of mass), whatever their ids: a right prediction has
    the colours of the ground truth. Each segment's last pixels before another one's are its black outline.

    Integers (H, W), classes 0 for void and instances >= 0 -> uint8 (H, W, 3).
    """
    ids_HxW = make_canonical(segment_codes(semantics_HxW, instances_HxW))
    ids, first = np.unique(ids_HxW, return_index=True)
    seen: dict[int, int] = {}
    colours = np.zeros((int(ids[-1]) + 1, 3), np.uint8)
    for segment, class_id in zip(ids, semantics_HxW.ravel()[first], strict=True):
        if segment:
            rank = seen[class_id] = seen.get(class_id, -1) + 1
            # Hues in steps of the golden ratio, every other seven of them paler.
            hue, strength = int(class_id) * 0.6180340 % 1, (0.75, 0.45)[class_id // 7 % 2]
            colour = 255 * np.array(colorsys.hsv_to_rgb(hue, strength, 0.95))
            colours[segment] = np.rint(colour * SHADES[rank % len(SHADES)])
    picture = colours[ids_HxW]
    picture[:, :-1][ids_HxW[:, :-1] != ids_HxW[:, 1:]] = 0
    picture[:-1][ids_HxW[:-1] != ids_HxW[1:]] = 0
    return picture


def depth_rows(images_NxHxWx3: np.ndarray, depths: Mapping[str, np.ndarray]) -> np.ndarray:
    """One row an image: the uint8 input, then each depth map, title -> floats (N, H, W), metres; `titled_rows` of them.

    The colours of a row span the valid depths of its first map (the ground truth, where there is one).
    """
    columns: dict[str, list[np.ndarray]] = {title: [] for title in depths}
    for row in zip(*depths.values(), strict=True):
        valid = row[0][valid_depth(row[0])]
        nearest, farthest = (float(valid.min()), float(valid.max())) if valid.size else (0.0, 1.0)
        for tiles, depth_HxW in zip(columns.values(), row, strict=True):
            tiles.append(colour_depth(depth_HxW, nearest, farthest))
    return titled_rows({"input": images_NxHxWx3} | {title: np.stack(tiles) for title, tiles in columns.items()})


def panoptic_rows(images_NxHxWx3: np.ndarray, maps: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """One row an image: the uint8 input, then each panoptic map; `titled_rows` of them.

    Maps are title -> classes and instance ids, integers (N, H, W) each.
    """
    columns = {"input": images_NxHxWx3}
    for title, pair in maps.items():
        # Enlarged before colouring, so that outlines stay one pixel thin.
        large = [enlarged(a, MIN_TILE_PX) for a in pair]
        columns[title] = np.stack([colour_panoptic(*ids) for ids in zip(*large, strict=True)])
    return titled_rows(columns)


def titled_rows(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Columns of images side by side, each under its title, on white; small images enlarged by whole factors.

    Title -> uint8 (N, H, W, 3), which may be enlarged already, as by `panoptic_rows` -> uint8 (height, width, 3).
    """
    tiles = {title: enlarged(images, MIN_TILE_PX) for title, images in columns.items()}
    rows, height, width, _ = next(iter(tiles.values())).shape
    font = ImageFont.load_default(size=18)
    widths = [max(width, int(font.getlength(title)) + 1) + GAP_PX for title in tiles]
    picture = Image.new("RGB", (sum(widths) + GAP_PX, TITLE_PX + rows * (height + GAP_PX)), "white")
    draw = ImageDraw.Draw(picture)
    left = GAP_PX
    for (title, images), column_width in zip(tiles.items(), widths, strict=True):
        draw.text((left, 5), title, fill="black", font=font)
        for i, image in enumerate(images):
            picture.paste(Image.fromarray(image), (left, TITLE_PX + i * (height + GAP_PX)))
        left += column_width
    return np.asarray(picture)
