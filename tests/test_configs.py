"""Every config at paper scale builds, without allocating: shapes only."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from configs import imagenet256_autoencoder, imagenet256_maskgit, tradeoff_autoencoder, tradeoff_maskgit
from fsq_repro.trainers import factory, stage2_factory

COMMON = ("seed", "steps", "batch_size", "data.source", "data.resolution", "quantizer.name")
CONFIGS = {
    "tradeoff_autoencoder": tradeoff_autoencoder,
    "imagenet256_autoencoder": imagenet256_autoencoder,
    "tradeoff_maskgit": tradeoff_maskgit,
    "imagenet256_maskgit": imagenet256_maskgit,
}


def test_every_config_file_is_tested():
    files = {p.stem for p in pathlib.Path(tradeoff_autoencoder.__file__).parent.glob("[!_]*.py")}
    assert files == set(CONFIGS)


def shapes(config: ConfigDict):
    trainer = factory.build_trainer(config)
    factory.build_loop(config)
    state = jax.eval_shape(trainer.init_state, jax.random.key(0))
    side = config.data.resolution
    batch = {"image": jax.ShapeDtypeStruct((config.batch_size, side, side, 3), jnp.float32)}
    frozen = jax.eval_shape(trainer.load_frozen)
    new_state, metrics = jax.eval_shape(trainer.train_step, state, frozen, batch)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), new_state) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    return trainer, state, metrics


@pytest.mark.parametrize(
    ("name", "quantizer"),
    [("tradeoff_autoencoder", q) for q in ("fsq", "vq", "ema_vq")] + [("imagenet256_autoencoder", "fsq")],
)
def test_builds_at_paper_scale(name, quantizer):
    config = CONFIGS[name].get_config(f"quantizer={quantizer}")
    for field in COMMON:
        value = config
        for part in field.split("."):
            value = value[part]
    trainer, state, metrics = shapes(config)
    assert config.batch_size == (512 if name == "imagenet256_autoencoder" else 256)
    assert trainer.model.stride == 16
    expected = {"loss/l2", "loss/perceptual", "loss/gan", "discriminator/r1"}
    assert expected <= metrics.keys()
    assert ("entropy_loss" in str(metrics.keys())) == (quantizer == "vq")
    counted = sum(x.size for x in jax.tree.leaves(state.params))
    if quantizer != "ema_vq":  # its codebook is state, not parameters
        assert counted == {"fsq": 52_962_951}.get(quantizer, 54_515_587)
    discriminator = sum(x.size for x in jax.tree.leaves(state.discriminator_params))
    assert discriminator == (23_998_017 if name == "imagenet256_autoencoder" else 23_880_833)


class _Tokenizer:
    """What a stage-II trainer needs of stage I to be built."""

    def __init__(self, grid: int):
        self.grid = grid


@pytest.mark.parametrize(
    ("name", "arg", "grid", "parameters"),
    [
        ("imagenet256_maskgit", "quantizer=vq", 16, 172_457_193),  # the published network
        ("imagenet256_maskgit", "quantizer=fsq", 16, 172_438_737),
        ("tradeoff_maskgit", "quantizer=fsq,bits=12", 8, None),
        ("tradeoff_maskgit", "quantizer=fsq,bits=10,generator=autoregressive", 8, None),
    ],
)
def test_stage2_builds_at_paper_scale(name, arg, grid, parameters):
    config = CONFIGS[name].get_config(arg)
    stage1 = CONFIGS[name.replace("maskgit", "autoencoder")].get_config(arg.removesuffix(",generator=autoregressive"))
    assert config.quantizer == stage1.quantizer and config.data.resolution == stage1.data.resolution
    factory.build_loop(config)
    trainer = stage2_factory.build_trainer(config, _Tokenizer(grid))
    assert trainer.encode  # random crops: no two epochs have the same tokens
    state = jax.eval_shape(trainer.init_state, jax.random.key(0))
    if "imagenet256" in name and "fsq" in arg:  # tracing 24 layers forward and backward takes seconds: once
        trainer = dataclasses.replace(trainer, encode=False)
        tokens = jax.ShapeDtypeStruct((config.batch_size, grid * grid), jnp.int32)
        batch = {"tokens": tokens, "label": jax.ShapeDtypeStruct((config.batch_size,), jnp.int32)}
        new_state, _ = jax.eval_shape(trainer.train_step, state, {}, batch)
        sizes = [jax.tree.map(lambda x: (x.shape, x.dtype), s) for s in (state, new_state)]
        assert sizes[0] == sizes[1]
    counted = sum(x.size for x in jax.tree.leaves(state.params))
    assert counted == parameters or (parameters is None and counted > 170_000_000)


@pytest.mark.parametrize("bits", [4, 6, 8, 9, 10, 11, 12, 14, 16])
@pytest.mark.parametrize("scale", ["cpu", "smoke"])
def test_small_scales_build_at_every_size(bits, scale):
    for quantizer in ("fsq", "vq"):
        config = tradeoff_autoencoder.get_config(f"quantizer={quantizer},bits={bits},scale={scale}")
        trainer = factory.build_trainer(config)
        assert 0.9 * 2**bits < trainer.model.quantizer.codebook_size < 1.1 * 2**bits


def test_values_are_tuples_not_lists():
    """The command line can override a tuple at any length, a list not at all."""
    for module in CONFIGS.values():
        flat = str(module.get_config("").to_dict())
        assert "[" not in flat


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("quantizer.levels", (8, 2), "level"),
        ("quantizer.bound", "other", "bound"),
        ("quantizer.name", "lfq", "quantizer.name = 'lfq'"),
        ("model.dtype", "float16", "model.dtype = 'float16'"),
        ("model.filters", 48, "filters"),
        ("data.resolution", 30, "data.resolution = 30"),
        ("optimizer.schedule", "linear", "optimizer.schedule = 'linear'"),
        ("optimizer.learning_rate", -1.0, "optimizer.learning_rate = -1.0"),
        ("loss.gan", -0.1, "loss.gan = -0.1"),
        ("ema_decay", 1.0, "ema_decay = 1.0"),
        ("steps", 0, "steps"),
        ("eval.networks", ("vgg16",), "loss.perceptual_network"),
    ],
)
def test_bad_values_are_named(field, value, words):
    config = tradeoff_autoencoder.get_config("quantizer=fsq,scale=smoke")
    *path, last = field.split(".")
    parent = config
    for part in path:
        parent = parent[part]
    parent[last] = value
    with pytest.raises(ValueError) as e:
        factory.build_trainer(config)
        factory.build_loop(config)
    assert words in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("model.kind", "diffusion", "model.kind = 'diffusion'"),
        ("model.num_heads", 3, "num_heads"),
        ("model.dropout", 1.0, "model.dropout = 1.0"),
        ("masking.bound", "other", "other"),
        ("masking.min_ratio", 1.5, "min_ratio"),
        ("sampler.num_steps", 0, "num_steps"),
        ("sampler.choice_temperature", -1.0, "choice_temperature"),
        ("sampler.guidance_weight", -0.1, "guidance"),
        ("compression.num_groups", 0, "num_groups"),
        ("label_drop", 1.0, "label_drop = 1.0"),
        ("label_smoothing", -0.1, "label_smoothing = -0.1"),
        ("optimizer.weight_decay", -1.0, "optimizer.weight_decay = -1.0"),
        ("ema_decay", 1.0, "ema_decay = 1.0"),
        ("data.num_classes", 0, "data.num_classes = 0"),
        ("eval.picture_labels", (0, 12), "eval.picture_labels = (0, 12)"),
        ("eval.samples", 11, "eval.samples = 11"),
        ("eval.guidance_weights", (-1.0,), "eval.guidance_weights = (-1.0,)"),
    ],
)
def test_bad_values_of_stage2_are_named(field, value, words):
    config = tradeoff_maskgit.get_config("scale=smoke")
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError) as e:
        stage2_factory.build_trainer(config, _Tokenizer(4))
    assert words in str(e.value) and "\n" not in str(e.value)
