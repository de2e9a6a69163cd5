"""PSNR and SSIM of byte images, per image, by scikit-image."""

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

# An image returned exactly has no error to take the logarithm of; one flat crop must not decide a mean.
MAX_PSNR_DB = 100.0
SSIM_WINDOW = 11  # pixels: Gaussian of sigma 1.5 cut at 3.5 sigma


def psnr(originals_BxHxWxC: np.ndarray, reconstructions_BxHxWxC: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of each uint8 image in dB, float64 (B,), for peak 255, at most `MAX_PSNR_DB`."""
    pairs = zip(originals_BxHxWxC, reconstructions_BxHxWxC, strict=True)
    with np.errstate(divide="ignore"):  # identical images: infinite, hence the cap
        values = [peak_signal_noise_ratio(a, b, data_range=255) for a, b in pairs]
    return np.minimum(np.asarray(values, dtype=np.float64), MAX_PSNR_DB)


def ssim(originals_BxHxWxC: np.ndarray, reconstructions_BxHxWxC: np.ndarray) -> np.ndarray:
    """Structural similarity of each uint8 image, float64 (B,), averaged over channels.

    The settings of Wang et al. 2004: Gaussian window of sigma 1.5, population covariance, data range 255. ValueError
    for a side below `SSIM_WINDOW` pixels.
    """
    height, width = originals_BxHxWxC.shape[1:3]
    if min(height, width) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs images of at least {SSIM_WINDOW} px a side, got {height} x {width}.")
    published = dict(data_range=255, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    pairs = zip(originals_BxHxWxC, reconstructions_BxHxWxC, strict=True)
    return np.asarray([structural_similarity(a, b, **published) for a, b in pairs], dtype=np.float64)
