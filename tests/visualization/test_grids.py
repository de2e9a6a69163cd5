"""Rounding to bytes, PSNR, SSIM and pictures."""

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from fsq_repro.data.images import to_uint8, to_unit_float
from fsq_repro.metrics.image_quality import MAX_PSNR_DB, psnr, ssim
from fsq_repro.visualization.grids import class_grid, image_grid, reconstruction_grid, save_png


def noisy_pair(seed=0, n=3, side=24):
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    b = np.clip(a + rng.normal(0, 20, a.shape), 0, 255).astype(np.uint8)
    return a, b


def test_to_uint8_rounds_and_clips():
    x = np.array([-1.0, 0.0, 0.4 / 255, 0.6 / 255, 254.6 / 255, 1.0, 3.0], np.float32)
    np.testing.assert_array_equal(to_uint8(x), np.array([0, 0, 0, 1, 255, 255, 255], np.uint8))
    assert to_uint8(x).dtype == np.uint8


def test_bytes_survive_the_way_through_floats():
    bytes_ = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_uint8(to_unit_float(bytes_)), bytes_)
    assert to_unit_float(bytes_).dtype == np.float32


def test_to_uint8_takes_bfloat16_and_refuses_nonsense():
    import ml_dtypes

    assert to_uint8(np.ones((2, 2), ml_dtypes.bfloat16)).max() == 255
    with pytest.raises(ValueError, match="dtype uint8"):
        to_uint8(np.zeros(3, np.uint8))
    with pytest.raises(ValueError, match="not finite"):
        to_uint8(np.array([np.nan, 0.0]))


def test_psnr_of_each_image():
    a, b = noisy_pair()
    expected = [10 * np.log10(255**2 / np.mean((x.astype(float) - y) ** 2)) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(psnr(a, b), expected, rtol=1e-12)


def test_psnr_of_equal_images_is_capped_without_a_warning(recwarn):
    a, b = noisy_pair()
    b[1] = a[1]
    assert psnr(a, b)[1] == MAX_PSNR_DB
    assert np.isfinite(psnr(a, b)).all()
    assert not recwarn.list


def test_ssim_equals_the_formula_of_wang_et_al():
    a, b = noisy_pair()

    def blur(x):
        return gaussian_filter(x, 1.5, truncate=3.5)

    for x, y, value in zip(a.astype(float), b.astype(float), ssim(a, b), strict=True):
        channels = []
        for c in range(3):
            p, q = x[..., c], y[..., c]
            mp, mq = blur(p), blur(q)
            vp, vq, vpq = blur(p * p) - mp**2, blur(q * q) - mq**2, blur(p * q) - mp * mq
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            values = (2 * mp * mq + c1) * (2 * vpq + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2))
            channels.append(values[5:-5, 5:-5].mean())  # where the 11 px window lies inside the image
        assert value == pytest.approx(np.mean(channels), rel=1e-6)
    np.testing.assert_allclose(ssim(a, a), 1.0)


def test_image_quality_refusals():
    a, b = noisy_pair()
    with pytest.raises(ValueError, match="uint8"):
        psnr(a.astype(np.float32), b)
    with pytest.raises(ValueError, match="one .* shape"):
        ssim(a, b[:2])
    with pytest.raises(ValueError, match="at least 11 px a side, got 8 x 8"):
        ssim(a[:, :8, :8], b[:, :8, :8])


def test_grid_shows_every_pair_enlarged_original_above_reconstruction():
    colours = np.linspace(0, 250, 10).astype(np.uint8)
    originals = np.broadcast_to(colours[:, None, None, None], (10, 32, 32, 3)).copy()
    originals[..., 0] = 255
    reconstructions = originals.copy()
    reconstructions[..., 0] = 0
    grid = reconstruction_grid(originals, reconstructions)
    assert grid.dtype == np.uint8
    assert grid.shape == (4 * 96 + 2 * 4 + 3 * 8, 8 * 96 + 9 * 4, 3)  # two rows of pairs, eight columns
    centre = grid[8 + 48, 4 + 48 :: 100]  # middle of the top row of originals
    np.testing.assert_array_equal(centre[:8, 1], colours[:8])
    assert (centre[:8, 0] == 255).all()
    below = grid[8 + 96 + 4 + 48, 4 + 48 :: 100]
    np.testing.assert_array_equal(below[:8, 1], colours[:8])
    assert (below[:8, 0] == 0).all()


def test_grid_enlarges_without_interpolation_and_keeps_large_images():
    a, b = noisy_pair(n=1, side=48)
    np.testing.assert_array_equal(reconstruction_grid(a, b)[8 : 8 + 96 : 2, 4 : 4 + 96 : 2], a[0])
    a, b = noisy_pair(n=1, side=100)
    np.testing.assert_array_equal(reconstruction_grid(a, b)[8:108, 4:104], a[0])
    with pytest.raises(ValueError, match="N >= 1"):
        reconstruction_grid(a[:0], b[:0])


def test_png_round_trip(tmp_path):
    a, b = noisy_pair()
    grid = reconstruction_grid(a, b)
    save_png(tmp_path / "samples" / "grid.png", grid)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "samples" / "grid.png")), grid)
    assert [p.name for p in (tmp_path / "samples").iterdir()] == ["grid.png"]


def test_image_grid_places_enlarged_tiles_in_rows_of_eight():
    images = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 32, 32, 3), np.uint8)
    grid = image_grid(images)
    assert grid.shape == (2 * 100 + 4, 8 * 100 + 4, 3)  # 96 px tiles, gaps of 4
    for i in range(10):
        y, x = 4 + 100 * (i // 8), 4 + 100 * (i % 8)
        assert (grid[y : y + 96, x : x + 96] == i).all()
    assert (grid[104:, 204:] == 255).all()  # no tile there


def test_class_grid_has_a_row_a_class_and_a_block_a_group():
    def tiles(count, value):  # coloured, which the letters are not
        return np.broadcast_to(np.array([value, 0, 200], np.uint8), (count, 48, 48, 3))

    groups = {
        "real": np.stack([tiles(2, 40 + c) for c in range(3)]),
        "samples": [tiles(3, 80 + c) for c in range(3)],
    }
    picture = class_grid(("a", "a longer name", "c"), groups)
    rows, columns = {}, {}
    for value in (40, 41, 42, 80, 81, 82):
        y, x = np.nonzero((picture == (value, 0, 200)).all(axis=-1))
        assert len(y) == (2 if value < 80 else 3) * 96 * 96  # every tile whole, nothing over it
        rows[value], columns[value] = (y.min(), y.max()), (x.min(), x.max())
    assert all(rows[40 + c] == rows[80 + c] for c in range(3)) and rows[40][1] < rows[41][0]
    assert columns[40] == columns[42] and columns[40][1] < columns[80][0]
