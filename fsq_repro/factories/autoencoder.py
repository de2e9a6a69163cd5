"""From a config of the image autoencoder to typed objects; see `common`."""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from fsq_repro.factories import common, fields
from fsq_repro.models.autoencoder import Autoencoder
from fsq_repro.models.discriminator import Discriminator
from fsq_repro.quantizers import make_quantizer
from fsq_repro.trainers.autoencoder import AutoencoderTrainer, LossWeights


def build_autoencoder(config: ConfigDict) -> Autoencoder:
    model = common.build_network(Autoencoder, config.model, quantizer=make_quantizer(**config.quantizer))
    if config.data.resolution % model.stride:
        raise ValueError(
            f"data.resolution = {config.data.resolution} must be a multiple of the stride, {model.stride} "
            "(model.stem_patch times 2 for each of model.channel_multipliers but the last)"
        )
    # Shapes only: whatever the modules refuse is refused here.
    jax.eval_shape(lambda: model.init(jax.random.key(0), blank_image(config), train=False))
    return model


def blank_image(config: ConfigDict) -> jax.Array:
    return jnp.zeros((1, config.data.resolution, config.data.resolution, 3))


def check_networks(config: ConfigDict) -> None:
    """ValueError where a table would be scored with the network of the training loss."""
    network = config.loss.perceptual_network
    if config.loss.perceptual and network.removeprefix("lpips_") in config.eval.networks:
        raise ValueError(
            f"eval.networks = {config.eval.networks} has the network of the training loss, loss.perceptual_network = "
            f"{network!r}; a table is never scored with it"
        )


def build_trainer(config: ConfigDict) -> AutoencoderTrainer:
    fields.check_values(config)
    check_networks(config)
    model, c = build_autoencoder(config), config.optimizer
    discriminator = Discriminator(config.discriminator.channel_multiplier)
    weights = LossWeights(config.loss.l2, config.loss.perceptual, config.loss.gan, config.loss.r1)
    if weights.gan:
        jax.eval_shape(lambda: discriminator.init(jax.random.key(0), blank_image(config)))
    return AutoencoderTrainer(
        model=model,
        discriminator=discriminator,
        optimizer=optax.adam(common.build_schedule(c, config.steps), b1=c.beta1, b2=c.beta2),
        weights=weights,
        resolution=config.data.resolution,
        ema_decay=config.ema_decay,
        perceptual_network=config.loss.perceptual_network,
        perceptual_path=config.loss.perceptual_path,
        accumulate_steps=config.accumulate_steps,
    )
