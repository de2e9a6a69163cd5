"""Stage I of the image experiments: an autoencoder with any quantizer."""

from ml_collections import ConfigDict

from fsq_repro.evaluation import autoencoder as evaluation
from fsq_repro.experiments.kind import Kind
from fsq_repro.factories import autoencoder
from fsq_repro.trainers.autoencoder import AutoencoderTrainer


class AutoencoderKind(Kind):
    def build_trainer(self, config: ConfigDict, stage1: None) -> AutoencoderTrainer:
        return autoencoder.build_trainer(config)

    def num_tokens(self, trainer: AutoencoderTrainer) -> int:
        return (trainer.resolution // trainer.model.stride) ** 2

    evaluate = staticmethod(evaluation.evaluate_run)
