"""`load_tokenizer(run_dir)`: the Python door to a trained stage-I autoencoder.

tokenizer = load_tokenizer("runs/fsq_10")
indices = tokenizer.encode(images)      # (B, H, W, 3), uint8 or floats in [0, 1] -> int32 (B, h, w)
images = tokenizer.decode(indices)
"""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from fsq_repro.data.images import to_unit_float
from fsq_repro.errors import UserError, explained
from fsq_repro.factories import autoencoder as autoencoder_factory
from fsq_repro.factories import stage1_link
from fsq_repro.models.autoencoder import Autoencoder
from fsq_repro.runtime import sharding
from fsq_repro.runtime.checkpoints import fingerprint, restore_arrays
from fsq_repro.runtime.run_dir import RunDir, open_run
from fsq_repro.trainers.autoencoder import reconstruct

NEEDED = stage1_link.Stage1Need("autoencoder")


class Tokenizer:
    """Encodes and decodes with fixed weights; batches that divide by this process's devices are split over them.

    Attributes:
      model: the autoencoder module.
      variables: {"params": ..., "quantizer": ...}, replicated over this process's devices.
      fingerprint, step: of the weights: a hash of them and their training step.
      resolution: image side in pixels.
      levels: FSQ's levels, None for a learned codebook.
      grid: tokens along one side.
    """

    def __init__(self, model: Autoencoder, variables: Any, *, step: int, resolution: int):
        self.model = model
        self.step = step
        self.resolution = resolution
        self.codebook_size = model.quantizer.codebook_size
        self.levels = model.quantizer.levels
        self.grid = resolution // model.stride
        self.fingerprint = fingerprint(variables)
        self._mesh = sharding.make_mesh(devices=jax.local_devices())
        self.variables = jax.device_put(variables, sharding.replicated(self._mesh))

        def decode(variables: Any, indices: jax.Array) -> jax.Array:
            codes = model.apply(variables, indices, method=lambda m, i: m.quantizer.indices_to_codes(i))
            return jnp.clip(model.apply(variables, codes, method="decode"), 0.0, 1.0)

        self._encode = jax.jit(self.encode_with)
        self._decode = jax.jit(decode)
        self._reconstruct = jax.jit(lambda variables, images: reconstruct(model, variables, images))

    def encode_with(self, variables: Any, images: jax.Array) -> jax.Array:
        """`encode` with the weights as an argument, for use inside another jitted function."""
        return self.model.apply(variables, images, method=lambda m, x: m.quantizer(m.encode(x), train=False).indices)

    def encode(self, images: np.ndarray | jax.Array) -> jax.Array:
        """Images (B, H, W, 3), uint8 in 0..255 or floats in [0, 1] -> indices int32 (B, h, w).

        Raises ValueError: another shape, dtype or range. Inside a jitted function values are not known: only shape and
        dtype are checked there.
        """
        return self._encode(self.variables, sharding.put_local(_unit_images(images), self._mesh))

    def decode(self, indices: np.ndarray | jax.Array) -> jax.Array:
        """Indices int (B, h, w) in 0 .. codebook_size - 1 -> images float32 (B, H, W, 3), clipped to [0, 1].

        Raises ValueError: another shape, dtype or, outside jitted functions, range.
        """
        indices = _checked_indices(indices, self.codebook_size)
        return self._decode(self.variables, sharding.put_local(indices, self._mesh))

    def reconstruct(self, images: np.ndarray | jax.Array) -> tuple[jax.Array, jax.Array]:
        """Images as of `encode` -> (reconstructions clipped to [0, 1], indices (B, h, w)) in one pass."""
        return self._reconstruct(self.variables, sharding.put_local(_unit_images(images), self._mesh))


def _unit_images(images: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
    """Images as floats in [0, 1], which uint8 become; see `Tokenizer.encode`."""
    if not isinstance(images, jax.Array):
        images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"images have the shape {images.shape}, but must be (B, H, W, 3)")
    if images.dtype == np.uint8:
        return to_unit_float(images)
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images have the dtype {images.dtype}, but must be uint8 in 0 .. 255 or floats in [0, 1]")
    low, high = _range(images)
    if not (low >= 0 and high <= 1):  # nor NaN
        raise ValueError(f"images of floats must be in [0, 1], but reach from {low:g} to {high:g}; uint8 has 0 .. 255")
    return images


def _checked_indices(indices: np.ndarray | jax.Array, codebook_size: int) -> np.ndarray | jax.Array:
    """The same indices; see `Tokenizer.decode`."""
    if not isinstance(indices, jax.Array):
        indices = np.asarray(indices)
    if indices.ndim != 3 or not jnp.issubdtype(indices.dtype, jnp.integer):
        raise ValueError(
            f"indices have the shape {indices.shape} and the dtype {indices.dtype}, but must be whole numbers (B, h, w)"
        )
    low, high = _range(indices)
    if low < 0 or high >= codebook_size:
        raise ValueError(f"indices must be in 0 .. {codebook_size - 1}, but reach from {low:g} to {high:g}")
    return indices


def _range(x: np.ndarray | jax.Array) -> tuple[float, float]:
    """Smallest and largest value; 0 and 0 where they are not known or there are none."""
    return (0.0, 0.0) if isinstance(x, jax.core.Tracer) or not x.size else (float(x.min()), float(x.max()))


def load_tokenizer(run: str | pathlib.Path | RunDir, *, weights: str = "ema", step: int | None = None) -> Tokenizer:
    """Loads the autoencoder of a run directory.

    Args:
      run: the run directory.
      weights: "ema" (the averages that the paper's tables use) or "raw".
      step: a checkpoint's step; the last by default.

    Raises UserError: no run of an autoencoder, no checkpoint, or one that does not fit the run's config; other
    `weights`.
    """
    run = open_run(run, NEEDED.trainer)
    with explained():
        trainer = autoencoder_factory.build_trainer(run.config)
    state = restore_arrays(run.checkpoints, trainer.init_state, step)
    variables = {"params": chosen_params(state, weights), "quantizer": state.quantizer_state}
    return Tokenizer(trainer.model, variables, step=int(state.step), resolution=trainer.resolution)


def chosen_params(state: Any, weights: str) -> Any:
    """The averaged ("ema") or the last ("raw") parameters of a train state. UserError for other `weights`."""
    if weights not in ("ema", "raw"):
        raise UserError(f"weights = {weights!r} is not one of ema, raw")
    return state.ema_params if weights == "ema" else state.params


def load_stage1_tokenizer(config: ConfigDict, *, fingerprint: str | None = None) -> Tokenizer:
    """The autoencoder of `config.stage1`, after checking that it is the one that the config describes.

    `config` is stage II's; `fingerprint`: hash of the weights that its run was started with, None for a new one.

    Raises UserError: no run or no checkpoint there, another codebook or resolution, or other weights.
    """
    run = NEEDED.open(config)
    tokenizer = load_tokenizer(run)
    stage1_link.check_weights(run, tokenizer.step, tokenizer.fingerprint, fingerprint)
    return tokenizer
