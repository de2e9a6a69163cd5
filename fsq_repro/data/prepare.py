"""TFDS sets made ready for training: what must be downloaded by hand, room on the disk, array_record files.

Building needs TensorFlow, reading does not. The paper's sets and CIFAR-10 are known exactly, see `RECIPES`. Other TFDS
names are built too, but all that is checked before TFDS starts is whether files that it wants downloaded by hand can be
there.
"""

import dataclasses
import importlib.util
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

from fsq_repro.data.dense_sources import COCO, LABELS, NYU, make_dense_source
from fsq_repro.data.sources import Source
from fsq_repro.data.tfds_source import load_builder
from fsq_repro.files import check_output, printable

MIB, GIB = 2**20, 2**30


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Facts of a set; sizes in bytes.

    `prepared` is the "dataset size" of TFDS' catalog. TFDS shuffles through temporary files of that size, which it
    deletes while it writes the set.
    """

    origin: str  # of the archives
    archives: dict[str, int]  # file name -> size, as TFDS' own list of checksums has it
    by_hand: bool  # whether the user downloads them; else TFDS does, unless they lie in the manual directory
    extracted: int  # what the unpacked archives take, 0 where TFDS reads them as they are
    prepared: int
    splits: dict[str, int]  # name -> number of items, from the catalog


# tensorflow.org/datasets/catalog/{imagenet2012,nyu_depth_v2,coco,cifar10}, and TFDS' checksum files.
RECIPES = {
    "imagenet2012": Recipe(
        origin="https://image-net.org/download-images (after registration)",
        archives={"ILSVRC2012_img_train.tar": 147_897_477_120, "ILSVRC2012_img_val.tar": 6_744_924_160},
        by_hand=True,
        extracted=0,
        prepared=int(155.84 * GIB),  # with the test split, which is not needed here
        splits={"train": 1_281_167, "validation": 50_000},
    ),
    NYU: Recipe(
        origin="http://datasets.lids.mit.edu/fastdepth/data/",
        archives={"nyudepthv2.tar.gz": 34_276_493_134},
        by_hand=False,
        extracted=35_151_124_480,  # the same files in uncompressed tars: huggingface.co/datasets/sayakpaul/nyu_depth_v2
        prepared=int(74.03 * GIB),
        splits={"train": 47_584, "validation": 654},
    ),
    COCO: Recipe(
        origin="http://images.cocodataset.org/",
        archives={
            "train2017.zip": 19_336_861_798,
            "val2017.zip": 815_585_330,
            "panoptic_annotations_trainval2017.zip": 860_725_834,
        },
        by_hand=False,
        extracted=23 * 10**9,  # JPEGs do not shrink in a zip; the annotations are a zip of zips, unpacked twice
        prepared=int(19.63 * GIB),
        splits={"train": 118_287, "validation": 5_000},
    ),
    "cifar10": Recipe(
        origin="https://www.cs.toronto.edu/~kriz/",
        archives={"cifar-10-binary.tar.gz": 170_052_171},
        by_hand=False,
        extracted=184_380_000,  # 60,000 records of 3,073 bytes
        prepared=int(132.4 * MIB),
        splits={"train": 50_000, "test": 10_000},
    ),
}


def prepare_set(name: str, *, manual_dir: str | os.PathLike | None = None, say: Callable[[str], None] = print) -> None:
    """Builds a TFDS set as array_record files in TFDS' data directory; leaves a prepared one alone.

    Before anything is downloaded or written it says what must be downloaded by hand and how much room it takes.

    Args:
      name: TFDS name, with config and version if wanted.
      manual_dir: where files that were downloaded by hand lie; by default TFDS' own, `downloads/manual` in the data
        directory ($TFDS_DATA_DIR, or ~/tensorflow_datasets).
      say: takes the lines for the user.

    Raises ValueError for an unknown name, a data directory that cannot be written, a set in another format or an
    incomplete one in the way, TensorFlow missing, a file to download by hand missing or of another size, too little
    room on the disk, or a download that failed.
    """
    builder = _open_builder(name)
    if builder is not None and builder.is_prepared():
        say(f"{name} is prepared already: {builder.data_dir}")
        return
    root = _data_dir()
    try:
        check_output(root, is_folder=True)
    except ValueError as e:
        raise ValueError(f"--data_dir={printable(root)} cannot take the TFDS set {name!r}: {e}.") from e
    manual = pathlib.Path(manual_dir).expanduser() if manual_dir else root / "downloads" / "manual"
    recipe = RECIPES.get(name.split(":")[0])
    instructions = " ".join((builder and builder.MANUAL_DOWNLOAD_INSTRUCTIONS or "").split())
    if recipe is not None:
        needed = _bytes_needed(recipe, root, manual)
        free = shutil.disk_usage(next(p for p in (root, *root.absolute().parents) if p.exists())).free
        say(_plan(name, recipe, manual) + f"\n  room: {_size(needed)} in {root}, where {_size(free)} are free")
    elif instructions:
        say(f"{name}: {instructions}\n  manual_dir is {manual}")

    if builder is None or not _has_tensorflow():
        raise ValueError(
            f"building the TFDS set {name!r} needs TensorFlow: run make tfds, or pip install -r requirements-tfds.txt."
        )
    if pathlib.Path(builder.data_dir).exists():
        raise ValueError(f"{builder.data_dir} is no complete TFDS set: delete it and start again.")
    if recipe is not None:
        _check_archives(name, recipe, manual)
        if free < needed:
            raise ValueError(
                f"building {name!r} takes about {_size(needed)} in {root}, where only {_size(free)} are free: choose "
                "another --data_dir."
            )
    elif instructions and not (manual.is_dir() and any(manual.iterdir())):
        raise ValueError(f"{manual}, where TFDS looks for downloads by hand, is empty or no folder: {instructions}")
    _build(name, builder, manual)


def open_set(name: str, split: str) -> Source:
    """Opens a split of a prepared set as training does; ValueError also for another number of items than the set's.

    Its own splits are counted: `data/tfds_source.py` says which of them `split` is made of.
    """
    kind = name.split(":")[0]
    source = make_dense_source(LABELS.get(kind, ()), name, split, 32)  # TFDS sets keep their own resolution
    recipe, builder = RECIPES.get(kind), load_builder(name)
    counts = {own: part.num_examples for own, part in builder.info.splits.items()}
    for own, expected in recipe.splits.items() if recipe else ():
        if (found := counts.get(own, 0)) != expected:
            raise ValueError(
                f"the prepared TFDS set {name!r} has {found:,} {own} items, not {expected:,}: delete "
                f"{builder.data_dir} and prepare it again."
            )
    return source


def _has_tensorflow() -> bool:
    return importlib.util.find_spec("tensorflow") is not None


def _data_dir() -> pathlib.Path:
    """TFDS' data directory, where `load_builder` looks too."""
    from tensorflow_datasets.core import constants

    return pathlib.Path(constants.DATA_DIR).expanduser()


def _open_builder(name: str) -> Any | None:
    """Returns the TFDS builder, or None if the set is not prepared and its code cannot run without TensorFlow."""
    try:
        return load_builder(name)
    except ValueError as e:
        if isinstance(e.__cause__, ImportError):
            return None
        if "File format is already set" in str(e.__cause__):
            raise ValueError(
                f"the TFDS set {name!r} in {_data_dir()} was prepared in another format than array_record: choose "
                "another --data_dir, or delete it."
            ) from e
        raise


def _plan(name: str, recipe: Recipe, manual: pathlib.Path) -> str:
    archives = ", ".join(f"{archive} ({_size(size)})" for archive, size in recipe.archives.items())
    items = ", ".join(f"{count:,} {split}" for split, count in recipe.splits.items())
    does, then = "nothing; TFDS downloads", f"files of these names in {manual} are taken instead"
    if recipe.by_hand:
        does, then = "download", f"into {manual}"
    return f"{name}: {items} items\n  by hand: {does} {archives}\n    from {recipe.origin}\n    {then}"


def _check_archives(name: str, recipe: Recipe, manual: pathlib.Path) -> None:
    missing = [archive for archive in recipe.archives if not (manual / archive).is_file()]
    if recipe.by_hand and missing:
        raise ValueError(
            f"{name!r} needs {' and '.join(missing)} in {manual}: download by hand from {recipe.origin}, or give the "
            "folder with --manual_dir."
        )
    for archive, size in recipe.archives.items():
        if archive not in missing and (found := (manual / archive).stat().st_size) != size:
            raise ValueError(
                f"{manual / archive} has {found:,} bytes and not {size:,}: its download is incomplete, or it is "
                "another file."
            )


def _bytes_needed(recipe: Recipe, root: pathlib.Path, manual: pathlib.Path) -> int:
    """What a build writes below `root`, roughly; archives that are there already, found by their sizes, are not."""
    folders = [folder for folder in (manual, root / "downloads") if folder.is_dir()]
    there = {file.stat().st_size for folder in folders for file in folder.iterdir() if file.is_file()}
    download = 0 if recipe.by_hand else sum(size for size in recipe.archives.values() if size not in there)
    return download + recipe.extracted + recipe.prepared


def _build(name: str, builder: Any, manual: pathlib.Path) -> None:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import download_manager, extractor

    failures = tfds.download.DownloadError, download_manager.NonMatchingChecksumError, extractor.ExtractError
    try:
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=manual))
    except (OSError, *failures) as e:
        raise ValueError(
            f"building the TFDS set {name!r} failed ({' '.join(str(e).split())}); complete downloads are kept, and "
            f"those that TFDS cannot make can be put into {manual} by hand."
        ) from e


def _size(size: int) -> str:
    return f"{size / 1e9:,.0f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"
