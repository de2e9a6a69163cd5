"""The stage-I step: terms, gradients, devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.factories import autoencoder as autoencoder_factory
from fsq_repro.runtime import sharding
from tests.tiny import tiny_config


def images(batch: int = 8, seed: int = 0) -> dict[str, np.ndarray]:
    return {"image": np.random.default_rng(seed).random((batch, 16, 16, 3), np.float32)}


@functools.cache
def initial_state(quantizer: str, gan: bool):
    config = tiny_config(f"quantizer={quantizer},bits=8", gan=gan)
    return jax.jit(autoencoder_factory.build_trainer(config).init_state)(jax.random.key(0))


def start(config):
    """Trainer and initial state; no other field that the tests set changes the state."""
    return autoencoder_factory.build_trainer(config), initial_state(config.quantizer.name, config.loss.gan > 0)


def flat(tree) -> np.ndarray:
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


@pytest.mark.parametrize("quantizer", ["fsq", "vq", "ema_vq"])
def test_steps_lower_the_loss_and_the_ema_follows(quantizer):
    config = tiny_config(f"quantizer={quantizer},bits=8")
    config.optimizer.learning_rate, config.optimizer.schedule, config.optimizer.warmup_steps = 1e-3, "constant", 0
    config.ema_decay = 0.5
    trainer, state = start(config)
    step = jax.jit(trainer.train_step)
    first_params = state.params
    l2 = []
    for _ in range(15):
        before = state
        state, metrics = step(state, {}, images())
        l2.append(float(metrics["loss/l2"]))
    assert l2[-1] < 0.7 * l2[0]
    assert int(state.step) == 15
    expected = jax.tree.map(lambda e, p: 0.5 * e + 0.5 * p, before.ema_params, state.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), state.ema_params, expected)
    assert not np.allclose(flat(first_params), flat(state.params))
    if quantizer == "ema_vq":  # the codebook moves by statistics, not by gradient
        counts = [s.quantizer_state["quantizer"]["counts"] for s in (before, state)]
        assert not np.allclose(*counts)


def test_terms_of_weight_zero_are_not_built():
    trainer, state = start(tiny_config())
    assert state.discriminator_params == {} and trainer.load_frozen() == {}
    _, metrics = jax.eval_shape(trainer.train_step, state, {}, images())
    assert not [k for k in metrics if "gan" in k or "discriminator" in k or "perceptual" in k]


def test_all_terms_and_their_weights():
    config = tiny_config(gan=True)
    config.data.resolution = 32
    config.loss.perceptual, config.loss.perceptual_network, config.eval.networks = 0.1, "lpips_alexnet", ("vgg16",)
    trainer = autoencoder_factory.build_trainer(config)
    state = jax.jit(trainer.init_state)(jax.random.key(0))
    batch = {"image": np.random.default_rng(0).random((4, 32, 32, 3), np.float32)}
    _, metrics = jax.jit(trainer.train_step)(state, trainer.load_frozen(), batch)
    terms = [v for k, v in metrics.items() if k.startswith("loss/")]
    assert {k for k in metrics if k.startswith("loss/")} == {"loss/l2", "loss/perceptual", "loss/gan", "loss/quantizer"}
    np.testing.assert_allclose(metrics["loss"], sum(terms), rtol=1e-5)
    assert metrics["discriminator/r1"] > 0 and 0 < metrics["loss/perceptual"] < 0.1


def test_generator_and_discriminator_gradients_are_disjoint():
    """Neither loss moves the other's parameters, and a larger R1 or D does not leak into the generator's step."""
    trainer, state = start(tiny_config(gan=True))
    batch = images()["image"]

    def generator_total(params, discriminator_params):
        other = state.replace(discriminator_params=discriminator_params)
        return trainer.generator_loss(params, other, {}, batch, state.rng)[0]

    to_generator, to_discriminator = jax.jit(jax.grad(generator_total, (0, 1)))(
        state.params, state.discriminator_params
    )
    assert np.abs(flat(to_generator)).max() > 0 and np.abs(flat(to_discriminator)).max() == 0

    def discriminator_total(discriminator_params, params):
        reconstruction = trainer.generator_loss(params, state, {}, batch, state.rng)[1][0]
        return trainer.discriminator_loss(discriminator_params, batch, reconstruction)[0]

    to_discriminator, to_generator = jax.jit(jax.grad(discriminator_total, (0, 1)))(
        state.discriminator_params, state.params
    )
    assert np.abs(flat(to_discriminator)).max() > 0 and np.abs(flat(to_generator)).max() == 0


def test_r1_penalty_equals_the_published_squared_gradient():
    from fsq_repro.losses import gan

    params = {"w": jnp.arange(12.0).reshape(2, 2, 3)}
    images_2 = np.random.default_rng(0).random((2, 2, 2, 3), np.float32)

    def discriminator(p, x):  # D(x) = sum(w x^2) / 2, so grad = w x
        return 0.5 * jnp.sum(p["w"][None] * x**2, axis=(1, 2, 3))[:, None]

    expected = np.mean(np.sum((np.asarray(params["w"])[None] * images_2) ** 2, axis=(1, 2, 3)))
    np.testing.assert_allclose(gan.r1_penalty(discriminator, params, images_2), expected, rtol=1e-5)


def test_gan_losses_by_hand():
    from fsq_repro.losses import gan

    real, fake = jnp.array([[2.0], [-1.0]]), jnp.array([[0.5], [3.0]])
    sigmoid = lambda x: 1 / (1 + np.exp(-np.asarray(x, np.float64)))  # noqa: E731
    np.testing.assert_allclose(gan.generator_loss(fake), -np.log(sigmoid(fake)).mean(), rtol=1e-6)
    expected = -np.log(sigmoid(real)).mean() - np.log(1 - sigmoid(fake)).mean()
    np.testing.assert_allclose(gan.discriminator_loss(real, fake), expected, rtol=1e-6)


@pytest.mark.parametrize("quantizer", ["fsq", "vq"])
def test_one_device_equals_four(quantizer):
    """First-step gradients within 1e-4 relative, losses of 20 steps within 1e-3 relative."""
    config = tiny_config(f"quantizer={quantizer},bits=8")
    assert config.optimizer.beta1 == 0
    trainer, first = start(config)
    gradients, losses = [], []
    for devices in (1, 4):
        mesh = sharding.make_mesh(devices=jax.devices()[:devices])
        place = sharding.replicated(mesh)
        state = jax.device_put(first, place)
        step = jax.jit(trainer.train_step, out_shardings=(place, place))
        curve = []
        for i in range(20):
            state, metrics = step(state, {}, sharding.put_batch(images(seed=i), mesh))
            curve.append(float(metrics["loss"]))
            if i == 0:
                gradients.append(flat(state.opt_state[0].mu))  # Adam's first moments of decay 0
        losses.append(curve)
    assert np.all(np.isfinite(gradients[0])) and np.linalg.norm(gradients[0]) > 0
    assert np.linalg.norm(gradients[0] - gradients[1]) <= 1e-4 * np.linalg.norm(gradients[0])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)


def test_bfloat16_compute_keeps_float32_parameters():
    config = tiny_config()
    config.model.dtype = "bfloat16"
    trainer, state = start(config)
    state, metrics = jax.jit(trainer.train_step)(state, {}, images())
    assert {x.dtype for x in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
    assert metrics["loss"].dtype == jnp.float32 and np.isfinite(metrics["loss"])


def test_evaluator_masks_padding():
    trainer, state = start(tiny_config())
    evaluate = trainer.make_evaluator(sharding.make_mesh())
    real = images(6)["image"]
    padded = np.concatenate([real, np.full((2, 16, 16, 3), 50.0, np.float32)])
    mask = np.arange(8) < 6
    scalars, pictures = evaluate(state, [{"image": padded, "label": np.zeros(8, np.int32), "mask": mask}])
    more, _ = evaluate(
        state, [{"image": np.concatenate([real, real[:2]]), "label": np.zeros(8, np.int32), "mask": mask}]
    )
    assert scalars == more and scalars["validation/mse"] < 10
    assert pictures["reconstructions"].dtype == np.uint8
