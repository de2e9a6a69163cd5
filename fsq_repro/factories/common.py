"""What the factories of all kinds share: from a config's fields to typed objects. Nothing below reads a ConfigDict.

What several fields must be together is checked here, and single ones by `fields`, before anything is compiled or
written: errors name the field, its value and what is allowed.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from fsq_repro.data.pipeline import Augmentation, Prepare, eval_batches, train_iterator
from fsq_repro.data.sources import Source, make_source
from fsq_repro.errors import explained
from fsq_repro.factories import fields
from fsq_repro.quantizers import make_quantizer, quantizer_label
from fsq_repro.runtime import sharding
from fsq_repro.trainers.accumulation import check_division
from fsq_repro.trainers.loop import LoopConfig, Trainer

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def build_network(network: type[nn.Module], c: ConfigDict, **others: Any) -> nn.Module:
    """A network whose attributes are the fields of `config.model` and these others."""
    attributes = {field.name: c[field.name] for field in dataclasses.fields(network) if field.name in c}
    return network(**attributes | others | {"dtype": DTYPES[c.dtype]})


def build_schedule(c: ConfigDict, steps: int) -> optax.Schedule:
    """Learning rate: constant or cosine to 0, behind a linear warm-up."""
    rate, warmup_steps = c.learning_rate, c.warmup_steps
    if warmup_steps >= steps:
        raise ValueError(f"optimizer.warmup_steps = {warmup_steps} must be in 0 .. steps - 1 = {steps - 1}")
    if c.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(0.0, rate, warmup_steps, steps)
    # optax takes no warm-up for a rate of 0 all along.
    return optax.warmup_constant_schedule(0.0, rate, warmup_steps) if warmup_steps else optax.constant_schedule(rate)


def build_loop(config: ConfigDict) -> LoopConfig:
    names = [f.name for f in dataclasses.fields(LoopConfig) if f.name != "fsdp"]
    return LoopConfig(**{name: config[name] for name in names}, fsdp=config.mesh.fsdp)


def check_devices(config: ConfigDict) -> None:
    """ValueError for what the devices of all processes cannot share equally."""
    sharding.make_mesh(config.mesh.fsdp)
    check_division(config.batch_size, config.accumulate_steps, jax.device_count())
    check_eval_batch(config)


def check_eval_batch(config: ConfigDict) -> None:
    size, devices = config.eval.batch_size, jax.device_count()
    if size % devices:
        raise ValueError(f"eval.batch_size = {size} must be a multiple of the {devices} devices")


def batch_sizes(*configs: ConfigDict) -> list[int]:
    """The batches that all devices share: microbatches of training, and batches of evaluation.

    UserError for a field of these that is missing or cannot be.
    """
    with explained():
        for c in configs:
            fields.check(c, "batch_size", "accumulate_steps", "eval.batch_size")
    microbatches = [c.batch_size // c.accumulate_steps for c in configs]
    return microbatches + [c.eval.batch_size for c in configs]


def build_source(config: ConfigDict, split: str) -> Source:
    return make_source(config.data.source, split, config.data.resolution)


def build_train_iterator(
    config: ConfigDict,
    source: Source | Sequence[dict],
    augmentation: Augmentation | None = None,
    prepare: Prepare | None = None,
) -> Any:
    """This process's part of the training batches, as a grain iterator; by default augmented as `config.data` says."""
    return train_iterator(
        source,
        batch_size=config.batch_size // jax.process_count(),
        resolution=config.data.resolution,
        seed=config.seed,
        augmentation=augmentation or Augmentation(flip=config.data.flip, crop=config.data.crop),
        prepare=prepare,
        num_workers=config.data.num_workers,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def build_eval_batches(
    config: ConfigDict, source: Source, processes: int | None = None, **preparation: Any
) -> eval_batches:
    """This process's part of the batches that cover `source` once; eval.batch_size is global.

    `processes` is their number, 1 where each goes through the whole source; `preparation` as of `eval_batches`.
    """
    check_eval_batch(config)
    return eval_batches(
        source,
        batch_size=config.eval.batch_size // jax.process_count(),
        resolution=config.data.resolution,
        process_index=0 if processes == 1 else jax.process_index(),
        process_count=processes or jax.process_count(),
        **preparation,
    )


def run_facts(config: ConfigDict, trainer: Trainer, num_tokens: int) -> dict:
    """What the records of all kinds say of a run before it has trained; `num_tokens` are those of an example."""
    abstract = jax.eval_shape(trainer.init_state, jax.random.key(0))
    quantizer = make_quantizer(**config.quantizer)
    return {
        "experiment": config.experiment,
        "scale": config.scale,
        "quantizer": quantizer_label(**config.quantizer),
        "levels": None if quantizer.levels is None else list(quantizer.levels),
        "codebook_size": quantizer.codebook_size,
        "target_bits": config.target_bits,
        "num_tokens": num_tokens,
        "parameters": sum(x.size for x in jax.tree.leaves(abstract.params)),
        "seed": config.seed,
        "steps": config.steps,
        "batch_size": config.batch_size,
        "data": {"source": config.data.source, "resolution": config.data.resolution},
    }
