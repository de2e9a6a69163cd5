"""Source for TFDS names: image classification sets read through `tfds.data_source`, without TensorFlow.

A set is prepared once as array_record files (`scripts/prepare_data.py`, which does need TensorFlow).
"""

import numpy as np

SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "test")}  # first that the set has


class TfdsSource:
    """Items {"image": uint8 (h, w, 3) as stored, "label": int32 ()}; sets without a class label have label 0."""

    def __init__(self, name: str, split: str):
        """Opens a prepared set.

        Args:
          name: TFDS name, with config and version if wanted (`imagenet2012`, `cifar10:3.0.2`).
          split: `train` or `validation`; `validation` opens `test` in sets that have no validation split.

        Raises:
          ValueError: unknown name, set not prepared, no such split, or items without an image.
        """
        import tensorflow_datasets as tfds

        builder = load_builder(name)
        splits = list(builder.info.splits)
        # An unprepared set may not know its splits yet; opening it fails below.
        tfds_split = next((s for s in SPLIT_NAMES[split] if s in splits), None if splits else SPLIT_NAMES[split][0])
        if tfds_split is None:
            raise ValueError(f"TFDS set {name!r} has no {split} split, only: {', '.join(splits)}.")
        features = dict(builder.info.features.items())
        if "image" not in features:
            raise ValueError(f"TFDS set {name!r} has no feature 'image', only: {', '.join(features)}.")
        self._labelled = isinstance(features.get("label"), tfds.features.ClassLabel)
        try:
            self._items = builder.as_data_source(tfds_split)
        except (NotImplementedError, AssertionError, KeyError) as e:
            raise ValueError(
                f"TFDS set {name!r} is not prepared as array_record in {builder.data_dir}; "
                f"prepare it with: python scripts/prepare_data.py --data={name}"
            ) from e
        self.name = name
        self.split = split
        self.fingerprint = builder.info.full_name.replace("/", "-")
        self.class_names = tuple(features["label"].names) if self._labelled else ("all",)
        self.num_classes = len(self.class_names)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        item = self._items[index]
        image = np.asarray(item["image"])
        if image.shape[-1] == 1:
            image = image.repeat(3, axis=-1)
        return {"image": image[..., :3], "label": np.int32(item["label"] if self._labelled else 0)}


def load_builder(name: str):
    """Returns the TFDS builder of `name`, for array_record files; raises ValueError if there is none."""
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, file_format="array_record")
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as e:
        unknown = isinstance(e, tfds.core.DatasetNotFoundError)  # its message lists every set there is
        reason = "no TFDS set has that name" if unknown else str(e).splitlines()[0]
        raise ValueError(f"data.source {name!r} must be photos, scenes, folder:PATH or a TFDS name ({reason}).") from e
    except ImportError as e:
        raise ValueError(
            f"TFDS set {name!r} needs a missing package (pip install -r requirements-tfds.txt): {e}"
        ) from e
