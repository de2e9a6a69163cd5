"""Random batches fit the shapes and the numbers of classes that a config's networks have."""

import jax
import numpy as np

from fsq_repro.profiling.abstract import build_abstract
from fsq_repro.profiling.random_inputs import class_counts, random_batch, random_weights
from tests.tiny import tiny_config, tiny_stage2, tiny_uvim


def batch_of(config, stage1=None, seed=0):
    shapes = build_abstract(config, stage1).batch
    batch = random_batch(shapes, class_counts(config), seed)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), batch) == jax.tree.map(lambda x: (x.shape, x.dtype), shapes)
    return batch


def test_images_labels_tokens_and_dense_labels():
    image = batch_of(tiny_config())["image"]
    assert 0 <= image.min() < 0.01 and 0.99 < image.max() < 1
    stage2 = tiny_stage2("", "quantizer=fsq,bits=4")
    stage2.batch_size = 64
    batch = batch_of(stage2, tiny_config("quantizer=fsq,bits=4"))
    assert set(np.unique(batch["tokens"])) == set(range(15)) and set(batch["label"]) == {0, 1}  # levels (5, 3)
    depth = batch_of(tiny_uvim(1))
    (labels,) = (x for name, x in depth.items() if name != "context")
    assert set(np.unique(labels)) == set(range(8))
    panoptic = batch_of(tiny_uvim(1, task="panoptic"))
    assert {len(np.unique(x)) for name, x in panoptic.items() if name != "context"} == {4, 6}
    colours = batch_of(tiny_uvim(1, task="colorization"))
    assert all(x.dtype == np.float32 for x in colours.values())


def test_the_seed_decides():
    shapes = {"image": jax.ShapeDtypeStruct((2, 3), "float32")}
    first, second = (random_batch(shapes, {}, seed)["image"] for seed in (0, 1))
    np.testing.assert_array_equal(first, random_batch(shapes, {}, 0)["image"])
    assert (first != second).any()


def test_weights_keep_activations_in_range():
    kernel, counts = random_weights([jax.ShapeDtypeStruct(s, "float32") for s in ((3, 3, 64, 32), (500,))])
    assert abs(np.std(kernel) * np.sqrt(9 * 64) - 1) < 0.02
    assert kernel.dtype == counts.dtype == np.float32 and counts.min() >= 0 and counts.max() < 1
