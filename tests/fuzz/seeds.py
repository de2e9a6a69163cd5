"""Whole files that fuzzing starts from, at least one per target; each is read without a refusal."""

import io
import json
import pathlib
import zipfile

import numpy as np
from flax.serialization import msgpack_serialize
from PIL import Image

from tests.fuzz.targets import CODER, LABELS
from tests.models.test_torch_files import pickled, write_legacy, write_zip
from tests.reporting.synthetic import record, stage2

FORMATS = ("png", "jpeg", "webp", "bmp", "tiff", "ppm")
MODES = ("L", "LA", "P", "RGBA", "1")


def seeds(folder: pathlib.Path) -> dict[str, list[bytes]]:
    """{target: files}; `folder` is written to."""
    state = {"w": np.arange(4, dtype=np.float32), "b": np.arange(2, dtype=np.float32)}
    tree = {"layer": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.zeros(3, np.float32)}}
    flat = {f"layer/{name}": x for name, x in tree["layer"].items()}
    statistics = {"mu": np.zeros(2), "sigma": np.eye(2), "mu_s": np.zeros(1), "sigma_s": np.eye(1)}
    facts = {"count": np.int64(9), "protocol": np.array('{"resize": "adm"}')}
    images = {"arr_0": np.arange(2 * 3 * 2 * 3, dtype=np.uint8).reshape(2, 3, 2, 3)}
    tokens_NxS = np.random.default_rng(0).integers(0, 5, (3, 4))
    return {
        "torch": [write(folder / "x", state).read_bytes() for write in (write_zip, write_legacy)],
        "torch_pickle": [pickled(state)[0]],
        "weights": [msgpack_serialize({"params": tree}), msgpack_serialize(tree), _npz(flat), _npz(flat, np.savez)],
        "npz": [_npz(statistics | facts), _npz(images), _npz(images, np.savez)],
        "npy": [_npy(images["arr_0"]), _npy(np.zeros(2))],
        "image": _images(),
        "coder": [CODER.encode(tokens_NxS, LABELS).astype("<u4").tobytes()],
        "record": [json.dumps(r).encode() for r in (record(), record("vq", 8), stage2())],
    }


def _npz(arrays: dict[str, np.ndarray], save=np.savez_compressed) -> bytes:
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def _npy(array: np.ndarray) -> bytes:
    with zipfile.ZipFile(io.BytesIO(_npz({"x": array}))) as archive:
        return archive.read("x.npy")


def _images() -> list[bytes]:
    pixels = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3) * 4
    image, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x0112] = 6  # lies on its side
    saved = [(image, form, {}) for form in FORMATS] + [(image, "jpeg", {"exif": exif}), (image, "png", {"exif": exif})]
    saved += [
        (image.convert("L").convert("I").convert("I;16") if mode == "I;16" else image.convert(mode), "png", {})
        for mode in MODES
    ]
    saved += [(image.convert(mode), "png", {}) for mode in MODES]
    saved += [(Image.fromarray(pixels[..., 0].astype(np.uint16) * 257), "png", {})]
    saved += [(image.convert("CMYK"), "jpeg", {}), (image, "tiff", {"compression": "tiff_lzw"})]
    files = []
    for picture, form, options in saved:
        file = io.BytesIO()
        picture.save(file, form, **options)
        files.append(file.getvalue())
    return files
