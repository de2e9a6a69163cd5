"""Stage II of the image experiments: a transformer over the tokens of a trained autoencoder."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from fsq_repro.data.pipeline import Batch, token_eval_batches, token_iterator
from fsq_repro.data.sources import Source
from fsq_repro.data.tokens import TokenSource
from fsq_repro.evaluation import maskgit as evaluation
from fsq_repro.experiments.kind import Kind, Shapes
from fsq_repro.factories import maskgit, stage1_link
from fsq_repro.inference import tokenizer
from fsq_repro.inference.tokenizer import Tokenizer
from fsq_repro.trainers.autoencoder import AutoencoderTrainer
from fsq_repro.trainers.maskgit import MaskGITTrainer


class AbstractTokenizer(Tokenizer):
    """A stage-I autoencoder's modules and the shapes of its arrays."""

    def __init__(self, trainer: AutoencoderTrainer):
        state = jax.eval_shape(trainer.init_state, jax.random.key(0))
        self.model = trainer.model
        self.grid = trainer.resolution // trainer.model.stride
        self.variables = {"params": state.params, "quantizer": state.quantizer_state}


class MaskGITKind(Kind):
    needs = tokenizer.NEEDED
    load_stage1 = staticmethod(tokenizer.load_stage1_tokenizer)
    abstract_stage1 = AbstractTokenizer
    build_trainer = staticmethod(maskgit.build_trainer)

    def frozen_shapes(self, trainer: MaskGITTrainer) -> Shapes:
        return trainer.tokenizer.variables if trainer.encode else {}

    def num_tokens(self, trainer: MaskGITTrainer) -> int:
        return trainer.generator.grid**2

    def facts(self, config: ConfigDict, trainer: MaskGITTrainer) -> dict:
        stage1 = stage1_link.stage1_facts(config, trainer.tokenizer.fingerprint)
        return super().facts(config, trainer) | {"generator": trainer.generator.name, "stage1": stage1}

    build_source = staticmethod(maskgit.build_source)
    trains_on_tokens = staticmethod(maskgit.trains_on_tokens)

    def build_items(self, config: ConfigDict, stage1: Tokenizer, source: Source) -> Source | TokenSource:
        if source.split == "train" and not self.trains_on_tokens(config):
            return source
        return maskgit.build_tokens(config, stage1, source)

    def train_iterator(self, config: ConfigDict, task: None, items: Source | TokenSource) -> Any:
        if not self.trains_on_tokens(config):
            return super().train_iterator(config, task, items)
        return token_iterator(items, batch_size=config.batch_size // jax.process_count(), seed=config.seed)

    def eval_batches(self, config: ConfigDict, task: None, items: TokenSource) -> Iterable[Batch]:
        return token_eval_batches(items, batch_size=config.eval.batch_size // jax.process_count())

    def batch_shapes(self, config: ConfigDict, trainer: MaskGITTrainer) -> dict[str, jax.ShapeDtypeStruct]:
        images = super().batch_shapes(config, trainer)
        if trainer.encode:
            return images
        tokens = jax.ShapeDtypeStruct((config.batch_size, self.num_tokens(trainer)), jnp.int32)
        return {"tokens": tokens, "label": images["label"]}

    evaluate = staticmethod(evaluation.evaluate_run)
