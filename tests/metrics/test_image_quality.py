"""PSNR and SSIM against their formulas."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from fsq_repro.metrics.image_quality import MAX_PSNR_DB, psnr, ssim


def noisy_pair(seed=0, n=3, side=24):
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    b = np.clip(a + rng.normal(0, 20, a.shape), 0, 255).astype(np.uint8)
    return a, b


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
    with pytest.raises(ValueError, match="at least 11 px a side, got 8 x 8"):
        ssim(a[:, :8, :8], b[:, :8, :8])
