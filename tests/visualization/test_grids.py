"""Pictures: every tile where it belongs, and PNG files."""

import numpy as np
from PIL import Image

from fsq_repro.visualization.grids import class_grid, image_grid, reconstruction_grid, save_png


def noisy_pair(seed=0, n=3, side=24):
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    b = np.clip(a + rng.normal(0, 20, a.shape), 0, 255).astype(np.uint8)
    return a, b


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
