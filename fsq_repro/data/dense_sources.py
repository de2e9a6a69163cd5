"""Sources of the UViM tasks: `make_dense_source`, NYU Depth v2 and COCO panoptic as TFDS prepares them."""

from collections.abc import Sequence

import numpy as np

from fsq_repro.data.sources import Source, Split, check_request, make_source
from fsq_repro.data.tfds_source import TfdsSource, rgb

NYU, COCO = "nyu_depth_v2", "coco/2017_panoptic"
LABELS = {"scenes": ("depth", "semantics", "instances"), NYU: ("depth",), COCO: ("semantics", "instances")}

NUM_COCO_CLASSES, NUM_COCO_THINGS = 133, 80

# Parts of a 480 x 640 NYU Depth v2 image that are evaluated, both 426 x 560: (rows, columns). `uvim` is what UViM's
# code cuts, so what UViM's and FSQ's scores were measured on; the crop in its own comment, the usual one of
# Eigen et al. (2014), starts 9 rows higher.
NYU_EVAL_CROPS = {
    "uvim": (slice(54, 480), slice(41, 601)),
    "eigen": (slice(45, 471), slice(41, 601)),
}


def make_dense_source(
    labels: Sequence[str],
    name: str,
    split: Split,
    resolution: int,
    *,
    tfds_split: str | None = None,
    crop: str = "uvim",
) -> Source:
    """Opens a source with the labels that a UViM task needs; arguments and errors as of `make_source`, and:

    Args:
      labels: dense labels that its items must have, see `LABELS`, else a ValueError; where empty, any source will do.
      tfds_split: TFDS split expression that is opened instead of the split's own (UViM trains panoptic and
        colorization on `train[4096:]`); for TFDS sets only.
      crop: part of NYU's validation and test items that is kept, see `NYU_EVAL_CROPS`.
    """
    check_request(split, resolution)
    tfds_name = name.removeprefix("tfds:")
    kind = tfds_name.split(":")[0]
    if not set(labels) <= set(LABELS.get(kind, ())):
        able = " or ".join(source for source, theirs in LABELS.items() if set(labels) <= set(theirs))
        raise ValueError(f"data.source {name!r} lacks {' and '.join(labels)}: the task needs {able}.")
    if name in ("photos", "scenes") or name.startswith("folder:"):
        if tfds_split is not None:
            raise ValueError(f"data.splits must be empty for data.source {name!r}, no TFDS set, not {tfds_split!r}.")
        return make_source(name, split, resolution)
    if labels and kind == NYU:
        return NyuDepth(tfds_name, split, tfds_split=tfds_split, crop=crop)
    reader = CocoPanoptic if labels else TfdsSource
    return reader(tfds_name, split, tfds_split=tfds_split)


class NyuDepth(TfdsSource):
    """NYU Depth v2: `image` uint8 (h, w, 3), `depth` float32 (h, w), `label` int32 () 0.

    Depth is in metres, 0 where it is not measured. Training items have 480 x 640 pixels; those of validation and test
    are cut to the evaluated 426 x 560, image and depth alike, as big_vision's `nyu_eval_crop`.
    """

    features = ("image", "depth")

    def __init__(self, name: str, split: str, *, tfds_split: str | None = None, crop: str = "uvim"):
        """Opens the prepared set as `TfdsSource` does; an unknown `crop` is a ValueError, also in train."""
        if crop not in NYU_EVAL_CROPS:
            raise ValueError(f"data.crop must be one of {', '.join(NYU_EVAL_CROPS)}, not {crop!r}.")
        super().__init__(name, split, tfds_split=tfds_split)
        self._crop = NYU_EVAL_CROPS[crop] if split != "train" else ()
        if self._crop:
            self.fingerprint += f"-{crop}"

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        item = self._item(index)
        depth = np.asarray(item["depth"], np.float32)[self._crop]
        depth = np.where(np.isfinite(depth), depth, np.float32(0))
        return {"image": rgb(item["image"])[self._crop], "depth": depth, "label": np.int32(0)}


class CocoPanoptic(TfdsSource):
    """COCO 2017 panoptic: `image` uint8 (h, w, 3), `semantics`, `instances`, `crowd` (h, w), `label` int32 () 0.

    - `semantics`: int32, 0 where no segment is annotated (void), else TFDS's class + 1.
    - `instances`: int32, 0 on void, else the segment's place in the image's list + 1, for things and stuff alike.
    - `crowd`: bool, whether the segment stands for a group of things, which the metric treats on its own.
    """

    features = ("image", "panoptic_image", "panoptic_objects")
    num_semantics = NUM_COCO_CLASSES + 1  # with void
    things = tuple(range(1, NUM_COCO_THINGS + 1))

    def __init__(self, name: str, split: str, *, tfds_split: str | None = None):
        """Opens the prepared set as `TfdsSource` does; ValueError also for classes in another order than COCO's."""
        super().__init__(name, split, tfds_split=tfds_split)
        # TFDS numbers the classes as `panoptic_coco_categories.json` lists them: first the 80 things, from person to
        # toothbrush, then stuff from banner on. big_vision's evaluator relies on the same order.
        names = self.info.features["panoptic_objects"]["label"].names
        if names[NUM_COCO_THINGS - 1 : NUM_COCO_THINGS + 1] != ["toothbrush", "banner"]:
            raise ValueError(
                f"TFDS set {name!r} must list COCO's panoptic classes in their own order, toothbrush and banner as "
                f"numbers {NUM_COCO_THINGS - 1} and {NUM_COCO_THINGS}, got {names[NUM_COCO_THINGS - 1 :][:2]}."
            )

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        item = self._item(index)
        objects = item["panoptic_objects"]
        return {"image": rgb(item["image"]), "label": np.int32(0)} | coco_labels(
            item["panoptic_image"], objects["id"], objects["label"], objects["is_crowd"]
        )


def coco_labels(
    panoptic_image_HxWx3: np.ndarray, ids_N: np.ndarray, labels_N: np.ndarray, is_crowd_N: np.ndarray
) -> dict[str, np.ndarray]:
    """Labels of `CocoPanoptic` from COCO's annotation of one image.

    As google-research/big_vision `pp/proj/uvim/pp_ops.py` `coco_panoptic`, which has no `crowd`. The id of a pixel's
    segment is r + 256 g + 65536 b of the uint8 image; `ids_N` has each once, `labels_N` their classes from 0.
    """
    ids_HxW = panoptic_image_HxWx3.astype(np.int32) @ np.array([1, 256, 256**2], np.int32)
    # Entry 0 of each table stands for void; it sorts first, and no segment has a negative id.
    ids_N = np.concatenate([[-1], np.asarray(ids_N, np.int64)])
    order_N = np.argsort(ids_N)
    nearest_HxW = order_N[np.searchsorted(ids_N[order_N], ids_HxW, side="right") - 1]
    instances_HxW = np.where(ids_N[nearest_HxW] == ids_HxW, nearest_HxW, 0)
    semantics_N = np.concatenate([[0], np.asarray(labels_N, np.int64) + 1])
    crowd_N = np.concatenate([[False], np.asarray(is_crowd_N, bool)])
    return {
        "semantics": semantics_N[instances_HxW].astype(np.int32),
        "instances": instances_HxW.astype(np.int32),
        "crowd": crowd_N[instances_HxW],
    }
