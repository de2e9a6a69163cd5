"""Panoptic quality against loops over sets of pixels, written from the formulas of Kirillov et al. (2019)."""

import itertools
from fractions import Fraction

import jax
import numpy as np
import pytest

from fsq_repro.metrics.panoptic_quality import PanopticQuality, majority_class_map, panoptic_from_logits
from tests.conftest import ROOT

CLASSES, THINGS = 6, (3, 4, 5)


def measured(predicted, true, **kwargs):
    quality = PanopticQuality(CLASSES, THINGS)
    quality.update(*predicted, *true, **kwargs)
    return quality


class Oracle:
    """The paper's definitions word by word, in exact fractions; `ignored` counts what the void and crowd rules drop."""

    def __init__(self):
        self.iou = {c: Fraction(0) for c in range(1, CLASSES)}
        self.counts = {c: {"tp": 0, "fp": 0, "fn": 0} for c in range(1, CLASSES)}
        self.ignored = {"void": 0, "crowd": 0}

    @staticmethod
    def segments(semantics, instances):
        found = {}
        for pixel in itertools.product(*map(range, semantics.shape)):
            if semantics[pixel]:
                found.setdefault((semantics[pixel], instances[pixel]), set()).add(pixel)
        return found

    def add(self, predicted, true, crowd):
        void = set(zip(*np.nonzero(true[0] == 0), strict=True))
        groups, targets = {}, {}
        for key, pixels in self.segments(*true).items():
            (groups if crowd[next(iter(pixels))] else targets)[key] = pixels
        unmatched = dict(targets)
        for (class_id, _), p in self.segments(*predicted).items():
            for key, g in list(unmatched.items()):
                # "all pixels in the ground truth labeled as void are removed from the prediction"
                iou = Fraction(len((p - void) & g), len((p - void) | g))
                if key[0] == class_id and iou > Fraction(1, 2):
                    self.iou[class_id] += iou
                    self.counts[class_id]["tp"] += 1
                    del unmatched[key]
                    break
            else:
                # "unmatched predicted segments that contain a fraction of void pixels over the matching threshold are
                # removed", likewise those in groups of the same class.
                of_class = set().union(*(g for key, g in groups.items() if key[0] == class_id))
                if 2 * len(p & (void | of_class)) > len(p):
                    self.ignored["crowd" if p & of_class else "void"] += 1
                else:
                    self.counts[class_id]["fp"] += 1
        for class_id, _ in unmatched:
            self.counts[class_id]["fn"] += 1

    def figures(self, classes):
        pq, sq, rq = [], [], []
        for c in classes:
            tp, fp, fn = self.counts[c].values()
            if tp + fp + fn:
                size = tp + Fraction(fp, 2) + Fraction(fn, 2)
                pq.append(self.iou[c] / size)
                sq.append(self.iou[c] / tp if tp else Fraction(0))
                rq.append(tp / size)
        return [float(sum(values) / len(values)) for values in (pq, sq, rq)]


def random_maps(rng):
    """Rectangles of void, things and stuff; a prediction that differs in places; crowd: one thing of some classes."""
    height, width = rng.integers(6, 13, size=2)
    true = np.zeros((2, height, width), np.int64)

    def paint(maps):
        top, left = rng.integers(height), rng.integers(width)
        class_id = rng.integers(CLASSES)
        box = np.s_[:, top : top + rng.integers(2, 8), left : left + rng.integers(2, 8)]
        maps[box] = np.array([class_id, rng.integers(3) if class_id in THINGS else 0])[:, None, None]

    for _ in range(rng.integers(2, 9)):
        paint(true)
    predicted = np.roll(true, rng.integers(2), axis=2) if rng.random() < 0.7 else np.zeros_like(true)
    for _ in range(rng.integers(0, 4)):
        paint(predicted)
    crowd = np.zeros((height, width), bool)
    for class_id in THINGS:
        if rng.random() < 0.3:
            crowd |= (true[0] == class_id) & (true[1] == rng.integers(3))
    return predicted, true, crowd


def test_equals_the_oracle_on_200_random_maps():
    rng = np.random.default_rng(0)
    ours, oracle = PanopticQuality(CLASSES, THINGS), Oracle()
    for _ in range(200):
        predicted, true, crowd = random_maps(rng)
        oracle.add(predicted, true, crowd)
        # Any instance ids will do, also on void.
        ids = rng.permutation(9) + 1
        ours.update(predicted[:1], ids[predicted[1:]], true[:1], ids[true[1:]], crowd_BxHxW=crowd[None])
    for c, counts in oracle.counts.items():
        found = ours.true_positives_C[c], ours.false_positives_C[c], ours.false_negatives_C[c]
        assert found == tuple(counts.values())
        assert min(found) >= 5  # the maps show every case
    assert min(oracle.ignored.values()) >= 5
    figures = ours.compute()
    assert figures["images"] == 200
    for suffix, classes in (("", range(1, CLASSES)), ("_things", THINGS), ("_stuff", (1, 2))):
        got = [figures[f"{name}{suffix}"] for name in ("pq", "sq", "rq")]
        assert got == pytest.approx(oracle.figures(classes), rel=1e-12)
        assert figures[f"classes{suffix}"] == len(classes)


def row(*classes):
    """One image of one row."""
    return np.array(classes)[None, None]


def test_perfect_and_half_overlaps_by_hand():
    true = row(1, 1, 1, 3, 3, 3, 3, 2), row(0, 0, 0, 1, 1, 2, 2, 0)
    assert measured(true, true).compute() == {
        **dict.fromkeys(
            ("pq", "sq", "rq", "pq_things", "sq_things", "rq_things", "pq_stuff", "sq_stuff", "rq_stuff"), 1
        ),
        "classes": 3,
        "classes_things": 1,
        "classes_stuff": 2,
        "images": 1,
    }
    # Class 1: IoU 3/4. Class 2: missed. Class 3: one instance whole; the other predicted on one of its two
    # pixels, an IoU of exactly 1/2: no match.
    predicted = row(1, 1, 1, 3, 3, 3, 1, 0), row(0, 0, 0, 1, 1, 2, 0, 0)
    figures = measured(predicted, true).compute()
    assert figures["pq_things"] == figures["rq_things"] == pytest.approx(1 / (1 + 0.5 + 0.5))
    assert figures["sq_things"] == 1.0
    assert figures["pq_stuff"] == pytest.approx((3 / 4 + 0) / 2)
    assert figures["pq"] == pytest.approx((3 / 4 + 0 + 1 / 2) / 3)


def test_void_pixels_by_hand():
    true = row(3, 3, 0, 0, 0, 1), row(1, 1, 0, 0, 0, 0)
    # The thing's prediction reaches three pixels into void: IoU is 2/2. Class 4's lies wholly in void: ignored.
    quality = measured((row(3, 3, 3, 3, 4, 1), row(1, 1, 1, 1, 1, 0)), true)
    assert (quality.iou_C[3], quality.false_positives_C.sum()) == (1.0, 0)
    # Half in void is not more than half.
    quality = measured((row(3, 3, 0, 0, 4, 4), row(1, 1, 0, 0, 1, 1)), true)
    assert quality.false_positives_C[4] == 1
    # Predicted void is no segment, but the true one stays whole.
    assert measured((row(0, 0, 0, 0, 0, 1), row(0, 0, 0, 0, 0, 0)), true).false_negatives_C[3] == 1


def test_crowd_regions_by_hand():
    true = row(3, 3, 3, 3, 4, 1), row(7, 7, 7, 7, 1, 0)
    crowd = row(True, True, True, True, False, False)
    # A perfect prediction of the region does not match, is not wrong either, and the region is not missed.
    quality = measured(true, true, crowd_BxHxW=crowd)
    assert (quality.true_positives_C[3], quality.false_positives_C[3], quality.false_negatives_C[3]) == (0, 0, 0)
    assert quality.compute()["classes"] == 2
    # Another class in the region is wrong.
    quality = measured((row(5, 5, 3, 3, 4, 1), row(1, 1, 2, 2, 1, 0)), true, crowd_BxHxW=crowd)
    assert (quality.false_positives_C[5], quality.false_positives_C[3]) == (1, 0)


def test_parts_equal_the_whole():
    rng = np.random.default_rng(0)
    maps = rng.integers(0, CLASSES, size=(4, 9, 3, 3))
    maps[2] = np.where(rng.random((9, 3, 3)) < 0.8, maps[0], maps[2])
    whole, parts = measured(maps[:2], maps[2:]), PanopticQuality(CLASSES, THINGS)
    for part in (slice(0, 4), slice(4, 9)):
        parts.update(*maps[:, part])
    assert parts.compute() == pytest.approx(whole.compute(), rel=1e-12)
    assert whole.compute()["images"] == 9


def test_decoding_equals_a_loop(strict_dtypes):
    rng = np.random.default_rng(0)
    semantics, instances = (rng.standard_normal((2, 6, 5, n)).astype(np.float32) for n in (4, 3))
    instances[1, ..., 2] = -9.0  # an instance without pixels
    instances[0, 0, 0] = (9, 0, 0)
    semantics[1] += np.array([5, 0, 0, 0], np.float32)  # void wins
    for min_fraction in (0.0, 0.4):
        classes, ids = jax.jit(panoptic_from_logits)(semantics, instances, min_fraction)
        expected = np.zeros((2, 2, 6, 5), np.int64)
        for i, number in itertools.product(range(2), range(3)):
            mask = instances[i].argmax(axis=-1) == number
            if mask.mean() > min_fraction:
                expected[0, i][mask] = semantics[i].astype(np.float64)[mask].sum(axis=0).argmax()
                expected[1, i][mask] = number
        np.testing.assert_array_equal(classes, expected[0])
        np.testing.assert_array_equal(ids, expected[1])
        assert classes.dtype == ids.dtype == np.int32
    assert (expected[1] == 0).any() and (expected[1] > 0).any()  # the fraction removed some and kept some


def test_decoded_instances_have_one_class_and_equal_stuff_is_one_segment():
    # Pixels (instance 1: classes 2, 2, 3; instance 2: class 2): the vote gives both class 2, under two ids.
    semantics = np.eye(4, dtype=np.float32)[[2, 2, 3, 2]][None, None]
    instances = np.eye(3, dtype=np.float32)[[1, 1, 1, 2]][None, None]
    classes, ids = panoptic_from_logits(semantics, instances)
    np.testing.assert_array_equal(classes, row(2, 2, 2, 2))
    np.testing.assert_array_equal(ids, row(1, 1, 1, 2))
    true = row(2, 2, 2, 2), row(0, 0, 0, 0)
    quality = measured((np.asarray(classes), np.asarray(ids)), true)
    assert (quality.true_positives_C[2], quality.false_positives_C[2], quality.iou_C[2]) == (1, 0, 1.0)


def test_equals_panopticapi_on_every_image():
    """Its converter of two-channel predictions and `pq_compute_single_core`, run on 200 maps: see tests/golden."""
    with np.load(ROOT / "tests" / "golden" / "panopticapi.npz") as file:
        golden = {name: file[name] for name in file.files}
    names = ("predicted_semantics", "predicted_instances", "semantics", "instances")
    for i in range(len(golden["semantics"])):
        quality = PanopticQuality(golden["tp"].shape[1], golden["things"].tolist())
        maps = (golden[name][i : i + 1].astype(np.int32) for name in names)
        quality.update(*maps, crowd_BxHxW=golden["crowd"][i : i + 1])
        np.testing.assert_array_equal(quality.true_positives_C, golden["tp"][i], f"image {i}")
        np.testing.assert_array_equal(quality.false_positives_C, golden["fp"][i], f"image {i}")
        np.testing.assert_array_equal(quality.false_negatives_C, golden["fn"][i], f"image {i}")
        np.testing.assert_allclose(quality.iou_C, golden["iou"][i], rtol=1e-12)


def test_majority_map_is_the_baseline():
    maps = np.array([[[1, 3, 0]], [[1, 2, 0]], [[2, 2, 0]], [[0, 3, 0]]])
    majority = majority_class_map([maps[:1], maps[1:]], CLASSES)
    np.testing.assert_array_equal(majority, [[1, 2, 0]])  # 2 before 3 at equal counts, no void where there is a class
    zeros = np.zeros((1, 1, 3), np.int32)
    assert measured((majority[None], zeros), (row(1, 2, 2), zeros)).compute()["pq"] == pytest.approx((1 + 0) / 2)
    with pytest.raises(ValueError, match="no map was given"):
        majority_class_map([], CLASSES)


def test_refusals():
    quality, one = PanopticQuality(CLASSES, THINGS), np.ones((1, 2, 2), np.int32)
    with pytest.raises(ValueError, match=r"semantics must lie in 0..5, got values from 6 to 6"):
        quality.update(6 * one, one, one, one)
    with pytest.raises(ValueError, match=r"one \(B, H, W\) shape, got \(1, 2, 2\) and \(2, 2\)"):
        quality.update(one, one, one[0], one[0])
    with pytest.raises(ValueError, match="one that is crowd in part"):
        quality.update(one, one, one, one, crowd_BxHxW=np.array([[[True, True], [True, False]]]))
    with pytest.raises(ValueError, match="no segments is not defined: 0 images"):
        quality.compute()
    with pytest.raises(ValueError, match=r"things must be classes in 1..5, got \(0, 1\)"):
        PanopticQuality(CLASSES, (0, 1))
    # A group of which no class occurs has no figures.
    quality.update(one, one, one, one)
    assert "pq_things" not in quality.compute()
    assert quality.compute()["pq_stuff"] == 1.0
