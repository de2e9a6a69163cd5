"""Source `folder:PATH`: a user's own images.

Images are the png, jpg, jpeg, webp, bmp, tif and tiff files anywhere below PATH. Labels are the first level of
sub-folders; images that lie in PATH itself have the class `.`. If PATH has the sub-folders `train` and `validation`
(or `val`), these are the splits and classes are looked for below them. Otherwise an image belongs to validation when
a hash of its name relative to PATH says so, which holds for about 5% and never changes when other images come or go;
if it holds for none, the image with the smallest hash is taken.

Every image is decoded once to find unreadable ones: each is named in a warning, counted and left out. The verdicts are
kept in the cache and reused while size and time of a file stay the same. Images are given as they are, turned
upright by their EXIF orientation: grey becomes RGB, transparency is laid on white. The pipeline resizes them;
images smaller than the training resolution are enlarged.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib

import numpy as np
from absl import logging
from PIL import Image, ImageOps

from fsq_repro.data import cache
from fsq_repro.files import atomic_path
from fsq_repro.progress import track

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
VALIDATION_SHARE = 0.05


def load_image(path: str | os.PathLike) -> np.ndarray:
    """Returns the image as uint8 (h, w, 3); raises OSError, SyntaxError or ValueError if it cannot be decoded."""
    with Image.open(path) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):
            return (np.asarray(image) >> 8).astype(np.uint8)[..., None].repeat(3, axis=-1)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return np.asarray(image.convert("RGB"))


class Folder:
    """Items {"image": uint8 (h, w, 3), "label": int32 ()} in the order of their names."""

    def __init__(self, path: str | os.PathLike, split: str):
        """Lists and checks the images; ValueError where none is readable or of this split, or FileNotFoundError."""
        root = pathlib.Path(path).expanduser()
        if not root.is_dir():
            raise FileNotFoundError(f"data.source 'folder:{path}': there is no folder {root}.")
        names = sorted(
            p.relative_to(root).as_posix() for p in root.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file()
        )
        if not names:
            raise ValueError(f"data.source 'folder:{path}' holds no image ({', '.join(EXTENSIONS)}).")
        readable = _readable(root, names)
        self.num_unreadable = len(names) - len(readable)  # left out of both splits together
        splits = _split(root, readable)
        if not splits[split]:
            raise ValueError(
                f"data.source 'folder:{path}' has {len(readable)} readable images, none of them for {split}."
            )
        classes = sorted({_class_name(name) for names in splits.values() for name in names.values()})
        self.name, self.split = f"folder:{path}", split
        self.class_names, self.num_classes = tuple(classes), len(classes)
        self._paths = [root / name for name in splits[split]]
        stats = [(name, (root / name).stat()) for name in splits[split]]
        self.fingerprint = cache.fingerprint([(name, s.st_size, s.st_mtime_ns) for name, s in stats])
        self._labels = [np.int32(classes.index(_class_name(name))) for name in splits[split].values()]

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {"image": load_image(self._paths[index]), "label": self._labels[index]}


def _class_name(name: str) -> str:
    return name.split("/")[0] if "/" in name else "."


def _split(root: pathlib.Path, names: list[str]) -> dict[str, dict[str, str]]:
    """Returns for each split {name relative to root: name relative to the split's folder}."""
    validation_folder = next((v for v in ("validation", "val") if (root / v).is_dir()), None)
    if (root / "train").is_dir() and validation_folder:
        folders = {"train": "train/", "validation": f"{validation_folder}/"}
        return {s: {n: n.removeprefix(f) for n in names if n.startswith(f)} for s, f in folders.items()}
    hashes = {n: int.from_bytes(hashlib.sha256(n.encode()).digest()[:8]) / 2**64 for n in names}
    validation = {n: n for n in names if hashes[n] < VALIDATION_SHARE}
    if names and len(validation) in (0, len(names)):
        first = min(names, key=hashes.get)
        validation = {first: first}
    return {"train": {n: n for n in names if n not in validation}, "validation": validation}


def _readable(root: pathlib.Path, names: list[str]) -> list[str]:
    """Returns the names of images that decode, by the cached verdicts of files that did not change."""
    digest = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:12]
    verdicts_file = cache.cache_dir() / f"folder-{digest}.json"
    # name: [size, mtime in ns, reason why it is unreadable or None]
    known = json.loads(verdicts_file.read_text()) if verdicts_file.is_file() else {}
    stamps = {n: [(s := (root / n).stat()).st_size, s.st_mtime_ns] for n in names}

    def check(name: str) -> str | None:
        if known.get(name, [])[:2] == stamps[name]:
            return known[name][2]
        try:
            load_image(root / name)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
            logging.warning("Unreadable image left out: %s (%s)", root / name, e)
            return str(e) or type(e).__name__
        return None

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        reasons = track(pool.map(check, names), f"reading {root}", len(names))
        verdicts = {name: [*stamps[name], reason] for name, reason in zip(names, reasons, strict=True)}
    if verdicts != known:
        with atomic_path(verdicts_file) as temporary:
            temporary.write_text(json.dumps(verdicts))
    readable = [n for n in names if verdicts[n][2] is None]
    if len(readable) < len(names):
        bad = len(names) - len(readable)
        logging.warning("%d of %d images in %s are left out (%s says why)", bad, len(names), root, verdicts_file)
    return readable
