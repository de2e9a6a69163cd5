"""From a config of UViM to typed objects: stage I, and what both stages share; see `common`."""

import dataclasses

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from fsq_repro.data.dense_sources import make_dense_source
from fsq_repro.data.pipeline import Augmentation
from fsq_repro.data.sources import Source
from fsq_repro.factories import common, fields
from fsq_repro.models.label_autoencoder import LabelAutoencoder
from fsq_repro.quantizers import make_quantizer
from fsq_repro.tasks.base import Preparation, Task
from fsq_repro.tasks.registry import TASKS
from fsq_repro.trainers import big_vision_adafactor
from fsq_repro.trainers.label_autoencoder import LabelAutoencoderTrainer


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
    side = config.data.resolution
    model = common.build_network(
        LabelAutoencoder,
        config.model,
        quantizer=make_quantizer(**config.quantizer),
        labels=task.labels,
        resolution=side,
        encoder_context=config.context,
        decoder_context=config.context,
    )
    # Shapes only, of one layer: whatever the modules refuse is refused here.
    probe = model.clone(encoder_depth=1, decoder_depth=1)
    labels = {name: jnp.zeros((1, side, side, channels)) for name, channels in task.labels}
    context = jnp.zeros((1, side, side, 3))
    keys = {"params": jax.random.key(0), "quantizer": jax.random.key(0)}
    jax.eval_shape(lambda: probe.init(keys, labels, context, train=False))
    return model


def build_trainer(config: ConfigDict) -> LabelAutoencoderTrainer:
    """Stage I."""
    fields.check_values(config)
    task = build_task(config.task)
    model = build_model(config, task)
    task.check_evaluation(config.eval.to_dict())
    optimizer = big_vision_adafactor.build(**config.optimizer, steps=config.steps)
    return LabelAutoencoderTrainer(model, task, optimizer, config.accumulate_steps)


def build_source(config: ConfigDict, split: str) -> Source:
    """The images with the task's labels; ValueError where the source's labels do not fit the task."""
    task, d = build_task(config.task), config.data
    return task.labelled(
        make_dense_source(task.needs, d.source, split, d.resolution, tfds_split=d.splits[split] or None, crop=d.crop)
    )


def build_train_iterator(config: ConfigDict, task: Task, source: Source):
    """This process's part of the prepared training batches, as a grain iterator."""
    d = config.data
    augmentation = Augmentation(d.flip, task.flip, "inception", d.min_scale, d.aspect, antialias=False)
    return common.build_train_iterator(config, source, augmentation, task.prepare)


def build_eval_batches(config: ConfigDict, task: Preparation, source: Source, processes: int | None = None):
    """As of `common`, prepared."""
    return common.build_eval_batches(config, source, processes, transform=task.eval_transform, prepare=task.prepare)
