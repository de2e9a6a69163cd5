"""Stage I of UViM, an autoencoder of dense labels, and the data of both its stages."""

import jax
import numpy as np
from ml_collections import ConfigDict

from fsq_repro.evaluation import uvim as evaluation
from fsq_repro.experiments.kind import Kind
from fsq_repro.factories import label_autoencoder
from fsq_repro.tasks.uvim_tasks import Task
from fsq_repro.trainers.label_autoencoder import LabelAutoencoderTrainer
from fsq_repro.trainers.loop import Trainer


class DenseLabelsKind(Kind):
    """What both stages share."""

    def build_task(self, config: ConfigDict) -> Task:
        return label_autoencoder.build_task(config.task)

    build_source = staticmethod(label_autoencoder.build_source)
    train_iterator = staticmethod(label_autoencoder.build_train_iterator)
    eval_batches = staticmethod(label_autoencoder.build_eval_batches)

    def batch_shapes(self, config: ConfigDict, trainer: Trainer) -> dict[str, jax.ShapeDtypeStruct]:
        """The shapes that the task's `prepare` gives, found with one empty image."""
        side = config.data.resolution
        maps = {"depth": np.float32, "semantics": np.int32, "instances": np.int32}
        empty = {name: np.zeros((1, side, side), dtype) for name, dtype in maps.items()}
        prepared = self.build_task(config).prepare(empty | {"image": np.zeros((1, side, side, 3), np.float32)})
        return {k: jax.ShapeDtypeStruct((config.batch_size, *v.shape[1:]), v.dtype) for k, v in prepared.items()}

    evaluate = staticmethod(evaluation.evaluate_run)


class LabelAutoencoderKind(DenseLabelsKind):
    def build_trainer(self, config: ConfigDict, stage1: None) -> LabelAutoencoderTrainer:
        return label_autoencoder.build_trainer(config)

    def num_tokens(self, trainer: LabelAutoencoderTrainer) -> int:
        return trainer.model.code_grid**2

    def facts(self, config: ConfigDict, trainer: LabelAutoencoderTrainer) -> dict:
        return label_autoencoder.run_facts(config, trainer, self.num_tokens(trainer)) | {"stage": 1}
