"""Panoptic segmentation: the loss, quality at native sizes, the majority map, sources and fields that do not fit."""

import numpy as np
import pytest
from PIL import Image

from fsq_repro.factories import label_autoencoder as label_autoencoder_factory
from fsq_repro.metrics.panoptic_quality import PanopticQuality
from fsq_repro.metrics.table import MetricKey
from fsq_repro.tasks.panoptic import PanopticScorer, PanopticTask
from tests.tasks.helpers import PANOPTIC, SIZES, Items, batch, cross_entropy, enlarged, image, random_outputs
from tests.tiny import make_dense_noise, tiny_uvim

MAJORITY = MetricKey("pq", baseline="majority_map")


def test_panoptic_loss_is_the_sum_of_both_heads():
    task = PANOPTIC
    prepared, outputs = task.prepare(batch()), random_outputs(task)
    loss_B, terms = task.loss(outputs, prepared)
    expected = {name: cross_entropy(outputs[name], prepared[name]).mean((1, 2)) for name, _ in task.labels}
    assert terms.keys() == expected.keys() == {"semantics", "instances"}
    for name, term_B in terms.items():
        np.testing.assert_allclose(term_B, expected[name], rtol=1e-5)
    np.testing.assert_allclose(loss_B, sum(expected.values()), rtol=1e-5)


def test_small_predicted_segments_become_void():
    """A segment of 4 of 256 pixels: kept by default, void where 4 / 256 is not more than `min_fraction`."""
    semantics, instances = np.full((1, 16, 16), 1), np.full((1, 16, 16), 1)
    semantics[0, 3:5, 3:5], instances[0, 3:5, 3:5] = 2, 2
    outputs = {"semantics": np.eye(4, dtype=np.float32)[semantics], "instances": np.eye(6, dtype=np.float32)[instances]}
    for min_fraction, void in ((0.0, False), (4 / 256, True)):
        maps = PanopticTask(4, 6, min_fraction).predict(outputs)
        for name, true in (("semantics", semantics), ("instances", instances)):
            np.testing.assert_array_equal(maps[name], np.where(void & (true == 2), 0, true))


def test_more_segments_than_the_head_can_tell_apart_are_refused():
    many = batch() | {"semantics": np.ones((4, 16, 16), np.int32), "instances": np.zeros((4, 16, 16), np.int32)}
    many["instances"][2] = np.arange(256).reshape(16, 16) // 40  # 7 segments
    with pytest.raises(ValueError, match="^num_instances must be at least 8 for void and 7 segments, got 6.$"):
        PANOPTIC.prepare(many)
    assert PanopticTask(4, 8).prepare(many)["instances"].max() == 7


def test_heads_of_another_number_of_classes_than_the_source_are_refused(monkeypatch):
    monkeypatch.setattr(label_autoencoder_factory, "make_dense_source", make_dense_noise)
    config = tiny_uvim(1, task="panoptic")
    assert label_autoencoder_factory.build_source(config, "train").num_semantics == 4
    config.task.num_classes = 5
    with pytest.raises(ValueError, match="task.num_classes = 5, but dense_noise has 4 classes, void included"):
        label_autoencoder_factory.build_source(config, "train")


def panoptic_maps(rng, count):
    """Blocks of 4 x 4 pixels, each with a class and, where that is a thing, a number; class 0 is void."""
    blocks = np.ones((4, 4), np.int32)
    classes, numbers = rng.integers(0, 4, (count, 2, 2)), 1 + np.arange(4).reshape(2, 2)
    semantics = np.stack([np.kron(c, blocks) for c in classes])
    return semantics, np.where(np.isin(semantics, Items([]).things), np.kron(numbers, blocks), 0)


def panoptic_items(rng, semantics, instances, sizes):
    return [
        {"image": image(rng, size), "semantics": enlarged(s, size), "instances": enlarged(i, size)}
        for s, i, size in zip(semantics, instances, sizes, strict=True)
    ]


def test_panoptic_is_scored_at_the_size_of_each_truth():
    rng = np.random.default_rng(0)
    semantics, instances = panoptic_maps(rng, 4)
    items = panoptic_items(rng, semantics, instances, SIZES)
    scorer = PanopticScorer(Items(items), 4, 8)
    scorer.update({"semantics": semantics, "instances": instances}, items)
    measured = scorer.compute()
    assert all(measured[MetricKey(name)] == 1 for name in ("pq", "sq", "rq", "pq_things", "pq_stuff"))
    assert measured[MetricKey("images")] == 4 and measured[MAJORITY] < 0.9
    assert PANOPTIC.rows(scorer.shown.items, {"prediction": scorer.shown.maps}).shape[0] > 4 * 96
    scorer.update({"semantics": semantics[:1], "instances": instances[:1]}, items[1:2])
    assert scorer.compute()[MetricKey("pq")] < 1


def test_crowds_reach_the_metric():
    """Half of a crowd found as one segment is no mistake; of a single thing it is one, and the thing is missed."""
    semantics = np.full((1, 8, 8), 1, np.int32)
    semantics[:, :, 4:] = 3
    instances = np.where(semantics == 1, 5, 6)
    found = {"semantics": np.where(np.arange(8)[:, None] < 4, semantics, 0), "instances": instances}
    found["semantics"][:, :, 4:] = 3
    (item,) = panoptic_items(np.random.default_rng(0), semantics, instances, [(16, 24)])
    scores = []
    for crowd in (item["semantics"] == 1, np.zeros((16, 24), bool)):
        scorer = PanopticScorer(Items([item]), 1, 8)
        scorer.update(found, [item | {"crowd": crowd}])
        scores.append(scorer.compute()[MetricKey("pq")])
    assert scores == [1, 0.5]


def test_majority_map_equals_its_definition():
    rng = np.random.default_rng(0)
    train = panoptic_items(rng, *panoptic_maps(rng, 10), [(16, 24), (8, 8)] * 5)
    semantics, instances = panoptic_maps(rng, 5)
    items = panoptic_items(rng, semantics, instances, [*SIZES, (8, 8)])
    scorer = PanopticScorer(Items(train), 5, 8)
    scorer.update({"semantics": 0 * semantics, "instances": instances}, items)

    counts = np.zeros((8, 8, 4), int)
    for item in train[::2]:  # 5 of 10
        for y, x in np.ndindex(8, 8):
            counts[y, x, item["semantics"][2 * y, 3 * x]] += 1
    counts[..., 0] = 0  # void does not vote
    majority = np.argmax(counts, axis=-1)
    expected = PanopticQuality(4, (1, 2))
    for item in items:
        size = item["semantics"].shape
        guess = [[majority[y * 8 // size[0], x * 8 // size[1]] for x in range(size[1])] for y in range(size[0])]
        true = item["semantics"][None], item["instances"][None]
        expected.update(np.array([guess]), np.zeros((1, *size), int), *true)
    measured = scorer.compute()
    assert 0 < measured[MAJORITY] == expected.compute()["pq"]
    assert measured[MetricKey("pq")] == 0 and scorer.protocols() == {MAJORITY: {"training_images": 5}}


def test_files_of_a_prediction(tmp_path):
    ids = np.arange(35, dtype=np.int32).reshape(5, 7) // 12
    files = PANOPTIC.write(tmp_path / "a", {"semantics": ids, "instances": 2 * ids})
    assert files == [f"{tmp_path}/a_panoptic.png", f"{tmp_path}/a_panoptic.npz"]
    with np.load(files[1]) as maps:
        assert maps.keys() == {"semantics", "instances"} and maps["instances"].dtype == np.int32
        np.testing.assert_array_equal(maps["instances"], 2 * ids)
    assert Image.open(files[0]).size == (7, 5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((1, 6), "num_classes = 1 must be at least 2"),
        ((4, 1), "num_instances = 1 must be at least 2"),
        ((4, 6, 1.0), r"min_fraction = 1.0 must be in \[0, 1\)"),
    ],
)
def test_refused_fields(fields, message):
    with pytest.raises(ValueError, match=f"^task.{message}$"):
        PanopticTask(*fields)
