"""Source `folder:PATH`: a user's own images.

Images are the png, jpg, jpeg, webp, bmp, tif and tiff files anywhere below PATH, also behind symbolic links; names that
start with a dot are left out. Sub-folders `train`, `validation` or `val`, and `test`, in any case, are splits and never
classes; where there is one for training, all that lies beside them is left out, and where there is none, the rest of
PATH is the training folder. Labels are the first level of sub-folders of a split; images that lie in it itself have the
class `.`. All splits share one list of classes.

A split without a folder is made as follows:

- test: the validation folder, if there is one. Otherwise the training images whose hash is below `TEST_SHARE`, about
  5%, which never changes when other images come or go; if it holds for none, the image with the smallest hash.
- validation: of the training images that are not test's, the tenth (`held_out.SHARE`) with the smallest hashes. Few
  change sides when other images come or go: the limit moves a little.

The hash is that of the name relative to the split's folder, so both are drawn from all classes and need no seed.

Every image is decoded once to find unreadable ones: each is named in a warning, counted and left out. The verdicts are
kept in the cache and reused while size and time of a file stay the same. Images are given as they are, turned
upright by their EXIF orientation: grey becomes RGB, transparency is laid on white. The pipeline resizes them;
images smaller than the training resolution are enlarged. A split whose images are all of one size and take less than
`MAX_PIXEL_BYTES` is decoded into the cache once, and read from there.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import logging
from PIL import Image, ImageOps

from fsq_repro.data import cache
from fsq_repro.data.held_out import num_held_out
from fsq_repro.files import atomic_path
from fsq_repro.progress import track

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
SPLIT_OF = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}  # of a folder's name
TEST_SHARE = 0.05
MAX_PIXEL_BYTES = 3 * 10**8  # no more than `photos` takes: every worker process holds a copy
VERSION = 1  # of decoded pixels; raise when one changes

Verdict = list[Any]  # size and time (ns) of a file; reason why it is unreadable or None; its height and width or None


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
        listed = _listed(root)
        names = sorted(name for places in listed.values() for name in places)
        if not names:
            raise ValueError(f"data.source 'folder:{path}' holds no image ({', '.join(EXTENSIONS)}).")
        verdicts = _verdicts(root, names)
        readable = {s: {n: inner for n, inner in p.items() if verdicts[n][2] is None} for s, p in listed.items()}
        num_readable = sum(map(len, readable.values()))
        self.num_unreadable = len(names) - num_readable  # left out of all splits together
        mine = _divided(readable)[split]
        if not mine:
            raise ValueError(
                f"data.source 'folder:{path}' has {num_readable} readable images, none of them for {split}."
            )
        classes = sorted({_class_name(inner) for places in readable.values() for inner in places.values()})
        self.name, self.split = f"folder:{path}", split
        self.class_names, self.num_classes = tuple(classes), len(classes)
        self._paths = [root / name for name in mine]
        self.fingerprint = cache.fingerprint([(name, *verdicts[name][:2]) for name in mine])
        self.names_and_sizes = cache.fingerprint([(name, verdicts[name][0]) for name in mine])  # in any copy
        numbers = {name: np.int32(number) for number, name in enumerate(classes)}
        self._labels = [numbers[_class_name(inner)] for inner in mine.values()]
        sizes = {tuple(verdicts[name][3]) for name in mine}
        self._pixels = self._decoded(root, *sizes.pop()) if len(sizes) == 1 else None

    def _decoded(self, root: pathlib.Path, height: int, width: int) -> np.ndarray | None:
        """All images in one array, made on first use; None where they are too large for that."""
        shape = (len(self), height, width, 3)
        if np.prod(shape) >= MAX_PIXEL_BYTES:
            return None

        def fill(arrays: dict[str, np.ndarray]) -> None:
            with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
                images = track(pool.map(load_image, self._paths), f"decoding {root}, {self.split}", len(self))
                for i, image in enumerate(images):
                    arrays["image"][i] = image

        key = {"version": VERSION, "root": str(root.resolve()), "files": self.fingerprint}
        return cache.cached_arrays(f"folder-{self.split}", key, {"image": (shape, "uint8")}, fill)["image"]

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        image = load_image(self._paths[index]) if self._pixels is None else np.asarray(self._pixels[index])
        return {"image": image, "label": self._labels[index]}


def _class_name(name: str) -> str:
    return name.split("/")[0] if "/" in name else "."


def _images_below(folder: pathlib.Path, above: tuple[pathlib.Path, ...] = ()) -> Iterator[str]:
    """Names of the images below a folder, relative to it; a link back to a folder `above` is not followed."""
    here = folder.resolve()
    if here in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from (f"{entry.name}/{name}" for name in _images_below(folder / entry.name, (*above, here)))
            elif entry.name.lower().endswith(EXTENSIONS) and entry.is_file():
                yield entry.name


def _listed(root: pathlib.Path) -> dict[str, dict[str, str]]:
    """Returns for each split that has a folder {name relative to root: name relative to the split's folder}."""
    listed: dict[str, dict[str, str]] = {"train": {}}
    beside = {}
    for name in sorted(_images_below(root)):
        first, _, inner = name.partition("/")
        if inner and first.lower() in SPLIT_OF:
            listed.setdefault(SPLIT_OF[first.lower()], {})[name] = inner
        else:
            beside[name] = name
    return listed if listed["train"] else listed | {"train": beside}


def _divided(listed: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Returns all three splits as of `_listed`, those without a folder made as the module says."""
    train = listed["train"]
    by_hash = sorted(train, key=lambda name: _hash(train[name]))
    if "test" in listed:
        test = listed["test"]
    elif "validation" in listed:
        test = listed["validation"]
    else:
        count = sum(_hash(train[name]) < TEST_SHARE for name in by_hash)
        count = count if 0 < count < len(by_hash) else min(1, len(by_hash))
        test, by_hash = {name: train[name] for name in sorted(by_hash[:count])}, by_hash[count:]
    if "validation" in listed and "test" in listed:
        validation = listed["validation"]
    else:
        held = by_hash[: num_held_out(len(by_hash))]
        validation = {name: train[name] for name in sorted(held)}
    left = {name: inner for name, inner in train.items() if name not in validation and name not in test}
    return {"train": left, "validation": validation, "test": test}


def _hash(name: str) -> float:
    """In [0, 1)."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64


def _verdicts(root: pathlib.Path, names: list[str]) -> dict[str, Verdict]:
    """Returns what was found of each image, from the cache for files that did not change."""
    digest = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:12]
    file = cache.cache_dir() / f"folder-{digest}.json"
    known = json.loads(file.read_text()) if file.is_file() else {}
    stamps = {name: [(s := os.stat(f"{root}/{name}")).st_size, s.st_mtime_ns] for name in names}
    # Entries of an older version have no height and width.
    new = [n for n in names if len(known.get(n, ())) != 4 or known[n][:2] != stamps[n]]

    def check(name: str) -> Verdict:
        try:
            return [*stamps[name], None, load_image(root / name).shape[:2]]
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
            logging.warning("Unreadable image left out: %s (%s)", root / name, e)
            return [*stamps[name], str(e) or type(e).__name__, None]

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        checked = dict(zip(new, track(pool.map(check, new), f"reading {root}", len(new)), strict=True))
    verdicts = {name: checked.get(name) or known[name] for name in names}
    if new or len(known) != len(names):
        with atomic_path(file) as temporary:
            temporary.write_text(json.dumps(verdicts))
    if bad := sum(verdict[2] is not None for verdict in verdicts.values()):
        logging.warning("%d of %d images in %s are left out (%s says why)", bad, len(names), root, file)
    return verdicts
