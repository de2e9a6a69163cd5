"""The one rounding of images to bytes: every metric and every picture sees what a saved file would hold."""

import numpy as np


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Rounds images to bytes: clip to [0, 1], scale to 0..255, round to nearest (half to even).

    Floats of any shape, [0, 1] nominal -> uint8 of the same shape; ValueError for another dtype or a value that is not
    finite. Truncating instead darkens every image by half a grey level, which Frechet distances notice.
    """
    images = np.asarray(images)
    if images.dtype.kind != "f" and images.dtype.name != "bfloat16":
        raise ValueError(f"images must be floats in [0, 1], got dtype {images.dtype}.")
    images = images.astype(np.float32)
    if not np.isfinite(images).all():
        raise ValueError("images hold values that are not finite; they cannot be rounded to bytes.")
    return np.rint(np.clip(images, 0.0, 1.0) * 255.0).astype(np.uint8)


def to_unit_float(images_uint8: np.ndarray) -> np.ndarray:
    """Bytes to float32 in [0, 1], the exact inverse of `to_uint8` on its values."""
    return images_uint8.astype(np.float32) / np.float32(255.0)
