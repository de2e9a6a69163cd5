"""`load_label_coder(run)`: a trained stage I of UViM, which codes dense labels and decodes them.

coder = load_label_coder("runs/depth_fsq_stage1")
prediction, codes = coder.reconstruct(batch)      # a prepared batch, see `tasks.base`
"""

import pathlib
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from fsq_repro.errors import explained
from fsq_repro.factories import label_autoencoder as label_autoencoder_factory
from fsq_repro.factories import stage1_link
from fsq_repro.models.label_autoencoder import LabelAutoencoder
from fsq_repro.runtime import sharding
from fsq_repro.runtime.checkpoints import fingerprint, restore_arrays
from fsq_repro.runtime.run_dir import RunDir, open_run
from fsq_repro.tasks.base import Arrays, Task
from fsq_repro.trainers.label_autoencoder import reconstruct, variables_of

NEEDED = stage1_link.Stage1Need("uvim_stage1", same=("task", "context"))


class LabelCoder:
    """Codes and decodes labels with fixed weights; attributes as of `tokenizer.Tokenizer`, `task` is what it is for."""

    def __init__(self, model: LabelAutoencoder, task: Task, variables: dict[str, Any], *, step: int):
        self.model = model
        self.task = task
        self.step = step
        self.fingerprint = fingerprint(variables)
        self._mesh = sharding.make_mesh(devices=jax.local_devices())
        self.variables = jax.device_put(variables, sharding.replicated(self._mesh))
        self.levels = model.quantizer.levels

        def predict(variables: Any, batch: Arrays) -> tuple[Arrays, jax.Array]:
            outputs, indices_BxS = reconstruct(model, task, variables, batch)
            return task.predict(outputs), indices_BxS

        self._reconstruct = jax.jit(predict)

    def encode_with(self, variables: Any, batch: Arrays) -> jax.Array:
        """Prepared batch -> codes int32 (B, S), with the weights as an argument, for use inside a jitted function."""
        z = self.model.apply(variables, self.task.inputs(batch), batch["context"], method="encode")
        return self.model.apply(variables, z, method=lambda m, z: m.quantizer(z, train=False)).indices

    def predict_with(self, variables: Any, codes_BxS: jax.Array, context: jax.Array) -> Arrays:
        """Codes and the image in [-1, 1] -> the prediction as maps, see `Task.predict`."""
        codes = self.model.apply(variables, codes_BxS, method=lambda m, i: m.quantizer.indices_to_codes(i))
        return self.task.predict(self.model.apply(variables, codes, context, method="decode"))

    def reconstruct(self, batch: dict[str, np.ndarray]) -> tuple[Arrays, jax.Array]:
        """Prepared batch -> (prediction from its true labels, codes int32 (B, S)): the best that stage II can do."""
        return self._reconstruct(self.variables, sharding.put_local(batch, self._mesh))


def load_label_coder(run: str | pathlib.Path | RunDir, *, step: int | None = None) -> LabelCoder:
    """Loads the stage I of a run directory at a checkpoint's step, the last by default.

    Raises UserError: no run of UViM's stage I, no checkpoint, or one that does not fit the run's config.
    """
    run = open_run(run, NEEDED.trainer)
    with explained():
        trainer = label_autoencoder_factory.build_trainer(run.config)
    state = restore_arrays(run.checkpoints, trainer.init_state, step)
    return LabelCoder(trainer.model, trainer.task, variables_of(state), step=int(state.step))


def load_stage1_coder(config: ConfigDict, *, fingerprint: str | None = None) -> LabelCoder:
    """The label autoencoder of `config.stage1`; as `tokenizer.load_stage1_tokenizer`, also for its task and context."""
    run = NEEDED.open(config)
    coder = load_label_coder(run)
    stage1_link.check_weights(run, coder.step, coder.fingerprint, fingerprint)
    return coder
