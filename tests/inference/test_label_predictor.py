"""Predictions for pictures of any size: what goes in, what comes out, and that batches make no difference."""

import pathlib
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from fsq_repro.data.transforms import bilinear_resize
from fsq_repro.factories import label_autoencoder as label_autoencoder_factory
from fsq_repro.inference.label_predictor import LabelPredictor, load_label_predictor
from fsq_repro.tasks.colorization import ColorizationTask
from fsq_repro.tasks.depth import DepthTask
from fsq_repro.trainers.code_predictor import CodePredictorTrainer
from fsq_repro.trainers.label_autoencoder import LabelAutoencoderTrainer
from tests.tiny import make_dense_noise, save_untrained_uvim, tiny_uvim


def random_init(trainer_class):
    """`init_state` with noise on every parameter: the heads start at zero, which predicts the same for all images."""
    initial = trainer_class.init_state

    def init_state(self, rng):
        noise, state = np.random.default_rng(0), initial(self, rng)
        noisy = jax.tree.map(lambda x: x + noise.normal(0, 0.3, x.shape).astype(np.float32), state.params)
        return state.replace(params=noisy)

    return init_state


def random_depth_runs(root: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Run directories of both stages of depth, with random weights; made once below `root`."""
    stage1, stage2 = root / "random_depth_stage1", root / "random_depth"
    if not stage2.exists():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(label_autoencoder_factory, "make_dense_source", make_dense_noise)
            for trainer_class in (LabelAutoencoderTrainer, CodePredictorTrainer):
                patch.setattr(trainer_class, "init_state", random_init(trainer_class))
            save_untrained_uvim(stage1, tiny_uvim(1))
            save_untrained_uvim(stage2, tiny_uvim(2, stage1=stage1))
    return stage1, stage2


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return random_depth_runs(tmp_path_factory.getbasetemp())


def pictures(*sizes):
    rng = np.random.default_rng(0)
    small = [Image.fromarray(rng.integers(0, 256, (3, 3, 3), dtype=np.uint8)) for _ in sizes]
    return [
        np.asarray(picture.resize(size[::-1], Image.Resampling.BICUBIC))
        for picture, size in zip(small, sizes, strict=True)
    ]


def test_batches_make_no_difference(runs):
    """Nine pictures in batches of 8, split over four devices, in batches of 2, which are not, and single ones."""
    predictor = load_label_predictor(runs[1])
    images = pictures(*[(10 + 3 * i, 31 - 2 * i) for i in range(9)])
    together = [maps["depth"] for maps in predictor.predict(images)]
    assert [depth.shape for depth in together] == [image.shape[:2] for image in images]
    assert len({depth.tobytes() for depth in together}) == 9 and together[0].dtype == np.float32
    assert all(0.001 < depth.min() <= depth.max() < 10 for depth in together)
    in_pairs = LabelPredictor(predictor.trainer, predictor.params, step=8, batch_size=2)
    for one, other in zip(together, in_pairs.predict(images), strict=True):
        np.testing.assert_array_equal(one, other["depth"])
    for i in (0, 8):
        (alone,) = predictor.predict([images[i]])
        np.testing.assert_array_equal(alone["depth"], together[i])


class FakeTrainer:
    """Codes are drawn from each image's key; colour and depth are the context's, so that they show what went in."""

    model = SimpleNamespace(image_size=8, patch_size=4)

    def __init__(self, task):
        predict_with = lambda frozen, codes, x: {"color": (x + 1) / 2, "codes": codes, "depth": x[..., 0]}  # noqa: E731
        self.coder = SimpleNamespace(task=task, variables={}, predict_with=predict_with)

    def predict_codes(self, params, context, keys_B):
        return jax.vmap(lambda key: jax.random.randint(key, (2, 3), 0, 1000))(keys_B)


def test_colour_sees_grey_and_comes_as_bytes():
    images = pictures((9, 4), (8, 8), (5, 17))
    predictor = LabelPredictor(FakeTrainer(ColorizationTask()), {}, step=1, batch_size=2)
    for image, maps in zip(images, predictor.predict(images), strict=True):
        color = maps["color"]
        assert color.dtype == np.uint8 and color.shape == image.shape
        assert (color[..., :1] == color).all()
        if image.shape == (8, 8, 3):
            luma = 255.5 / 255 * (image.astype(np.float64) @ [0.2989, 0.587, 0.114])
            np.testing.assert_allclose(color[..., 0], np.floor(luma + 1e-9), atol=0)


def test_the_model_sees_the_resized_image_and_its_maps_are_resized_back():
    images = pictures((16, 24), (8, 8))
    predictor = LabelPredictor(FakeTrainer(DepthTask(bins=8)), {}, step=1, batch_size=4)
    for image, maps in zip(images, predictor.predict(images), strict=True):
        red = bilinear_resize(image, 8)[..., 0].astype(np.float32) / 255 * 2 - 1
        expected = np.kron(red, np.ones((image.shape[0] // 8, image.shape[1] // 8)))
        np.testing.assert_allclose(maps["depth"], expected, atol=1e-6)


def test_each_image_draws_from_a_key_of_its_own():
    trainer, context = FakeTrainer(DepthTask(bins=8)), np.zeros((6, 8, 8, 3), np.float32)
    predictor = LabelPredictor(trainer, {}, step=1, batch_size=6)
    codes = predictor.predict_prepared(context, np.arange(6))["codes"]
    assert len({c.tobytes() for c in codes}) == 6
    np.testing.assert_array_equal(predictor.predict_prepared(context[:2], np.array([4, 1]))["codes"], codes[[4, 1]])
    assert (predictor.predict_prepared(context, np.arange(6), seed=1)["codes"] != codes).any(axis=(1, 2)).all()
    # `predict` counts images over its batches.
    in_pairs = LabelPredictor(trainer, {}, step=1, batch_size=2).predict(pictures(*[(2 * 4, 2 * 3)] * 5))
    drawn = [maps["codes"] for maps in in_pairs]
    nearest = [c[np.ix_(np.arange(8) // 4, np.arange(6) // 2)] for c in codes[:5]]
    np.testing.assert_array_equal(drawn, nearest)


@pytest.mark.parametrize("size", [(3, 9), (9, 3)])
def test_a_picture_smaller_than_a_patch(size):
    predictor = LabelPredictor(FakeTrainer(ColorizationTask()), {}, step=1, batch_size=2)
    with pytest.raises(
        ValueError, match=f"image 2 of [0-9]+ has {size[0]} x {size[1]} pixels, .* at least 4 x 4, the size of"
    ):
        next(predictor.predict(pictures((4, 4), size)))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.zeros((8, 8, 3), np.float32), "float32 (8, 8, 3)"),
        (np.zeros((8, 8), np.uint8), "uint8 (8, 8)"),
        (np.zeros((8, 8, 4), np.uint8), "uint8 (8, 8, 4)"),
    ],
)
def test_a_picture_that_is_none(bad, words):
    predictor = LabelPredictor(FakeTrainer(ColorizationTask()), {}, step=1, batch_size=2)
    with pytest.raises(ValueError) as e:
        next(predictor.predict([*pictures((8, 8)), bad]))
    assert str(e.value) == f"image 2 of 2 is {words}, but must be uint8 (h, w, 3)"
