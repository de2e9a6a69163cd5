"""The one reader of image files: PNG, JPEG, WebP and the like -> uint8 RGB, by one rule for each kind of image.

- Grey and black and white are repeated over the channels; a palette gives its colours.
- CMYK, YCbCr and Lab are converted by Pillow, without colour profiles.
- Transparency of any kind (an alpha channel, a transparent colour) is laid on white.
- Of 16 bits per channel the upper byte is taken.
- The EXIF orientation is applied; EXIF data that cannot be read turn nothing.
- Of an animation or a file of several pages, the first picture is taken.
- Refused are 32-bit integers and floats, whose white nobody knows; 16-bit TIFFs that use fewer bits or call 0 white;
  and a transparent colour of 3 x 16 bits.
- Refused before they are decoded are images of more than `MAX_PIXELS`.
"""

import os

import numpy as np
from PIL import Image

from fsq_repro.files import printable

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".pgm", ".ppm")  # those of pytorch-fid
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM", "GIF")  # whatever the name; Pillow gives EPS to Ghostscript
MAX_PIXELS = 178_956_970  # where Pillow too takes an image for a decompression bomb

KINDS = {"1": "grey", "L": "grey", "P": "palette"}  # of Pillow's modes; other modes are their own kind
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ORIENTATION, BITS, PHOTOMETRIC = 274, 258, 262  # tags of EXIF and TIFF


class UnreadableImage(ValueError):
    """An image file that cannot be read.

    Attributes:
      reason: why, without the file's name.
      lasting: False where it is the disk that failed, or the right to read: the same bytes may be readable later.
    """

    def __init__(self, path: str | os.PathLike, reason: str, *, lasting: bool) -> None:
        super().__init__(f"{printable(path)} cannot be read as an image: {reason}.")
        self.reason, self.lasting = reason, lasting


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Returns the image as uint8 (h, w, 3); a missing, damaged or refused one is an `UnreadableImage`, a ValueError."""
    return read_image_and_kind(path)[0]


def read_image_and_kind(path: str | os.PathLike) -> tuple[np.ndarray, str]:
    """As `read_image`, and the kind: RGB, grey, palette, RGBA (any transparency), 16-bit, or a mode of Pillow's."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return _as_rgb(image)
    except Image.UnidentifiedImageError as e:
        raise UnreadableImage(path, "its format is unknown, or its header is damaged", lasting=True) from e
    except MemoryError:
        raise
    except Exception as e:  # damaged bytes make decoders raise anything
        lasting = not (isinstance(e, OSError) and e.errno)
        reason = str(e).strip().rstrip(".") if lasting else str(e.strerror)
        raise UnreadableImage(path, reason or type(e).__name__, lasting=lasting) from e


def on_white(images: np.ndarray) -> np.ndarray:
    """Lays images with alpha on white: uint8 (..., H, W, 4) -> uint8 (..., H, W, 3)."""
    rows = np.ascontiguousarray(images).reshape(-1, images.shape[-2], 4)
    flat = _flattened(Image.fromarray(rows, "RGBA")) if rows.size else rows[..., :3]
    return np.asarray(flat).reshape(*images.shape[:-1], 3)


def _as_rgb(image: Image.Image) -> tuple[np.ndarray, str]:
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"it has {image.width:,} x {image.height:,} pixels, more than {MAX_PIXELS:,} in all")
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
        numbers = "floats" if image.mode == "F" else "integers"
        raise ValueError(f"it holds 32-bit {numbers}, and nothing says which value is white")
    if image.mode.startswith("I;16"):
        tags = getattr(image, "tag_v2", {})
        if tags.get(BITS, (16,)) != (16,) or tags.get(PHOTOMETRIC, 1) != 1:
            raise ValueError("it is a 16-bit TIFF that uses fewer bits or calls 0 white")
    image.load()
    if (turn := TURNS.get(_orientation(image))) is not None:
        image = image.transpose(turn)
    if image.mode.startswith("I"):  # Pillow brings PGM files of more than 8 bits to 16
        return _of_16_bits(image), "16-bit"
    if image.has_transparency_data:
        if max(np.ravel(image.info.get("transparency") or 0)) > 255 and image.mode == "RGB":
            raise ValueError("it has a transparent colour of 3 x 16 bits")
        return np.asarray(_flattened(image.convert("RGBA"))), "RGBA"
    return np.asarray(image.convert("RGB")), KINDS.get(image.mode, image.mode)


def _orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(ORIENTATION)
    except Exception:  # as for damaged bytes of an image, which is whole here
        return None


def _flattened(image: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _of_16_bits(image: Image.Image) -> np.ndarray:
    samples = np.asarray(image)
    grey = (samples >> 8).astype(np.uint8)
    if isinstance(transparent := image.info.get("transparency"), int):
        grey = np.where(samples == transparent, np.uint8(255), grey)
    return grey[..., None].repeat(3, axis=-1)
