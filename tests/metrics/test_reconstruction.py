"""The one-pass evaluation with a fake quantizer: padding, counts, and every metric against an independent one."""

import hashlib

import numpy as np
import pytest

from fsq_repro.metrics.frechet import Moments, frechet_distance
from fsq_repro.metrics.image_quality import psnr, ssim
from fsq_repro.metrics.reconstruction import evaluate_reconstructions

LEVELS = (3, 4)


def split(n=22, side=16):
    return np.random.default_rng(0).random((n, side, side, 3), dtype=np.float32)


def padded_batches(images, size=8):
    """Batches of one size; the last is filled with images that must not count."""
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        mask = np.arange(size) < len(batch)
        padding = np.full((size - len(batch), *images.shape[1:]), 0.123, np.float32)
        yield {"image": np.concatenate([batch, padding]), "mask": mask}


def reconstruct(images):
    """Four grey levels an image quadrant decide its token; the picture comes back darker, and out of range."""
    means = images.reshape(len(images), 2, 8, 2, 8, 3).mean(axis=(2, 4, 5))
    indices = np.clip((means - 0.45) * 120, 0, 10).astype(np.int32)
    indices[np.isclose(means, 0.123)] = 11  # padding has a code of its own
    return images * 1.3 - 0.2, indices


def features(images):
    assert images.dtype == np.uint8
    images = images / np.float32(255)
    return np.stack([images.mean(axis=(1, 2, 3)), images.std(axis=(1, 2, 3))], axis=1)


def evaluate(images, **changes):
    arguments = {"expected_count": len(images), "codebook_size": 12, "levels": LEVELS} | changes
    return evaluate_reconstructions(reconstruct, {"two": features}, padded_batches(images), **arguments)


def test_every_metric_equals_one_computed_at_once():
    images = split()
    result = evaluate(images)
    original = np.rint(images * 255).astype(np.uint8)
    rounded = np.rint(np.clip(images * 1.3 - 0.2, 0, 1) * 255).astype(np.uint8)
    assert result.values["psnr"] == pytest.approx(psnr(original, rounded).mean())
    assert result.values["ssim"] == pytest.approx(ssim(original, rounded).mean())
    mse = np.mean((original / 255.0 - rounded / 255.0) ** 2)
    assert result.values["mse"] == pytest.approx(mse, rel=1e-5)
    indices = reconstruct(images)[1]
    assert result.tokens_sha256 == hashlib.sha256(indices.astype("<i4").tobytes()).hexdigest()
    codes, counts = np.unique(indices, return_counts=True)
    assert 11 not in codes  # the padding's code
    assert result.values["codes_used"] == len(codes)
    assert result.values["tokens"] == counts.sum() == 22 * 4
    x = features(rounded).astype(np.float64)
    assert result.statistics["two"].pool.count == 22
    np.testing.assert_allclose(result.statistics["two"].pool.mean, x.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(result.statistics["two"].pool.covariance, np.cov(x, rowvar=False), rtol=1e-4)
    assert [sum(h) for h in result.level_facts["level_histograms"]] == [88, 88]
    assert [len(h) for h in result.level_facts["level_histograms"]] == [3, 4]
    first = result.level_facts["level_histograms"][0]
    assert result.level_facts["saturation"][0] == pytest.approx((first[0] + first[2]) / 88)
    np.testing.assert_array_equal(result.originals, original[:16])
    np.testing.assert_array_equal(result.reconstructions, rounded[:16])


def test_batch_size_changes_nothing():
    images = split()
    whole = evaluate_reconstructions(
        reconstruct, {"two": features}, padded_batches(images, 22), expected_count=22, codebook_size=12
    )
    parts = evaluate_reconstructions(
        reconstruct, {"two": features}, padded_batches(images, 5), expected_count=22, codebook_size=12
    )
    assert whole.values == pytest.approx(parts.values, rel=1e-12)
    np.testing.assert_allclose(
        whole.statistics["two"].pool.covariance, parts.statistics["two"].pool.covariance, rtol=1e-9
    )
    assert whole.level_facts == {"level_histograms": None, "saturation": None}


def test_a_perfect_model_is_at_no_distance():
    images = split()
    result = evaluate_reconstructions(
        lambda image: (image, np.zeros((len(image), 1), np.int32)),
        {"two": features},
        padded_batches(images),
        expected_count=22,
        codebook_size=2,
    )
    reference = Moments.of(features(np.rint(images * 255).astype(np.uint8)))
    assert abs(frechet_distance(result.statistics["two"].pool, reference)) < 1e-12
    assert result.values["mse"] == 0 and result.values["psnr"] == 100


@pytest.mark.parametrize("expected", [21, 23, 24])
def test_a_wrong_count_is_refused(expected):
    with pytest.raises(ValueError, match=f"saw 22 images, the split has {expected}"):
        evaluate(split(), expected_count=expected)


def test_broken_models_are_refused():
    images = split(4)

    def run(function):
        return evaluate_reconstructions(function, {}, padded_batches(images), expected_count=4, codebook_size=12)

    with pytest.raises(ValueError, match="in 0..11, got values from 12 to 12"):
        run(lambda x: (x, np.full((len(x), 2), 12)))
    with pytest.raises(ValueError, match="not finite"):
        run(lambda x: (x * np.nan, np.zeros((len(x), 2), np.int32)))
