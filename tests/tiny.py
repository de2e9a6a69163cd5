"""The smallest set-ups of both stages that have every part: for tests of trainers, loop, scripts and resume."""

import dataclasses
import pathlib

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import tradeoff_autoencoder, tradeoff_maskgit
from fsq_repro.data.pipeline import Augmentation, train_iterator
from fsq_repro.runtime import run_dir
from fsq_repro.runtime.checkpoints import Checkpoints
from fsq_repro.trainers import factory


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


def save_untrained(path: pathlib.Path, config: ConfigDict) -> pathlib.Path:
    """A stage-I run directory with the initial weights, as if it had been trained for `config.steps`."""
    trainer = factory.build_trainer(config)
    state = jax.jit(trainer.init_state)(jax.random.key(config.seed))
    iterator = train_iterator(NoiseSource(), batch_size=8, resolution=16, seed=0, augmentation=Augmentation())
    run_dir.write_config(path, config)
    run_dir.update_record(path, run=path.name, status="finished", **factory.run_facts(config, trainer))
    checkpoints = Checkpoints(path / "checkpoints")
    checkpoints.save(config.steps, state.replace(step=jax.numpy.int32(config.steps)), iterator)
    checkpoints.close()
    return path


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
