"""From a config of the image autoencoder to typed objects; see `common`."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from fsq_repro.factories import common
from fsq_repro.models.autoencoder import Autoencoder
from fsq_repro.models.discriminator import Discriminator
from fsq_repro.trainers.autoencoder import AutoencoderTrainer, LossWeights


def build_autoencoder(config: ConfigDict) -> Autoencoder:
    m = config.model
    model = Autoencoder(
        quantizer=common.build_quantizer(config.quantizer),
        filters=m.filters,
        channel_multipliers=m.channel_multipliers,
        num_res_blocks=m.num_res_blocks,
        stem_patch=m.stem_patch,
        faithful_shortcut=m.faithful_shortcut,
        dtype=common.build_dtype(m),
    )
    if config.data.resolution < 1 or config.data.resolution % model.stride:
        raise ValueError(
            f"data.resolution = {config.data.resolution} must be a multiple of the stride, {model.stride} "
            "(model.stem_patch times 2 for each of model.channel_multipliers but the last)"
        )
    # Shapes only: whatever the modules refuse is refused here.
    image = jax.ShapeDtypeStruct((1, config.data.resolution, config.data.resolution, 3), jnp.float32)
    jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)
    return model


def build_optimizer(c: ConfigDict, steps: int) -> optax.GradientTransformation:
    """Adam as MaskGIT's stage I uses it."""
    return optax.adam(common.build_schedule(c, steps), b1=c.beta1, b2=c.beta2)


def check_networks(config: ConfigDict) -> None:
    """ValueError where a table would be scored with the network of the training loss."""
    network = config.loss.perceptual_network
    if config.loss.perceptual and network.removeprefix("lpips_") in config.eval.networks:
        raise ValueError(
            f"eval.networks = {config.eval.networks} has the network of the training loss, loss.perceptual_network = "
            f"{network!r}; a table is never scored with it"
        )


def build_trainer(config: ConfigDict) -> AutoencoderTrainer:
    weights = LossWeights(config.loss.l2, config.loss.perceptual, config.loss.gan, config.loss.r1)
    for name, weight in dataclasses.asdict(weights).items():
        if not (weight >= 0 and math.isfinite(weight)):
            raise ValueError(f"loss.{name} = {weight} must be a finite number >= 0")
    check_networks(config)
    model = build_autoencoder(config)
    resolution = config.data.resolution
    discriminator = Discriminator(channel_multiplier=config.discriminator.channel_multiplier)
    if weights.gan:
        image = jax.ShapeDtypeStruct((1, resolution, resolution, 3), jnp.float32)
        jax.eval_shape(lambda x: discriminator.init(jax.random.key(0), x), image)
    return AutoencoderTrainer(
        model=model,
        discriminator=discriminator,
        optimizer=build_optimizer(config.optimizer, config.steps),
        discriminator_optimizer=build_optimizer(config.optimizer, config.steps),
        weights=weights,
        resolution=resolution,
        ema_decay=common.build_ema_decay(config),
        perceptual_network=config.loss.perceptual_network,
        perceptual_path=config.loss.perceptual_path,
        accumulate_steps=config.accumulate_steps,
    )


def num_tokens(trainer: AutoencoderTrainer) -> int:
    """Tokens of an image."""
    return (trainer.resolution // trainer.model.stride) ** 2


def run_facts(config: ConfigDict, trainer: AutoencoderTrainer) -> dict:
    """What `record.json` says of a run before it has trained."""
    return common.common_facts(config, trainer, num_tokens(trainer)) | {"stage": 1}
