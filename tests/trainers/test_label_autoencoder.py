"""UViM's stage I: what a step changes, devices, resume, schedules that act within the runs of `scale=cpu`."""

import dataclasses
import functools
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from configs import uvim_colorization, uvim_depth, uvim_panoptic
from fsq_repro.experiments.experiment import build_experiment
from fsq_repro.factories import label_autoencoder as label_autoencoder_factory
from fsq_repro.metrics.usage import CodebookUsage
from fsq_repro.quantizers import make_quantizer
from fsq_repro.runtime import sharding
from fsq_repro.runtime.checkpoints import Checkpoints
from fsq_repro.trainers import loop
from fsq_repro.trainers.label_autoencoder import reconstruct, variables_of
from tests.tiny import DenseNoiseSource, compiled_once, make_dense_noise, random_uvim_state, tiny_uvim
from tests.trainers.test_loop import assert_same

MOMENTUM = 0.5
STEPS = 6  # of the loop; the schedule is that of 1000


def batch(task, start: int = 0, size: int = 8) -> dict[str, np.ndarray]:
    """A prepared batch."""
    source = DenseNoiseSource()
    items = [source[start + i] for i in range(size)]
    stacked = {name: np.stack([item[name] for item in items]) for name in items[0]}
    return task.prepare(stacked | {"image": stacked["image"].astype(np.float32) / 255})


def stage1_config(quantizer: str, task: str):
    """Learns fast, and forgets unused codes in four steps."""
    config = tiny_uvim(1, f"quantizer={quantizer}", task=task)
    config.steps, config.optimizer.learning_rate = 1000, 1e-2
    if quantizer == "vq":
        config.quantizer.momentum = MOMENTUM
    return config


@functools.cache
def started(quantizer: str, task: str):
    """Trainer, its step, compiled on use, and a state with random weights."""
    trainer = label_autoencoder_factory.build_trainer(stage1_config(quantizer, task))
    return trainer, jax.jit(trainer.train_step), random_uvim_state(trainer)


def on_host(state):
    """A copy, since the loop donates its state."""

    def copy(x):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(np.array(jax.random.key_data(x)))
        return np.array(x)

    return jax.tree.map(copy, state)


def flat(tree) -> np.ndarray:
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


@pytest.mark.parametrize(("quantizer", "task"), [("vq", "panoptic"), ("fsq", "depth")])
def test_steps_learn_a_batch_and_revive_codes(quantizer, task):
    trainer, step, state = started(quantizer, task)
    first, curve, splits = state, [], 0
    for _ in range(40):
        before = state
        state, metrics = step(state, {}, batch(trainer.task))
        curve.append(float(metrics["loss"]))
        splits += float(metrics.get("quantizer/splits", 0))
    assert int(state.step) == 40 and curve[-1] < 0.5 * curve[0]
    np.testing.assert_allclose(metrics["loss"], sum(v for k, v in metrics.items() if k.startswith("loss/")), rtol=1e-5)
    # Everything learns: no parameter is left out.
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), first.params, state.params)
    assert all(jax.tree.leaves(moved)), moved
    if quantizer == "fsq":
        assert state.quantizer_state == {}
        return
    assert splits >= 1
    assert np.any(flat(before.quantizer_state) != flat(state.quantizer_state))
    assert np.all(np.isfinite(flat(state.quantizer_state)))
    counts = state.quantizer_state["quantizer"]["counts"]
    # The discounted number of tokens; splitting shares it out, but for the remains of the codes that it replaces.
    tokens = 64 * MOMENTUM**40 + 32 * (1 - MOMENTUM**40) / (1 - MOMENTUM)
    assert tokens - 0.1 * splits <= counts.sum() <= 1.0001 * tokens


def test_without_context_the_image_is_never_read():
    for context in (True, False):
        config = tiny_uvim(1, f"quantizer=vq,context={str(context).lower()}")
        trainer = label_autoencoder_factory.build_trainer(config)
        state = jax.eval_shape(trainer.init_state, jax.random.key(0))
        assert {"ctx_enc_embedding", "ctx_dec_embedding"} & state.params.keys() == (
            {"ctx_enc_embedding", "ctx_dec_embedding"} if context else set()
        )
        blind = batch(trainer.task) | {"context": None}
        if context:
            with pytest.raises(AttributeError, match="'NoneType' object has no attribute 'shape'"):
                jax.eval_shape(trainer.train_step, state, {}, blind)
        else:
            new_state, _ = jax.eval_shape(trainer.train_step, state, {}, blind)
            assert jax.tree.structure(new_state) == jax.tree.structure(state)


def run(path, evaluation_batches=None, start_from=lambda state: state):
    """`STEPS` of the loop with the real data iterator, evaluating after three."""
    e = build_experiment(stage1_config("vq", "panoptic"), path)
    loop_config = dataclasses.replace(e.loop_config, steps=STEPS, eval_every=3, checkpoint_every=STEPS)
    batches = evaluation_batches or e.evaluation_batches
    return e, loop.train(looped(), e.data_iterator, batches, path, loop_config, start_from)


@functools.cache
def looped():
    """The trainer of all runs of the loop."""
    return compiled_once(label_autoencoder_factory.build_trainer(stage1_config("vq", "panoptic")))


@functools.cache
def whole_run(root):
    """Uninterrupted on four devices: the experiment, the first state and the last."""
    first = []
    e, last = run(root / "whole_stage1", start_from=lambda s: first.append(on_host(s)) or s)
    return e, first[0], last


@pytest.fixture
def noise(monkeypatch):
    monkeypatch.setattr(label_autoencoder_factory, "make_dense_source", make_dense_noise)


def test_interrupted_and_resumed_equals_uninterrupted_bitwise(noise, tmp_path, tmp_path_factory):
    """SIGTERM in the check after step 3; the whole state (codebook, optimiser and rng too) comes out the same."""
    experiment, first, whole = whole_run(tmp_path_factory.getbasetemp())

    def stop():
        os.kill(os.getpid(), signal.SIGTERM)
        return experiment.evaluation_batches()

    with pytest.raises(loop.Interrupted, match="after step 4"):
        run(tmp_path, stop)
    assert Checkpoints(tmp_path / "checkpoints", create=False).steps == [4]
    _, parts = run(tmp_path)
    assert int(parts.step) == STEPS and np.any(flat(first.params) != flat(parts.params))
    assert_same(whole, parts)


def test_four_devices_equal_one(noise, tmp_path, tmp_path_factory):
    """Parameters and dictionary after the loop's steps on four devices, and after as many on one."""
    _, first, four = whole_run(tmp_path_factory.getbasetemp())
    _, step, _ = started("vq", "panoptic")
    one, losses, splits = first, [], 0
    iterator = build_experiment(stage1_config("vq", "panoptic"), tmp_path).data_iterator
    for _ in range(STEPS):
        one, metrics = step(one, {}, next(iterator))
        losses.append(float(metrics["loss"]))
        splits += int(metrics["quantizer/splits"])
    np.testing.assert_allclose(losses[:2], np.log(4) + np.log(6), rtol=1e-5)  # heads, and the first step's rate, are 0
    assert len(four.step.sharding.device_set) == 4 and len(one.step.sharding.device_set) == 1 and splits > 0

    def change(state):
        """By name. Softmax makes nothing of a key's bias: its gradient is rounding noise, which Adafactor scales up."""
        moved = jax.tree.map(lambda a, b: np.asarray(a) - b, state.params, first.params)
        return {name: x for name, x in flatten_dict(moved, sep="/").items() if not name.endswith("key/bias")}

    total = np.linalg.norm(flat(change(one)))
    assert np.linalg.norm(flat(change(one)) - flat(change(four))) <= 1e-3 * total
    ours, theirs = flat(one.quantizer_state), flat(four.quantizer_state)
    assert np.linalg.norm(ours - theirs) <= 1e-3 * np.linalg.norm(ours)


def test_the_check_during_training_counts_each_image_once():
    trainer, step, state = started("fsq", "depth")
    for _ in range(3):
        state, _ = step(state, {}, batch(trainer.task))
    evaluate = trainer.make_evaluator(sharding.make_mesh())
    mask = np.arange(8) < 5
    parts = [batch(trainer.task) | {"mask": np.ones(8, bool)}, batch(trainer.task, start=8) | {"mask": mask}]
    scalars, pictures = evaluate(state, parts)
    assert pictures == {}
    whole = batch(trainer.task, size=13)
    measure = jax.jit(functools.partial(reconstruct, trainer.model, trainer.task))
    outputs, indices = measure(variables_of(state), whole)
    np.testing.assert_allclose(scalars["validation/depth"], trainer.task.loss(outputs, whole)[0].mean(), rtol=1e-4)
    usage = CodebookUsage(trainer.model.quantizer.codebook_size)
    usage.update(np.asarray(indices))
    expected = usage.compute()
    assert scalars["validation/usage"] == expected["usage"] > 1 / 75
    np.testing.assert_allclose(scalars["validation/entropy_bits"], expected["entropy_bits"])


@pytest.mark.parametrize("module", [uvim_depth, uvim_colorization, uvim_panoptic], ids=lambda m: m.__name__)
@pytest.mark.parametrize("quantizer", ["vq", "vq_nosplit"])
def test_splitting_acts_within_the_steps_of_the_cpu_runs(module, quantizer):
    """The configured quantizer, but small, on a stream that needs 4 of its 16 codes, for the configured steps."""
    config = module.get_config(f"stage=1,scale=cpu,quantizer={quantizer}")
    vq = dataclasses.replace(make_quantizer(**config.quantizer), codebook_size=16, embedding_dim=4)
    corners = jnp.array([[3.0, -1, -1, -1], [-1, 3, -1, -1], [-1, -1, 3, -1], [-1, -1, -1, 3]])

    @jax.jit
    def run(state, key):
        def step(state, key):
            z = jnp.tile(corners, (8, 1)) + 0.01 * jax.random.normal(key, (32, 4))
            quantized, new = vq.apply(
                {"quantizer": state}, z, train=True, mutable=["quantizer"], rngs={"quantizer": key}
            )
            return new["quantizer"], (quantized.metrics.get("splits", jnp.zeros(())), quantized.metrics["zeros_ratio"])

        return jax.lax.scan(step, state, jax.random.split(key, config.steps))

    state = {"dictionary": jax.random.normal(jax.random.key(1), (16, 4)), "counts": jnp.ones(16)}
    state, (splits, zeros_ratio) = run(state, jax.random.key(0))
    assert zeros_ratio[0] >= 12 / 16
    if quantizer == "vq":
        # Early enough to be of use: half of the run is left to learn with the revived codes.
        assert splits[: config.steps // 2].sum() >= 12 and np.all(state["counts"] >= vq.min_count)
    else:
        assert splits.sum() == 0 and np.sum(state["counts"] < vq.min_count) == 12 and zeros_ratio[-1] >= 12 / 16
