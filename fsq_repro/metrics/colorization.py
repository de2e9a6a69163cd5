"""FID-5k of colorization: name lists, preprocessing and errors as ColTran's and UViM's published protocol has them.

Follows google-research/big_vision `evaluators/proj/uvim/coltran_fid.py` (paper section 4.4, Table 2). The protocol has
its own value range, bytes / 128 - 1, which is neither the [0, 1] of our batches nor the bytes / 127.5 - 1 that the
models are trained on. It scores 5,000 images of ImageNet's validation split against 5,000 others; which ones depends
on the order in which TFDS interleaves its files, so big_vision's `coltran_fid_data` lists both by file name.
"""

import math
import os
import pathlib
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # of tf.image.rgb_to_grayscale; their sum is 0.9999
METRICS = ("mse", "colourfulness", "colourfulness_originals")  # one value an image


def read_names(path: str | os.PathLike) -> list[str]:
    """A list of image names, one a line, blank lines ignored; ValueError: unreadable, empty, or a name stands twice."""
    try:
        names = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        reason = getattr(e, "strerror", None) or "it is not text"
        raise ValueError(f"the name list {path} must be a readable text file with one name a line: {reason}.") from e
    names = [name.strip() for name in names if name.strip()]
    if not names:
        raise ValueError(f"the name list {path} must name at least one image, it is empty.")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise ValueError(f"the name list {path} must name an image once, it names {name} {count} times.")
    return names


def select_by_name(item_names: Iterable[str], names: Sequence[str]) -> list[int]:
    """Positions of the wanted `names`, in their order, among the names of all items of a split.

    Raises ValueError for a wanted name that no item has, or that two items have.
    """
    wanted, positions = set(names), dict[str, int]()
    for position, name in enumerate(item_names):
        if name in positions:
            raise ValueError(f"item names must be unique, items {positions[name]} and {position} are both {name}.")
        if name in wanted:
            positions[name] = position
    missing = [name for name in names if name not in positions]
    if missing:
        raise ValueError(f"{len(missing)} of {len(names)} names are not in the split, the first is {missing[0]}.")
    return [positions[name] for name in names]


def area_resize(images: np.ndarray, resolution: int) -> np.ndarray:
    """Resizes to a square by averaging over the area that each new pixel covers; parts of pixels count by their part.

    Smaller or larger, equals TensorFlow's `resize_area` kernel but for that one's float32 rounding; it is what
    `tf.image.resize(method="area")` runs, with or without `antialias`. Pillow's BOX is another filter: it takes a pixel
    wholly or not at all, and rounds to bytes twice.

    (..., H, W, C), integers or floats -> float64 (..., resolution, resolution, C); of integers the exact average,
    rounded once.
    """
    height, width = images.shape[-3:-1]
    images = images.astype(np.float64 if images.dtype.kind == "f" else np.int64)
    for axis in (-3, -2):
        x = np.moveaxis(images, axis, 0)
        zero = np.zeros_like(x[:1])
        # New pixels lie between the edges whole + part / resolution; their sums are differences of the running sum,
        # here `resolution` times as large so that integers stay integers.
        whole, part = np.divmod(np.arange(resolution + 1) * len(x), resolution)
        running = np.concatenate([zero, np.cumsum(x, axis=0)])
        of_part = part.reshape(-1, *[1] * (x.ndim - 1)) * np.concatenate([x, zero])[whole]
        images = np.moveaxis(np.diff(resolution * running[whole] + of_part, axis=0), 0, axis)
    return images / (height * width)


def coltran_crop(image_HxWx3: np.ndarray, resolution: int) -> np.ndarray:
    """Central square of the smaller side, area-resized and rounded (half to even).

    The published sizes are 512 for what is colorized and 256 for the reference. uint8 -> uint8.
    """
    height, width, _ = image_HxWx3.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.rint(area_resize(image_HxWx3[top : top + side, left : left + side], resolution)).astype(np.uint8)


def to_coltran_range(images: np.ndarray) -> np.ndarray:
    """uint8 to bytes / 128 - 1, float32 in [-1, 0.9921875], without rounding error."""
    return images.astype(np.float32) / np.float32(128) - np.float32(1)


def coltran_grey(images: np.ndarray) -> np.ndarray:
    """The model's input in the published evaluation: luma in three channels, float32 (..., 3) -> float32 (..., 3).

    Made of images in `to_coltran_range` and not rounded; that of training is made of bytes and rounded to bytes
    (`fsq_repro.data.dense_labels.to_grey`).
    """
    luma = images @ np.asarray(GREY_WEIGHTS, np.float32)
    return np.repeat(luma[..., None], 3, axis=-1)


def coltran_prediction(images: np.ndarray, resolution: int = 256) -> np.ndarray:
    """The bytes that are scored for a model's output: clipped to [-1, 1], area-resized to 256 px as published, rounded.

    Of the mean y it is round((y + 1) * 128), half to even, 255 at most: the inverse of `to_coltran_range`.
    Floats (..., H, W, 3) -> uint8 (..., resolution, resolution, 3); ValueError for a value that is not finite.
    """
    means = area_resize(np.asarray(images, np.float32).clip(-1, 1), resolution).astype(np.float32)
    if not np.isfinite(means).all():
        raise ValueError("images hold values that are not finite; they cannot be rounded to bytes.")
    # The published arithmetic is float32.
    return np.rint((means + np.float32(1)) * np.float32(128)).clip(0, 255).astype(np.uint8)


def colourfulness(images_BxHxWx3: np.ndarray) -> np.ndarray:
    """Colourfulness of each uint8 image, float64 (B,): Hasler & Suesstrunk 2003, their simplest, M(3).

    Spread and distance from grey in the opponent plane (R - G, (R + G) / 2 - B); 0 is grey, and by the authors'
    observers 15 slightly, 45 averagely, 82 highly colourful.
    """
    red, green, blue = np.moveaxis(images_BxHxWx3.astype(np.float64), -1, 0)
    opponent_2xBxHxW = np.stack([red - green, (red + green) / 2 - blue])
    spread_2xB, mean_2xB = opponent_2xBxHxW.std(axis=(2, 3)), opponent_2xBxHxW.mean(axis=(2, 3))
    return np.hypot(*spread_2xB) + 0.3 * np.hypot(*mean_2xB)


class ColourErrors:
    """Squared error and colourfulness of every colorized image seen."""

    def __init__(self) -> None:
        self._per_image: list[tuple[float, ...]] = []  # kept, so that no order of summing differs

    def update(self, predictions_BxHxWx3: np.ndarray, originals_BxHxWx3: np.ndarray) -> None:
        """Measures a batch: uint8 (B, H, W, 3) colorized, and the same images in their true colours."""
        a, b = predictions_BxHxWx3, originals_BxHxWx3
        error = (a.astype(np.float64) - b) / 255
        self._per_image += zip((error**2).mean(axis=(1, 2, 3)), colourfulness(a), colourfulness(b), strict=True)

    def compute(self) -> dict[str, float]:
        """Means over the images seen.

        Returns:
          mse: squared error of RGB / 255, averaged over channels and pixels, then images. Grey images do well on it.
          colourfulness: of the predictions (`colourfulness`); grey images have 0.
          colourfulness_originals: of the same images in their true colours.
        """
        means = (math.fsum(column) / len(self._per_image) for column in zip(*self._per_image, strict=True))
        return dict(zip(METRICS, means, strict=True))
