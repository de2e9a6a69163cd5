"""Evaluation of stage II, with a toy feature network: what is recorded, and what the metrics are of."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from fsq_repro.data.choice import chosen_indices
from fsq_repro.data.images import to_uint8, to_unit_float
from fsq_repro.errors import UserError
from fsq_repro.evaluation import maskgit, sampling
from fsq_repro.evaluation.sampler_search import SamplerSearch
from fsq_repro.experiments.experiment import build_experiment
from fsq_repro.factories import common, fields, scorers
from fsq_repro.inference.image_generator import load_image_generator
from fsq_repro.metrics.class_agreement import ClassProbe
from fsq_repro.metrics.frechet import Moments, frechet_distance
from fsq_repro.metrics.table import METRICS, MetricKey
from fsq_repro.metrics.usage import CodebookUsage
from fsq_repro.runtime.checkpoints import Checkpoints
from fsq_repro.runtime.run_dir import RunDir, config_fingerprint, read_metrics
from tests.tiny import NoiseSource, save_untrained, tiny_config, tiny_stage2


class ToyScorer:
    """Features: mean colour of the four quadrants."""

    def __init__(self, network, *, resolution, batch_size):
        self.name, self.protocol = network, {"feature_network": network}

    def outputs(self, images):
        return {"pool": self.features(images)}

    def features(self, images):
        n, h, w, _ = images.shape
        quadrants = images.reshape(n, 2, h // 2, 2, w // 2, 3).mean(axis=(2, 4))
        return quadrants.reshape(n, 12).astype(np.float32)

    def moments(self, images):
        return Moments.of(self.features(images))

    def reference_features(self, source, count):
        return self.features(np.stack([source[i]["image"] for i in chosen_indices(len(source), count).tolist()]))

    def class_probe(self, source, count):
        items = [source[i] for i in range(len(source))]
        return ClassProbe.fit(
            self.features(np.stack([i["image"] for i in items])), np.array([i["label"] for i in items])
        )

    def reference_moments(self, source):
        return self.moments(np.stack([source[i]["image"] for i in range(len(source))]))


class Split(NoiseSource):
    """Splits of different images and sizes."""

    def __init__(self, split: str, resolution: int):
        super().__init__(32 if split == "train" else 24, resolution, split=split)

    def __getitem__(self, index):
        return super().__getitem__(index + 1000 * ("train", "validation", "test").index(self.split))


@pytest.fixture(scope="module", autouse=True)
def configs_may_have_the_toy_network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fields, "NETWORKS", (*fields.NETWORKS, "toy"))
        yield


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """An untrained run, evaluated: its directory, its metrics and its image generator."""
    root = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common, "make_source", lambda name, split, resolution: Split(split, resolution))
        patch.setattr(scorers, "Scorer", ToyScorer)
        patch.setenv("FSQ_REPRO_CACHE", str(root / "cache"))
        config = tiny_stage2(save_untrained(root / "stage1", tiny_config()))
        config.eval.class_distances, config.eval.guidance_weights = True, (0.0, 0.5)
        config.eval.networks, config.eval.class_agreement = ("toy",), True
        path = root / "run"
        experiment = build_experiment(config, path)
        state = jax.jit(experiment.trainer.init_state)(jax.random.key(0))
        step = jax.numpy.int32(config.steps)
        state = state.replace(step=step, ema_params=jax.tree.map(lambda p: 3 * p, state.params))
        run = RunDir(path)
        run.write_config(config)
        run.update_record(**experiment.facts, run="run")
        checkpoints = Checkpoints(path / "checkpoints")
        checkpoints.save(config.steps, state, experiment.data_iterator)
        checkpoints.close()
        measured = read_metrics(maskgit.evaluate_run(run))
        image_generator = load_image_generator(path)
        raw = read_metrics(maskgit.evaluate_run(run, weights="raw", networks=("other",)))
    assert raw.keys() > measured.keys() and run.config.eval.networks == ("toy",)
    assert run.record["evaluated"] == {
        "checkpoint": 8,
        "config_fingerprint": config_fingerprint(config),
        "data_hashes": {"train": "", "test": ""},
    }
    return run, measured, image_generator, {key: m for key, m in raw.items() if key not in measured}


def test_cost_and_usage_are_those_of_the_test_images_with_their_labels(evaluated):
    _, measured, image_generator, _ = evaluated
    generator = image_generator.generator

    def tokens_and_cost(split: str, label) -> tuple[np.ndarray, float]:
        items = [source[i] for source in [Split(split, 16)] for i in range(len(source))]
        images = np.stack([item["image"] for item in items]).astype(np.float32) / 255
        tokens = np.asarray(image_generator.tokenizer.encode(images)).reshape(len(images), -1)
        labels = np.array([label(item) for item in items], np.int32)
        return tokens, float(np.mean(jax.jit(generator.token_bits)(image_generator.params, tokens, labels)))

    tokens, expected = tokens_and_cost("test", lambda item: item["label"])
    cost = measured[MetricKey("compression_bits")].value
    assert cost == pytest.approx(expected, rel=1e-6)
    for split, label in (("train", lambda i: i["label"]), ("test", lambda i: 1 - i["label"])):
        assert abs(tokens_and_cost(split, label)[1] / cost - 1) > 1e-5
    assert abs(tokens_and_cost("test", lambda item: 0)[1] / cost - 1) > 1e-5
    usage = CodebookUsage(240)
    usage.update(tokens)
    assert {name: measured[MetricKey(name)].value for name in USAGE} == usage.compute()


SAMPLING = {MetricKey("sampling_fd", "toy", "train"), MetricKey("precision", "toy"), MetricKey("recall", "toy")}
CLASSES = {name: MetricKey(f"class_fd_{name}", "toy") for name in ("own", "other", "soup", "marginal_soup")}
AGREEMENT = {name: MetricKey(f"class_agreement{name and '_'}{name}", "toy") for name in ("", "reconstructed", "real")}
COSTS = {MetricKey(name) for name in ("compression_bits", "coder_bits", "coder_expected_bits")}
USAGE = ("tokens", "codes_used", "usage", "entropy_bits", "perplexity", "uniform_usage")


def test_metrics_carry_keys_and_protocols(evaluated):
    run, measured, *_ = evaluated
    weights = {dataclasses.replace(key, guidance=w) for key in SAMPLING for w in (0.0, 0.5)}
    of_classes = {*CLASSES.values(), *AGREEMENT.values()}
    assert measured.keys() == SAMPLING | of_classes | COSTS | {MetricKey(name) for name in USAGE} | weights
    for key, m in measured.items():
        assert m.protocol["checkpoint"] == 8 and m.protocol["weights"] == "ema" and m.protocol["data"]
        sampled = dataclasses.replace(key, guidance=None) in SAMPLING | {
            CLASSES["own"],
            CLASSES["other"],
            AGREEMENT[""],
        }
        assert ("sampler" in m.protocol and "guidance weight" in m.protocol) == sampled, key
        assert sampled == ("guidance weight" in m.protocol) and m.protocol.get("guidance weight", 0) == (
            key.guidance or 0
        )
    main = MetricKey("sampling_fd", "toy", "train")
    plain, guided = (measured[dataclasses.replace(main, guidance=w)] for w in (0.0, 0.5))
    assert measured[main] == plain and plain.value != guided.value
    tokens = measured[MetricKey("tokens")]
    assert tokens.value == 24 * 16 == 16 * tokens.protocol["images"]
    assert (run.samples / "classes.png").exists()


def test_other_weights_and_networks_have_keys_of_their_own(evaluated):
    run, measured, _, raw = evaluated
    assert {(key.weights, key.step) for key in raw} == {("raw", 8)}
    assert {key.network for key in raw} == {"other", ""}
    as_main = {dataclasses.replace(key, weights="", step=None, network=key.network and "toy"): key for key in raw}
    assert as_main.keys() == measured.keys()
    cost = MetricKey("compression_bits")
    assert raw[as_main[cost]].protocol["weights"] == "raw" and raw[as_main[cost]].value != measured[cost].value
    assert (run.samples / "classes@raw,8.png").exists()


def test_every_key_is_declared_and_survives_the_record(evaluated):
    _, measured, _, raw = evaluated
    for key in measured | raw:
        assert key.metric in METRICS and MetricKey.from_json(json.loads(json.dumps(key.to_json()))) == key


def test_costs_are_those_of_the_model_and_the_stream_holds_them(evaluated):
    measured = evaluated[1]
    bits, coder, expected = (
        measured[MetricKey(name)] for name in ("compression_bits", "coder_bits", "coder_expected_bits")
    )
    assert abs(bits.value - np.log2(240)) < 0.6  # not trained: close to uniform
    stream = coder.value * 16 * 16
    # 16 images of 16 tokens; end and checksum: 3 words
    assert expected.value * 256 <= stream <= expected.value * 256 + 3 * 32
    assert coder.protocol["images"] == 16


def test_distances_equal_those_of_the_samples_drawn_again(evaluated):
    _, measured, image_generator, _ = evaluated
    labels, toy, train = np.arange(24) % 2, ToyScorer("toy", resolution=16, batch_size=8), NoiseSource(32)
    images = image_generator.images(labels, seed=sampling.SEED)
    everything = frechet_distance(toy.moments(images), toy.reference_moments(train))
    assert measured[MetricKey("sampling_fd", "toy", "train")].value == pytest.approx(everything, rel=1e-5)
    own, other = [], []
    for c in (0, 1):
        samples = toy.moments(images[labels == c])
        references = [toy.moments(np.stack([train[i]["image"] for i in range(d, 32, 2)])) for d in (0, 1)]
        own.append(frechet_distance(samples, references[c]))
        other.append(frechet_distance(samples, references[1 - c]))
    assert measured[CLASSES["own"]].value == pytest.approx(np.mean(own), rel=1e-5)
    assert measured[CLASSES["other"]].value == pytest.approx(np.mean(other), rel=1e-5)
    assert measured[CLASSES["own"]].protocol["samples a class"] == 12


def test_class_agreement_is_of_samples_test_images_and_their_reconstructions(evaluated):
    _, measured, image_generator, _ = evaluated
    toy, train, test = ToyScorer("toy", resolution=16, batch_size=8), Split("train", 16), Split("test", 16)
    probe, asked = toy.class_probe(train, 32), np.arange(24) % 2
    items = [test[i] for i in range(len(test))]
    images, labels = np.stack([item["image"] for item in items]), np.array([item["label"] for item in items])
    reconstructions = to_uint8(np.asarray(image_generator.tokenizer.reconstruct(to_unit_float(images))[0]))
    samples = image_generator.images(asked, seed=sampling.SEED)
    for name, pictures, wanted in (
        ("", samples, asked),
        ("reconstructed", reconstructions, labels),
        ("real", images, labels),
    ):
        m = measured[AGREEMENT[name]]
        assert m.value == probe.agreement(toy.features(pictures), wanted), name
        assert m.protocol["classifier"] == "logistic regression on 32 images of noise/train, penalty 0.01"


def test_samplers_are_scored_on_validation_images(evaluated):
    run, _, image_generator, _ = evaluated
    toy, validation = ToyScorer("toy", resolution=16, batch_size=8), Split("validation", 16)
    search = SamplerSearch(run, image_generator, [toy], validation)
    own = {"choice_temperature": run.config.sampler.choice_temperature}
    first, second = search.score([own, {"choice_temperature": 0.0}], 20)
    images = image_generator.images(np.arange(20) % 2, seed=sampling.SEED)
    expected = frechet_distance(toy.moments(images), toy.reference_moments(validation))
    assert first["toy"] == pytest.approx(expected, rel=1e-5) and second["toy"] != first["toy"]
    with pytest.raises(UserError, match="choice_temperature must be finite and at least 0"):
        next(search.score([own, {"choice_temperature": -1.0}], 20))
    with pytest.raises(UserError, match="num_stepz"):
        next(search.score([{"num_stepz": 3}], 20))
