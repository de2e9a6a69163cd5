"""Rounding to bytes and back."""

import numpy as np
import pytest

from fsq_repro.data.images import to_uint8, to_unit_float


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
