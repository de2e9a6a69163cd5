"""Stage I of UViM, an autoencoder of dense labels, and the data of both its stages."""

import jax
from ml_collections import ConfigDict

from fsq_repro.evaluation import uvim as evaluation
from fsq_repro.experiments.kind import Kind
from fsq_repro.factories import label_autoencoder
from fsq_repro.tasks.base import Task
from fsq_repro.trainers.label_autoencoder import LabelAutoencoderTrainer
from fsq_repro.trainers.loop import Trainer


class DenseLabelsKind(Kind):
    """What both stages share."""

    def facts(self, config: ConfigDict, trainer: Trainer) -> dict:
        return super().facts(config, trainer) | {"task": config.task.name, "context": config.context}

    def build_task(self, config: ConfigDict) -> Task:
        return label_autoencoder.build_task(config.task)

    build_source = staticmethod(label_autoencoder.build_source)
    train_iterator = staticmethod(label_autoencoder.build_train_iterator)
    eval_batches = staticmethod(label_autoencoder.build_eval_batches)

    def batch_shapes(self, config: ConfigDict, trainer: Trainer) -> dict[str, jax.ShapeDtypeStruct]:
        return self.build_task(config).prepared_shapes(config.batch_size, config.data.resolution)

    evaluate = staticmethod(evaluation.evaluate_run)


class LabelAutoencoderKind(DenseLabelsKind):
    def build_trainer(self, config: ConfigDict, stage1: None) -> LabelAutoencoderTrainer:
        return label_autoencoder.build_trainer(config)

    def num_tokens(self, trainer: LabelAutoencoderTrainer) -> int:
        return trainer.model.code_grid**2
