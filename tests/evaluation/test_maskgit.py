"""Evaluation of stage II, with a toy feature network: what is recorded, and what the figures are of."""

import jax
import numpy as np
import pytest

from fsq_repro.evaluation import maskgit
from fsq_repro.experiments.experiment import build_experiment
from fsq_repro.factories import common
from fsq_repro.inference.image_generator import load_image_generator
from fsq_repro.metrics import scoring
from fsq_repro.metrics.frechet import Moments, frechet_distance
from fsq_repro.runtime import run_dir
from fsq_repro.runtime.checkpoints import Checkpoints
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
        moments = Moments()
        moments.update(self.features(images))
        return moments

    def reference_features(self, source, count):
        return self.features(np.stack([source[i * len(source) // count]["image"] for i in range(count)]))

    def reference_moments(self, source):
        return self.moments(np.stack([source[i]["image"] for i in range(len(source))]))


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """An untrained run, evaluated: its directory, its record and its sampler."""
    root = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common, "make_source", lambda name, split, resolution: NoiseSource(32, resolution, split=split))
        patch.setattr(scoring, "Scorer", ToyScorer)
        patch.setenv("FSQ_REPRO_CACHE", str(root / "cache"))
        config = tiny_stage2(save_untrained(root / "stage1", tiny_config()))
        config.eval.class_distances, config.eval.guidance_weights = True, (0.0, 0.5)
        config.eval.networks = ("toy",)
        path = root / "run"
        experiment = build_experiment(config, path)
        state = jax.jit(experiment.trainer.init_state)(jax.random.key(0))
        step = jax.numpy.int32(config.steps)
        state = state.replace(step=step, ema_params=jax.tree.map(lambda p: 3 * p, state.params))
        run_dir.RunDir(path).write_config(config)
        run_dir.RunDir(path).update_record(**experiment.facts, run="run")
        checkpoints = Checkpoints(path / "checkpoints")
        checkpoints.save(config.steps, state, experiment.data_iterator)
        checkpoints.close()
        record = maskgit.evaluate_run(path)
        sampler = load_image_generator(path)
    return path, record, sampler


def test_figures_carry_their_protocols(evaluated):
    path, record, _ = evaluated
    figures = record["figures"]
    sampling = {"sfd_toy_train", "precision_toy", "recall_toy"}
    classes = {f"class_fd_{k}_toy" for k in ("own", "other", "soup", "marginal_soup")}
    costs = {"compression_bits", "coder_bits", "coder_expected_bits", "entropy_bits", "usage", "tokens"}
    assert sampling | classes | costs | {f"{n}@guidance={w}" for n in sampling for w in ("0", "0.5")} <= figures.keys()
    for name, figure in figures.items():
        protocol = figure["protocol"]
        assert protocol["checkpoint"] == 8 and protocol["weights"] == "ema" and protocol["data"]
        sampled = name.split("@")[0] in sampling or name in ("class_fd_own_toy", "class_fd_other_toy")
        assert ("sampler" in protocol and "guidance weight" in protocol) == sampled, name
    assert figures["sfd_toy_train"] == figures["sfd_toy_train@guidance=0"]
    assert figures["sfd_toy_train"]["value"] != figures["sfd_toy_train@guidance=0.5"]["value"]
    assert figures["tokens"]["value"] == 32 * 16 == 16 * figures["tokens"]["protocol"]["images"]
    assert (path / "samples" / "classes.png").exists()


def test_costs_are_those_of_the_model_and_the_stream_holds_them(evaluated):
    figures = evaluated[1]["figures"]
    bits, expected = figures["compression_bits"]["value"], figures["coder_expected_bits"]["value"]
    assert abs(bits - np.log2(240)) < 0.6  # not trained: close to uniform
    stream = figures["coder_bits"]["value"] * 16 * 16
    assert expected * 256 <= stream <= expected * 256 + 3 * 32  # 16 images of 16 tokens; end and checksum: 3 words
    assert figures["coder_bits"]["protocol"]["images"] == 16


def test_class_distances_equal_those_of_the_samples_drawn_again(evaluated):
    _, record, sampler = evaluated
    labels, toy, train = np.arange(24) % 2, ToyScorer("toy", resolution=16, batch_size=8), NoiseSource(32)
    images = sampler.images(labels, seed=maskgit.SEED)
    own, other = [], []
    for c in (0, 1):
        samples = toy.moments(images[labels == c])
        references = [toy.moments(np.stack([train[i]["image"] for i in range(d, 32, 2)])) for d in (0, 1)]
        own.append(frechet_distance(samples, references[c]))
        other.append(frechet_distance(samples, references[1 - c]))
    figures = record["figures"]
    assert figures["class_fd_own_toy"]["value"] == pytest.approx(np.mean(own), rel=1e-5)
    assert figures["class_fd_other_toy"]["value"] == pytest.approx(np.mean(other), rel=1e-5)
    assert figures["class_fd_own_toy"]["protocol"]["samples a class"] == 12
