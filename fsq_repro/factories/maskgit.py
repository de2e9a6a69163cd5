"""From a stage-II config and stage I's run directory to typed objects; see `common`."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from fsq_repro.data.sources import Source
from fsq_repro.data.tokens import TokenSource, encode_source
from fsq_repro.factories import common, fields
from fsq_repro.models.autoregressive_transformer import AutoregressiveTransformer
from fsq_repro.models.masked_transformer import MaskedTransformer
from fsq_repro.quantizers import make_quantizer
from fsq_repro.sampling.registry import make_sampler
from fsq_repro.trainers.big_vision_adafactor import kernels
from fsq_repro.trainers.generators import AutoregressiveGenerator, Generator, MaskedGenerator
from fsq_repro.trainers.maskgit import MaskGITTrainer

KINDS = {"masked": MaskedTransformer, "autoregressive": AutoregressiveTransformer}


def build_generator(config: ConfigDict, grid: int) -> Generator:
    """`config.model` and the sampler's fields -> generator of grid x grid tokens."""
    m = config.model
    model = common.build_network(
        KINDS[m.kind],
        m,
        codebook_size=make_quantizer(**config.quantizer).codebook_size,
        num_classes=config.data.num_classes,
        num_tokens=grid * grid,
    )
    if m.kind == "autoregressive":
        generator = AutoregressiveGenerator(model, grid, config.label_smoothing)
    else:
        generator = MaskedGenerator(
            model,
            grid,
            config.label_smoothing,
            **config.masking,
            sampler=make_sampler(**{k: v for k, v in config.sampler.items() if k != "guidance_weight"}),
            m2t_alpha=config.compression.alpha,
            m2t_num_groups=config.compression.num_groups,
        )
    # Shapes only, of one layer: what the network, the masks, the sampler and the schedule refuse is refused here.
    probe = dataclasses.replace(generator, model=model.clone(num_layers=1))

    def everything():
        key, tokens, labels = jax.random.key(0), jnp.zeros((1, grid * grid), jnp.int32), jnp.zeros(1, jnp.int32)
        params = probe.model.init(key, tokens, labels)["params"]
        samples = probe.sample(params, key, labels, labels, config.sampler.guidance_weight)
        loss = probe.loss(params, tokens, labels, *probe.draw(key, 1))
        return loss, samples, probe.token_bits(params, tokens, labels)

    jax.eval_shape(everything)
    return generator


def build_optimizer(c: ConfigDict, steps: int) -> optax.GradientTransformation:
    """AdamW behind a clip of the gradient's global norm; decay on kernels only, as magvit's trainer has it."""
    parts = [optax.clip_by_global_norm(c.gradient_clip)] if c.gradient_clip else []
    parts += [optax.scale_by_adam(b1=c.beta1, b2=c.beta2)]
    parts += [optax.add_decayed_weights(c.weight_decay, mask=kernels)] if c.weight_decay else []
    return optax.chain(*parts, optax.scale_by_learning_rate(common.build_schedule(c, steps)))


def check_evaluation(config: ConfigDict) -> None:
    """ValueError for what the evaluation would refuse only after the training."""
    e, num_classes = config.eval, config.data.num_classes
    bad = [label for label in e.picture_labels if not 0 <= label < num_classes]
    if bad:
        raise ValueError(f"eval.picture_labels = {e.picture_labels} must be some labels of 0 .. {num_classes - 1}")
    if e.samples < num_classes:
        raise ValueError(f"eval.samples = {e.samples} must be at least {num_classes}, one for each class")
    if e.class_distances and (num_classes < 2 or e.samples < 2 * num_classes):
        raise ValueError(f"eval.class_distances needs two classes and two samples each, eval.samples = {e.samples}")
    if e.class_agreement and not (num_classes > 1 and e.networks):
        raise ValueError(
            f"eval.class_agreement needs two classes and a network, data.num_classes = {num_classes} and "
            f"eval.networks = {e.networks}"
        )


def build_trainer(config: ConfigDict, tokenizer: Any) -> MaskGITTrainer:
    """Stage II over the tokens of an `inference.tokenizer.Tokenizer`."""
    fields.check_values(config)
    generator = build_generator(config, tokenizer.grid)
    check_evaluation(config)
    return MaskGITTrainer(
        generator=generator,
        optimizer=build_optimizer(config.optimizer, config.steps),
        ema_decay=config.ema_decay,
        label_drop=config.label_drop,
        tokenizer=tokenizer,
        encode=not trains_on_tokens(config),
        accumulate_steps=config.accumulate_steps,
    )


def trains_on_tokens(config: ConfigDict) -> bool:
    """Whether images are encoded once, before training; random crops are encoded in each step."""
    return config.data.crop == "none"


def build_source(config: ConfigDict, split: str) -> Source:
    """The images; ValueError if their number of classes is not the config's."""
    source = common.build_source(config, split)
    if source.num_classes != config.data.num_classes:
        raise ValueError(
            f"data.num_classes = {config.data.num_classes}, but {source.name}/{split} has {source.num_classes} classes"
        )
    return source


def build_tokens(config: ConfigDict, tokenizer: Any, source: Source, processes: int | None = None) -> TokenSource:
    """This process's share of a source as tokens, mirrored too where training flips; encoded on first use.

    `processes` is the number that share it, by default all; 1 where each goes through the whole source.
    """
    common.check_eval_batch(config)
    processes = jax.process_count() if processes is None else processes
    return encode_source(
        source,
        tokenizer.encode,
        tokenizer=tokenizer.fingerprint,
        num_tokens=tokenizer.grid**2,
        resolution=tokenizer.resolution,
        mirrored=config.data.flip and source.split == "train",
        batch_size=config.eval.batch_size // jax.process_count(),
        process_index=jax.process_index() if processes > 1 else 0,
        process_count=processes,
    )
