"""Colorization: what is seen and learned, its range, its files."""

import numpy as np
import pytest
from PIL import Image

from tests.tasks.helpers import COLORIZATION, batch, random_outputs
from tests.tiny import DenseNoiseSource


def test_colorization_sees_the_grey_and_learns_the_colour():
    prepared, image = COLORIZATION.prepare(batch()), batch()["image"]
    np.testing.assert_allclose(prepared["color"], 2 * image - 1, atol=1e-6)
    luma = 2 * (image @ np.array([0.299, 0.587, 0.114])) - 1
    np.testing.assert_allclose(prepared["context"], np.stack([luma] * 3, -1), atol=0.02)
    assert np.array_equal(prepared["context"][..., 0], prepared["context"][..., 2])


def test_color_loss_is_the_mean_square():
    task = COLORIZATION
    prepared, outputs = task.prepare(batch()), random_outputs(task)
    loss_B, terms = task.loss(outputs, prepared)
    error = outputs["color"].astype(np.float64) - prepared["color"]
    np.testing.assert_allclose(loss_B, (error**2).mean((1, 2, 3)), rtol=1e-5)
    np.testing.assert_array_equal(terms["color"], loss_B)


def test_predicted_colours_stay_in_range():
    outputs = random_outputs(COLORIZATION)
    colors = np.asarray(COLORIZATION.predict(outputs)["color"])
    assert np.abs(outputs["color"]).max() > 3 and colors.min() == 0 and colors.max() == 1
    np.testing.assert_allclose(colors, (np.clip(outputs["color"], -1, 1) + 1) / 2, atol=1e-6)


def test_validation_images_keep_their_aspect():
    image = np.zeros((16, 32, 3), np.uint8)
    image[:, 8:24] = DenseNoiseSource()[0]["image"]
    np.testing.assert_array_equal(COLORIZATION.eval_transform({"image": image}, 16)["image"], image[:, 8:24])


def test_predictions_of_a_picture_are_bytes_and_a_file(tmp_path):
    maps = COLORIZATION.resized({"color": np.full((8, 8, 3), 9 / 255, np.float32)}, (5, 7))
    np.testing.assert_array_equal(maps["color"], np.full((5, 7, 3), 9, np.uint8))
    assert COLORIZATION.write(tmp_path / "b", maps) == [f"{tmp_path}/b_color.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b_color.png")), maps["color"])


def test_one_list_without_the_other_is_refused_before_training():
    for given in ({"eval_names": "a.txt", "reference_names": ""}, {"eval_names": "", "reference_names": "a.txt"}):
        with pytest.raises(ValueError, match="must both be given or both be empty"):
            COLORIZATION.check_evaluation(given)
    for path in ("", "a.txt"):
        COLORIZATION.check_evaluation({"eval_names": path, "reference_names": path})
