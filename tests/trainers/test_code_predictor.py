"""UViM's stage II: loss, decoding, devices, resume, published encoders, and how it holds on to stage I."""

import dataclasses
import functools
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from fsq_repro.errors import UserError
from fsq_repro.experiments.experiment import build_experiment
from fsq_repro.factories import code_predictor as code_predictor_factory
from fsq_repro.factories import label_autoencoder as label_autoencoder_factory
from fsq_repro.inference.label_coder import LabelCoder, load_label_coder, load_stage1_coder
from fsq_repro.metrics.usage import CodebookUsage
from fsq_repro.models import augreg_vit
from fsq_repro.runtime import run_dir, sharding
from fsq_repro.runtime.checkpoints import Checkpoints
from fsq_repro.sampling.parallel_decoding import sample_keys
from fsq_repro.trainers import loop
from fsq_repro.trainers.label_autoencoder import variables_of
from tests.tiny import (
    compiled_once,
    make_dense_noise,
    random_uvim_state,
    save_untrained_uvim,
    tiny_config,
    tiny_uvim,
)
from tests.trainers.test_label_autoencoder import batch, flat, on_host
from tests.trainers.test_loop import assert_same

pytestmark = pytest.mark.usefixtures("noise")
STEPS = 6  # of the loop; the schedule is that of 1000


@pytest.fixture
def noise(monkeypatch):
    monkeypatch.setattr(label_autoencoder_factory, "make_dense_source", make_dense_noise)


@pytest.fixture(scope="module")
def stage1(tmp_path_factory):
    return save_untrained_uvim(tmp_path_factory.mktemp("stage1") / "run", tiny_uvim(1))


def stage2_config(stage1):
    config = tiny_uvim(2, stage1=stage1)
    config.steps, config.optimizer.learning_rate = 1000, 1e-2
    return config


@functools.cache
def started(stage1):
    """Trainer, its step and its network's logits, compiled on use, and a state with random weights."""
    trainer = code_predictor_factory.build_trainer(stage2_config(stage1), load_label_coder(stage1))
    logits = jax.jit(lambda params, images, codes: trainer.model.apply({"params": params}, images, codes))
    return trainer, jax.jit(trainer.train_step), logits, random_uvim_state(trainer)


def cross_entropy(logits_BxSxV, codes_BxS) -> np.ndarray:
    """Nats of each code in float64; logit 0 is that of the start."""
    logits = np.asarray(logits_BxSxV, np.float64)
    chosen = np.take_along_axis(logits, codes_BxS[..., None] + 1, axis=-1)[..., 0]
    return np.log(np.exp(logits).sum(-1)) - chosen


def test_steps_learn_the_codes_of_stage1(stage1):
    """The loss is the cross-entropy of stage I's codes, and falls."""
    trainer, step, logits, state = started(stage1)
    prepared, frozen = batch(trainer.coder.task), trainer.load_frozen()
    codes = np.asarray(trainer.coder.reconstruct(prepared)[1])
    assert codes.shape == (8, 4) and len(np.unique(codes)) > 4
    expected = np.asarray(logits(state.params, prepared["context"], codes))
    curve = []
    for _ in range(30):
        state, metrics = step(state, frozen, prepared)
        curve.append((float(metrics["loss"]), float(metrics["accuracy"])))
    np.testing.assert_allclose(curve[0][0], cross_entropy(expected, codes).mean(), rtol=1e-4)
    np.testing.assert_allclose(curve[0][1], (expected.argmax(-1) == codes + 1).mean(), rtol=1e-6)
    assert int(state.step) == 30 and curve[-1][0] < 0.5 * curve[0][0] and curve[-1][1] > curve[0][1]


def test_decoding_at_temperature_0_takes_the_likeliest_code(stage1):
    """Against whole forward passes without a cache, one for each code."""
    trainer, _, logits, state = started(stage1)
    assert trainer.temperature == 0
    images = batch(trainer.coder.task)["context"]
    codes = np.zeros((8, 4), np.int32)
    for s in range(4):
        codes[:, s] = np.asarray(logits(state.params, images, codes))[:, s, 1:].argmax(-1)
    assert len(np.unique(codes, axis=0)) > 1
    predict = jax.jit(trainer.predict_codes)
    for seed in (0, 1):
        keys = sample_keys(jax.random.key(seed), jnp.arange(8))
        np.testing.assert_array_equal(predict(state.params, images, keys), codes)


def test_a_sample_does_not_depend_on_the_batch(stage1):
    trainer, _, _, state = started(stage1)
    predict = jax.jit(dataclasses.replace(trainer, temperature=1.0).predict_codes)
    images = batch(trainer.coder.task)["context"]

    def sample(indices, seed=0):
        keys = sample_keys(jax.random.key(seed), np.asarray(indices, np.int32))
        return np.asarray(predict(state.params, images[indices], keys))

    whole = sample(np.arange(8))
    np.testing.assert_array_equal(sample(np.array([5, 2, 7])), whole[[5, 2, 7]])
    assert np.any(sample(np.arange(8), seed=1) != whole)


@pytest.mark.parametrize("quantizer", ["fsq", "vq"])
def test_coding_and_decoding_is_reconstruction(quantizer):
    """Colours, which are continuous, so that a wrong code or context shows."""
    trainer = label_autoencoder_factory.build_trainer(tiny_uvim(1, f"quantizer={quantizer}", task="colorization"))
    coder = LabelCoder(trainer.model, trainer.task, variables_of(random_uvim_state(trainer)), step=0)
    assert coder.levels == ((5, 5, 3) if quantizer == "fsq" else None)
    prepared = batch(trainer.task)

    @jax.jit
    def code(variables, prepared):
        codes = coder.encode_with(variables, prepared)
        shifted = coder.predict_with(variables, jnp.roll(codes, 1, axis=1), prepared["context"])
        return codes, coder.predict_with(variables, codes, prepared["context"]), shifted

    codes, maps, shifted = code(coder.variables, prepared)
    expected, indices = coder.reconstruct(prepared)
    np.testing.assert_array_equal(codes, indices)
    assert codes.dtype == jnp.int32 and codes.shape == (8, 4) and len(np.unique(codes)) > 2
    np.testing.assert_allclose(maps["color"], expected["color"], atol=1e-4)
    assert np.abs(np.asarray(shifted["color"]) - expected["color"]).max() > 1e-2


def run(config, path, evaluation_batches=None, start_from=None):
    """`STEPS` of the loop with the real data iterator, evaluating after three."""
    e = build_experiment(config, path)
    loop_config = dataclasses.replace(e.loop_config, steps=STEPS, eval_every=3, checkpoint_every=STEPS)
    batches = evaluation_batches or e.evaluation_batches
    state = loop.train(looped(config.stage1), e.data_iterator, batches, path, loop_config, start_from or e.start_from)
    return e, state


@functools.cache
def looped(stage1):
    """The trainer of all runs of the loop."""
    return compiled_once(code_predictor_factory.build_trainer(stage2_config(stage1), load_label_coder(stage1)))


@functools.cache
def whole_run(stage1):
    """Uninterrupted on four devices: the experiment, the first state and the last."""
    first = []
    path = stage1.parent / "whole"
    e, last = run(stage2_config(stage1), path, start_from=lambda s: first.append(on_host(s)) or s)
    return e, first[0], last


def test_interrupted_and_resumed_equals_uninterrupted_bitwise(stage1, tmp_path):
    """SIGTERM in the check after step 3."""
    experiment, first, whole = whole_run(stage1)

    def stop():
        os.kill(os.getpid(), signal.SIGTERM)
        return experiment.evaluation_batches()

    with pytest.raises(loop.Interrupted, match="after step 4"):
        run(stage2_config(stage1), tmp_path, stop)
    assert Checkpoints(tmp_path / "checkpoints", create=False).steps == [4]
    _, parts = run(stage2_config(stage1), tmp_path)
    assert int(parts.step) == STEPS and np.any(flat(first.params) != flat(parts.params))
    assert_same(whole, parts)


def test_four_devices_equal_one(stage1, tmp_path):
    """Parameters after the loop's steps on four devices, and after as many on one."""
    _, first, four = whole_run(stage1)
    trainer, step, _, _ = started(stage1)
    one, curve = first, []
    iterator = build_experiment(stage2_config(stage1), tmp_path).data_iterator
    for _ in range(STEPS):
        one, metrics = step(one, trainer.load_frozen(), next(iterator))
        curve.append(float(metrics["loss"]))
    np.testing.assert_allclose(curve[:2], np.log(76), rtol=1e-5)  # the head, and the rate of the first step, are 0
    assert len(four.step.sharding.device_set) == 4 and len(one.step.sharding.device_set) == 1

    def change(state):
        """Softmax makes nothing of a key's bias: its gradient is rounding noise, which Adafactor scales up."""
        moved = jax.tree.map(lambda a, b: np.asarray(a) - b, state.params, first.params)
        return flat({name: x for name, x in flatten_dict(moved, sep="/").items() if not name.endswith("key/bias")})

    assert np.linalg.norm(change(one) - change(four)) <= 1e-3 * np.linalg.norm(change(one))


def test_the_check_during_training_counts_each_image_once(stage1):
    trainer, _, logits, state = started(stage1)
    task = trainer.coder.task
    parts = [batch(task) | {"mask": np.ones(8, bool)}, batch(task, start=8) | {"mask": np.arange(8) < 5}]
    scalars, pictures = trainer.make_evaluator(sharding.make_mesh())(state, parts)
    codes = np.concatenate([np.asarray(trainer.coder.reconstruct(batch(task, start=i))[1]) for i in (0, 8)])
    found = np.concatenate(
        [logits(state.params, p["context"], codes[i : i + 8]) for i, p in zip((0, 8), parts, strict=True)]
    )
    codes, found = codes[:13], found[:13]
    usage = CodebookUsage(75)
    usage.update(codes)
    expected = {
        "validation/bits": cross_entropy(found, codes).mean() / np.log(2),
        "validation/accuracy": (found.argmax(-1) == codes + 1).mean(),
        "validation/marginal_entropy_bits": usage.compute()["entropy_bits"],
    }
    assert pictures == {} and scalars.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(scalars[name], value, rtol=1e-4, err_msg=name)


def test_a_published_encoder_replaces_the_initial_one_alone(stage1, tmp_path):
    trainer, _, _, state = started(stage1)
    rng = np.random.default_rng(0)
    encoder = {name: state.params[name] for name in ("EmbedPatches", "encoder", "pos_embedding_encoder")}
    arrays = {
        augreg_vit.file_name(name): rng.standard_normal(x.shape).astype(np.float32)
        for name, x in flatten_dict(encoder, sep="/").items()
    }
    patches = arrays[augreg_vit.POSITIONS]
    arrays[augreg_vit.POSITIONS] = np.concatenate([np.zeros((1, 1, 32), np.float32), patches], axis=1)  # class token
    np.savez(tmp_path / "vit.npz", **arrays)
    config = stage2_config(stage1)
    config.model.encoder_init = str(tmp_path / "vit.npz")
    state = jax.device_put(state)
    new = build_experiment(config, tmp_path / "run").start_from(state)
    assert_same(new.replace(params={}), state.replace(params={}))
    assert new.params.keys() == state.params.keys()
    for name, x in flatten_dict(new.params, sep="/").items():
        if name.split("/")[0] not in encoder:
            np.testing.assert_array_equal(x, flatten_dict(state.params, sep="/")[name])
        elif name == "pos_embedding_encoder":
            np.testing.assert_array_equal(x, patches)
        else:
            np.testing.assert_array_equal(x, arrays[augreg_vit.file_name(name)])
    config.model.encoder_init = str(tmp_path / "missing.npz")
    with pytest.raises(
        ValueError, match="^There is no AugReg file .*missing.npz; it must be the path of a ViT's .npz.$"
    ):
        build_experiment(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task.bins": 16}, r"has task \{.*'bins': 8.*\}, the config has \{.*'bins': 16.*\}; they must be equal"),
        ({"context": False}, "has context True, the config has False"),
        ({"quantizer.levels": (8, 8)}, "has codebook size 75, the config has 64"),
        ({"quantizer.levels": (5, 3, 5)}, r"has quantizer.levels \(5, 5, 3\), the config has \(5, 3, 5\)"),
        ({"data.resolution": 32}, "has data.resolution 16, the config has 32"),
        ({"stage1": ""}, "^stage1 is empty; give stage I's run directory"),
    ],
)
def test_another_stage1_than_the_configs_is_refused(stage1, change, words):
    config = tiny_uvim(2, stage1=stage1)
    config.update_from_flattened_dict(change)
    with pytest.raises(UserError, match=words):
        load_stage1_coder(config)


def test_what_is_no_stage1_is_refused(stage1, tmp_path):
    with pytest.raises(UserError, match="is not a run directory"):
        load_stage1_coder(tiny_uvim(2, stage1=tmp_path))
    run_dir.RunDir(tmp_path).write_config(tiny_config())
    with pytest.raises(UserError, match="holds a run of the trainer 'autoencoder', not of 'uvim_stage1'"):
        load_stage1_coder(tiny_uvim(2, stage1=tmp_path))
    with pytest.raises(UserError, match="holds a run of the trainer 'autoencoder', not of 'uvim_stage1'"):
        load_label_coder(tmp_path)
    with pytest.raises(UserError, match="has quantizer fsq, the config has ema_vq"):
        load_stage1_coder(tiny_uvim(2, "quantizer=vq", stage1=stage1))
    with pytest.raises(UserError, match="has task .*'depth'.*, the config has .*'colorization'"):
        load_stage1_coder(tiny_uvim(2, task="colorization", stage1=stage1))
    with pytest.raises(UserError, match="other weights"):
        load_stage1_coder(tiny_uvim(2, stage1=stage1), fingerprint="0")
