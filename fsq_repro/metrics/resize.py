"""The resize `clean` of Frechet distances (Parmar et al. 2022); the others belong to `models/inception.py`."""

import concurrent.futures
import os

import numpy as np
from PIL import Image


def clean_resize(images_BxHxWx3: np.ndarray, side: int) -> np.ndarray:
    """Resizes each colour channel as a float image by Pillow's bicubic filter, without rounding or clipping.

    As the package clean-fid does (`cleanfid/resize.py`, mode `clean`). Pillow's filter covers more source pixels
    the more an image is reduced (antialiasing); overshoots at edges stay, so values may leave 0..255.

    uint8 (B, H, W, 3) -> float32 (B, side, side, 3), nominally 0..255; images of that size keep their values.
    """

    def resized(image_HxWx3: np.ndarray) -> np.ndarray:
        planes = [Image.fromarray(image_HxWx3[..., c].astype(np.float32)) for c in range(3)]
        return np.stack([np.asarray(p.resize((side, side), Image.Resampling.BICUBIC)) for p in planes], axis=-1)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.stack(list(pool.map(resized, images_BxHxWx3)))
