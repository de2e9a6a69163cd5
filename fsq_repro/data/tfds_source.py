"""Source for TFDS names: image classification sets read through `tfds.data_source`, without TensorFlow.

A set is prepared once as array_record files (`scripts/prepare_data.py`, which does need TensorFlow).

Which of a set's own splits are opened:

- train, validation and a labelled test: these.
- train and validation, and no test or one whose labels are -1 (`imagenet2012`, NYU, COCO): published tables are of the
  validation split, so that `validation` and `test` are both that one.
- train and test (`cifar10`): `validation` is a tenth of train, see `held_out`, and `train` the rest.
"""

from typing import Any, ClassVar

import numpy as np

from fsq_repro.data import cache
from fsq_repro.data.held_out import SEED, SHARE, held_out
from fsq_repro.data.image_reader import on_white


class TfdsSource:
    """Items {"image": uint8 (h, w, 3) as stored, "label": int32 ()}; sets without a class label have label 0.

    Sets that name the files of their images (`imagenet2012`) add `file_name`, a str. `info` is TFDS' description.
    """

    features: ClassVar[tuple[str, ...]] = ("image",)  # that the set must have

    def __init__(self, name: str, split: str, *, tfds_split: str | None = None):
        """Opens a prepared set; ValueError for an unknown name, no such split, or items without one of the features.

        Args:
          name: TFDS name, with config and version if wanted (`imagenet2012`, `cifar10:3.0.2`).
          split: `train`, `validation` or `test`, see above.
          tfds_split: opens this TFDS split expression instead, e.g. `train[4096:]`.
        """
        import tensorflow_datasets as tfds

        builder = load_builder(name)
        self.info = info = builder.info
        self.name, self.split = name, split
        self.fingerprint = info.full_name.replace("/", "-")  # fit for names of files
        self._indices: np.ndarray | None = None  # items of this split among `_items`; all of them where None
        if tfds_split is not None:
            self.fingerprint += f"-{cache.fingerprint(tfds_split)}"
            if info.splits:  # which an unprepared set may not know; opening it fails below
                _check_split(name, info, tfds_split)
        for feature in self.features:
            if feature not in info.features:
                raise ValueError(f"TFDS set {name!r} has no feature {feature!r}, only: {', '.join(info.features)}.")
        self._labelled = "label" in info.features and isinstance(info.features["label"], tfds.features.ClassLabel)
        try:
            if tfds_split is None:
                self._open_split(builder)
            else:
                self._items = builder.as_data_source(tfds_split)
        except (NotImplementedError, AssertionError, KeyError) as e:
            raise ValueError(
                f"TFDS set {name!r} is not prepared as array_record in {builder.data_dir}; "
                f"prepare it with: python scripts/prepare_data.py --data={name}"
            ) from e
        self.class_names = tuple(info.features["label"].names) if self._labelled else ("all",)
        self.num_classes = len(self.class_names)

    def _open_split(self, builder: Any) -> None:
        """Opens the set's own splits as the module says; errors as of `as_data_source` where it is not prepared."""
        # An unprepared set may not know its splits yet.
        splits = [split for split, part in self.info.splits.items() if part.num_examples] or [self.split]
        if {"validation", "test"} <= set(splits) and self._labelled and builder.as_data_source("test")[0]["label"] < 0:
            splits.remove("test")
        own = self.split
        if own == "test" and "test" not in splits:
            own = "validation"
        shares_train = "test" in splits and "train" in splits and "validation" not in splits
        if own == "validation" and shares_train:
            own = "train"
        if own not in splits:
            raise ValueError(f"TFDS set {self.name!r} has no {self.split} split, only: {', '.join(splits)}.")
        self._items = builder.as_data_source(own)
        if own == "train" and shares_train:
            train, validation = held_out(len(self._items))
            self._indices = train if self.split == "train" else validation
            self.fingerprint += f"-held-out-{cache.fingerprint(SEED, SHARE)}"

    def _item(self, index: int) -> dict[str, Any]:
        return self._items[index if self._indices is None else int(self._indices[index])]

    def __len__(self) -> int:
        return len(self._items if self._indices is None else self._indices)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        item = self._item(index)
        out = {"image": rgb(item["image"]), "label": np.int32(item["label"] if self._labelled else 0)}
        if "file_name" in item:
            name = item["file_name"]
            out["file_name"] = np.str_(name.decode() if isinstance(name, bytes) else name)
        return out


def _check_split(name: str, info: Any, tfds_split: str) -> None:
    try:
        count = info.splits[tfds_split].num_examples
    except (ValueError, KeyError, TypeError, AttributeError, NotImplementedError, AssertionError) as e:
        sizes = ", ".join(f"{split} ({part.num_examples:,} items)" for split, part in info.splits.items())
        raise ValueError(
            f"data.splits has {tfds_split!r}, which must be a split of TFDS set {name!r} or a slice of one such as "
            f"train[4096:]: {sizes}."
        ) from e
    if not count:
        raise ValueError(f"data.splits has {tfds_split!r}, which must have items of TFDS set {name!r} but has none.")


def rgb(image: np.ndarray) -> np.ndarray:
    """Returns the image with three channels: grey is repeated, transparency laid on white."""
    image = np.asarray(image)
    if image.shape[-1] == 1:
        return image.repeat(3, axis=-1)
    return on_white(image) if image.shape[-1] == 4 else image


def load_builder(name: str):
    """Returns the TFDS builder of `name`, for array_record files; raises ValueError if there is none."""
    import tensorflow_datasets as tfds

    try:
        try:
            return tfds.builder(name, file_format="array_record")
        except ImportError:
            if ":" in name:
                raise
            # The code of some sets (coco) needs TensorFlow. Asked for a version, TFDS looks for prepared files first.
            return tfds.builder(f"{name}:*.*.*", file_format="array_record")
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as e:
        unknown = isinstance(e, tfds.core.DatasetNotFoundError)  # its message lists every set there is
        reason = "no TFDS set has that name" if unknown else str(e).splitlines()[0]
        raise ValueError(f"data.source {name!r} must be photos, scenes, folder:PATH or a TFDS name ({reason}).") from e
    except ImportError as e:
        raise ValueError(
            f"TFDS set {name!r} is not prepared, and preparing it needs a missing package "
            f"(pip install -r requirements-tfds.txt): {e}"
        ) from e
