"""Features of sets: padding and devices change nothing, moments are of the features, resizes have their places."""

import hashlib

import jax
import numpy as np
import pytest

from fsq_repro.data.images import to_unit_float
from fsq_repro.metrics import feature_extraction
from fsq_repro.metrics.feature_extraction import FeatureExtractor, load_extractor, measure
from fsq_repro.metrics.frechet import frechet_distance
from fsq_repro.metrics.image_sets import NpzImages
from fsq_repro.metrics.resize import clean_resize
from fsq_repro.models.feature_networks import load_feature_network
from fsq_repro.models.inception import InceptionNetwork, InceptionOutputs


class ToyInception(InceptionNetwork):
    """Its features are colours of an image, whatever its size."""

    def apply(self, params, images):
        small = jax.image.resize(images, (len(images), 4, 4, 3), "nearest").reshape(len(images), -1)
        return InceptionOutputs(small[:, :5] * params, small[:, 5:8], 9 * small[:, 8:12])


def drawn(n=11, seed=0, height=16, width=16):
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def npz(path, images):
    np.savez(path, images)
    return NpzImages(path)


def test_features_do_not_depend_on_padding_or_devices():
    assert len(jax.local_devices()) == 4
    network, x = load_feature_network("alexnet"), drawn(7, height=64, width=64)
    alone = np.asarray(jax.jit(network.apply)(network.params, to_unit_float(x)))
    extractor = FeatureExtractor(network, batch_size=6)
    assert extractor.batch_size == 8 and extractor.dim == 256
    spread = extractor(x)
    assert spread.keys() == {"pool"} and spread["pool"].dtype == np.float32
    np.testing.assert_allclose(spread["pool"], alone, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(extractor(x[:3])["pool"], spread["pool"][:3], rtol=1e-6)
    more = np.concatenate([x, x[::-1], x[:5]])  # 19 images, three batches
    expected = np.concatenate([alone, alone[::-1], alone[:5]])
    np.testing.assert_allclose(extractor(more)["pool"], expected, rtol=1e-4, atol=1e-5)


def test_distances_on_four_devices_equal_those_on_one(tmp_path, monkeypatch):
    network, sets = load_feature_network("alexnet"), [npz(tmp_path / f"{i}.npz", drawn(24, i)) for i in range(2)]
    values = []
    for devices in (jax.local_devices(), jax.local_devices()[:1]):
        monkeypatch.setattr(jax, "local_devices", lambda devices=devices: devices)
        extractor = FeatureExtractor(network, batch_size=16)
        values.append(frechet_distance(*(measure(x, extractor)[0].pool for x in sets)))
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_what_is_measured(tmp_path):
    x = drawn(11)
    network = ToyInception("adm", "0" * 64, np.float32(2.0))
    extractor = FeatureExtractor(network, batch_size=4)
    statistics, pixels_sha256 = measure(npz(tmp_path / "x.npz", x), extractor, keep_features=True)
    outputs = network.apply(network.params, to_unit_float(x))
    np.testing.assert_allclose(statistics.features_NxD, outputs.pool_3, rtol=1e-6)
    np.testing.assert_allclose(statistics.pool.mean, np.mean(outputs.pool_3, axis=0), rtol=1e-6)
    np.testing.assert_allclose(statistics.pool.covariance, np.cov(outputs.pool_3, rowvar=False), rtol=1e-4)
    np.testing.assert_allclose(statistics.spatial.covariance, np.cov(outputs.spatial, rowvar=False), rtol=1e-4)
    assert statistics.score.compute()["inception_score"] > 1
    assert pixels_sha256 == hashlib.sha256(x.tobytes()).hexdigest()

    plain, _ = measure(npz(tmp_path / "x.npz", x), load_extractor("alexnet", batch_size=64))
    assert plain.pool.count == 11 and plain.spatial is None and plain.score is None


def test_the_clean_resize_stands_before_the_networks_own():
    x = drawn(3, height=7, width=9)
    network = ToyInception("adm", "0" * 64, np.float32(1.0))
    clean = FeatureExtractor(network, batch_size=4, clean=True)
    expected = network.apply(network.params, clean_resize(x, 299) / np.float32(255))
    np.testing.assert_allclose(clean(x)["spatial"], expected.spatial, rtol=1e-6)
    assert clean.protocol["resize"].startswith("clean: ")
    assert FeatureExtractor(network, batch_size=4).protocol["resize"].startswith("adm: ")


def test_load_extractor(monkeypatch):
    asked = []

    def load(name, path, resize):
        asked.append((name, path, resize))
        return ToyInception(resize, "0" * 64, np.float32(1.0))

    monkeypatch.setattr(feature_extraction, "load_feature_network", load)
    for resize in (None, "adm", "clean", "pytorch-fid"):
        load_extractor("inception", path="x.pth", resize=resize, batch_size=4)
    assert [resize for _, _, resize in asked] == ["adm", "adm", "adm", "pytorch-fid"]
    assert {(name, path) for name, path, _ in asked} == {("inception", "x.pth")}
    with pytest.raises(ValueError, match="inception needs its weight file"):
        load_extractor("inception", batch_size=4)
    with pytest.raises(ValueError, match="alexnet has a resize of its own, resize must be left out, got clean"):
        load_extractor("alexnet", resize="clean", batch_size=4)


def test_a_set_that_loses_images_is_refused(tmp_path, monkeypatch):
    images = npz(tmp_path / "x.npz", drawn(5))
    whole = images.batches
    monkeypatch.setattr(images, "batches", lambda size: (b[1:] for b in whole(size)))
    with pytest.raises(ValueError, match="x.npz gave 4 images, it has 5"):
        measure(images, load_extractor("alexnet", batch_size=8))
