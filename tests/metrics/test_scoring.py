"""Feature networks as evaluations use them: cached references, reference files, and the figures of samples."""

import numpy as np
import pytest

from configs import tradeoff_maskgit
from fsq_repro.errors import UserError
from fsq_repro.evaluation.maskgit import Drawn, sampling_figures
from fsq_repro.factories import scorers
from fsq_repro.metrics import scoring
from fsq_repro.metrics.feature_extraction import FeatureExtractor
from fsq_repro.metrics.frechet import Moments, frechet_distance
from fsq_repro.metrics.image_sets import NpzImages
from fsq_repro.metrics.inception_score import InceptionScore
from fsq_repro.metrics.precision_recall import precision_recall
from fsq_repro.metrics.reference_statistics import write_reference
from fsq_repro.metrics.scoring import POOL, SPATIAL, Scorer, make_scorers
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


def moments_of(x):
    moments = Moments()
    moments.update(x)
    return moments


def test_references_are_those_of_all_images_and_made_once(scorer, monkeypatch):
    source = NoiseSource(21, fingerprint="a")
    expected = scorer.outputs(images_of(source))
    assert expected[POOL].shape == (21, 5) and expected[SPATIAL].shape == (21, 3)
    for kind in (POOL, SPATIAL):
        found, wanted = scorer.reference_moments(source, kind), moments_of(expected[kind])
        assert found.count == 21
        np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-6)
        np.testing.assert_allclose(found.covariance, wanted.covariance, rtol=1e-5)
    np.testing.assert_allclose(scorer.reference_features(source, 7), expected[POOL][::3], rtol=1e-6)
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
    pool, spatial = (moments_of(rng.normal(size=(9, d))) for d in (5, 3))
    np.savez(tmp_path / "published.npz", mu=pool.mean, sigma=pool.covariance)
    assert scorer.reference_file(str(tmp_path / "published.npz")).pool.count is None
    write_reference(tmp_path / "ours.npz", pool, spatial=spatial, protocol=scorer.protocol)
    assert scorer.reference_file(str(tmp_path / "ours.npz")).spatial.count == 9
    wide = moments_of(rng.normal(size=(9, 6)))
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


def test_figures_of_samples(scorer, tmp_path):
    train, samples = NoiseSource(40, fingerprint="a"), images_of(NoiseSource(70))[40:]
    x, real = scorer.outputs(samples), scorer.outputs(images_of(train))
    drawn = Drawn()
    for start in range(0, 30, 8):
        drawn.update({name: values[start : start + 8] for name, values in x.items()})

    def measure(file):
        figures = sampling_figures(scorer, drawn, train, 20, file, {"samples": 30})
        assert all(f["protocol"].keys() >= {"samples", "feature_network", "resize"} for f in figures.values())
        return {name: f["value"] for name, f in figures.items()}, figures

    plain, protocols = measure(None)
    assert plain["sfd_inception_train"] == pytest.approx(
        frechet_distance(moments_of(x[POOL]), moments_of(real[POOL])), rel=1e-6
    )
    assert plain["spatialfd_inception_train"] == pytest.approx(
        frechet_distance(moments_of(x[SPATIAL]), moments_of(real[SPATIAL])), rel=1e-6
    )
    score = InceptionScore()
    score.update(x["logits"])
    assert plain["inception_score_inception"] == pytest.approx(score.compute()["inception_score"], rel=1e-12)
    expected = precision_recall(real[POOL][::2], x[POOL])
    assert (plain["precision_inception"], plain["recall_inception"]) == expected
    assert protocols["recall_inception"]["protocol"]["reference"] == "noise/train"
    assert protocols["recall_inception"]["protocol"]["reference_count"] == 20

    np.savez(tmp_path / "x.npz", images_of(train)[:25])
    write_reference(
        tmp_path / "ref.npz",
        moments_of(real[POOL]),
        spatial=moments_of(real[SPATIAL]),
        images=NpzImages(tmp_path / "x.npz"),
        protocol={},
    )
    with_file, protocols = measure(scorer.reference_file(str(tmp_path / "ref.npz")))
    for name in ("sfd_inception", "spatialfd_inception"):
        assert with_file[f"{name}_file"] == pytest.approx(plain[f"{name}_train"], rel=1e-6)
        assert protocols[f"{name}_file"]["protocol"]["reference"] == "ref.npz"
    expected = precision_recall(real[POOL][:25], x[POOL])
    assert (with_file["precision_inception"], with_file["recall_inception"]) == expected
    assert protocols["recall_inception"]["protocol"]["reference"] == "ref.npz"


def test_inceptions_weights_are_asked_for(caplog, tmp_path):
    with pytest.raises(UserError, match=r"need Inception's weights, pytorch-fid's \S+.pth: set eval.inception"):
        make_scorers(("alexnet", "inception"), resolution=16, batch_size=8, inception="", inception_resize="adm")
    config = tradeoff_maskgit.get_config("quantizer=fsq,bits=10")
    assert config.eval.networks == ("inception",)
    scorers.check_inception(config)
    assert "eval.inception is empty: the evaluation will need scripts/evaluate.py --inception=FILE" in caplog.text
    config.eval.inception = str(tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"eval.inception = '\S+x.pth' is no file"):
        scorers.check_inception(config)
