"""Resizing, cropping and flipping of single items, on the host with Pillow and NumPy.

An item is a dict with `image` uint8 (h, w, 3) and perhaps dense labels, which are all arrays of the same height and
width (h, w, ...). Every transform treats all of them alike, except that labels are never interpolated: they are resized
to the nearest pixel.
"""

import math

import numpy as np
from PIL import Image

Item = dict[str, np.ndarray]
Box = tuple[int, int, int, int]  # left, top, right, bottom, as Pillow has it


def adm_resize(image: np.ndarray, resolution: int) -> np.ndarray:
    """Resizes and centre-crops as ADM prepared its ImageNet reference sets: the evaluation crop.

    uint8 (h, w, 3) -> uint8 (resolution, resolution, 3). Follows openai/guided-diffusion `image_datasets.py`: halve
    with a box filter while the short side is at least twice the target, bicubic so that the short side equals the
    target, centre crop. Smaller images are enlarged by the bicubic step.
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
    return _with_labels(item, (left, top, left + side, top + side), adm_resize(item["image"], resolution))


def plain_resize(item: Item, resolution: int) -> Item:
    """Brings an item to (resolution, resolution) without keeping its aspect: UViM's evaluation preprocessing.

    The image by `bilinear_resize`, labels to the nearest pixel; an item whose image has the size is returned as it is.
    """
    height, width = item["image"].shape[:2]
    if (height, width) == (resolution, resolution):
        return item
    return _with_labels(item, (0, 0, width, height), bilinear_resize(item["image"], resolution))


def bilinear_resize(image: np.ndarray, resolution: int) -> np.ndarray:
    """Resizes bilinearly without antialiasing, pixel centres at halves, and cuts fractions off.

    uint8 (h, w, C) -> uint8 (resolution, resolution, C). As google-research/big_vision `pp/ops_image.py`
    (`tf.image.resize`, then a cast to uint8), but in integers: the truncation is that of the exact value, where float32
    can fall below a whole number.
    """
    denominator = 2 * resolution  # of positions and weights along one axis
    dtype = np.uint32 if 255 * denominator**2 < 2**32 else np.uint64
    top, bottom, weight_R = _neighbours(image.shape[0], resolution)
    weight_Rx1x1 = weight_R.astype(dtype)[:, None, None]
    rows_RxWxC = (denominator - weight_Rx1x1) * image[top] + weight_Rx1x1 * image[bottom]
    left, right, weight_R = _neighbours(image.shape[1], resolution)
    weight_Rx1 = weight_R.astype(dtype)[:, None]
    sums_RxRxC = (denominator - weight_Rx1) * rows_RxWxC[:, left] + weight_Rx1 * rows_RxWxC[:, right]
    return (sums_RxRxC // denominator**2).astype(np.uint8)


def resize_nearest(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes maps (H, W, ...) to another height and width, by the nearest pixel centre, without antialiasing.

    Equals `jax.image.resize(..., "nearest")`, in integers, so that no rounding differs.
    """
    rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new) for new, old in zip(size, maps.shape[:2], strict=True))
    return maps[np.ix_(rows, columns)]


def _neighbours(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns for each of `new` pixels the two of `old` about its centre, and the second's weight times 2 * new."""
    # Pixel i lies at (i + 0.5) * old / new - 0.5; beyond the first and last centre both neighbours are the border.
    first, weight = np.divmod((2 * np.arange(new) + 1) * old - new, 2 * new)
    return first.clip(0, old - 1), (first + 1).clip(0, old - 1), weight


def draw_crop_box(
    rng: np.random.Generator, height: int, width: int, min_scale: float, aspect: tuple[float, float]
) -> Box:
    """Draws a box: area uniform in [min_scale, 1] of the image, width over height log-uniform in `aspect`.

    A box that does not fit is drawn again, ten times at most, then the largest centred box within the aspect range
    is taken.
    """
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


def draw_inception_box(
    rng: np.random.Generator, height: int, width: int, min_scale: float, aspect: tuple[float, float]
) -> Box:
    """Draws a box as `tf.image.sample_distorted_bounding_box` does, what UViM's `inception_box` calls.

    Unlike `draw_crop_box`: width over height is uniform in `aspect`, and the height (not the area) is uniform among
    those that fit, so that small boxes are more likely; 100 attempts, then the whole image. As there
    (`sample_distorted_bounding_box_op.cc`, in float32), a box smaller than the image never touches its lower or
    right border.
    """
    area = height * width
    for _ in range(100):
        ratio = rng.uniform(*aspect)
        lowest = round(math.sqrt(min_scale * area / ratio))
        highest = min(round(math.sqrt(area / ratio)), math.ceil((width + 0.5) / ratio) - 1, height)
        h = int(rng.integers(min(lowest, highest), highest, endpoint=True))
        if round(h * ratio) * h < min_scale * area:
            h += 1
        if round(h * ratio) * h > area:
            h -= 1
        w = round(h * ratio)
        if 0 < w <= width and 0 < h <= height and min_scale * area <= w * h <= area:
            top = int(rng.integers(height - h)) if h < height else 0
            left = int(rng.integers(width - w)) if w < width else 0
            return left, top, left + w, top + h
    return 0, 0, width, height


def resized_crop(item: Item, box: Box, resolution: int, *, antialias: bool) -> Item:
    """Cuts a box and resizes it to (resolution, resolution), the image bilinearly.

    With antialiasing by Pillow, as in MaskBit's tokenizer training; else by `bilinear_resize`, as in UViM's.
    """
    left, top, right, bottom = box
    if antialias:
        picture = Image.fromarray(item["image"]).crop(box)
        image = np.asarray(picture.resize((resolution, resolution), Image.Resampling.BILINEAR))
    else:
        image = bilinear_resize(item["image"][top:bottom, left:right], resolution)
    return _with_labels(item, box, image)


def flip(item: Item) -> Item:
    """Mirrors image and labels left to right; what a label's values say stays."""
    return {k: v[:, ::-1] if _is_dense(v, item) else v for k, v in item.items()}


def _is_dense(value: np.ndarray, item: Item) -> bool:
    return np.shape(value)[:2] == item["image"].shape[:2]


def _with_labels(item: Item, box: Box, image: np.ndarray) -> Item:
    """Returns the item with another image and its dense labels, cut to `box` and resized to the image's size."""
    left, top, right, bottom = box
    dense = {k: v for k, v in item.items() if k != "image" and _is_dense(v, item)}
    return (
        item
        | {k: resize_nearest(v[top:bottom, left:right], image.shape[:2]) for k, v in dense.items()}
        | {"image": image}
    )
