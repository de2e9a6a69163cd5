"""Source for TFDS names: image classification sets read through `tfds.data_source`, without TensorFlow.

A set is prepared once as array_record files (`scripts/prepare_data.py`, which does need TensorFlow).
"""

from typing import Any, ClassVar

import numpy as np

from fsq_repro.data import cache

SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "test")}  # first that the set has


class TfdsSource:
    """Items {"image": uint8 (h, w, 3) as stored, "label": int32 ()}; sets without a class label have label 0.

    Sets that name the files of their images (`imagenet2012`) add `file_name`, a str. `info` is TFDS' description.
    """

    features: ClassVar[tuple[str, ...]] = ("image",)  # that the set must have

    def __init__(self, name: str, split: str, *, tfds_split: str | None = None):
        """Opens a prepared set; ValueError for an unknown name, no such split, or items without one of the features.

        Args:
          name: TFDS name, with config and version if wanted (`imagenet2012`, `cifar10:3.0.2`).
          split: `train` or `validation`; `validation` opens `test` in sets that have no validation split.
          tfds_split: opens this TFDS split expression instead, e.g. `train[4096:]`.
        """
        import tensorflow_datasets as tfds

        builder = load_builder(name)
        self.info = info = builder.info
        self.name, self.split = name, split
        self.fingerprint = info.full_name.replace("/", "-")  # fit for names of files
        splits = list(info.splits)
        # An unprepared set may not know its splits yet; opening it fails below.
        if tfds_split is not None:
            self.fingerprint += f"-{cache.fingerprint(tfds_split)}"
            if splits:
                _check_split(name, info, tfds_split)
        else:
            tfds_split = next((s for s in SPLIT_NAMES[split] if s in splits), None if splits else split)
            if tfds_split is None:
                raise ValueError(f"TFDS set {name!r} has no {split} split, only: {', '.join(splits)}.")
        for feature in self.features:
            if feature not in info.features:
                raise ValueError(f"TFDS set {name!r} has no feature {feature!r}, only: {', '.join(info.features)}.")
        try:
            self._items = builder.as_data_source(tfds_split)
        except (NotImplementedError, AssertionError, KeyError) as e:
            raise ValueError(
                f"TFDS set {name!r} is not prepared as array_record in {builder.data_dir}; "
                f"prepare it with: python scripts/prepare_data.py --data={name}"
            ) from e
        self._labelled = "label" in info.features and isinstance(info.features["label"], tfds.features.ClassLabel)
        self.class_names = tuple(info.features["label"].names) if self._labelled else ("all",)
        self.num_classes = len(self.class_names)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        item = self._items[index]
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
    """Returns the image with three channels: grey is repeated, transparency left out."""
    image = np.asarray(image)
    return (image.repeat(3, axis=-1) if image.shape[-1] == 1 else image)[..., :3]


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
