"""What a data source is, and `make_source`, which opens one by name."""

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np

from fsq_repro.data.folder import Folder
from fsq_repro.data.photos import Photos
from fsq_repro.data.scenes import Scenes
from fsq_repro.data.tfds_source import TfdsSource

# Choices are made on `validation`, checks during training too; tables are of `test` alone.
Split = Literal["train", "validation", "test"]
SPLITS = ("train", "validation", "test")


class Source(Protocol):
    """A random-access sequence of numpy dicts.

    Every item has `image` uint8 (h, w, 3) and `label` int32 (); `scenes` adds `depth` float32 (h, w) in metres,
    `semantics` int32 (h, w) and `instances` int32 (h, w). Images of one source may differ in size. Sources with
    semantics have `num_semantics`, the number of their classes with void (0), and `things`, those with instances.
    TFDS sets that name the files of their images add `file_name`, a str.
    """

    name: str
    split: str
    fingerprint: str  # changes when the items do
    num_classes: int
    class_names: Sequence[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, np.ndarray]: ...


def make_source(name: str, split: Split, resolution: int) -> Source:
    """Opens a data source by name.

    Which items belong to which split is said by each source: `photos`, `scenes`, `folder`, `tfds_source`. No item is in
    two splits, but that `validation` and `test` are one where a TFDS set has a validation split and no labelled test
    split.

    Args:
      name: `photos`, `scenes`, `folder:PATH`, or a TFDS name, plain or as `tfds:NAME`.
      resolution: side in pixels at which `photos` and `scenes` are made; the others give their images as they are,
        and the pipeline brings them to the resolution.

    Raises ValueError for an unknown name or split, a resolution below 8, a folder without a readable image and a TFDS
    set that is not prepared; FileNotFoundError for a missing folder.
    """
    check_request(split, resolution)
    if name == "photos":
        return Photos(split, resolution)
    if name == "scenes":
        return Scenes(split, resolution)
    if name.startswith("folder:"):
        return Folder(name.removeprefix("folder:"), split)
    return TfdsSource(name.removeprefix("tfds:"), split)


def contents(source: Source) -> str:
    """A hash of what a source holds, the same on all machines: of a folder the names and sizes of its files."""
    return getattr(source, "names_and_sizes", source.fingerprint)


def check_request(split: str, resolution: int) -> None:
    """Raises ValueError if the split is unknown or the resolution too small."""
    if split not in SPLITS:
        raise ValueError(f"data split must be one of {', '.join(SPLITS)}, not {split!r}.")
    if resolution < 8:
        raise ValueError(f"data.resolution must be at least 8 pixels, not {resolution}.")
