"""Feature networks as evaluations use them: cached references and reference files."""

import numpy as np
import pytest

from configs import tradeoff_maskgit
from fsq_repro.data.cache import cache_dir
from fsq_repro.data.choice import chosen_indices
from fsq_repro.errors import UserError
from fsq_repro.factories import scorers
from fsq_repro.metrics import scoring
from fsq_repro.metrics.class_agreement import ClassProbe
from fsq_repro.metrics.feature_extraction import FeatureExtractor
from fsq_repro.metrics.feature_statistics import POOL, SPATIAL
from fsq_repro.metrics.frechet import Moments
from fsq_repro.metrics.reference_statistics import write_reference
from fsq_repro.metrics.scoring import Scorer
from tests.metrics.test_feature_extraction import ToyInception
from tests.tiny import NoiseSource


@pytest.fixture
def scorer(monkeypatch, tmp_path):
    """A toy in Inception's place, its cache empty; `scorer.passes` counts the batches that it has looked at."""

    def load(name, *, path, resize, batch_size):
        network = ToyInception("pytorch-fid" if resize == "pytorch-fid" else "adm", "0" * 64, np.float32(2.0))
        object.__setattr__(network, "dim", 5)
        return FeatureExtractor(network, batch_size=batch_size, clean=resize == "clean")

    monkeypatch.setattr(scoring, "load_extractor", load)
    monkeypatch.setenv("FSQ_REPRO_CACHE", str(tmp_path / "cache"))
    return Scorer("inception", resolution=16, batch_size=8, weights="x.pth")


def images_of(source):
    return np.stack([source[i]["image"] for i in range(len(source))])


def test_references_are_those_of_all_images_and_made_once(scorer, monkeypatch):
    source = NoiseSource(21, fingerprint="a")
    expected = scorer.outputs(images_of(source))
    assert expected[POOL].shape == (21, 5) and expected[SPATIAL].shape == (21, 3)
    for kind in (POOL, SPATIAL):
        found, wanted = scorer.reference_moments(source, kind), Moments.of(expected[kind])
        assert found.count == 21
        np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-6)
        np.testing.assert_allclose(found.covariance, wanted.covariance, rtol=1e-5)
    strided = cache_dir() / "reference_features" / f"{scorer._key(source)}-7.npy"  # of an older version: another choice
    strided.parent.mkdir(parents=True)
    np.save(strided, np.zeros((7, 5), np.float32))
    np.testing.assert_allclose(scorer.reference_features(source, 7), expected[POOL][chosen_indices(21, 7)], rtol=1e-6)
    assert len(scorer.reference_features(source, 100)) == 21

    monkeypatch.setattr(scoring, "measure", None)  # from here on all must come from the cache
    assert scorer.reference_moments(source, SPATIAL).count == 21
    assert len(scorer.reference_features(source, 7)) == 7
    for other in (NoiseSource(21, fingerprint="b"), NoiseSource(21, split="validation", fingerprint="a")):
        with pytest.raises(TypeError):
            scorer.reference_moments(other)
    for resize in ("pytorch-fid", "clean"):  # another resize, other features
        with pytest.raises(TypeError):
            Scorer("inception", resolution=16, batch_size=8, resize=resize).reference_moments(source)


def test_reference_files_are_taken_where_they_fit(scorer, tmp_path):
    rng = np.random.default_rng(0)
    pool, spatial = (Moments.of(rng.normal(size=(9, d))) for d in (5, 3))
    np.savez(tmp_path / "published.npz", mu=pool.mean, sigma=pool.covariance)
    assert scorer.reference_file(str(tmp_path / "published.npz")).pool.count is None
    write_reference(tmp_path / "ours.npz", pool, spatial=spatial, protocol=scorer.protocol)
    assert scorer.reference_file(str(tmp_path / "ours.npz")).spatial.count == 9
    wide = Moments.of(rng.normal(size=(9, 6)))
    write_reference(tmp_path / "wide.npz", wide, protocol={})
    assert scorer.reference_file(str(tmp_path / "wide.npz")) is None
    write_reference(tmp_path / "alexnet.npz", pool, protocol={"feature_network": "alexnet"})
    assert scorer.reference_file(str(tmp_path / "alexnet.npz")) is None
    write_reference(tmp_path / "clean.npz", pool, protocol=scorer.protocol | {"resize": "clean"})
    with pytest.raises(ValueError, match="clean.npz has resize 'clean', but must have 'adm: "):
        scorer.reference_file(str(tmp_path / "clean.npz"))

    config = tradeoff_maskgit.get_config("quantizer=fsq,bits=10")
    assert scorers.build_reference_files(config, [scorer]) == {}
    config.eval.reference_file = str(tmp_path / "ours.npz")
    assert scorers.build_reference_files(config, [scorer])["inception"].spatial.count == 9
    config.eval.reference_file = str(tmp_path / "wide.npz")
    with pytest.raises(ValueError, match=r"eval.reference_file = '\S+wide.npz' is of none of the networks inception"):
        scorers.build_reference_files(config, [scorer])


def test_inceptions_weights_are_asked_for(caplog, tmp_path):
    config = tradeoff_maskgit.get_config("quantizer=fsq,bits=10")
    with pytest.raises(UserError, match=r"need Inception's weights, pytorch-fid's \S+.pth: set eval.inception"):
        scorers.build_scorers(config, 16)
    assert config.eval.networks == ("inception",)
    scorers.check_inception(config)
    assert "eval.inception is empty: the evaluation will need scripts/evaluate.py --inception=FILE" in caplog.text
    config.eval.inception = str(tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"eval.inception = '\S+x.pth' is no file"):
        scorers.check_inception(config)


@pytest.mark.parametrize(
    "damage", [lambda _: b"", lambda c: c[: len(c) // 2], lambda c: b"\0" * len(c), lambda c: c[:-1]]
)
def test_damaged_files_of_the_cache_are_made_again(scorer, damage, caplog):
    source = NoiseSource(21, fingerprint="a")

    def everything():
        moments = [scorer.reference_moments(source, kind) for kind in (POOL, SPATIAL)]
        probe = scorer.class_probe(source, 21)
        return [*(m.mean for m in moments), scorer.reference_features(source, 7), probe.weights_DxC]

    expected = everything()
    files = [f for f in cache_dir().rglob("*.np*")]
    assert len(files) == 4
    for file in files:
        file.write_bytes(damage(file.read_bytes()))
    for found, wanted in zip(everything(), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert all(
        f"{file} is damaged and made again" in caplog.text for file in files if file.parent.name != "reference_moments"
    )


def test_a_classifier_is_made_once_for_its_images_and_its_penalty(scorer, monkeypatch):
    source = NoiseSource(21, fingerprint="a")
    labels = np.array([source[i]["label"] for i in range(21)])
    made = scorer.class_probe(source, 100)
    expected = ClassProbe.fit(scorer.features(images_of(source)), labels)
    np.testing.assert_allclose(made.weights_DxC, expected.weights_DxC, rtol=1e-6)
    monkeypatch.setattr(scoring, "measure", None)  # from here on all must come from the cache
    np.testing.assert_array_equal(scorer.class_probe(source, 100).weights_DxC, made.weights_DxC)
    for change in ({"count": 7}, {"source": NoiseSource(21, fingerprint="b")}):
        with pytest.raises(TypeError):
            scorer.class_probe(**{"source": source, "count": 100} | change)
    monkeypatch.setattr(scoring, "PENALTY", 0.5)
    with pytest.raises(TypeError):
        scorer.class_probe(source, 100)
