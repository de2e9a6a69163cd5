"""From a config of UViM to typed objects: stage I, and what both stages share; see `common`."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from fsq_repro.data.dense_sources import make_dense_source
from fsq_repro.data.pipeline import Augmentation, eval_batches, train_iterator
from fsq_repro.data.sources import Source
from fsq_repro.factories import common
from fsq_repro.models.label_autoencoder import LabelAutoencoder
from fsq_repro.tasks.base import Preparation, Task
from fsq_repro.tasks.registry import TASKS
from fsq_repro.trainers import big_vision_adafactor
from fsq_repro.trainers.label_autoencoder import LabelAutoencoderTrainer
from fsq_repro.trainers.loop import Trainer


def build_task(c: ConfigDict) -> Task:
    """`config.task` -> task; its fields but `name` are the task's attributes."""
    if c.name not in TASKS:
        raise ValueError(f"task.name = {c.name!r} is not one of {', '.join(TASKS)}")
    kind, fields = TASKS[c.name], c.to_dict()
    wanted = sorted(["name", *(f.name for f in dataclasses.fields(kind))])
    if sorted(fields) != wanted:
        raise ValueError(
            f"task.name = {c.name!r} needs the fields {', '.join(wanted)} of task, but the config has "
            f"{', '.join(sorted(fields))}; choose the task by its config file"
        )
    del fields["name"]
    return kind(**fields)


def build_model(config: ConfigDict, task: Task) -> LabelAutoencoder:
    m, resolution = config.model, config.data.resolution
    model = LabelAutoencoder(
        quantizer=common.build_quantizer(config.quantizer),
        labels=task.labels,
        resolution=resolution,
        patch_size=m.patch_size,
        code_grid=m.code_grid,
        width=m.width,
        encoder_depth=m.encoder_depth,
        decoder_depth=m.decoder_depth,
        num_heads=m.num_heads,
        mlp_width=m.mlp_width,
        encoder_context=config.context,
        decoder_context=config.context,
        code_dropout=m.code_dropout,
        remat=m.remat,
        dtype=common.build_dtype(m),
    )
    # Shapes only, of one layer: whatever the modules refuse is refused here.
    probe = model.clone(encoder_depth=1, decoder_depth=1)
    labels = {name: jnp.zeros((1, resolution, resolution, channels)) for name, channels in task.labels}
    context = jnp.zeros((1, resolution, resolution, 3))
    keys = {"params": jax.random.key(0), "quantizer": jax.random.key(0)}
    jax.eval_shape(lambda: probe.init(keys, labels, context, train=False))
    return model


def build_optimizer(c: ConfigDict, steps: int) -> optax.GradientTransformation:
    """`config.optimizer` -> big_vision's Adafactor."""
    return big_vision_adafactor.build(
        c.learning_rate,
        steps=steps,
        warmup_steps=c.warmup_steps,
        weight_decay=c.weight_decay,
        gradient_clip=c.gradient_clip,
        multipliers=c.multipliers,
    )


def build_trainer(config: ConfigDict) -> LabelAutoencoderTrainer:
    """Stage I."""
    task = build_task(config.task)
    model = build_model(config, task)
    task.check_evaluation(config.eval.to_dict())
    return LabelAutoencoderTrainer(
        model, task, build_optimizer(config.optimizer, config.steps), config.accumulate_steps
    )


def build_source(config: ConfigDict, split: str) -> Source:
    """The images with the task's labels; ValueError where the source's labels do not fit the task."""
    task, d = build_task(config.task), config.data
    return task.labelled(
        make_dense_source(task.needs, d.source, split, d.resolution, tfds_split=d.splits[split] or None, crop=d.crop)
    )


def build_train_iterator(config: ConfigDict, task: Task, source: Source):
    """This process's part of the prepared training batches, as a grain iterator."""
    common.check_batch(config)
    d, processes = config.data, jax.process_count()
    return train_iterator(
        source,
        batch_size=config.batch_size // processes,
        resolution=d.resolution,
        seed=config.seed,
        augmentation=Augmentation(
            flip=d.flip,
            mirror=task.flip,
            crop="inception",
            min_scale=d.min_scale,
            aspect=d.aspect,
            antialias=False,
        ),
        prepare=task.prepare,
        num_workers=d.num_workers,
        process_index=jax.process_index(),
        process_count=processes,
    )


def build_eval_batches(config: ConfigDict, task: Preparation, source: Source, processes: int | None = None):
    """This process's part of the prepared batches that cover `source` once; eval.batch_size is global.

    `processes` is their number, 1 where each goes through the whole source.
    """
    common.check_eval_batch(config)
    processes = jax.process_count() if processes is None else processes
    return eval_batches(
        source,
        batch_size=config.eval.batch_size // jax.process_count(),
        resolution=config.data.resolution,
        transform=task.eval_transform,
        prepare=task.prepare,
        process_index=jax.process_index() if processes > 1 else 0,
        process_count=processes,
    )


def run_facts(config: ConfigDict, trainer: Trainer, num_codes: int) -> dict:
    """What `record.json` says of a run of either stage before it has trained."""
    return common.common_facts(config, trainer, num_codes) | {"task": config.task.name, "context": config.context}
