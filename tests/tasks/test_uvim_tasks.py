"""UViM's tasks against NumPy: what they prepare, what they cost, what they predict; and the sources they refuse."""

import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.data.dense_labels import MAX_DEPTH, MIN_DEPTH
from fsq_repro.factories import label_autoencoder as label_autoencoder_factory
from fsq_repro.tasks.uvim_tasks import ColorizationTask, DepthTask, PanopticTask
from tests.tiny import DenseNoiseSource, make_dense_noise, tiny_uvim

BINS = 8
TASKS = [DepthTask(BINS), ColorizationTask(), PanopticTask(4, 6)]


def batch(size: int = 4) -> dict[str, np.ndarray]:
    """A batch as the pipeline gives it."""
    source = DenseNoiseSource()
    items = [source[i] for i in range(size)]
    stacked = {name: np.stack([item[name] for item in items]) for name in items[0]}
    return stacked | {"image": stacked["image"].astype(np.float32) / 255}


def random_outputs(task, size: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: 3 * rng.standard_normal((size, 16, 16, K)).astype(np.float32) for name, K in task.labels}


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    chosen = np.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return np.log(np.exp(logits).sum(-1)) - chosen


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.name)
def test_prepared_batches(task):
    prepared, labels = task.prepare(batch()), dict(task.labels)
    assert prepared.keys() == {"context"} | labels.keys()
    assert prepared["context"].shape == (4, 16, 16, 3)
    assert all(np.abs(x).max() <= 1 for x in prepared.values() if x.dtype == np.float32)
    inputs = task.inputs(prepared)
    assert {name: (x.shape, x.dtype) for name, x in inputs.items()} == {
        name: ((4, 16, 16, channels), jnp.float32) for name, channels in labels.items()
    }
    for name, x in inputs.items():
        if prepared[name].dtype == np.int32:
            assert np.all(np.sort(x, axis=-1)[..., :-1] == 0) and np.all(np.max(x, axis=-1) == 1)
            np.testing.assert_array_equal(np.argmax(x, axis=-1), prepared[name])
        else:
            np.testing.assert_array_equal(x, prepared[name])


@pytest.mark.parametrize("task", [TASKS[0], TASKS[2]], ids=lambda t: t.name)
def test_labelled_tasks_see_the_image_in_colour(task):
    np.testing.assert_allclose(task.prepare(batch())["context"], 2 * batch()["image"] - 1, atol=1e-6)


def test_colorization_sees_the_grey_and_learns_the_colour():
    prepared, image = ColorizationTask().prepare(batch()), batch()["image"]
    np.testing.assert_allclose(prepared["color"], 2 * image - 1, atol=1e-6)
    luma = 2 * (image @ np.array([0.299, 0.587, 0.114])) - 1
    np.testing.assert_allclose(prepared["context"], np.stack([luma] * 3, -1), atol=0.02)
    assert np.array_equal(prepared["context"][..., 0], prepared["context"][..., 2])


def test_depth_loss_leaves_out_bin_0_but_not_from_the_mean():
    task = TASKS[0]
    prepared, outputs = task.prepare(batch()), random_outputs(task)
    unmeasured = prepared["depth"] == 0
    assert unmeasured[:, 0].all() and 0 < unmeasured.mean() < 0.5
    loss_B, terms = task.loss(outputs, prepared)
    expected = np.where(unmeasured, 0, cross_entropy(outputs["depth"], prepared["depth"])).sum((1, 2)) / 16**2
    np.testing.assert_allclose(loss_B, expected, rtol=1e-5)
    np.testing.assert_array_equal(terms["depth"], loss_B)


def test_color_loss_is_the_mean_square():
    task = TASKS[1]
    prepared, outputs = task.prepare(batch()), random_outputs(task)
    loss_B, terms = task.loss(outputs, prepared)
    error = outputs["color"].astype(np.float64) - prepared["color"]
    np.testing.assert_allclose(loss_B, (error**2).mean((1, 2, 3)), rtol=1e-5)
    np.testing.assert_array_equal(terms["color"], loss_B)


def test_panoptic_loss_is_the_sum_of_both_heads():
    task = TASKS[2]
    prepared, outputs = task.prepare(batch()), random_outputs(task)
    loss_B, terms = task.loss(outputs, prepared)
    expected = {name: cross_entropy(outputs[name], prepared[name]).mean((1, 2)) for name, _ in task.labels}
    assert terms.keys() == expected.keys() == {"semantics", "instances"}
    for name, term_B in terms.items():
        np.testing.assert_allclose(term_B, expected[name], rtol=1e-5)
    np.testing.assert_allclose(loss_B, sum(expected.values()), rtol=1e-5)


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.name)
def test_perfect_outputs_cost_nothing_and_predict_the_labels(task):
    raw = batch()
    prepared = task.prepare(raw)
    scale = 1.0 if task.name == "colorization" else 100.0
    outputs = {name: scale * x for name, x in task.inputs(prepared).items()}
    np.testing.assert_allclose(task.loss(outputs, prepared)[0], 0, atol=1e-6)
    maps = task.predict(outputs)
    if task.name == "depth":
        width = (MAX_DEPTH - MIN_DEPTH) / BINS
        np.testing.assert_allclose(maps["depth"], MIN_DEPTH + width * (prepared["depth"] + 0.5), rtol=1e-6)
        measured = raw["depth"] > 0
        assert np.abs(maps["depth"] - raw["depth"])[measured].max() <= width / 2 * 1.00001
    elif task.name == "colorization":
        np.testing.assert_allclose(maps["color"], raw["image"], atol=1e-6)
    else:
        np.testing.assert_array_equal(maps["semantics"], raw["semantics"])
        np.testing.assert_array_equal(maps["instances"], prepared["instances"])


def test_predicted_colours_stay_in_range():
    outputs = random_outputs(TASKS[1])
    colors = np.asarray(TASKS[1].predict(outputs)["color"])
    assert np.abs(outputs["color"]).max() > 3 and colors.min() == 0 and colors.max() == 1
    np.testing.assert_allclose(colors, (np.clip(outputs["color"], -1, 1) + 1) / 2, atol=1e-6)


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
        TASKS[2].prepare(many)
    assert PanopticTask(4, 8).prepare(many)["instances"].max() == 7


def test_heads_of_another_number_of_classes_than_the_source_are_refused(monkeypatch):
    monkeypatch.setattr(label_autoencoder_factory, "make_dense_source", make_dense_noise)
    config = tiny_uvim(1, task="panoptic")
    assert label_autoencoder_factory.build_source(config, "train").num_semantics == 4
    config.task.num_classes = 5
    with pytest.raises(ValueError, match="task.num_classes = 5, but dense_noise has 4 classes, void included"):
        label_autoencoder_factory.build_source(config, "train")
