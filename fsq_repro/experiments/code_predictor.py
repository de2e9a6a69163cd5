"""Stage II of UViM: a transformer that predicts from an image the codes of its labels."""

from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from fsq_repro.experiments.kind import Shapes
from fsq_repro.experiments.label_autoencoder import DenseLabelsKind
from fsq_repro.factories import code_predictor, stage1_link
from fsq_repro.inference import label_coder
from fsq_repro.inference.label_coder import LabelCoder
from fsq_repro.trainers.code_predictor import CodePredictorTrainer
from fsq_repro.trainers.label_autoencoder import LabelAutoencoderTrainer, variables_of


class AbstractLabelCoder(LabelCoder):
    """A label autoencoder's modules and the shapes of its arrays."""

    def __init__(self, trainer: LabelAutoencoderTrainer):
        self.model, self.task = trainer.model, trainer.task
        self.variables = variables_of(jax.eval_shape(trainer.init_state, jax.random.key(0)))


class CodePredictorKind(DenseLabelsKind):
    needs = label_coder.NEEDED
    load_stage1 = staticmethod(label_coder.load_stage1_coder)
    abstract_stage1 = AbstractLabelCoder
    build_trainer = staticmethod(code_predictor.build_trainer)

    def start_from(self, config: ConfigDict, trainer: CodePredictorTrainer) -> Callable[[Any], Any]:
        if not config.model.encoder_init:
            return super().start_from(config, trainer)
        return code_predictor.augreg_start(config.model.encoder_init, trainer)

    def frozen_shapes(self, trainer: CodePredictorTrainer) -> Shapes:
        return trainer.coder.variables

    def num_tokens(self, trainer: CodePredictorTrainer) -> int:
        return trainer.model.num_codes

    def facts(self, config: ConfigDict, trainer: CodePredictorTrainer) -> dict:
        stage1 = stage1_link.stage1_facts(config, trainer.coder.fingerprint)
        return super().facts(config, trainer) | {"generator": "autoregressive", "stage1": stage1}
