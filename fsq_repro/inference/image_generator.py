"""`load_image_generator(run_dir)`: the Python door to a trained stage-II run.

image_generator = load_image_generator("runs/fsq_10_maskgit")
images = image_generator.images(labels, seed=0)      # int (N,) -> uint8 (N, H, W, 3)
"""

import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from fsq_repro.data.images import to_uint8
from fsq_repro.errors import explained
from fsq_repro.factories import maskgit as maskgit_factory
from fsq_repro.factories import stage1_link
from fsq_repro.inference.tokenizer import Tokenizer, chosen_params, load_stage1_tokenizer
from fsq_repro.progress import track
from fsq_repro.runtime import sharding
from fsq_repro.runtime.checkpoints import restore_arrays
from fsq_repro.runtime.run_dir import RunDir, changed, open_run
from fsq_repro.trainers.generators import Generator


class ImageGenerator:
    """Draws samples with fixed weights. Sample i of a seed does not depend on batch size or number of devices.

    Attributes: `generator` (network and decoding), its `params`, `tokenizer` (stage I, which decodes), `step` (training
    step of the weights).
    """

    def __init__(self, generator: Generator, params: Any, tokenizer: Tokenizer, *, step: int, batch_size: int):
        self.generator = generator
        self.tokenizer = tokenizer
        self.step = step
        self.batch_size = batch_size
        self.mesh = sharding.make_mesh(devices=jax.local_devices())
        self.params = jax.device_put(params, sharding.replicated(self.mesh))
        # Guidance weight 0 is a program of its own, without the unconditional half; all others share one.
        self._sample = jax.jit(lambda *arguments: generator.sample(*arguments))

    def token_batches(self, labels_N: np.ndarray, *, seed: int, guidance: float = 0.0) -> Iterator[np.ndarray]:
        """Tokens int32 (<= batch_size, h, w) of the samples 0..N-1 of a seed, batch by batch.

        Raises ValueError: a label or the guidance weight is out of range.
        """
        labels_N = np.asarray(labels_N, np.int32)
        num_classes, grid = self.generator.model.num_classes, self.generator.grid
        bad = labels_N[(labels_N < 0) | (labels_N >= num_classes)]
        if len(bad):
            raise ValueError(f"label {bad[0]} is out of range; the run's classes are 0 .. {num_classes - 1}")
        if not 0 <= guidance < float("inf"):
            raise ValueError(f"guidance = {guidance} must be a finite number >= 0")
        split = sharding.batch_sharding(self.mesh)
        for start in range(0, len(labels_N), self.batch_size):
            indices = np.arange(start, start + self.batch_size, dtype=np.int32)  # the last batch is filled up
            labels = jax.device_put(labels_N[indices.clip(max=len(labels_N) - 1)], split)
            weight = [np.float32(guidance)] if guidance else []
            tokens = self._sample(self.params, jax.random.key(seed), jax.device_put(indices, split), labels, *weight)
            yield np.asarray(tokens)[: len(labels_N) - start].reshape(-1, grid, grid)

    def decode(self, tokens_NxHxW: np.ndarray) -> np.ndarray:
        """Tokens int32 (N, h, w) -> images uint8 (N, H, W, 3), in batches of one shape."""
        parts = []
        for start in range(0, len(tokens_NxHxW), self.batch_size):
            part = tokens_NxHxW[start : start + self.batch_size]
            padded = np.pad(part, [(0, self.batch_size - len(part)), (0, 0), (0, 0)])
            parts.append(to_uint8(np.asarray(self.tokenizer.decode(padded))[: len(part)]))
        return np.concatenate(parts)

    def images(self, labels_N: np.ndarray, *, seed: int, guidance: float = 0.0) -> np.ndarray:
        """Decoded samples, uint8 (N, H, W, 3); arguments and errors as of `token_batches`."""
        batches = self.token_batches(labels_N, seed=seed, guidance=guidance)
        total = -(-len(labels_N) // self.batch_size)
        return np.concatenate([self.decode(tokens) for tokens in track(batches, "drawing samples", total)])


def load_image_generator(
    run: str | pathlib.Path | RunDir, *, stage1: str | None = None, weights: str = "ema", step: int | None = None
) -> ImageGenerator:
    """Loads a stage-II run directory and the autoencoder it was trained on.

    Args:
      run: the run directory.
      stage1: stage I's run directory, if it is no longer where the config says.
      weights, step: as of `load_tokenizer`.

    Raises UserError: no stage-II run, no checkpoint, or one that does not fit; another autoencoder than in training.
    """
    run = open_run(run, "maskgit", "; samples are drawn from one of maskgit")
    config = changed(run.config, {"stage1": stage1 or run.config.stage1})
    with explained():
        tokenizer = load_stage1_tokenizer(config, fingerprint=stage1_link.known_fingerprint(run))
        trainer = maskgit_factory.build_trainer(config, tokenizer)
    state = restore_arrays(run.checkpoints, trainer.init_state, step)
    params = chosen_params(state, weights)
    return ImageGenerator(trainer.generator, params, tokenizer, step=int(state.step), batch_size=config.eval.batch_size)
