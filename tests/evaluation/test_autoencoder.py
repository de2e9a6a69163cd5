"""Evaluation of stage I, with a toy feature network: keys, protocols, and what each distance is of."""

import json

import numpy as np
import pytest

from fsq_repro.data.images import to_uint8, to_unit_float
from fsq_repro.evaluation import autoencoder
from fsq_repro.factories import common, fields, scorers
from fsq_repro.inference.tokenizer import load_tokenizer
from fsq_repro.metrics.frechet import frechet_distance
from fsq_repro.metrics.table import METRICS, MetricKey
from fsq_repro.runtime.run_dir import RunDir, config_fingerprint, read_metrics
from tests.evaluation.test_maskgit import ToyScorer
from tests.tiny import NoiseSource, save_untrained, tiny_config

IMAGES = {"train": 32, "test": 20}  # the second no multiple of a batch
QUALITY = {"psnr", "ssim", "mse"}
USAGE = {"tokens", "codes_used", "usage", "entropy_bits", "perplexity", "uniform_usage"}


@pytest.fixture(scope="module", autouse=True)
def configs_may_have_the_toy_network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fields, "NETWORKS", (*fields.NETWORKS, "toy"))
        yield


@pytest.fixture
def run(monkeypatch, tmp_path):
    def make_source(name, split, resolution):
        return NoiseSource(IMAGES[split], resolution, split=split)

    monkeypatch.setattr(common, "make_source", make_source)
    monkeypatch.setattr(scorers, "Scorer", ToyScorer)
    config = tiny_config()
    config.eval.networks = ("toy",)
    return RunDir(save_untrained(tmp_path / "run", config))


def test_metrics_and_their_keys(run):
    record = autoencoder.evaluate_run(run)
    measured = read_metrics(record)
    distances = {name: MetricKey("reconstruction_fd", "toy", name) for name in IMAGES}
    assert measured.keys() == {MetricKey(name) for name in QUALITY | USAGE} | set(distances.values())
    assert measured[MetricKey("tokens")].value == 20 * 16
    assert len(record["level_histograms"]) == len(record["saturation"]) == 3

    tokenizer, toy = load_tokenizer(run.path), ToyScorer("toy", resolution=16, batch_size=8)
    images = np.stack([NoiseSource(20)[i]["image"] for i in range(20)])
    reconstructions = toy.moments(to_uint8(np.asarray(tokenizer.reconstruct(to_unit_float(images))[0])))
    for name, key in distances.items():
        expected = frechet_distance(reconstructions, toy.reference_moments(NoiseSource(IMAGES[name])))
        assert measured[key].value == pytest.approx(expected, rel=1e-4)
        assert measured[key].protocol["reference"] == f"{run.config.data.source}/{name}"
    for m in measured.values():
        assert (m.protocol["weights"], m.protocol["checkpoint"], m.protocol["samples"]) == ("ema", 8, 20)
    assert [p.name for p in run.samples.iterdir()] == ["evaluation.png"]

    fact = record["evaluated"]
    assert fact["checkpoint"] == 8 and fact["config_fingerprint"] == config_fingerprint(run.config)
    assert fact["weights"] == tokenizer.fingerprint and fact["data_hashes"] == {"train": "", "test": ""}
    for key in measured:
        assert key.metric in METRICS and MetricKey.from_json(json.loads(json.dumps(key.to_json()))) == key


def test_other_weights_leave_the_main_metrics_and_facts_as_they_are(run, caplog):
    autoencoder.evaluate_run(run)
    assert "was trained on other data" not in caplog.text
    run.update_record(data_hashes={"train": "of other images", "validation": "not measured on"})
    autoencoder.evaluate_run(run)
    assert "was trained on other data than those measured on: split train" in caplog.text
    before = run.update_record(level_histograms="of the main weights")
    after = autoencoder.evaluate_run(run, weights="raw", networks=("other",))
    old, new = read_metrics(before), read_metrics(after)
    assert old.items() <= new.items() and after["level_histograms"] == "of the main weights"
    assert after["evaluated"] == before["evaluated"]
    raw = {key: m for key, m in new.items() if key not in old}
    assert len(raw) == len(old) and {(key.weights, key.step) for key in raw} == {("raw", 8)}
    assert {key.network for key in raw} == {"other", ""} and {m.protocol["weights"] for m in raw.values()} == {"raw"}
    assert (run.samples / "evaluation@raw,8.png").exists()
    assert run.config.eval.networks == ("toy",)  # what the evaluation was told stays out of the run's config
