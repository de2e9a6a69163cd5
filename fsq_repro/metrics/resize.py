"""The resize `clean`: antialiased bicubic, what Parmar et al. 2022 propose for Frechet distances.

The resizes `adm` and `pytorch-fid` belong to their network (`models/inception.py`); this one is Pillow's and runs on
the host.
"""

import concurrent.futures
import os

import numpy as np
from PIL import Image


def clean_resize(images_BxHxWx3: np.ndarray, side: int) -> np.ndarray:
    """Resizes each colour channel as a float image by Pillow's bicubic filter, without rounding or clipping.

    As the package clean-fid does (`cleanfid/resize.py`, mode `clean`). Pillow's filter covers more source pixels
    the more an image is reduced (antialiasing); overshoots at edges stay, so values may leave 0..255.

    Args:
      images_BxHxWx3: uint8.
      side: the new height and width in pixels.

    Returns:
      float32 (B, side, side, 3), nominally 0..255; images of that size already keep their values.

    Raises:
      ValueError: other dtype or shape, or a side below 1.
    """
    images_BxHxWx3 = np.asarray(images_BxHxWx3)
    if images_BxHxWx3.dtype != np.uint8 or images_BxHxWx3.ndim != 4 or images_BxHxWx3.shape[-1] != 3:
        raise ValueError(
            f"images must be uint8 of shape (B, H, W, 3), got {images_BxHxWx3.dtype} {images_BxHxWx3.shape}."
        )
    if side < 1:
        raise ValueError(f"side must be at least 1 pixel, got {side}.")

    def resized(image_HxWx3: np.ndarray) -> np.ndarray:
        planes = [Image.fromarray(image_HxWx3[..., c].astype(np.float32)) for c in range(3)]
        return np.stack([p.resize((side, side), Image.Resampling.BICUBIC) for p in planes], axis=-1)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.stack(list(pool.map(resized, images_BxHxWx3)))
