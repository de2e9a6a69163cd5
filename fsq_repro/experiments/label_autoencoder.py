"""Stage I of UViM, an autoencoder of dense labels, and the data of both its stages."""

from typing import Any

import jax
from ml_collections import ConfigDict

from fsq_repro.data.pipeline import eval_batches
from fsq_repro.data.sources import Source
from fsq_repro.evaluation import uvim as evaluation
from fsq_repro.experiments.kind import Kind
from fsq_repro.factories import label_autoencoder
from fsq_repro.runtime.run_dir import RunDir
from fsq_repro.tasks.base import Task
from fsq_repro.trainers.label_autoencoder import LabelAutoencoderTrainer
from fsq_repro.trainers.loop import Trainer


class DenseLabelsKind(Kind):
    """What both stages share."""

    def build_task(self, config: ConfigDict) -> Task:
        return label_autoencoder.build_task(config.task)

    def build_source(self, config: ConfigDict, split: str) -> Source:
        return label_autoencoder.build_source(config, split)

    def train_iterator(self, config: ConfigDict, task: Task, items: Source) -> Any:
        return label_autoencoder.build_train_iterator(config, task, items)

    def eval_batches(self, config: ConfigDict, task: Task, items: Source) -> eval_batches:
        return label_autoencoder.build_eval_batches(config, task, items)

    def batch_shapes(self, config: ConfigDict, trainer: Trainer) -> dict[str, jax.ShapeDtypeStruct]:
        return self.build_task(config).prepared_shapes(config.batch_size, config.data.resolution)

    def evaluate(self, run: RunDir, **options: Any) -> dict:
        return evaluation.evaluate_run(run, **options)


class LabelAutoencoderKind(DenseLabelsKind):
    def build_trainer(self, config: ConfigDict, stage1: None) -> LabelAutoencoderTrainer:
        return label_autoencoder.build_trainer(config)

    def num_tokens(self, trainer: LabelAutoencoderTrainer) -> int:
        return trainer.model.code_grid**2

    def facts(self, config: ConfigDict, trainer: LabelAutoencoderTrainer) -> dict:
        return label_autoencoder.run_facts(config, trainer, self.num_tokens(trainer)) | {"stage": 1}
