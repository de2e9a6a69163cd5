"""Stage II: loss, label dropping, devices, resume, both generators."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.errors import UserError
from fsq_repro.experiments.experiment import build_experiment
from fsq_repro.factories import common
from fsq_repro.factories import maskgit as maskgit_factory
from fsq_repro.inference.image_generator import ImageGenerator, load_image_generator
from fsq_repro.inference.tokenizer import load_stage1_tokenizer, load_tokenizer
from fsq_repro.runtime import sharding
from fsq_repro.trainers import loop
from tests.tiny import NoiseSource, compiled_once, save_untrained, tiny_config, tiny_stage2
from tests.trainers.test_loop import assert_same

pytestmark = pytest.mark.usefixtures("noise")
GENERATORS = ("masked", "autoregressive")


@pytest.fixture
def noise(monkeypatch, tmp_path):
    monkeypatch.setattr(common, "make_source", lambda name, split, resolution: NoiseSource(32, resolution, split=split))
    monkeypatch.setenv("FSQ_REPRO_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def stage1(tmp_path_factory):
    return save_untrained(tmp_path_factory.mktemp("stage1") / "run", tiny_config())


def build(config):
    return maskgit_factory.build_trainer(config, load_tokenizer(config.stage1))


@functools.cache
def initial_state(stage1, generator: str = "masked"):
    """Which no field that the tests set changes."""
    trainer = build(tiny_stage2(stage1, f"quantizer=fsq,bits=8,generator={generator}"))
    return jax.jit(trainer.init_state)(jax.random.key(0))


def batch(size: int = 8, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 240, (size, 16), dtype=np.int32)
    return {"tokens": tokens, "label": rng.integers(0, 2, size, dtype=np.int32)}


@pytest.mark.parametrize("generator", GENERATORS)
def test_steps_learn_and_the_ema_follows(stage1, generator):
    config = tiny_stage2(stage1, f"quantizer=fsq,bits=8,generator={generator}")
    config.optimizer.learning_rate, config.optimizer.schedule, config.optimizer.warmup_steps = 1e-2, "constant", 0
    config.model.dropout, config.ema_decay = 0.0, 0.5
    trainer, state = build(config), initial_state(stage1, generator)
    step = jax.jit(trainer.train_step)
    losses = []
    for _ in range(30):
        before = state
        state, metrics = step(state, {}, batch())
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.8 * losses[0] and abs(losses[0] - np.log(243)) < 0.3  # uniform over codes, classes, mask
    expected = jax.tree.map(lambda e, p: 0.5 * e + 0.5 * p, before.ema_params, state.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), state.ema_params, expected)


def test_masked_loss_has_no_gradient_at_unmasked_positions(stage1):
    """Gradient of the training loss with respect to the logits, through the mask that the step draws."""
    generator = build(tiny_stage2(stage1)).generator
    seen = {}

    class Logits:
        """Stands for the network: its logits are a leaf, and it notes which positions it saw masked."""

        codebook_size, num_classes, mask_id = 240, 2, 242

        def apply(self, variables, tokens, labels, **kwargs):
            seen["masked"] = tokens == self.mask_id
            return variables["params"]

    leaf = dataclasses.replace(generator, model=Logits())
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(8, 16, 243)), jnp.float32)
    draws = leaf.draw(jax.random.key(0), 8)
    gradient = jax.grad(lambda x: leaf.loss(x, batch()["tokens"], batch()["label"], *draws)[0])(logits)
    masked = np.asarray(seen["masked"])
    assert masked.sum(1).min() > 0.45 * 16 and masked.sum() < masked.size
    assert np.all(np.asarray(gradient)[~masked] == 0) and np.all(np.abs(np.asarray(gradient)[masked]).max(-1) > 0)


def test_labels_are_dropped_at_the_rate_and_replaced_by_no_class(stage1):
    """At rate ~1 the label cannot matter; at 0 it does."""
    config = tiny_stage2(stage1)
    config.model.dropout = 0.0
    for rate, same in ((0.0, False), (1 - 1e-7, True)):
        config.label_drop = rate
        # Initial weights of 0.02 hardly let the class reach the other positions.
        state = initial_state(stage1)
        state = state.replace(params=jax.tree.map(lambda p: p * 10, state.params))
        step = build(config).train_step
        loss = jax.jit(lambda *arguments, step=step: step(*arguments)[1]["loss"])
        one = loss(state, {}, batch() | {"label": np.zeros(8, np.int32)})
        other = loss(state, {}, batch() | {"label": np.ones(8, np.int32)})
        assert (float(one) == float(other)) is same


def test_a_dropped_label_is_no_class(stage1):
    """Not a class of its own number, and not class 0."""
    config = tiny_stage2(stage1)
    config.model.dropout, config.label_drop = 0.0, 1 - 1e-7
    trainer, state = build(config), initial_state(stage1)
    state = state.replace(params=jax.tree.map(lambda p: p * 10, state.params))
    generator, size = trainer.generator, 8
    _, loss_key = jax.random.split(jax.random.fold_in(state.rng, state.step))
    predicted, dropout_key = generator.draw(loss_key, size)

    def loss(label: int) -> jax.Array:
        labels = jnp.full(size, label, jnp.int32)
        return generator.loss(state.params, batch()["tokens"], labels, predicted, dropout_key)[0]

    found = jax.jit(lambda: trainer.train_step(state, {}, batch())[1]["loss"])()
    no_class, class_0 = jax.jit(lambda: (loss(generator.model.num_classes), loss(0)))()
    np.testing.assert_allclose(found, no_class, rtol=1e-6)
    assert abs(float(class_0) / float(no_class) - 1) > 1e-4


def test_one_device_equals_four(stage1):
    config = tiny_stage2(stage1)
    trainer, first = build(config), initial_state(stage1)
    curves = []
    for devices in (1, 4):
        mesh = sharding.make_mesh(devices=jax.devices()[:devices])
        place = sharding.replicated(mesh)
        state, curve = jax.device_put(first, place), []
        step = jax.jit(trainer.train_step, out_shardings=(place, place))
        for i in range(5):
            state, metrics = step(state, {}, sharding.put_batch(batch(seed=i), mesh))
            curve.append(float(metrics["loss"]))
        curves.append(curve)
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-4)


def test_decay_reaches_kernels_alone(stage1):
    config = tiny_stage2(stage1)
    config.optimizer.weight_decay, config.optimizer.learning_rate, config.optimizer.schedule = 0.5, 0.1, "constant"
    config.optimizer.warmup_steps = 0
    optimizer = maskgit_factory.build_optimizer(config.optimizer, 8)
    params = {"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "embedding": jnp.ones((3, 2))}
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    np.testing.assert_allclose(updates["dense"]["kernel"], -0.1 * 0.5, rtol=1e-6)
    assert not np.any(updates["dense"]["bias"]) and not np.any(updates["embedding"])


def test_images_encoded_in_the_step_give_the_step_of_their_tokens(stage1):
    config = tiny_stage2(stage1)
    of_tokens = build(config)
    config.data.crop = "random_resized"
    of_images = build(config)
    assert of_images.encode and not of_tokens.encode
    state = initial_state(stage1)
    images = np.random.default_rng(0).random((8, 16, 16, 3), np.float32)
    labels = batch()["label"]
    tokens = np.asarray(of_tokens.tokenizer.encode(images)).reshape(8, 16)
    expected = jax.jit(of_tokens.train_step)(state, {}, {"tokens": tokens, "label": labels})
    found = jax.jit(of_images.train_step)(state, of_images.load_frozen(), {"image": images, "label": labels})
    for name in ("loss", "gradient_norm"):
        np.testing.assert_allclose(found[1][name], expected[1][name], rtol=1e-5)


def test_interrupted_and_resumed_equals_uninterrupted_bitwise(stage1, tmp_path):
    config = tiny_stage2(stage1)
    config.optimizer.schedule = "constant"  # its end is `steps`, which the two halves differ in
    trainer = compiled_once(build(config))

    def run(name, steps):
        config.steps = steps
        e = build_experiment(config, tmp_path / name)
        return e, loop.train(trainer, e.data_iterator, e.evaluation_batches, tmp_path / name, e.loop_config)

    _, whole = run("whole", 8)
    run("parts", 4)
    experiment, parts = run("parts", 8)
    assert int(parts.step) == 8
    assert_same(whole, parts)
    scalars, pictures = trainer.make_evaluator(sharding.make_mesh())(parts, experiment.evaluation_batches())
    assert {f"validation/{n}_at_{r}" for n in ("bits", "accuracy") for r in ("0.45", "0.6", "0.75", "0.9", "1")} < set(
        scalars
    )
    assert 0 < scalars["validation/marginal_entropy_bits"] <= np.log2(240)
    assert pictures["samples"].dtype == np.uint8


@pytest.mark.parametrize("generator", GENERATORS)
def test_samples_do_not_depend_on_devices_or_batch_size(stage1, generator, monkeypatch):
    config = tiny_stage2(stage1, f"quantizer=fsq,bits=8,generator={generator}")
    trainer = build(config)
    params = jax.tree.map(lambda p: p * 10, initial_state(stage1, generator).params)
    labels = np.arange(12) % 2
    tokens, images = [], []
    for devices, batch_size in ((4, 8), (4, 4), (1, 5)):
        monkeypatch.setattr(jax, "local_devices", lambda n=devices: jax.devices()[:n])
        image_generator = ImageGenerator(trainer.generator, params, trainer.tokenizer, step=0, batch_size=batch_size)
        tokens.append(np.concatenate(list(image_generator.token_batches(labels, seed=3, guidance=0.5))))
        images.append(image_generator.images(labels, seed=3, guidance=0.5).astype(int))
    for other_tokens, other_images in zip(tokens[1:], images[1:], strict=True):
        np.testing.assert_array_equal(tokens[0], other_tokens)
        assert np.abs(images[0] - other_images).max() <= 1  # bytes of images that agree within 1e-5
    decode = trainer.tokenizer.decode
    split, whole = decode(tokens[0]), np.concatenate([decode(tokens[0][i : i + 3]) for i in range(0, 12, 3)])
    assert len(split.sharding.device_set) == 4  # 12 images over four devices, 3 on one
    np.testing.assert_allclose(split, whole, atol=1e-5)
    plain = np.concatenate(list(image_generator.token_batches(labels, seed=3)))
    assert plain.shape == (12, 4, 4) and (plain != tokens[0]).any()
    with pytest.raises(ValueError, match="label 2 is out of range; the run's classes are 0 .. 1"):
        image_generator.images(np.array([0, 2]), seed=0)


def test_wrong_stage1_is_named(stage1, tmp_path):
    for change, words in (
        ({"quantizer.levels": (8, 8)}, "codebook size 240, the config has 64"),
        ({"quantizer.levels": (6, 8, 5)}, r"quantizer.levels \(8, 6, 5\), the config has \(6, 8, 5\)"),
        ({"data.resolution": 32}, "data.resolution 16, the config has 32"),
        ({"stage1": str(tmp_path)}, "is not a run directory"),
        ({"stage1": ""}, "stage1 is empty"),
    ):
        config = tiny_stage2(stage1)
        config.update_from_flattened_dict(change)
        with pytest.raises(UserError, match=words):
            load_stage1_tokenizer(config)
    with pytest.raises(UserError, match="other weights"):
        load_stage1_tokenizer(tiny_stage2(stage1), fingerprint="0")
    with pytest.raises(UserError, match="samples are drawn from one of maskgit"):
        load_image_generator(stage1)
    config = tiny_stage2(stage1)
    config.data.num_classes = 3
    with pytest.raises(ValueError, match="data.num_classes = 3, but noise/train has 2 classes"):
        maskgit_factory.build_source(config, "train")
