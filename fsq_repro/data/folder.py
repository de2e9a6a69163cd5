"""Source `folder:PATH`: a user's own images.

Images are the files anywhere below PATH, also behind symbolic links, whose names end in one of
`image_reader.EXTENSIONS`; names that start with a dot are left out. Sub-folders `train`, `validation`, `valid` or
`val`, and `test`, in any case, are splits and never classes; where there is one for training, all that lies beside them
is left out, and where there is none, the rest of PATH is the training folder. Labels are the first level of sub-folders
of a split; images that lie in it itself have the class `.`. All splits share one list of classes.

A split without a folder is made as follows:

- test: the validation folder, if there is one. Otherwise the training images whose hash is below `TEST_SHARE`, about
  5%, which never changes when other images come or go; if it holds for none, the image with the smallest hash.
- validation: of the training images that are not test's, the tenth (`held_out.SHARE`) with the smallest hashes. Few
  change sides when other images come or go: the limit moves a little.

The hash is that of the name relative to the split's folder, so both are drawn from all classes and need no seed.

Unreadable images are named, counted and left out (`image_folder`). Images are given as `image_reader` has them; the
pipeline resizes them, and images smaller than the training resolution are enlarged. A split whose images are all of one
size and take less than `MAX_PIXEL_BYTES` is decoded into the cache once, and read from there.
"""

import concurrent.futures
import hashlib
import os
import pathlib
from collections import Counter

import numpy as np

from fsq_repro.data import cache
from fsq_repro.data.held_out import num_held_out
from fsq_repro.data.image_folder import check_images, image_names, warn_once
from fsq_repro.data.image_reader import EXTENSIONS, read_image
from fsq_repro.files import printable
from fsq_repro.progress import track

SPLIT_OF = {  # of a folder's name
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
TEST_SHARE = 0.05
MAX_PIXEL_BYTES = 3 * 10**8  # no more than `photos` takes: every worker process holds a copy
VERSION = 1  # of decoded pixels; raise when one changes


class Folder:
    """Items {"image": uint8 (h, w, 3), "label": int32 ()} in the order of their names."""

    def __init__(self, path: str | os.PathLike, split: str):
        """Lists and checks the images; ValueError where none is readable or of this split, or FileNotFoundError."""
        root = pathlib.Path(path).expanduser()
        self.name, self.split = f"folder:{path}", split
        if not root.is_dir():
            raise FileNotFoundError(f"data.source '{printable(self.name)}': there is no folder {printable(root)}.")
        listed, beside = _listed(image_names(root))
        if beside:
            warn_once(f"{beside} images of {printable(root)} that lie beside its folder for training are left out")
        names = sorted(name for places in listed.values() for name in places)
        if not names:
            raise ValueError(f"data.source '{printable(self.name)}' holds no image ({', '.join(EXTENSIONS)}).")
        verdicts = check_images(root, names)
        readable = {
            s: {name: inner for name, inner in places.items() if verdicts[name].unreadable is None}
            for s, places in listed.items()
        }
        num_readable = sum(map(len, readable.values()))
        self.num_unreadable = len(names) - num_readable  # left out of all splits together
        places = _divided(readable)
        mine = places[split]
        if not mine:
            raise ValueError(
                f"data.source '{printable(self.name)}' has {num_readable} readable images, none of them for {split}."
            )
        classes = sorted({_class_name(inner) for of_split in places.values() for inner in of_split.values()})
        numbers = {name: np.int32(number) for number, name in enumerate(classes)}
        self.class_names, self.num_classes = tuple(map(printable, classes)), len(classes)
        self.class_counts = {  # split -> class -> images, of all splits
            s: Counter(int(numbers[_class_name(inner)]) for inner in of_split.values())
            for s, of_split in places.items()
        }
        self._paths = [root / name for name in mine]
        self.fingerprint = cache.fingerprint([(name, *verdicts[name][:2]) for name in mine])
        self._labels = [numbers[_class_name(inner)] for inner in mine.values()]
        sizes = {verdicts[name].size for name in mine}
        self._pixels = self._decoded(root, *sizes.pop()) if len(sizes) == 1 else None

    def _decoded(self, root: pathlib.Path, height: int, width: int) -> np.ndarray | None:
        """All images in one array, made on first use; None where they are too large for that."""
        shape = (len(self), height, width, 3)
        if np.prod(shape) >= MAX_PIXEL_BYTES:
            return None

        def fill(arrays: dict[str, np.ndarray]) -> None:
            with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
                images = pool.map(read_image, self._paths)
                for i, image in enumerate(track(images, f"decoding {printable(root)}, {self.split}", len(self))):
                    if image.shape != (height, width, 3):
                        raise ValueError(f"{printable(self._paths[i])} changed while it was read.")
                    arrays["image"][i] = image

        key = {"version": VERSION, "root": str(root.resolve()), "files": self.fingerprint}
        return cache.cached_arrays(f"folder-{self.split}", key, {"image": (shape, "uint8")}, fill)["image"]

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        image = read_image(self._paths[index]) if self._pixels is None else np.asarray(self._pixels[index])
        return {"image": image, "label": self._labels[index]}


def _class_name(name: str) -> str:
    return name.split("/")[0] if "/" in name else "."


def _listed(names: list[str]) -> tuple[dict[str, dict[str, str]], int]:
    """Which names, in this order, belong to which split.

    Returns:
      for each split that has a folder {name: name relative to the split's folder}; how many are left out beside them.
    """
    listed: dict[str, dict[str, str]] = {"train": {}}
    beside = {}
    for name in names:
        first, _, inner = name.partition("/")
        if inner and first.lower() in SPLIT_OF:
            listed.setdefault(SPLIT_OF[first.lower()], {})[name] = inner
        else:
            beside[name] = name
    return (listed, len(beside)) if listed["train"] else (listed | {"train": beside}, 0)


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
    return int.from_bytes(hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:8]) / 2**64
