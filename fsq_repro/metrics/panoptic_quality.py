"""Panoptic quality (Kirillov et al. 2019, arXiv 1801.00868, section 4) as the official panopticapi computes it.

A segment is the set of pixels of one image with one class and one instance id; class 0 is void. Of predicted stuff all
pixels of a class are one segment, whatever their instance ids: the published evaluation makes it so when it converts
predictions (cocodataset/panopticapi at 7bb4655, `converters/2channels2panoptic_coco_format.py`). A predicted and a true
segment of one class match if their intersection over union, void pixels removed from the union, is above 0.5.
Unmatched predictions that lie mostly in void or in a crowd region of their class are ignored; crowd regions never match
and are never missed. Of several crowd regions of one class only the last counts, that with the highest instance id, as
in `panopticapi/evaluation.py`.
"""

from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fsq_repro.data.dense_labels import check_panoptic, segment_codes


def panoptic_from_logits(
    semantics_logits_BxHxWxK: jax.Array, instance_logits_BxHxWxN: jax.Array, min_fraction: float = 0.0
) -> tuple[jax.Array, jax.Array]:
    """Decodes logits to a panoptic map: the likeliest instance of each pixel, then one class an instance.

    The class of an instance is that of the largest sum of semantic logits over its pixels, or else pixels that disagree
    would split it in many wrong segments. As published (big_vision `panoptic_task.py`), instance 0 gets a class like
    any other, and an instance whose class is 0 becomes void; stuff keeps its instance ids, which `PanopticQuality` does
    not look at.

    Args:
      semantics_logits_BxHxWxK: float, K classes with void.
      instance_logits_BxHxWxN: float, N instances with void.
      min_fraction: instances on no more than this share of the pixels become void (0, published: none).

    Returns:
      Classes and instance ids, int32 (B, H, W).
    """
    batch, height, width, num_instances = instance_logits_BxHxWxN.shape
    instances_BxHxW = jnp.argmax(instance_logits_BxHxWxN, axis=-1).astype(jnp.int32)
    masks_BxHxWxN = jax.nn.one_hot(instances_BxHxW, num_instances, dtype=semantics_logits_BxHxWxK.dtype)
    votes_BxNxK = jnp.einsum(
        "bhwn,bhwk->bnk",
        masks_BxHxWxN,
        semantics_logits_BxHxWxK,
        precision="highest",
        preferred_element_type=jnp.float32,
    )
    fractions_BxN = masks_BxHxWxN.sum(axis=(1, 2), dtype=jnp.float32) / (height * width)
    kept_BxN = fractions_BxN > min_fraction
    classes_BxN = jnp.where(kept_BxN, jnp.argmax(votes_BxNxK, axis=-1).astype(jnp.int32), 0)
    numbers_BxN = jnp.where(kept_BxN, jnp.arange(num_instances, dtype=jnp.int32)[None], 0)
    of_pixel = instances_BxHxW.reshape(batch, -1)
    shape = instances_BxHxW.shape
    return (
        jnp.take_along_axis(classes_BxN, of_pixel, axis=1).reshape(shape),
        jnp.take_along_axis(numbers_BxN, of_pixel, axis=1).reshape(shape),
    )


class PanopticQuality:
    """Matches of every class, float64 and int64.

    Attributes:
      num_classes: number of classes C, void (0) included.
      things: the classes that have instances; the others but void are stuff.
      iou_C: float64, summed intersection over union of matched segments.
      true_positives_C, false_positives_C, false_negatives_C: int64.
      images: images seen.
    """

    def __init__(self, num_classes: int, things: Sequence[int]) -> None:
        if not set(things) <= set(range(1, num_classes)):
            raise ValueError(f"things must be classes in 1..{num_classes - 1}, got {tuple(things)}.")
        self.num_classes = num_classes
        self.things = tuple(sorted(things))
        self.iou_C = np.zeros(num_classes)
        self.true_positives_C = np.zeros(num_classes, np.int64)
        self.false_positives_C = np.zeros(num_classes, np.int64)
        self.false_negatives_C = np.zeros(num_classes, np.int64)
        self.images = 0

    def update(
        self,
        predicted_semantics_BxHxW: np.ndarray,
        predicted_instances_BxHxW: np.ndarray,
        semantics_BxHxW: np.ndarray,
        instances_BxHxW: np.ndarray,
        *,
        crowd_BxHxW: np.ndarray | None = None,
    ) -> None:
        """Matches the segments of a batch of images.

        Args:
          predicted_semantics_BxHxW, semantics_BxHxW: integers, 0 for void, else the class.
          predicted_instances_BxHxW, instances_BxHxW: integers >= 0; ignored on void.
          crowd_BxHxW: bool, pixels of true segments that are groups not told apart; none if None.

        Raises:
          ValueError: shapes that differ, values out of range, or a true segment that is crowd in part.
        """
        predicted = np.asarray(predicted_semantics_BxHxW), np.asarray(predicted_instances_BxHxW)
        true = np.asarray(semantics_BxHxW), np.asarray(instances_BxHxW)
        for pair in (predicted, true):
            check_panoptic(*pair, self.num_classes)
        if true[0].ndim != 3 or predicted[0].shape != true[0].shape:
            raise ValueError(
                f"predicted and true maps must have one (B, H, W) shape, got {predicted[0].shape} and {true[0].shape}."
            )
        predicted = predicted[0], np.where(np.isin(predicted[0], self.things), predicted[1], 0)
        crowd = np.zeros(true[0].shape, bool) if crowd_BxHxW is None else np.asarray(crowd_BxHxW, bool)
        for i in range(len(true[0])):
            self._match([a[i] for a in predicted], [a[i] for a in true], crowd[i])

    def _match(self, predicted: Sequence[np.ndarray], true: Sequence[np.ndarray], crowd_HxW: np.ndarray) -> None:
        """Counts one image. Suffixes: P predicted and T true segments; entry 0 of either is void."""
        classes_P, index_P = _segments(*predicted)
        classes_T, index_T = _segments(*true)
        overlap_TxP = np.bincount(
            index_T * len(classes_P) + index_P, minlength=len(classes_T) * len(classes_P)
        ).reshape(len(classes_T), len(classes_P))
        area_T, area_P = overlap_TxP.sum(axis=1), overlap_TxP.sum(axis=0)
        crowd_area_T = np.bincount(index_T[crowd_HxW.ravel()], minlength=len(classes_T))
        crowd_T = (crowd_area_T > 0) & (classes_T > 0)
        if (crowd_area_T != area_T)[crowd_T].any():
            raise ValueError("crowd must cover a true segment wholly or not at all, got one that is crowd in part.")

        same_TxP = (classes_T[:, None] == classes_P[None, :]) & (classes_T > 0)[:, None]
        union_TxP = area_T[:, None] + area_P[None, :] - overlap_TxP - overlap_TxP[:1]
        iou_TxP = overlap_TxP / np.maximum(union_TxP, 1)  # only in void's own row, which never matches, can it be 0
        match_TxP = same_TxP & ~crowd_T[:, None] & (2 * overlap_TxP > union_TxP)
        matched_T, matched_P = match_TxP.any(axis=1), match_TxP.any(axis=0)
        missed_T = ~matched_T & ~crowd_T & (classes_T > 0)
        # Segments of a class are in order of their instance ids.
        later_TxT = np.triu(classes_T[:, None] == classes_T[None, :], 1) & crowd_T
        last_crowd_T = crowd_T & ~later_TxT.any(axis=1)
        ignored_P = overlap_TxP[0] + (overlap_TxP * (same_TxP & last_crowd_T[:, None])).sum(axis=0)
        wrong_P = ~matched_P & (classes_P > 0) & (2 * ignored_P <= area_P)

        true_index, predicted_index = np.nonzero(match_TxP)
        np.add.at(self.iou_C, classes_T[true_index], iou_TxP[true_index, predicted_index])
        np.add.at(self.true_positives_C, classes_T[true_index], 1)
        np.add.at(self.false_negatives_C, classes_T[missed_T], 1)
        np.add.at(self.false_positives_C, classes_P[wrong_P], 1)
        self.images += 1

    def compute(self) -> dict[str, float | int]:
        """Qualities averaged over the classes that occur, in the ground truth or as a counted prediction.

        Returns:
          pq, sq, rq: panoptic, segmentation and recognition quality in [0, 1], averaged over all classes; sq of a class
            without a match is 0.
          classes: how many classes occur.
          pq_things, ..., classes_things, pq_stuff, ..., classes_stuff: the same over things and over stuff; left out
            where none of them occurs.
          images: images seen.

        Raises:
          ValueError: no class occurs.
        """
        tp, fp, fn = self.true_positives_C, self.false_positives_C, self.false_negatives_C
        occurs = tp + fp + fn > 0
        if not occurs.any():
            raise ValueError(f"panoptic quality of no segments is not defined: {self.images} images had none.")
        sq = self.iou_C / np.maximum(tp, 1)
        rq = tp / np.maximum(tp + 0.5 * fp + 0.5 * fn, 0.5)  # 0.5: the least of a class that occurs
        is_thing = np.isin(np.arange(self.num_classes), self.things)
        qualities: dict[str, float | int] = {}
        for suffix, group in (("", occurs), ("_things", occurs & is_thing), ("_stuff", occurs & ~is_thing)):
            if group.any():
                qualities |= {
                    f"pq{suffix}": float((sq * rq)[group].mean()),
                    f"sq{suffix}": float(sq[group].mean()),
                    f"rq{suffix}": float(rq[group].mean()),
                    f"classes{suffix}": int(group.sum()),
                }
        return qualities | {"images": self.images}


def _segments(semantics_HxW: np.ndarray, instances_HxW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the class of each segment, entry 0 void, and each pixel's segment, flat."""
    # The void pixel in front makes void entry 0, present or not.
    codes = np.append(0, segment_codes(semantics_HxW, instances_HxW))
    _, first, index = np.unique(codes, return_index=True, return_inverse=True)
    return np.append(0, semantics_HxW)[first], index[1:]


def majority_class_map(semantics: Iterable[np.ndarray], num_classes: int) -> np.ndarray:
    """The most frequent class at each place over training maps: what every model must beat without seeing an image.

    Each of its classes is one segment: give it to `PanopticQuality.update` with instances 0.

    Args:
      semantics: integer arrays (B, H, W) of one height and width; void (0) does not vote.
      num_classes: number of classes, void included.

    Returns:
      int32 (H, W); the lower class of equally frequent ones; void where nothing else occurs.

    Raises:
      ValueError: no map.
    """
    votes_CxHxW = None
    for maps_BxHxW in semantics:
        votes = np.stack([(maps_BxHxW == c).sum(axis=0) for c in range(1, num_classes)])
        votes_CxHxW = votes if votes_CxHxW is None else votes_CxHxW + votes
    if votes_CxHxW is None:
        raise ValueError("the majority class map is not defined: no map was given.")
    return np.where(votes_CxHxW.any(axis=0), 1 + votes_CxHxW.argmax(axis=0), 0).astype(np.int32)
