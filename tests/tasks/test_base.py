"""What holds for every task: prepared batches, perfect outputs, sizes and columns."""

import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.data.dense_labels import MAX_DEPTH, MIN_DEPTH
from fsq_repro.data.transforms import flip
from fsq_repro.tasks.registry import TASKS as REGISTRY
from tests.tasks.helpers import BINS, DEPTH, PANOPTIC, TASKS, batch
from tests.tiny import DenseNoiseSource


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.name)
def test_prepared_batches(task):
    prepared, labels = task.prepare(batch()), dict(task.labels)
    assert prepared.keys() == {"context"} | labels.keys()
    shapes = task.prepared_shapes(4, 16)
    assert {k: (x.shape, x.dtype) for k, x in prepared.items()} == {k: (x.shape, x.dtype) for k, x in shapes.items()}
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


@pytest.mark.parametrize("task", [DEPTH, PANOPTIC], ids=lambda t: t.name)
def test_labelled_tasks_see_the_image_in_colour(task):
    np.testing.assert_allclose(task.prepare(batch())["context"], 2 * batch()["image"] - 1, atol=1e-6)


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


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.name)
def test_compared_runs_have_a_column_each(task):
    items = [DenseNoiseSource()[i] for i in range(3)]
    maps = [item | {"color": item["image"]} for item in items]
    one, two = (task.rows(items, {title: maps for title in titles}) for titles in ("A", "AB"))
    column = two.shape[1] - one.shape[1]
    assert column > 96 and one.shape[0] == two.shape[0] > 3 * 96
    # The same maps: the second column, below its title, is the first one again.
    np.testing.assert_array_equal(two[30:, -column:], two[30:, -2 * column : -column])


def test_the_registry_has_every_task_by_its_name():
    assert {name: kind.name for name, kind in REGISTRY.items()} == {task.name: task.name for task in TASKS}


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.name)
def test_published_labels_keep_their_values_in_a_mirror(task):
    item = DenseNoiseSource()[0]
    for name, value in task.flip(item).items():
        np.testing.assert_array_equal(value, flip(item)[name])


@pytest.mark.parametrize("task", [DEPTH, PANOPTIC], ids=lambda t: t.name)
def test_maps_are_resized_to_the_nearest_pixel(task):
    maps = {"a": np.arange(6).reshape(2, 3), "b": np.arange(18).reshape(2, 3, 3)}
    for name, x in task.resized(maps, (6, 6)).items():
        np.testing.assert_array_equal(x, maps[name].repeat(3, axis=0).repeat(2, axis=1))
