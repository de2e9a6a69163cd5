import numpy as np
import pytest

from fsq_repro.data import transforms


def bicubic_matrix(size: int, target: int) -> np.ndarray:
    """Weights (target, size) of antialiased bicubic resampling (a = -0.5), written down from its definition."""
    scale = size / target
    stretch = max(scale, 1.0)
    centres = (np.arange(target) + 0.5) * scale
    x = np.abs((np.arange(size) + 0.5)[None] - centres[:, None]) / stretch
    inner = 1.5 * x**3 - 2.5 * x**2 + 1
    outer = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = np.where(x < 1, inner, np.where(x < 2, outer, 0))
    return weights / weights.sum(axis=1, keepdims=True)


def box_matrix(size: int) -> np.ndarray:
    """Weights (size / 2, size) that average neighbours."""
    return np.eye(size // 2).repeat(2, axis=1) / 2


def apply(rows: np.ndarray, columns: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Resamples across, then down, each pass rounded to 8 bits as Pillow stores it."""
    x = np.floor(np.einsum("ab,cbd->cad", columns, x) + 0.5).clip(0, 255)
    return np.floor(np.einsum("ab,bcd->acd", rows, x) + 0.5).clip(0, 255)


def adm_oracle(image: np.ndarray, resolution: int) -> np.ndarray:
    """ADM's preparation with explicit weights: halve by 2 x 2 means, bicubic to the short side, centre crop."""
    x = image.astype(np.float64)
    while min(x.shape[:2]) >= 2 * resolution:
        assert x.shape[0] % 2 == x.shape[1] % 2 == 0
        x = apply(box_matrix(x.shape[0]), box_matrix(x.shape[1]), x)
    scale = resolution / min(x.shape[:2])
    h, w = round(x.shape[0] * scale), round(x.shape[1] * scale)
    x = apply(bicubic_matrix(x.shape[0], h), bicubic_matrix(x.shape[1], w), x)
    top, left = (h - resolution) // 2, (w - resolution) // 2
    return x[top : top + resolution, left : left + resolution]


def smooth_image(rng, height, width):
    coarse = rng.uniform(0, 255, (height // 8 + 2, width // 8 + 2, 3))
    fine = coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    return (fine + rng.uniform(-20, 20, fine.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "height, width, resolution",
    [(100, 60, 32), (256, 384, 64), (40, 96, 32), (20, 30, 32), (500, 376, 128), (63, 64, 32), (33, 32, 32)],
)
def test_adm_resize_equals_the_definition(height, width, resolution):
    image = smooth_image(np.random.default_rng(height), height, width)
    got = transforms.adm_resize(image, resolution)
    assert got.shape == (resolution, resolution, 3) and got.dtype == np.uint8
    # Pillow's weights are fixed-point: a value within 1e-4 of a rounding edge may fall to the other side.
    error = np.abs(got - adm_oracle(image, resolution))
    assert error.max() <= 1 and error.mean() < 0.005


def test_adm_resize_by_hand():
    """A 4 x 8 image to 2 px: one halving, no bicubic change, the middle two of four columns."""
    image = np.zeros((4, 8, 3), np.uint8)
    image[:2, 2:4], image[:2, 4:6], image[2:, 2:4] = 100, [[40, 0, 8]], 200
    image[0, 4] = [80, 0, 8]
    got = transforms.adm_resize(image, 2)
    np.testing.assert_array_equal(got, [[[100] * 3, [50, 0, 8]], [[200] * 3, [0] * 3]])


def test_an_image_of_the_right_size_is_untouched():
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    assert transforms.adm_resize(image, 32) is image


def coordinate_item(height, width):
    """An item whose dense labels say where each pixel lies."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([y * 255 // height, x * 255 // width, 0 * y], -1).astype(np.uint8)
    return {
        "image": image,
        "depth": (y + x / 1000).astype(np.float32),
        "semantics": y.astype(np.int32),
        "instances": x.astype(np.int32),
        "crowd": (x + y) % 2 == 0,
        "label": np.int32(7),
    }


def assert_labels_fit_the_image(item, height, width, tolerance):
    y, x = item["semantics"], item["instances"]
    np.testing.assert_allclose(item["depth"], (y + x / 1000).astype(np.float32))
    np.testing.assert_array_equal(item["crowd"], (x + y) % 2 == 0)
    np.testing.assert_allclose(item["image"][..., 0], y * 255 / height, atol=tolerance)
    np.testing.assert_allclose(item["image"][..., 1], x * 255 / width, atol=tolerance)
    assert item["label"] == 7


def test_flip_mirrors_all_keys_alike():
    item = coordinate_item(8, 8)
    flipped = transforms.flip(item)
    assert (flipped["instances"][:, 0] == 7).all() and (flipped["semantics"] == item["semantics"]).all()
    assert_labels_fit_the_image(flipped, 8, 8, tolerance=1)
    for key, value in transforms.flip(flipped).items():
        np.testing.assert_array_equal(value, item[key])


@pytest.mark.parametrize("height, width", [(100, 160), (90, 50)])
def test_center_crop_keeps_labels_with_the_image(height, width):
    item = transforms.center_crop(coordinate_item(height, width), 32)
    assert item["depth"].shape == item["semantics"].shape == (32, 32)
    # A label comes from within one source pixel of the image's sampling point.
    assert_labels_fit_the_image(item, height, width, tolerance=2 * 255 / min(height, width) + 1)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("draw_box", [transforms.draw_crop_box, transforms.draw_inception_box])
def test_random_crops_keep_labels_with_the_image(draw_box, antialias):
    for seed in range(20):
        box = draw_box(np.random.default_rng(seed), 120, 80, 0.3, (3 / 4, 4 / 3))
        item = transforms.resized_crop(coordinate_item(120, 80), box, 32, antialias=antialias)
        assert item["image"].shape == (32, 32, 3)
        assert_labels_fit_the_image(item, 120, 80, tolerance=2 * 255 / 80 + 1)


def test_crop_boxes_have_the_promised_area_and_aspect():
    rng = np.random.default_rng(0)
    boxes = np.array([transforms.draw_crop_box(rng, 400, 400, 0.3, (3 / 4, 4 / 3)) for _ in range(2000)])
    left, top, right, bottom = boxes.T
    assert (left >= 0).all() and (top >= 0).all() and (right <= 400).all() and (bottom <= 400).all()
    w, h = right - left, bottom - top
    assert (w * h / 160_000).min() > 0.29 and 0.55 < (w * h / 160_000).mean() < 0.66
    assert (w / h).min() > 0.74 and (w / h).max() < 1.35
    assert abs(np.log(w / h).mean()) < 0.02


def test_an_image_too_thin_for_any_box_gives_its_centre():
    rng = np.random.default_rng(0)
    assert transforms.draw_crop_box(rng, 10, 100, 0.8, (3 / 4, 4 / 3)) == (43, 0, 56, 10)
    assert transforms.draw_crop_box(rng, 100, 10, 0.8, (3 / 4, 4 / 3)) == (0, 43, 10, 56)


def bilinear_matrix(size: int, target: int) -> np.ndarray:
    """Weights (target, size) of bilinear interpolation at the target's pixel centres, written down as tents."""
    x = ((np.arange(target) + 0.5) * size / target - 0.5).clip(0, size - 1)
    return np.maximum(0, 1 - np.abs(x[:, None] - np.arange(size)[None]))


@pytest.mark.parametrize(
    "height, width, resolution", [(48, 64, 32), (33, 70, 32), (20, 9, 77), (1, 5, 8), (3, 2, 2100)]
)
def test_bilinear_resize_equals_the_definition(height, width, resolution):
    """Truncated, not rounded; exact whole numbers stay; the largest size no longer fits into 32 bits."""
    image = np.random.default_rng(height).integers(0, 256, (height, width, 1), np.uint8)
    image[:, -1] = 255
    rows, columns = bilinear_matrix(height, resolution), bilinear_matrix(width, resolution)
    exact = (rows @ image[..., 0].astype(np.float64) @ columns.T)[..., None]
    got = transforms.bilinear_resize(image, resolution)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, np.floor(exact + 1e-8))


def test_bilinear_resize_by_hand():
    """Weights of 1/4, 1/2 and 3/4; 3.75 becomes 3, a constant of any value stays."""
    ramp = np.array([0, 5, 10], np.uint8)[None, :, None]
    np.testing.assert_array_equal(transforms.bilinear_resize(ramp, 6)[0, :, 0], [0, 1, 3, 6, 8, 10])
    np.testing.assert_array_equal(transforms.bilinear_resize(ramp, 1), [[[5]]])
    for value in range(256):
        assert (transforms.bilinear_resize(np.full((5, 3, 1), value, np.uint8), 7) == value).all()


@pytest.mark.parametrize("height, width", [(100, 160), (90, 50), (20, 24)])
def test_plain_resize_keeps_labels_with_the_whole_image(height, width):
    item = transforms.plain_resize(coordinate_item(height, width), 32)
    assert item["image"].shape == (32, 32, 3) and item["depth"].shape == item["crowd"].shape == (32, 32)
    assert_labels_fit_the_image(item, height, width, tolerance=255 / min(height, width) + 1)
    # Nothing is cut off: the borders of the original are less than an output pixel away.
    assert item["semantics"][-1, 0] > height - 1 - height / 32 and item["instances"][0, -1] > width - 1 - width / 32
    assert transforms.plain_resize(item, 32) is item


def test_inception_boxes_are_tensorflows():
    """Uniform aspect; for one aspect, uniform heights among those that fit."""
    rng = np.random.default_rng(0)
    boxes = np.array([transforms.draw_inception_box(rng, 400, 2000, 0.01, (0.75, 1.33)) for _ in range(4000)])
    left, top, right, bottom = boxes.T
    w, h = right - left, bottom - top
    assert (left >= 0).all() and (top >= 0).all() and (right < 2000).all() and (bottom <= 400).all()
    assert (bottom[h < 400] < 400).all()  # the last place is never drawn
    aspect = w / h
    assert aspect.min() > 0.74 and aspect.max() < 1.34 and abs(aspect.mean() - 1.04) < 0.01
    assert (w * h).min() >= 0.01 * 800_000
    square = h[np.abs(aspect - 1) < 0.02]  # heights from sqrt(0.01 * 800,000) = 89 to 400
    np.testing.assert_allclose(np.quantile(square, [0, 0.25, 0.5, 0.75, 1]), [89, 167, 245, 322, 400], atol=25)


def test_inception_boxes_of_images_too_thin_or_small():
    rng = np.random.default_rng(0)
    assert transforms.draw_inception_box(rng, 10, 100, 0.8, (3 / 4, 4 / 3)) == (0, 0, 100, 10)
    assert transforms.draw_inception_box(rng, 1, 1, 0.05, (0.75, 1.33)) == (0, 0, 1, 1)
    for _ in range(200):
        left, top, right, bottom = transforms.draw_inception_box(rng, 3, 5, 0.05, (0.75, 1.33))
        assert 0 <= left < right <= 5 and 0 <= top < bottom <= 3
