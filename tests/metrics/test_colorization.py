"""FID-5k of colorization: area resize against exact fractions, the published value range, errors of known images."""

import colorsys
import math
from fractions import Fraction

import numpy as np
import pytest

from fsq_repro.metrics.colorization import (
    ColourErrors,
    area_resize,
    colourfulness,
    coltran_crop,
    coltran_grey,
    coltran_prediction,
    read_names,
    select_by_name,
    to_coltran_range,
)


def random_images(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3)).astype(np.uint8)


def fraction_resize(image_HxW, size):
    """The average over each new pixel's area in exact fractions, one pixel at a time."""

    def overlaps(old):
        scale = Fraction(old, size)
        return [
            [max(Fraction(0), min(i + 1, (o + 1) * scale) - max(i, o * scale)) / scale for i in range(old)]
            for o in range(size)
        ]

    rows, columns = (overlaps(old) for old in image_HxW.shape)
    return [
        [
            sum(wy * wx * int(image_HxW[y, x]) for y, wy in enumerate(row) for x, wx in enumerate(column) if wy and wx)
            for column in columns
        ]
        for row in rows
    ]


@pytest.mark.parametrize(
    ("height", "width", "size"), [(8, 8, 4), (9, 6, 3), (11, 7, 4), (5, 5, 8), (3, 7, 5), (4, 4, 4), (1, 2, 3)]
)
def test_area_resize_equals_exact_fractions(height, width, size):
    image = random_images(height, width)
    resized = area_resize(image, size)
    assert resized.shape == (size, size, 3)
    for c in range(3):
        expected = fraction_resize(image[..., c], size)
        np.testing.assert_array_equal(resized[..., c], [[float(value) for value in row] for row in expected])
    floats = image / np.float32(128) - 1
    np.testing.assert_allclose(area_resize(floats, size), resized / 128 - 1, atol=1e-13)


def test_area_resize_of_the_kernels_own_example():
    # The comment of TensorFlow's resize_area_op.cc: four pixels to three, weights 1 and 1/3, 2/3 and 2/3, 1/3 and 1.
    row = np.array([0.0, 12.0, 60.0, 240.0])
    image = np.tile(row[None, :, None], (4, 1, 1))
    expected = 0.75 * np.array([row[0] + row[1] / 3, (row[1] + row[2]) * 2 / 3, row[2] / 3 + row[3]])
    np.testing.assert_allclose(area_resize(image, 3), np.tile(expected[None, :, None], (3, 1, 1)), rtol=1e-14)


def test_crop_takes_the_central_square_and_rounds_half_to_even():
    image = random_images(7, 12)
    np.testing.assert_array_equal(coltran_crop(image, 7), image[:, 2:9])  # (12 - 7) // 2, as TensorFlow crops
    np.testing.assert_array_equal(coltran_crop(image.swapaxes(0, 1), 7), image.swapaxes(0, 1)[2:9])
    square = random_images(6, 6, seed=1)
    expected = [[[round(v) for v in row] for row in fraction_resize(square[..., c], 3)] for c in range(3)]
    cropped = coltran_crop(square, 3)
    assert cropped.dtype == np.uint8
    np.testing.assert_array_equal(cropped, np.moveaxis(np.array(expected), 0, -1))
    ties = np.array([[0, 1], [0, 1]])  # mean 1/2, and 3/2 one higher
    for offset, rounded in ((0, 0), (1, 2)):
        tied = np.repeat((ties + offset)[..., None], 3, axis=-1).astype(np.uint8)
        np.testing.assert_array_equal(coltran_crop(tied, 1), np.full((1, 1, 3), rounded))


def test_value_range_is_the_published_one_and_inverts():
    values = np.arange(256).astype(np.uint8)
    signed = to_coltran_range(values)
    assert signed.dtype == np.float32
    assert (signed[0], signed[128], signed[255]) == (-1.0, 0.0, 127 / 128)
    np.testing.assert_array_equal(coltran_prediction(signed.reshape(16, 16, 1), 16).ravel(), values)
    # 1 is 256, which no byte holds; half a step goes to the even byte.
    one_pixel = np.array([1.0, -1.5, 3.0, 0.5 / 128, 1.5 / 128]).reshape(5, 1, 1, 1)
    np.testing.assert_array_equal(coltran_prediction(one_pixel, 1).ravel(), [255, 0, 255, 128, 130])


def test_grey_is_the_unrounded_luma():
    image = random_images(5, 4)
    luma = (image.astype(np.float64) * [0.2989, 0.587, 0.114]).sum(axis=-1) / 128 - 0.9999
    grey = coltran_grey(to_coltran_range(image))
    assert grey.dtype == np.float32 and grey.shape == image.shape
    np.testing.assert_allclose(grey, np.stack([luma] * 3, axis=-1), atol=1e-6)


def test_prediction_is_clipped_before_it_is_averaged():
    originals = random_images(2, 8, 8)
    images = to_coltran_range(originals)
    np.testing.assert_array_equal(coltran_prediction(images, 8), originals)
    means = images.astype(np.float64).reshape(2, 4, 2, 4, 2, 3).mean(axis=(2, 4))
    np.testing.assert_array_equal(coltran_prediction(images, 4), np.rint((means + 1) * 128))
    bright = np.zeros((2, 2, 3), np.float32)
    bright[0, 0] = 9  # counts as 1: a mean of 1/4
    np.testing.assert_array_equal(coltran_prediction(bright, 1), np.full((1, 1, 3), 160))
    assert coltran_prediction(np.zeros((1, 2, 2, 3))).shape == (1, 256, 256, 3)


def test_colourfulness_of_known_images():
    grey = np.repeat(random_images(2, 6, 6)[..., :1], 3, axis=-1)
    np.testing.assert_array_equal(colourfulness(grey), [0, 0])
    # One colour has no spread: red is (255, 127.5) from grey. Red and cyan halves: mean 0, spread the same distance.
    red = np.zeros((1, 2, 2, 3), np.uint8)
    red[..., 0] = 255
    both = red.copy()
    both[0, 1] = [0, 255, 255]
    distance = math.hypot(255, 127.5)
    np.testing.assert_allclose(colourfulness(np.concatenate([red, both])), [0.3 * distance, distance], rtol=1e-12)
    # Paler pictures of the same hues are less colourful.
    hues = np.linspace(0, 1, 64, endpoint=False)
    shades = [
        np.rint([[[255 * v for v in colorsys.hsv_to_rgb(h, s, 0.8)] for h in hues]]).astype(np.uint8)
        for s in (0.1, 0.3, 0.6, 1.0)
    ]
    assert (np.diff(colourfulness(np.stack(shades))) > 10).all()


def test_errors_equal_independent_ones_in_any_batches():
    originals, predictions = random_images(12, 6, 6), random_images(12, 6, 6, seed=1)
    predictions[:, :3] = 90
    whole, parts = ColourErrors(), ColourErrors()
    whole.update(predictions, originals)
    for part in (slice(8, 12), slice(0, 5), slice(5, 8)):
        parts.update(predictions[part], originals[part])
    error = (predictions.astype(np.float64) - originals) / 255
    assert whole.compute() == {
        "mse": pytest.approx((error**2).mean(), rel=1e-12),
        "colourfulness": pytest.approx(colourfulness(predictions).mean(), rel=1e-12),
        "colourfulness_originals": pytest.approx(colourfulness(originals).mean(), rel=1e-12),
    }
    assert parts.compute() == whole.compute()


def test_perfect_and_grey_predictions():
    originals = random_images(8, 4, 4)
    perfect, grey = ColourErrors(), ColourErrors()
    perfect.update(originals, originals)
    grey.update(np.repeat(originals[..., 1:2], 3, axis=-1), originals)
    assert perfect.compute()["mse"] == 0
    assert grey.compute()["colourfulness"] == 0 < grey.compute()["colourfulness_originals"]


def test_names_are_read_and_found_in_the_lists_order(tmp_path):
    path = tmp_path / "eval_file_names.txt"
    path.write_bytes(b"val_3.JPEG\r\n\nval_1.JPEG\n  \nval_7.JPEG")
    names = read_names(path)
    assert names == ["val_3.JPEG", "val_1.JPEG", "val_7.JPEG"]
    assert select_by_name((f"val_{i}.JPEG" for i in (9, 7, 1, 9, 3)), names) == [4, 2, 1]  # unwanted ones may repeat
    with pytest.raises(ValueError, match=r"^2 of 3 names are not in the split, the first is val_3.JPEG\.$"):
        select_by_name(["val_7.JPEG", "val_8.JPEG"], names)
    with pytest.raises(ValueError, match="items 0 and 2 are both val_1.JPEG"):
        select_by_name(["val_1.JPEG", "x", "val_1.JPEG"], names)


def test_bad_name_lists(tmp_path):
    with pytest.raises(ValueError, match=r"missing.txt must be a readable text file .*: No such file or directory\.$"):
        read_names(tmp_path / "missing.txt")
    path = tmp_path / "names.txt"
    for content, message in (
        (b" \n\n", "must name at least one image, it is empty"),
        (b"a\nb\na\n", "names a 2 times"),
        (b"\xff\xd8\xff\xe0", "it is not text"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_names(path)


def test_broken_predictions_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        coltran_prediction(np.full((2, 2, 3), np.nan), 2)
