"""`load_label_predictor(run)`: the Python door to a trained stage II of UViM.

predictor = load_label_predictor("runs/depth_fsq")
maps = predictor.predict([image])      # uint8 (h, w, 3), any sizes -> a dict of maps of the image's size for each
"""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from fsq_repro.data.images import to_unit_float
from fsq_repro.data.transforms import plain_resize
from fsq_repro.errors import explained
from fsq_repro.factories import code_predictor as code_predictor_factory
from fsq_repro.factories import stage1_link
from fsq_repro.inference.label_coder import load_stage1_coder
from fsq_repro.runtime import sharding
from fsq_repro.runtime.checkpoints import restore_arrays
from fsq_repro.runtime.run_dir import RunDir, changed, open_run
from fsq_repro.sampling.parallel_decoding import sample_keys
from fsq_repro.tasks.base import Arrays, Maps
from fsq_repro.trainers.code_predictor import CodePredictorTrainer


class LabelPredictor:
    """Predicts labels of images with fixed weights: codes one after the other, then stage I's decoder.

    Batches that divide by this process's devices are split over them. `trainer` has the networks and how codes are
    drawn; `params` are stage II's, `step` is theirs; `batch_size` is the number of images at a time.
    """

    def __init__(self, trainer: CodePredictorTrainer, params: Any, *, step: int, batch_size: int):
        self.trainer = trainer
        self.task = trainer.coder.task
        self._mesh = sharding.make_mesh(devices=jax.local_devices())
        self.params = jax.device_put(params, sharding.replicated(self._mesh))
        self.step = step
        self.batch_size = batch_size

        def predict(params: Any, frozen: Any, key: jax.Array, context: jax.Array, indices_B: jax.Array) -> Arrays:
            codes_BxS = trainer.predict_codes(params, context, sample_keys(key, indices_B))
            return trainer.coder.predict_with(frozen, codes_BxS, context)

        self._predict = jax.jit(predict)

    def predict_prepared(self, context: np.ndarray, indices_B: np.ndarray, *, seed: int = 0) -> Maps:
        """Images (B, H, W, 3) in [-1, 1] at the model's resolution -> maps, see `Task.predict`.

        Where the temperature is above 0, image i draws from a key of its own, of `seed` and `indices_B[i]`: batches and
        devices make no difference.
        """
        key = jax.random.key(seed)
        inputs = sharding.put_local((context, np.asarray(indices_B, np.int32)), self._mesh)
        maps = self._predict(self.params, self.trainer.coder.variables, key, *inputs)
        return {name: np.asarray(x) for name, x in maps.items()}

    def predict(self, images: Sequence[np.ndarray], *, seed: int = 0) -> Iterator[Maps]:
        """Images uint8 (h, w, 3), each at least a patch high and wide -> maps of its size, see `Task.resized`.

        Raises ValueError: an image is of another shape or dtype, or smaller than a patch.
        """
        model = self.trainer.model
        for i, image in enumerate(images):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
                raise ValueError(
                    f"image {i + 1} of {len(images)} is {image.dtype} {image.shape}, but must be uint8 (h, w, 3)"
                )
            (height, width), least = image.shape[:2], model.patch_size
            if min(height, width) < least:
                raise ValueError(
                    f"image {i + 1} of {len(images)} has {height} x {width} pixels, but must have at least "
                    f"{least} x {least}, the size of a patch"
                )
        for start in range(0, len(images), self.batch_size):
            part = images[start : start + self.batch_size]
            resized = np.stack([plain_resize({"image": image}, model.image_size)["image"] for image in part])
            unit = np.pad(to_unit_float(resized), [(0, self.batch_size - len(part)), (0, 0), (0, 0), (0, 0)])
            maps = self.predict_prepared(self.task.context(unit), start + np.arange(self.batch_size), seed=seed)
            for i, image in enumerate(part):
                yield self.task.resized({name: x[i] for name, x in maps.items()}, image.shape[:2])


def load_label_predictor(
    run: str | pathlib.Path | RunDir, *, stage1: str | None = None, step: int | None = None
) -> LabelPredictor:
    """Loads a stage II of UViM and the stage I that it was trained on; arguments as of `load_image_generator`.

    Raises UserError: no run of UViM's stage II, no checkpoint, one that does not fit, or another stage I than in
    training.
    """
    run = open_run(run, "uvim_stage2", "; predictions need one of 'uvim_stage2'")
    config = changed(run.config, {"stage1": stage1 or run.config.stage1})
    with explained():
        coder = load_stage1_coder(config, fingerprint=stage1_link.known_fingerprint(run))
        trainer = code_predictor_factory.build_trainer(config, coder)
    state = restore_arrays(run.checkpoints, trainer.init_state, step)
    return LabelPredictor(trainer, state.params, step=int(state.step), batch_size=config.eval.batch_size)
