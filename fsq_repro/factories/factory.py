"""From a stage-I config to typed objects, and what the factories of all stages share. Nothing below reads a ConfigDict.

Every value is checked here, before anything is compiled or written: errors name the field, its value and what is
allowed.
"""

import dataclasses
import logging
import math
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from fsq_repro.data.pipeline import Augmentation, eval_batches, train_iterator
from fsq_repro.data.sources import Source, make_source
from fsq_repro.metrics.reference_statistics import ReferenceStatistics
from fsq_repro.metrics.scoring import Scorer, make_scorers
from fsq_repro.models.autoencoder import Autoencoder
from fsq_repro.models.discriminator import Discriminator
from fsq_repro.quantizers import FSQ, EmaVectorQuantizer, VectorQuantizer
from fsq_repro.runtime import sharding
from fsq_repro.trainers.accumulation import check_division
from fsq_repro.trainers.autoencoder import AutoencoderTrainer, LossWeights
from fsq_repro.trainers.loop import LoopConfig, Trainer

log = logging.getLogger(__name__)

QUANTIZERS = {"fsq": FSQ, "vq": VectorQuantizer, "ema_vq": EmaVectorQuantizer}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def build_quantizer(c: ConfigDict) -> nn.Module:
    """`config.quantizer` -> module; its fields but `name` are the module's attributes."""
    fields = c.to_dict()
    kind = QUANTIZERS.get(fields.pop("name"))
    if kind is None:
        raise ValueError(f"quantizer.name = {c.name!r} is not one of {', '.join(QUANTIZERS)}")
    allowed = {f.name for f in dataclasses.fields(kind)} - {"parent", "name"}
    if not fields.keys() <= allowed:
        raise ValueError(
            f"quantizer.{sorted(fields.keys() - allowed)[0]} is not a field of quantizer {c.name!r}, which has "
            f"{', '.join(sorted(allowed))}; choose the quantizer in the config's argument, quantizer=..."
        )
    return kind(**fields)


def quantizer_label(c: ConfigDict) -> str:
    """Name of a quantizer in records and tables: an ablation gets its own."""
    if c.name == "vq" and not c.entropy_ratio:
        return "vq_no_entropy"
    if c.name == "ema_vq" and not c.splitting:
        return "ema_vq_no_splitting"
    return c.name


def build_autoencoder(config: ConfigDict) -> Autoencoder:
    m = config.model
    if m.dtype not in DTYPES:
        raise ValueError(f"model.dtype = {m.dtype!r} is not one of {', '.join(DTYPES)}")
    model = Autoencoder(
        quantizer=build_quantizer(config.quantizer),
        filters=m.filters,
        channel_multipliers=m.channel_multipliers,
        num_res_blocks=m.num_res_blocks,
        stem_patch=m.stem_patch,
        faithful_shortcut=m.faithful_shortcut,
        dtype=DTYPES[m.dtype],
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
    return optax.adam(build_schedule(c, steps), b1=c.beta1, b2=c.beta2)


def build_schedule(c: ConfigDict, steps: int) -> optax.Schedule:
    """Learning rate: constant or cosine to 0, behind a linear warm-up."""
    if c.schedule == "constant":
        after = optax.constant_schedule(c.learning_rate)
    elif c.schedule == "cosine":
        after = optax.cosine_decay_schedule(c.learning_rate, max(1, steps - c.warmup_steps))
    else:
        raise ValueError(f"optimizer.schedule = {c.schedule!r} is not one of constant, cosine")
    if not c.learning_rate > 0 or not 0 <= c.warmup_steps < steps:
        raise ValueError(
            f"optimizer.learning_rate = {c.learning_rate} must be positive and optimizer.warmup_steps = "
            f"{c.warmup_steps} in 0 .. steps - 1 = {steps - 1}"
        )
    warmup = optax.linear_schedule(0.0, c.learning_rate, c.warmup_steps)
    return optax.join_schedules([warmup, after], [c.warmup_steps]) if c.warmup_steps else after


def check_networks(config: ConfigDict) -> None:
    """ValueError where a table would be scored with the network of the training loss."""
    network = config.loss.perceptual_network
    if config.loss.perceptual and network.removeprefix("lpips_") in config.eval.networks:
        raise ValueError(
            f"eval.networks = {config.eval.networks} has the network of the training loss, loss.perceptual_network = "
            f"{network!r}; a table is never scored with it"
        )


def check_inception(config: ConfigDict) -> None:
    """Tells before training what the evaluation would miss; ValueError for a path where there is no file."""
    path = config.eval.get("inception", "")
    if path and not pathlib.Path(path).is_file():
        raise ValueError(f"eval.inception = {path!r} is no file; it is the path of Inception's weights")
    if not path and "inception" in config.eval.get("networks", ()):
        log.warning("eval.inception is empty: the evaluation will need scripts/evaluate.py --inception=FILE")


def choose_networks(config: ConfigDict, networks: Sequence[str] | None, inception: str | None) -> None:
    """Puts what an evaluation was told into the config in place of what it was trained with; None changes nothing."""
    with config.unlocked():
        if networks is not None:
            config.eval.networks = tuple(networks)
        if inception is not None:
            config.eval.inception = inception


def build_scorers(config: ConfigDict, resolution: int) -> list[Scorer]:
    """The networks of `config.eval`, for images of this resolution. Runs of older versions have no Inception."""
    e = config.eval
    return make_scorers(
        e.networks,
        resolution=resolution,
        batch_size=e.batch_size,
        inception=e.get("inception", ""),
        inception_resize=e.get("inception_resize", "adm"),
    )


def build_reference_files(config: ConfigDict, scorers: Sequence[Scorer]) -> dict[str, ReferenceStatistics]:
    """Network -> the published statistics in `eval.reference_file`; empty without one."""
    path = config.eval.get("reference_file", "")
    files = {scorer.name: scorer.reference_file(path) for scorer in scorers} if path else {}
    files = {name: reference for name, reference in files.items() if reference is not None}
    if path and not files:
        names = ", ".join(scorer.name for scorer in scorers)
        raise ValueError(f"eval.reference_file = {path!r} is of none of the networks {names}")
    return files


def build_trainer(config: ConfigDict) -> AutoencoderTrainer:
    """`config.trainer` -> trainer."""
    if config.trainer != "autoencoder":
        raise ValueError(f"trainer = {config.trainer!r} is not one of autoencoder")
    weights = LossWeights(config.loss.l2, config.loss.perceptual, config.loss.gan, config.loss.r1)
    for name, weight in dataclasses.asdict(weights).items():
        if not (weight >= 0 and math.isfinite(weight)):
            raise ValueError(f"loss.{name} = {weight} must be a finite number >= 0")
    check_networks(config)
    if not 0 <= config.ema_decay < 1:
        raise ValueError(f"ema_decay = {config.ema_decay} must be in [0, 1)")
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
        ema_decay=config.ema_decay,
        perceptual_network=config.loss.perceptual_network,
        perceptual_path=config.loss.perceptual_path,
        accumulate_steps=accumulate_steps(config),
    )


def build_loop(config: ConfigDict) -> LoopConfig:
    for name in ("steps", "batch_size", "log_every", "eval_every", "checkpoint_every"):
        if config[name] < 1:
            raise ValueError(f"{name} = {config[name]} must be at least 1")
    return LoopConfig(
        seed=config.seed,
        steps=config.steps,
        batch_size=config.batch_size,
        log_every=config.log_every,
        eval_every=config.eval_every,
        checkpoint_every=config.checkpoint_every,
        fsdp=config.mesh.fsdp,
    )


def accumulate_steps(config: ConfigDict) -> int:
    """Runs of older versions have no such field."""
    steps = config.get("accumulate_steps", 1)
    if steps < 1:
        raise ValueError(f"accumulate_steps = {steps} must be at least 1")
    return steps


def check_batch(config: ConfigDict) -> None:
    check_division(config.batch_size, accumulate_steps(config), jax.device_count())


def check_devices(config: ConfigDict) -> None:
    """ValueError for what the devices of all processes cannot share equally."""
    sharding.make_mesh(config.mesh.fsdp)
    check_batch(config)
    check_eval_batch(config)


def check_eval_batch(config: ConfigDict) -> None:
    if config.eval.batch_size < 1 or config.eval.batch_size % jax.device_count():
        raise ValueError(
            f"eval.batch_size = {config.eval.batch_size} must be a positive multiple of the {jax.device_count()} "
            "devices"
        )


def build_source(config: ConfigDict, split: str) -> Source:
    return make_source(config.data.source, split, config.data.resolution)


def build_train_iterator(config: ConfigDict, source: Source):
    """This process's part of the training batches, as a grain iterator."""
    check_batch(config)
    processes = jax.process_count()
    return train_iterator(
        source,
        batch_size=config.batch_size // processes,
        resolution=config.data.resolution,
        seed=config.seed,
        augmentation=Augmentation(flip=config.data.flip, crop=config.data.crop),
        num_workers=config.data.num_workers,
        process_index=jax.process_index(),
        process_count=processes,
    )


def build_eval_batches(config: ConfigDict, source: Source):
    """This process's part of the batches that cover `source` once; eval.batch_size is global."""
    check_eval_batch(config)
    processes = jax.process_count()
    return eval_batches(
        source,
        batch_size=config.eval.batch_size // processes,
        resolution=config.data.resolution,
        process_index=jax.process_index(),
        process_count=processes,
    )


def run_facts(config: ConfigDict, trainer: AutoencoderTrainer) -> dict:
    """What `record.json` says of a run before it has trained."""
    grid = config.data.resolution // trainer.model.stride
    return common_facts(config, trainer, trainer.model.quantizer.codebook_size, grid) | {"stage": 1}


def common_facts(config: ConfigDict, trainer: Trainer, codebook_size: int, grid: int) -> dict:
    """The facts that the records of all stages share."""
    abstract = jax.eval_shape(trainer.init_state, jax.random.key(0))
    return {
        "experiment": config.experiment,
        "scale": config.scale,
        "quantizer": quantizer_label(config.quantizer),
        "levels": list(config.quantizer.levels) if config.quantizer.name == "fsq" else None,
        "codebook_size": codebook_size,
        "target_bits": config.target_bits,
        "num_tokens": grid * grid,
        "parameters": sum(x.size for x in jax.tree.leaves(abstract.params)),
        "seed": config.seed,
        "steps": config.steps,
        "batch_size": config.batch_size,
        "data": {"source": config.data.source, "resolution": config.data.resolution},
    }
