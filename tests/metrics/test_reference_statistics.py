"""Reference files: those of the published suites are read as they are, ours are read by them, damaged ones refused."""

import io
import json
import zipfile

import numpy as np
import pytest

from fsq_repro.metrics import reference_statistics
from fsq_repro.metrics.frechet import Moments, frechet_distance
from fsq_repro.metrics.image_sets import NpzImages
from fsq_repro.metrics.reference_statistics import holds_statistics, read_reference, write_reference


def features(n=40, d=6, seed=0):
    return np.random.default_rng(seed).gamma(1.0, 1.0, (n, d)).astype(np.float32)


def moments_of(x):
    moments = Moments()
    moments.update(x)
    return moments


def images(n=5):
    return np.random.default_rng(0).integers(0, 256, (n, 4, 3, 3), dtype=np.uint8)


def adm_file(path, **changes):
    """As the ADM suite writes them: means of float32 features are float32, np.cov gives float64."""
    x, spatial = features(), features(d=9, seed=1)
    arrays = {
        "mu": x.mean(axis=0),
        "sigma": np.cov(x, rowvar=False),
        "mu_s": spatial.mean(axis=0),
        "sigma_s": np.cov(spatial, rowvar=False),
        "arr_0": images(),
    }
    np.savez(path, **{k: v for k, v in (arrays | changes).items() if v is not None})
    return path


def test_the_adm_suites_file(tmp_path):
    path = adm_file(tmp_path / "VIRTUAL.npz")
    reference = read_reference(path)
    assert holds_statistics(path) and reference.has_images and reference.protocol == {}
    assert reference.pool.count is None  # it does not say
    assert reference.pool.mean.dtype == reference.pool.covariance.dtype == np.float64
    np.testing.assert_allclose(reference.pool.mean, features().mean(axis=0))
    np.testing.assert_array_equal(reference.pool.covariance, np.cov(features(), rowvar=False))
    np.testing.assert_array_equal(reference.spatial.covariance, np.cov(features(d=9, seed=1), rowvar=False))
    np.testing.assert_array_equal(np.concatenate(list(NpzImages(path).batches(2))), images())
    other = moments_of(features(seed=2))
    expected = frechet_distance(moments_of(features()), other)
    assert frechet_distance(reference.pool, other) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(other, reference.pool) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_pytorch_fids_file(tmp_path, save):
    x = features().astype(np.float64)
    save(tmp_path / "stats.npz", mu=x.mean(axis=0), sigma=np.cov(x, rowvar=False))
    reference = read_reference(tmp_path / "stats.npz")
    assert reference.spatial is None and not reference.has_images and reference.pool.count is None
    np.testing.assert_array_equal(reference.pool.mean, x.mean(axis=0))
    assert len(reference.file_sha256) == 64


def test_what_moments_save_is_a_reference_file(tmp_path):
    moments_of(features()).save(tmp_path / "moments.npz")
    reference = read_reference(tmp_path / "moments.npz")
    assert reference.pool.count == 40
    assert abs(frechet_distance(reference.pool, moments_of(features()))) < 1e-9


def test_ours_come_back_and_are_what_the_other_suites_expect(tmp_path):
    np.savez(tmp_path / "images.npz", images())
    pool, spatial = moments_of(features()), moments_of(features(d=9, seed=1))
    path = tmp_path / "sub" / "ref.npz"
    protocol = {"feature_network": "inception", "resize": "bilinear"}
    write_reference(path, pool, spatial=spatial, images=NpzImages(tmp_path / "images.npz"), protocol=protocol)
    reference = read_reference(path)
    assert reference.pool.count == reference.spatial.count == 40
    assert reference.protocol == protocol and reference.has_images
    for read, written in ((reference.pool, pool), (reference.spatial, spatial)):
        np.testing.assert_array_equal(read.mean, written.mean)
        np.testing.assert_array_equal(read.covariance, written.covariance)
    with np.load(path) as file:  # as both suites open it
        assert set(file.files) == {"mu", "sigma", "mu_s", "sigma_s", "arr_0", "count", "protocol"}
        np.testing.assert_array_equal(file["arr_0"], images())
        assert file["sigma"].shape == (6, 6) and file["mu_s"].shape == (9,)
        assert json.loads(str(file["protocol"])) == protocol
    assert [p.name for p in path.parent.iterdir()] == ["ref.npz"]

    write_reference(path, pool, protocol={})  # replaced, with less in it
    reference = read_reference(path)
    assert reference.spatial is None and not reference.has_images and reference.protocol == {}


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "ref.npz"
    write_reference(path, moments_of(features()), protocol={})
    before = path.read_bytes()

    class Failing:
        size = (4, 3)

        def __len__(self):
            return 5

        def batches(self, batch_size):
            yield images(2)
            raise ValueError("an image cannot be read")

    with pytest.raises(ValueError, match="an image cannot be read"):
        write_reference(path, moments_of(features()), images=Failing(), protocol={})
    with pytest.raises(ValueError, match="at least two images"):
        write_reference(path, moments_of(features(1)), protocol={})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["ref.npz"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"sigma": None}, "lacks the array sigma; it holds mu, mu_s, sigma_s, arr_0"),
        ({"mu": None}, "lacks the array mu"),
        ({"sigma_s": None}, "lacks the array sigma_s"),
        ({"sigma": np.eye(5)}, r"mu and sigma of \S+ must have shapes \(D,\) and \(D, D\), got \(6,\) and \(5, 5\)"),
        ({"mu": np.float64(1), "sigma": np.eye(1)}, r"got \(\) and \(1, 1\)"),
        ({"sigma": np.full((6, 6), np.nan)}, "sigma of .* must hold finite floats, got float64"),
        ({"mu": np.arange(6)}, "mu of .* must hold finite floats, got int64"),
        ({"sigma": np.triu(np.ones((6, 6)))}, "symmetric with a diagonal of at least 0, its halves differ by 1 "),
        ({"sigma": -np.eye(6)}, "its smallest variance is -1"),
        ({"mu": np.array([{}] * 6, dtype=object)}, "no readable array mu"),
        ({"count": 1}, "count of .* must be a whole number of at least 2, got 1"),
        ({"count": 2.5}, "got 2.5"),
        ({"protocol": "no JSON"}, "protocol of .* must be a JSON object, got 'no JSON'"),
        ({"protocol": "[1]"}, "must be a JSON object"),
    ],
)
def test_refused_files(tmp_path, changes, message):
    path = adm_file(tmp_path / "x.npz", **changes)
    assert holds_statistics(path)
    with pytest.raises(ValueError, match=message):
        read_reference(path)


def test_arrays_that_claim_too_much_are_refused_before_they_are_read(tmp_path, monkeypatch):
    path = adm_file(tmp_path / "x.npz")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**15,)})
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (members | {"mu.npy": header.getvalue()}).items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match="x.npz has no readable array mu: it ends before its last value"):
        read_reference(path)
    monkeypatch.setattr(reference_statistics, "MAX_BYTES", 400)
    with pytest.raises(ValueError, match=r"the array sigma of .*x.npz must have at most 400 bytes, it has \d+"):
        read_reference(adm_file(path))


def test_truncated_damaged_and_foreign_files(tmp_path):
    path = adm_file(tmp_path / "x.npz")
    content = path.read_bytes()
    for share in (0, 0.3, 0.99):
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(ValueError, match="x.npz cannot be read as an .npz file"):
            read_reference(path)
    damaged = bytearray(content)
    damaged[content.index(features().mean(axis=0).tobytes())] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="x.npz cannot be read as an .npz file: Bad CRC-32"):
        read_reference(path)
    with pytest.raises(ValueError, match="there is no file"):
        holds_statistics(tmp_path / "nothing.npz")
    np.savez(path, images())
    assert not holds_statistics(path)
