"""Every config at paper scale builds, without allocating: shapes only."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import pytest
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from configs import (
    imagenet256_autoencoder,
    imagenet256_maskgit,
    tradeoff_autoencoder,
    tradeoff_maskgit,
    uvim_colorization,
    uvim_depth,
    uvim_panoptic,
)
from fsq_repro.factories import autoencoder as autoencoder_factory
from fsq_repro.factories import code_predictor as code_predictor_factory
from fsq_repro.factories import common
from fsq_repro.factories import label_autoencoder as label_autoencoder_factory
from fsq_repro.factories import maskgit as maskgit_factory
from fsq_repro.inference.label_coder import LabelCoder
from fsq_repro.trainers.label_autoencoder import LabelAutoencoderTrainer, variables_of
from tests.tiny import tiny_uvim

COMMON = ("seed", "steps", "batch_size", "data.source", "data.resolution", "quantizer.name")
CONFIGS = {
    "tradeoff_autoencoder": tradeoff_autoencoder,
    "imagenet256_autoencoder": imagenet256_autoencoder,
    "tradeoff_maskgit": tradeoff_maskgit,
    "imagenet256_maskgit": imagenet256_maskgit,
    "uvim_depth": uvim_depth,
    "uvim_colorization": uvim_colorization,
    "uvim_panoptic": uvim_panoptic,
}


def test_every_config_file_is_tested():
    files = {p.stem for p in pathlib.Path(tradeoff_autoencoder.__file__).parent.glob("[!_]*.py")}
    assert files == set(CONFIGS)


def assert_has_common_fields(config: ConfigDict):
    for field in COMMON:
        value = config
        for part in field.split("."):
            value = value[part]


def num_elements(tree) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


def assert_same_shapes(a, b):
    assert jax.tree.map(lambda x: (x.shape, x.dtype), a) == jax.tree.map(lambda x: (x.shape, x.dtype), b)


@pytest.mark.parametrize(
    ("name", "quantizer"),
    [("tradeoff_autoencoder", q) for q in ("fsq", "vq", "ema_vq")] + [("imagenet256_autoencoder", "fsq")],
)
def test_builds_at_paper_scale(name, quantizer):
    config = CONFIGS[name].get_config(f"quantizer={quantizer}")
    assert_has_common_fields(config)
    trainer = autoencoder_factory.build_trainer(config)
    common.build_loop(config)
    state = jax.eval_shape(trainer.init_state, jax.random.key(0))
    assert config.batch_size == (512 if name == "imagenet256_autoencoder" else 256)
    assert trainer.model.stride == 16
    counted = num_elements(state.params)
    if quantizer != "ema_vq":  # its codebook is state, not parameters
        assert counted == {"fsq": 52_962_951}.get(quantizer, 54_515_587)
    discriminator = num_elements(state.discriminator_params)
    assert discriminator == (23_998_017 if name == "imagenet256_autoencoder" else 23_880_833)
    if quantizer == "vq":  # has all terms; tracing them takes seconds: once
        side = config.data.resolution
        batch = {"image": jax.ShapeDtypeStruct((config.batch_size, side, side, 3), jnp.float32)}
        new_state, metrics = jax.eval_shape(trainer.train_step, state, jax.eval_shape(trainer.load_frozen), batch)
        assert_same_shapes(state, new_state)
        assert {"loss/l2", "loss/perceptual", "loss/gan", "discriminator/r1"} <= metrics.keys()
        assert "entropy_loss" in str(metrics.keys())


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
    common.build_loop(config)
    trainer = maskgit_factory.build_trainer(config, _Tokenizer(grid))
    assert trainer.encode  # random crops: no two epochs have the same tokens
    state = jax.eval_shape(trainer.init_state, jax.random.key(0))
    if "imagenet256" in name and "fsq" in arg:  # tracing 24 layers forward and backward takes seconds: once
        trainer = dataclasses.replace(trainer, encode=False)
        tokens = jax.ShapeDtypeStruct((config.batch_size, grid * grid), jnp.int32)
        batch = {"tokens": tokens, "label": jax.ShapeDtypeStruct((config.batch_size,), jnp.int32)}
        new_state, _ = jax.eval_shape(trainer.train_step, state, {}, batch)
        assert_same_shapes(state, new_state)
    counted = num_elements(state.params)
    assert counted == parameters or (parameters is None and counted > 170_000_000)


@pytest.mark.parametrize("bits", [4, 6, 8, 9, 10, 11, 12, 14, 16])
@pytest.mark.parametrize("scale", ["cifar10", "cpu", "smoke"])
def test_small_scales_build_at_every_size(bits, scale):
    for quantizer in ("fsq", "vq", "vq_narrow"):
        config = tradeoff_autoencoder.get_config(f"quantizer={quantizer},bits={bits},scale={scale}")
        trainer = autoencoder_factory.build_trainer(config)
        assert 0.9 * 2**bits < trainer.model.quantizer.codebook_size < 1.1 * 2**bits


@pytest.mark.parametrize("generator", ["masked", "autoregressive"])
def test_both_stages_of_cifar10_fit_each_other_and_any_number_of_devices(generator):
    stage1 = tradeoff_autoencoder.get_config("quantizer=vq_narrow,scale=cifar10")
    stage2 = tradeoff_maskgit.get_config(f"quantizer=vq_narrow,scale=cifar10,generator={generator}")
    assert stage1.quantizer == stage2.quantizer and stage1.quantizer.embedding_dim == 8
    grid = stage1.data.resolution // autoencoder_factory.build_trainer(stage1).model.stride
    trainer = maskgit_factory.build_trainer(stage2, _Tokenizer(grid))
    assert grid == 8 and not trainer.encode and trainer.generator.model.num_classes == 10
    for config in (stage1, stage2):
        common.build_loop(config)
        assert config.data.source == "cifar10" and config.eval.batch_size * config.eval.batches == 5_000
        assert config.batch_size % 4 == config.eval.batch_size % 4 == 0
        assert all(images % config.eval.batch_size == 0 for images in (5_000, 10_000))
        assert config.steps % config.eval_every == config.steps % config.checkpoint_every == 0


def test_values_are_tuples_not_lists():
    """The command line can override a tuple at any length, a list not at all."""
    for module in CONFIGS.values():
        assert not [x for x in flatten_dict(module.get_config("").to_dict()).values() if isinstance(x, list)]


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("quantizer.levels", (8, 2), "level"),
        ("quantizer.bound", "other", "bound"),
        ("quantizer.name", "none", "quantizer.name = 'none'"),
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
        autoencoder_factory.build_trainer(config)
        common.build_loop(config)
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
        ("eval.samples", 9, "eval.samples = 9"),
        ("eval.guidance_weights", (-1.0,), "eval.guidance_weights = (-1.0,)"),
    ],
)
def test_bad_values_of_stage2_are_named(field, value, words):
    config = tradeoff_maskgit.get_config("scale=smoke")
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError) as e:
        maskgit_factory.build_trainer(config, _Tokenizer(4))
    assert words in str(e.value) and "\n" not in str(e.value)


BOTH_CONTEXTS = 2 * (16 * 16 * 3 * 768 + 768)  # patch embeddings of the image, in encoder and decoder
HEAD_AND_STEM = {
    "vq": 768 * 768 + 768 + 768 * 768 + 768,
    "fsq": 768 * 5 + 5 + 5 * 768 + 768,
}  # 768 or 5 channels a code
FSQ_INSTEAD_OF_VQ = HEAD_AND_STEM["fsq"] - HEAD_AND_STEM["vq"]


def test_the_derived_counts_are_those_of_the_literature():
    assert (BOTH_CONTEXTS, HEAD_AND_STEM["vq"], HEAD_AND_STEM["fsq"]) == (1_181_184, 1_181_184, 8_453)


def stage1_shapes(name: str, arg: str, **model):
    """Stage I at paper scale but for fields of `model`, and the shapes of its state."""
    config = CONFIGS[name].get_config(f"stage=1,{arg}")
    assert_has_common_fields(config)
    common.build_loop(config)
    config.model.update(model)
    trainer = label_autoencoder_factory.build_trainer(config)
    return trainer, jax.eval_shape(trainer.init_state, jax.random.key(0))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("uvim_depth", 232_249_600), ("uvim_colorization", 132_701_184), ("uvim_panoptic", 223_593_984)],
)
def test_uvim_stage1_at_paper_scale(name, parameters):
    trainer, state = stage1_shapes(name, "quantizer=vq")
    assert (num_elements(state.params), num_elements(state.quantizer_state)) == (parameters, 3_149_824)
    assert trainer.model.encoder_context and trainer.model.decoder_context and trainer.model.quantizer.splitting


@pytest.mark.parametrize(
    ("arg", "difference"),
    [
        ("quantizer=vq_nosplit,context=false", -BOTH_CONTEXTS),
        ("quantizer=fsq", FSQ_INSTEAD_OF_VQ),
        ("quantizer=fsq,context=false", FSQ_INSTEAD_OF_VQ - BOTH_CONTEXTS),
    ],
)
def test_uvim_ablations_differ_by_their_parts(arg, difference):
    """The layers, left out here, are the same in all."""
    _, full = stage1_shapes("uvim_depth", "quantizer=vq", encoder_depth=0, decoder_depth=0)
    trainer, state = stage1_shapes("uvim_depth", arg, encoder_depth=0, decoder_depth=0)
    assert num_elements(state.params) - num_elements(full.params) == difference
    assert trainer.model.encoder_context is trainer.model.decoder_context is ("context=false" not in arg)
    if "fsq" in arg:
        assert state.quantizer_state == {}
    else:
        assert not trainer.model.quantizer.splitting


class _Coder(LabelCoder):
    """What a stage-II trainer needs of stage I to be built and traced: the modules without their arrays."""

    def __init__(self, trainer: LabelAutoencoderTrainer):
        self.model, self.task = trainer.model, trainer.task


def stage2_shapes(name: str, quantizer: str, **model):
    """Stage II at paper scale but for fields of `model`, and the shapes of its state."""
    coder = _Coder(label_autoencoder_factory.build_trainer(CONFIGS[name].get_config(f"stage=1,quantizer={quantizer}")))
    config = CONFIGS[name].get_config(f"stage=2,quantizer={quantizer}")
    assert_has_common_fields(config)
    common.build_loop(config)
    config.model.update(model)
    trainer = code_predictor_factory.build_trainer(config, coder)
    return config, trainer, jax.eval_shape(trainer.init_state, jax.random.key(0))


def test_uvim_stage2_at_paper_scale():
    _, trainer, state = stage2_shapes("uvim_depth", "vq")
    assert (trainer.model.codebook_size + 1, trainer.model.num_codes) == (4097, 256)
    assert num_elements(state.params) == 715_729_921


def test_uvim_stage2_of_fsq_differs_by_its_vocabulary():
    counts = {q: num_elements(stage2_shapes("uvim_depth", q, num_layers=1)[2].params) for q in ("fsq", "vq")}
    more_codes = (7 * 5 * 5 * 5 * 5 + 1) - 4097
    assert counts["fsq"] - counts["vq"] == more_codes * 1024 + (1024 * more_codes + more_codes)  # embedding, head


def test_uvim_steps_at_paper_scale():
    """Of one layer: stage I's step, and stage II's with stage I's encoder in it."""
    stage1, state1 = stage1_shapes("uvim_panoptic", "quantizer=fsq", encoder_depth=1, decoder_depth=1)
    images = jax.ShapeDtypeStruct((512, 512, 512, 3), jnp.float32)
    maps = jax.ShapeDtypeStruct((512, 512, 512), jnp.int32)
    batch = {"context": images, "semantics": maps, "instances": maps}
    new_state, metrics = jax.eval_shape(stage1.train_step, state1, {}, batch)
    assert_same_shapes(state1, new_state)
    assert {"loss", "loss/semantics", "loss/instances"} <= metrics.keys()
    config, trainer, state = stage2_shapes("uvim_panoptic", "fsq", num_layers=1)
    assert config.batch_size == 512 and trainer.temperature == 0
    trainer = dataclasses.replace(trainer, coder=_Coder(stage1))
    new_state, _ = jax.eval_shape(trainer.train_step, state, variables_of(state1), batch)
    assert_same_shapes(state, new_state)


@pytest.mark.parametrize("name", ["uvim_depth", "uvim_colorization", "uvim_panoptic"])
def test_uvim_at_the_small_scale_builds(name):
    configs = [CONFIGS[name].get_config(f"stage={stage},quantizer=fsq,scale=cpu") for stage in (1, 2)]
    for field in ("task", "quantizer", "context", "data"):
        assert configs[0][field] == configs[1][field]  # stage II is refused otherwise
    coder = _Coder(label_autoencoder_factory.build_trainer(configs[0]))
    code_predictor_factory.build_trainer(configs[1], coder)
    for config in configs:
        common.build_loop(config)
        common.check_devices(config)


BAD_FIELDS = [  # of either stage
    ("model.num_heads", 3, "num_heads is 3"),
    ("model.dtype", "float16", "model.dtype = 'float16'"),
    ("optimizer.warmup_steps", 8, "warmup_steps is 8, but must be in 0..7"),
    ("optimizer.learning_rate", 0.0, "optimizer.learning_rate = 0.0 must be a finite number above 0"),
    ("optimizer.weight_decay", -1.0, "optimizer.weight_decay = -1.0 must be a finite number >= 0"),
    ("optimizer.gradient_clip", -1.0, "optimizer.gradient_clip = -1.0 must be a finite number >= 0"),
    ("optimizer.multipliers", ((".*", 0.0),), "optimizer.multipliers = (('.*', 0.0),) must be pairs"),
]


def assert_refused(build, config: ConfigDict, field: str, value, words: str):
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError) as e:
        build(config)
    assert words in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("task", "field", "value", "words"),
    [
        *(("depth", *bad) for bad in BAD_FIELDS),
        ("depth", "model.patch_size", 32, "resolution is 16, but must be a multiple of patch_size 32"),
        ("depth", "data.resolution", 18, "resolution is 18, but must be a multiple of patch_size 4"),
        ("depth", "task.name", "normals", "task.name = 'normals' must be one of depth, colorization, panoptic"),
        (
            "depth",
            "task.name",
            "colorization",
            "task.name = 'colorization' needs the fields name of task, but the config has bins, name",
        ),
        (
            "depth",
            "task.name",
            "panoptic",
            "needs the fields min_fraction, name, num_classes, num_instances of task, but",
        ),
        ("depth", "task.bins", 1, "task.bins = 1 must be a whole number >= 2"),
        ("panoptic", "task.num_classes", 1, "task.num_classes = 1 must be a whole number >= 2"),
        ("panoptic", "task.num_instances", 1, "task.num_instances = 1 must be a whole number >= 2"),
        ("panoptic", "task.min_fraction", 1.0, "task.min_fraction = 1.0 must be in [0, 1)"),
        ("colorization", "eval.eval_names", "names.txt", "eval.reference_names = '' must both be given or both be"),
        ("depth", "model.code_grid", 5, "code_grid is 5, but must be in 1..4"),
        ("depth", "quantizer.name", "none", "quantizer.name = 'none' must be one of fsq, "),
        ("depth", "quantizer.levels", (8, 2), "level"),
        ("depth", "quantizer.codebook_size", 64, "quantizer.codebook_size is not a field of quantizer 'fsq'"),
    ],
)
def test_bad_values_of_uvim_are_named(task, field, value, words):
    assert_refused(label_autoencoder_factory.build_trainer, tiny_uvim(1, task=task), field, value, words)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        *BAD_FIELDS,
        ("model.patch_size", 32, "image_size is 16, but must be a multiple of 32 (patch_size)"),
        ("model.token_std", 0.0, "model.token_std = 0.0 must be a finite number above 0"),
        ("model.position_scale", float("nan"), "model.position_scale = nan must be a finite number above 0"),
        ("sampler.temperature", -0.1, "sampler.temperature = -0.1 must be a finite number >= 0"),
        ("sampler.temperature", float("inf"), "sampler.temperature = inf must be a finite number >= 0"),
        ("eval.reference_names", "names.txt", "eval.eval_names = '' and eval.reference_names = 'names.txt' must both"),
    ],
)
def test_bad_values_of_uvim_stage2_are_named(field, value, words):
    coder = _Coder(label_autoencoder_factory.build_trainer(tiny_uvim(1, task="colorization")))
    build = functools.partial(code_predictor_factory.build_trainer, coder=coder)
    assert_refused(build, tiny_uvim(2, task="colorization"), field, value, words)
