"""The smallest set-ups of all trainers that have every part: for tests of trainers, loop, scripts and resume."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from configs import tradeoff_autoencoder, tradeoff_maskgit, uvim_colorization, uvim_depth, uvim_panoptic
from fsq_repro.conversion.published_weights import NO_DATA
from fsq_repro.experiments.registry import kind_of
from fsq_repro.runtime import run_dir
from fsq_repro.runtime.checkpoints import Checkpoints
from fsq_repro.trainers.loop import Trainer
from tests.conftest import golden_weights

UVIM_CONFIGS = {"depth": uvim_depth, "colorization": uvim_colorization, "panoptic": uvim_panoptic}


def tiny_config(arg: str = "quantizer=fsq,bits=8", *, gan: bool = False) -> ConfigDict:
    """One residual block at 32 channels on 16 px images, 4x4 tokens."""
    c = tradeoff_autoencoder.get_config(f"{arg},scale=smoke")
    c.steps, c.batch_size = 8, 8
    c.log_every, c.eval_every, c.checkpoint_every = 2, 100, 4
    c.model.channel_multipliers = (1,)
    c.data.resolution = 16
    c.loss.perceptual = 0.0
    c.loss.gan = 0.1 if gan else 0.0
    c.eval.batch_size = 8
    if c.quantizer.name != "fsq":
        c.quantizer.embedding_dim = 8
    return c


@dataclasses.dataclass
class NoiseSource:
    """Smooth random images, made from the index."""

    size: int = 64
    resolution: int = 16
    name: str = "noise"
    split: str = "train"
    num_classes: int = 2
    class_names: tuple[str, ...] = ("even", "odd")
    fingerprint: str = ""

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(index)
        coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        image = np.kron(coarse, np.ones((self.resolution // 4, self.resolution // 4, 1), np.uint8))
        return {"image": image, "label": np.int32(index % 2)}


def save_untrained(path: pathlib.Path, config: ConfigDict, state: Any = None) -> pathlib.Path:
    """A run directory with the initial weights or another state, as if it had been trained for `config.steps`."""
    initial = lambda trainer: jax.jit(trainer.init_state)(jax.random.key(config.seed))  # noqa: E731
    return _save(path, config, initial if state is None else lambda _: state)


def tiny_stage2(stage1: pathlib.Path, arg: str = "quantizer=fsq,bits=8") -> ConfigDict:
    """One layer of width 16 on the 4x4 tokens of `tiny_config`, two classes."""
    c = tradeoff_maskgit.get_config(f"{arg},scale=smoke")
    c.stage1 = str(stage1)
    c.steps, c.batch_size = 8, 8
    c.log_every, c.eval_every, c.checkpoint_every = 2, 100, 4
    c.model.width, c.model.num_layers, c.model.num_heads, c.model.mlp_width = 16, 1, 2, 32
    c.data.resolution = 16
    c.data.num_classes = 2
    c.eval.batch_size = 8
    c.eval.samples, c.eval.reference_images, c.eval.coder_images = 24, 24, 16
    c.optimizer.warmup_steps = 2
    if c.quantizer.name != "fsq":
        c.quantizer.embedding_dim = 8
    return c


@dataclasses.dataclass
class DenseNoiseSource:
    """Images of four squares with the labels of all UViM tasks, made from the index; the colours tell the labels.

    Red is the class, green the depth, blue is noise. Classes 1 and 2 are things, 3 is stuff, 0 void; one row of pixels
    has no depth.
    """

    size: int = 32
    resolution: int = 16
    split: str = "train"
    name: str = "dense_noise"
    num_classes: int = 1
    class_names: tuple[str, ...] = ("all",)
    fingerprint: str = ""
    num_semantics: int = 4
    things: tuple[int, ...] = (1, 2)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([("train", "validation", "test").index(self.split), index])
        classes = rng.integers(0, self.num_semantics, (2, 2))
        depths = rng.uniform(0.5, 9.5, (2, 2))
        noise = rng.integers(0, 256, (2, 2))
        squares = np.ones((self.resolution // 2,) * 2, np.int64)
        depth = np.kron(depths, squares).astype(np.float32)
        depth[0] = 0
        numbers = np.where(np.isin(classes, self.things), 1 + np.arange(4).reshape(2, 2), 0)
        return {
            "image": np.stack([np.kron(x, squares) for x in (80 * classes, 25 * depths, noise)], -1).astype(np.uint8),
            "label": np.int32(0),
            "depth": depth,
            "semantics": np.kron(classes, squares).astype(np.int32),
            "instances": np.kron(numbers, squares).astype(np.int32),
        }


def make_dense_noise(labels: Sequence[str], name: str, split: str, resolution: int, **_: object) -> DenseNoiseSource:
    """Stands for `label_autoencoder_factory.make_dense_source`."""
    return DenseNoiseSource(resolution=resolution, split=split)


def tiny_uvim(
    stage: int, arg: str = "quantizer=fsq", *, task: str = "depth", stage1: pathlib.Path | str = ""
) -> ConfigDict:
    """One layer of width 32 on 16 px images, 4x4 patches, 2x2 codes of some 64; data: `make_dense_noise`."""
    c = UVIM_CONFIGS[task].get_config(f"{arg},stage={stage},scale=smoke")
    c.steps, c.batch_size = 8, 8
    c.log_every, c.eval_every, c.checkpoint_every = 2, 100, 4
    c.model.patch_size, c.model.num_heads, c.model.width, c.model.mlp_width = 4, 2, 32, 32
    c.data.resolution = 16
    c.optimizer.warmup_steps = 2
    c.eval.batch_size, c.eval.baseline_images = 8, 16
    if stage == 1:
        c.model.code_grid, c.model.encoder_depth, c.model.decoder_depth = 2, 1, 1
    else:
        c.model.num_layers = 1
        c.stage1 = str(stage1)
    if c.quantizer.name == "fsq":
        c.quantizer.levels = (5, 5, 3)
    else:
        c.quantizer.codebook_size, c.quantizer.embedding_dim = 64, 8
    if task == "depth":
        c.task.bins = 8
    elif task == "panoptic":
        c.task.num_classes, c.task.num_instances = 4, 6
    return c


def compiled_once(trainer: Trainer) -> Trainer:
    """The trainer with methods that stay the same objects, so that runs of the loop share what jax has compiled."""
    return SimpleNamespace(
        init_state=trainer.init_state,
        load_frozen=trainer.load_frozen,
        train_step=trainer.train_step,
        make_evaluator=functools.cache(trainer.make_evaluator),
    )


def random_uvim_state(trainer: Trainer) -> Any:
    """A state of either stage with random weights (heads too, which `init_state` has at zero), without compiling."""
    shapes = jax.eval_shape(trainer.init_state, jax.random.key(0))

    def zeros(x: jax.ShapeDtypeStruct) -> Any:
        is_key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        return jax.random.key(0) if is_key else np.zeros(x.shape, x.dtype)

    weights = golden_weights({name: x.shape for name, x in flatten_dict(shapes.params, sep="/").items()})
    state = jax.tree.map(zeros, shapes).replace(params=unflatten_dict(weights, sep="/"))
    if getattr(shapes, "quantizer_state", None):
        sums = shapes.quantizer_state["quantizer"]["dictionary"].shape
        dictionary = np.random.default_rng(0).standard_normal(sums).astype(np.float32)
        counts = np.ones(len(dictionary), np.float32)
        state = state.replace(quantizer_state={"quantizer": {"dictionary": dictionary, "counts": counts}})
    return state


def save_untrained_uvim(path: pathlib.Path, config: ConfigDict) -> pathlib.Path:
    """A run directory of either stage of `tiny_uvim` with random weights, as if it had been trained."""
    return _save(path, config, random_uvim_state)


def _save(path: pathlib.Path, config: ConfigDict, make_state: Callable[[Trainer], Any]) -> pathlib.Path:
    run, kind = run_dir.RunDir(path), kind_of(config)
    trainer = kind.build_trainer(config, kind.load_stage1(config))
    iterator = kind.train_iterator(config, kind.build_task(config), NO_DATA)
    run.write_config(config)
    run.update_record(run=path.name, status="finished", **kind.facts(config, trainer))
    checkpoints = Checkpoints(run.checkpoints)
    checkpoints.save(config.steps, make_state(trainer).replace(step=jax.numpy.int32(config.steps)), iterator)
    checkpoints.close()
    return path
