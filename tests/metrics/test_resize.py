"""The resize `clean` against a float64 oracle of Pillow's filter."""

import numpy as np
import pytest

from fsq_repro.metrics.resize import clean_resize


def drawn(n, height, width):
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def cubic(x):
    """Keys' interpolation kernel with a = -1/2, Pillow's."""
    x = np.abs(x)
    inner = 1.5 * x**3 - 2.5 * x**2 + 1
    outer = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, inner, np.where(x < 2, outer, 0.0))


def resize_matrix(old, new):
    """Row i: normalised weights of the source pixels about the centre (i + 0.5) old / new, the kernel widened by
    old / new where the image shrinks, and cut to the whole pixels that Pillow takes."""
    scale = old / new
    wide = max(scale, 1.0)
    rows = np.zeros((new, old))
    for i in range(new):
        centre = (i + 0.5) * scale
        first, last = max(0, int(centre - 2 * wide + 0.5)), min(old, int(centre + 2 * wide + 0.5))
        weights = cubic((np.arange(first, last) - centre + 0.5) / wide)
        rows[i, first:last] = weights / weights.sum()
    return rows


@pytest.mark.parametrize("height, width, side", [(9, 14, 5), (5, 4, 11), (16, 7, 8)])
def test_clean_resize_equals_a_float64_oracle(height, width, side):
    x = drawn(2, height, width)
    expected = np.einsum(
        "sh,bhwc,tw->bstc", resize_matrix(height, side), x.astype(np.float64), resize_matrix(width, side)
    )
    resized = clean_resize(x, side)
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, expected, atol=2e-4)


def test_clean_resize_keeps_overshoot_and_images_of_that_size():
    x = drawn(2, 12, 12)
    np.testing.assert_array_equal(clean_resize(x, 12), x)
    edge = np.zeros((1, 8, 8, 3), np.uint8)
    edge[:, :, 4:] = 255
    resized = clean_resize(edge, 32)
    assert resized.min() < -5 and resized.max() > 260
    checkers = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[None, :, :, None].repeat(3, axis=-1)
    np.testing.assert_allclose(clean_resize(checkers, 16)[:, 2:-2, 2:-2], 127.5, atol=2)  # antialiased
