"""Resizing, cropping and flipping of single items, on the host with Pillow.

An item is a dict with `image` uint8 (h, w, 3) and perhaps dense labels of the same height and width (`depth` float32,
`semantics` and `instances` int32). Every transform treats all of them alike, except that labels are never
interpolated: they are resized to the nearest pixel.
"""

import math

import numpy as np
from PIL import Image

Item = dict[str, np.ndarray]
Box = tuple[int, int, int, int]  # left, top, right, bottom, as Pillow has it

DENSE_KEYS = ("depth", "semantics", "instances")


def adm_resize(image: np.ndarray, resolution: int) -> np.ndarray:
    """Resizes and centre-crops as ADM prepared its ImageNet reference sets: the evaluation crop.

    Follows openai/guided-diffusion `image_datasets.py`: halve with a box filter while the short side is at least twice
    the target, bicubic so that the short side equals the target, centre crop. Smaller images are enlarged by the
    bicubic step.

    Args:
      image: uint8 (h, w, 3).
      resolution: target side in pixels.

    Returns:
      uint8 (resolution, resolution, 3).
    """
    if image.shape[:2] == (resolution, resolution):
        return image
    picture = Image.fromarray(image)
    while min(picture.size) >= 2 * resolution:
        picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
    scale = resolution / min(picture.size)
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)
    left, top = (picture.width - resolution) // 2, (picture.height - resolution) // 2
    return np.asarray(picture.crop((left, top, left + resolution, top + resolution)))


def center_crop(item: Item, resolution: int) -> Item:
    """Brings an item to (resolution, resolution): `adm_resize` for the image, nearest for the labels' centre square."""
    height, width = item["image"].shape[:2]
    if (height, width) == (resolution, resolution):
        return item
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    out = _crop_labels(item, (left, top, left + side, top + side), resolution)
    out["image"] = adm_resize(item["image"], resolution)
    return out


def random_resized_crop(
    item: Item, resolution: int, rng: np.random.Generator, min_scale: float, aspect: tuple[float, float]
) -> Item:
    """Cuts a random box and resizes it to (resolution, resolution), the image bilinearly with antialiasing.

    As in MaskBit's tokenizer training and the Inception crop: area uniform in [min_scale, 1] of the image, aspect
    ratio log-uniform in `aspect`; a box that does not fit is drawn again, ten times at most, then the largest centred
    box within the aspect range is taken.
    """
    height, width = item["image"].shape[:2]
    box = draw_crop_box(rng, height, width, min_scale, aspect)
    out = _crop_labels(item, box, resolution)
    picture = Image.fromarray(item["image"]).crop(box)
    out["image"] = np.asarray(picture.resize((resolution, resolution), Image.Resampling.BILINEAR))
    return out


def draw_crop_box(
    rng: np.random.Generator, height: int, width: int, min_scale: float, aspect: tuple[float, float]
) -> Box:
    """Draws the box of `random_resized_crop`."""
    for _ in range(10):
        area = height * width * rng.uniform(min_scale, 1.0)
        ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w, endpoint=True)), int(rng.integers(height - h, endpoint=True))
            return left, top, left + w, top + h
    w = max(1, min(width, round(height * aspect[1])))
    h = max(1, min(height, round(width / aspect[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def flip(item: Item) -> Item:
    """Mirrors image and labels left to right."""
    return {k: v[:, ::-1] if k == "image" or k in DENSE_KEYS else v for k, v in item.items()}


def _crop_labels(item: Item, box: Box, resolution: int) -> Item:
    """Returns the item with its dense labels cut to `box` and resized to the nearest pixel centre; `image` is left."""
    left, top, right, bottom = box
    # Centre of output pixel i lies at (i + 0.5) * side / resolution of the box: integers, so no rounding differs.
    rows = top + (2 * np.arange(resolution) + 1) * (bottom - top) // (2 * resolution)
    columns = left + (2 * np.arange(resolution) + 1) * (right - left) // (2 * resolution)
    return {k: v[np.ix_(rows, columns)] if k in DENSE_KEYS else v for k, v in item.items()}
