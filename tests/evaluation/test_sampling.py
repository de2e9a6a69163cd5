"""Metrics of samples against those computed at once, with a toy in Inception's place."""

import numpy as np
import pytest

from fsq_repro.data.choice import chosen_indices
from fsq_repro.evaluation.sampling import sampling_metrics
from fsq_repro.metrics.feature_statistics import POOL, SPATIAL, FeatureStatistics
from fsq_repro.metrics.frechet import Moments, frechet_distance
from fsq_repro.metrics.image_sets import NpzImages
from fsq_repro.metrics.inception_score import InceptionScore
from fsq_repro.metrics.precision_recall import precision_recall
from fsq_repro.metrics.reference_statistics import write_reference
from tests.metrics.test_scoring import images_of, scorer  # noqa: F401
from tests.tiny import NoiseSource


def test_metrics_of_samples(scorer, tmp_path):  # noqa: F811
    train, samples = NoiseSource(40, fingerprint="a"), images_of(NoiseSource(70))[40:]
    x, real = scorer.outputs(samples), scorer.outputs(images_of(train))
    drawn = FeatureStatistics(keep_features=True)
    for start in range(0, 30, 8):
        drawn.update({name: values[start : start + 8] for name, values in x.items()})

    def measure(file):
        measured = sampling_metrics(scorer, drawn, train, 20, file, {"samples": 30})
        assert all(m.protocol.keys() >= {"samples", "feature_network", "resize"} for m in measured.values())
        assert {key.network for key in measured} == {"inception"} and all(key.is_main for key in measured)
        return {(key.metric, key.reference): m for key, m in measured.items()}

    plain = measure(None)
    assert plain["sampling_fd", "train"].value == pytest.approx(
        frechet_distance(Moments.of(x[POOL]), Moments.of(real[POOL])), rel=1e-6
    )
    assert plain["spatial_fd", "train"].value == pytest.approx(
        frechet_distance(Moments.of(x[SPATIAL]), Moments.of(real[SPATIAL])), rel=1e-6
    )
    score = InceptionScore()
    score.update(x["logits"])
    assert plain["inception_score", ""].value == pytest.approx(score.compute()["inception_score"], rel=1e-12)
    expected = precision_recall(real[POOL][chosen_indices(len(real[POOL]), 20)], x[POOL])
    assert (plain["precision", ""].value, plain["recall", ""].value) == expected
    assert plain["recall", ""].protocol["reference"] == "noise/train"
    assert plain["recall", ""].protocol["reference_count"] == 20
    assert plain["precision", ""].protocol["reference_chosen"] == "by a permutation, seed 0"

    np.savez(tmp_path / "x.npz", images_of(train)[:25])
    write_reference(
        tmp_path / "ref.npz",
        Moments.of(real[POOL]),
        spatial=Moments.of(real[SPATIAL]),
        images=NpzImages(tmp_path / "x.npz"),
        protocol={},
    )
    with_file = measure(scorer.reference_file(str(tmp_path / "ref.npz")))
    for metric in ("sampling_fd", "spatial_fd"):
        assert with_file[metric, "file"].value == pytest.approx(plain[metric, "train"].value, rel=1e-6)
        assert with_file[metric, "file"].protocol["reference"] == "ref.npz"
    expected = precision_recall(real[POOL][:25], x[POOL])
    assert (with_file["precision", ""].value, with_file["recall", ""].value) == expected
    assert with_file["recall", ""].protocol["reference"] == "ref.npz"
    assert "reference_chosen" not in with_file["recall", ""].protocol
