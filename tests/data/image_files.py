"""Image files of every kind, for tests of what reads them."""

import pathlib
import struct
import zlib

import numpy as np
from PIL import Image


def write_png(path: pathlib.Path, samples: np.ndarray, transparent: tuple[int, ...] = ()) -> None:
    """A PNG that no library wrote, so that its bytes never change: uint8 or uint16 (H, W, 1 to 4), uncompressed.

    `transparent`: the colour that is transparent, a number for each channel.
    """
    height, width, channels = samples.shape
    header = struct.pack(">IIBBBBB", width, height, 8 * samples.itemsize, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(f">u{samples.itemsize}").tobytes() for row in samples)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows, level=0)), (b"IEND", b"")]
    if transparent:
        chunks.insert(1, (b"tRNS", struct.pack(f">{channels}H", *transparent)))
    parts = [struct.pack(">I", len(x)) + name + x + struct.pack(">I", zlib.crc32(name + x)) for name, x in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def on_white(rgba: np.ndarray) -> np.ndarray:
    """uint8 (..., 4) -> float64 (..., 3): the colour and white, mixed by alpha."""
    colour, alpha = rgba[..., :3].astype(np.float64), rgba[..., 3:] / 255
    return colour * alpha + 255 * (1 - alpha)


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, C) -> the image as the EXIF standard says that it is to be shown."""
    if orientation > 4:  # stored rows are shown as columns
        image = image.swapaxes(0, 1)
    flips = {1: (), 2: (1,), 3: (0, 1), 4: (0,), 5: (), 6: (1,), 7: (0, 1), 8: (0,)}[orientation]
    return np.flip(image, flips)


def drawn(seed: int, height: int = 7, width: int = 11, channels: int = 3) -> np.ndarray:
    """Random pixels, uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def save(path: pathlib.Path, image: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.squeeze()).save(path, **options)
