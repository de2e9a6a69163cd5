"""Stage I of the image experiments: an autoencoder with any quantizer."""

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from fsq_repro.data.pipeline import eval_batches
from fsq_repro.data.sources import Source
from fsq_repro.evaluation import autoencoder as evaluation
from fsq_repro.experiments.kind import Kind
from fsq_repro.factories import autoencoder, common
from fsq_repro.trainers.autoencoder import AutoencoderTrainer


class AutoencoderKind(Kind):
    def build_trainer(self, config: ConfigDict, stage1: None) -> AutoencoderTrainer:
        return autoencoder.build_trainer(config)

    num_tokens = staticmethod(autoencoder.num_tokens)
    facts = staticmethod(autoencoder.run_facts)
    build_source = staticmethod(common.build_source)

    def train_iterator(self, config: ConfigDict, task: None, items: Source) -> Any:
        return common.build_train_iterator(config, items)

    def eval_batches(self, config: ConfigDict, task: None, items: Source) -> eval_batches:
        return common.build_eval_batches(config, items)

    def batch_shapes(self, config: ConfigDict, trainer: AutoencoderTrainer) -> dict[str, jax.ShapeDtypeStruct]:
        return image_shapes(config)

    evaluate = staticmethod(evaluation.evaluate_run)


def image_shapes(config: ConfigDict) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a batch of images and their labels."""
    B, side = config.batch_size, config.data.resolution
    return {
        "image": jax.ShapeDtypeStruct((B, side, side, 3), jnp.float32),
        "label": jax.ShapeDtypeStruct((B,), jnp.int32),
    }
