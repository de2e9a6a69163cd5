"""Sets and reference files in any combination: the same metrics, honest names, and refusals before any work."""

import logging

import numpy as np
import pytest
from PIL import Image

from fsq_repro.metrics.frechet import Moments, frechet_distance
from fsq_repro.metrics.inception_score import InceptionScore
from fsq_repro.metrics.precision_recall import precision_recall
from fsq_repro.metrics.reference_statistics import write_reference
from fsq_repro.metrics.set_comparison import compare, distance_name, open_side
from fsq_repro.models.inception import PUBLISHED_SHA256

INCEPTION = {"feature_network": "inception", "feature_file_sha256": PUBLISHED_SHA256, "resize": "adm: bilinear"}


class ToyExtractor:
    """Colours of the corners, as if they were Inception's outputs."""

    batch_size, dim = 16, 6

    def __init__(self, protocol=INCEPTION):
        self.protocol = dict(protocol)
        self.seen = 0

    def __call__(self, images):
        self.seen += len(images)
        x = images.astype(np.float32) / 255
        corners = [x[:, i, j] for i in (0, -1) for j in (0, -1)]
        return {
            "pool": np.concatenate(corners[:2], axis=1),
            "spatial": np.concatenate(corners[2:], axis=1),
            "logits": 5 * np.concatenate(corners, axis=1),
        }


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FSQ_REPRO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Two sets as arrays, and as paths: folders, image files, and reference files with and without images."""
    root = tmp_path_factory.mktemp("sets")
    rng = np.random.default_rng(0)
    arrays = {"a": rng.integers(0, 200, (60, 5, 4, 3), dtype=np.uint8)}
    arrays["b"] = rng.integers(40, 256, (50, 5, 4, 3), dtype=np.uint8)
    for name, images in arrays.items():
        (root / name).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image).save(root / name / f"{i:03d}.png")
        np.savez(root / f"{name}.npz", images)
        x = ToyExtractor()(images)
        pool, spatial = Moments.of(x["pool"]), Moments.of(x["spatial"])
        write_reference(
            root / f"{name}_ref.npz", pool, spatial=spatial, images=open_side(root / name), protocol=INCEPTION
        )
        np.savez(root / f"{name}_mu.npz", mu=pool.mean, sigma=pool.covariance)
    return root, arrays


@pytest.mark.parametrize("a", ["a", "a.npz", "a_ref.npz", "a_mu.npz"])
@pytest.mark.parametrize("b", ["b", "b.npz", "b_ref.npz", "b_mu.npz"])
def test_any_combination_gives_the_same_metrics(sets, a, b):
    root, arrays = sets
    x, y = (ToyExtractor()(arrays[name]) for name in "ab")
    extractor = None if ("_" in a and "_" in b) else ToyExtractor()
    result = compare(open_side(root / a), open_side(root / b), extractor)
    assert result["value"] == pytest.approx(frechet_distance(Moments.of(x["pool"]), Moments.of(y["pool"])), rel=1e-9)
    known = a == "a_ref.npz" or b == "b_ref.npz" or extractor is not None  # else no file says which network
    count = "" if b == "b_mu.npz" else "-50"
    assert result["name"] == ("FID" if known else "FD") + count
    assert result["figures"][result["name"]] == result["value"]
    assert result["reference"]["count"] == (None if a == "a_mu.npz" else 60)
    assert result["samples"]["count"] == (None if b == "b_mu.npz" else 50)
    assert ("sFID-50" in result["figures"]) == ("_mu" not in a + b)
    if "_mu" not in a + b:
        expected = frechet_distance(Moments.of(x["spatial"]), Moments.of(y["spatial"]))
        assert result["figures"]["sFID-50"] == pytest.approx(expected, rel=1e-9)
    if "_" not in b:
        score = InceptionScore()
        score.update(y["logits"])
        assert result["figures"]["inception_score"] == pytest.approx(score.compute()["inception_score"], rel=1e-12)
    else:
        assert "inception_score" not in result["figures"]
    if extractor:
        assert extractor.seen == 60 * ("_" not in a) + 50 * ("_" not in b)  # nothing is looked at in vain
    assert result["protocol"] == (INCEPTION if known else {})


@pytest.mark.parametrize("a", ["a", "a_ref.npz"])
def test_precision_and_recall(sets, a):
    root, arrays = sets
    result = compare(open_side(root / a), open_side(root / "b.npz"), ToyExtractor(), with_precision_recall=True)
    expected = precision_recall(*(ToyExtractor()(arrays[name])["pool"] for name in "ab"))
    assert (result["figures"]["precision"], result["figures"]["recall"]) == expected
    assert result["reference"]["images"] == 60
    assert (
        result["reference"]["pixels_sha256"]
        == compare(open_side(root / "a"), open_side(root / "b"), ToyExtractor())["reference"]["pixels_sha256"]
    )


def test_the_distance_of_a_set_to_itself_is_zero(sets):
    root, _ = sets
    result = compare(open_side(root / "a"), open_side(root / "a.npz"), ToyExtractor())
    assert abs(result["value"]) < 1e-6 and abs(result["figures"]["sFID-60"]) < 1e-6
    assert result["reference"]["pixels_sha256"] == result["samples"]["pixels_sha256"]


def test_only_the_published_weights_give_fid_and_only_50000_samples_fid_50k():
    assert distance_name(INCEPTION, 50_000) == "FID-50k"
    assert distance_name(INCEPTION, 5_000) == "FID-5k"
    for count in (49_999, 50_001, 50, 500_000, 5_001):
        assert "FID-50k" not in distance_name(INCEPTION, count)
    assert distance_name(INCEPTION, 49_999) == "FID-49999"
    assert distance_name(INCEPTION, None) == "FID"
    assert distance_name(INCEPTION | {"resize": "clean: Pillow"}, 50_000) == "clean-FID-50k"
    assert distance_name(INCEPTION | {"feature_file_sha256": "0"}, 50_000) == "FD-inception-50k"
    assert distance_name({"feature_network": "alexnet"}, 300) == "FD-alexnet-300"
    assert distance_name({}, 300) == "FD-300"
    assert distance_name(INCEPTION, 50_000, spatial=True) == "sFID-50k"
    assert distance_name(INCEPTION | {"resize": "clean: Pillow"}, None, spatial=True) == "clean-sFID"


def test_refusals(sets, tmp_path):
    root, _ = sets

    def refused(message, a, b, extractor, **options):
        with pytest.raises(ValueError, match=message):
            compare(open_side(root / a), open_side(root / b), extractor, **options)
        assert extractor is None or extractor.seen == 0

    refused("a feature network must be named to compare images", "a", "b_ref.npz", None)
    other = ToyExtractor(INCEPTION | {"resize": "clean: Pillow"})
    refused("a_ref.npz is of resize 'adm: bilinear', but must be of 'clean: Pillow'", "a_ref.npz", "b", other)
    wide = ToyExtractor()
    wide.dim = 256
    refused("a_mu.npz has features of width 6, but must have 256 as the feature network", "a_mu.npz", "b", wide)
    refused(
        r"precision and recall need images \(arr_0\) in \S+a_mu.npz, it has none",
        "a_mu.npz",
        "b",
        ToyExtractor(),
        with_precision_recall=True,
    )
    with pytest.raises(ValueError, match="there is no file .*nothing"):
        open_side(tmp_path / "nothing")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(ValueError, match="text.npz cannot be read as an .npz file"):
        open_side(tmp_path / "text.npz")


def test_conversions_are_told_once_a_set(tmp_path, caplog):
    for i in range(5):
        Image.new("L" if i < 2 else "RGBA" if i < 3 else "RGB", (4, 5), 40 * i).save(tmp_path / f"{i}.png")
    with caplog.at_level(logging.WARNING):
        result = compare(open_side(tmp_path), open_side(tmp_path), ToyExtractor())
    assert [r.getMessage().split(": ", 1)[1] for r in caplog.records] == [
        "images that are not RGB are made so, transparency is laid on white: 2 grey, 1 RGBA"
    ] * 2  # of two sets
    assert result["samples"]["converted"] == {"grey": 2, "RGBA": 1}
