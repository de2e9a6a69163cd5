"""Configs and both trainers of stage I take every quantizer of the contract test, with each of its fields."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import linen as nn
from ml_collections import ConfigDict

from fsq_repro.factories import autoencoder as autoencoder_factory
from fsq_repro.factories import label_autoencoder as label_autoencoder_factory
from fsq_repro.quantizers import QUANTIZERS, make_quantizer
from tests.quantizers.rows import QUANTIZERS as ROWS
from tests.tiny import tiny_config, tiny_uvim
from tests.trainers.test_label_autoencoder import batch as dense_batch


def config_of(module):
    """The fields of the `quantizer` config that makes this module."""
    fields = {f.name: getattr(module, f.name) for f in dataclasses.fields(module) if f.name not in ("parent", "name")}
    name = next(name for name, kind in QUANTIZERS.items() if kind is type(module))
    return ConfigDict({"name": name} | {k: config_of(v) if isinstance(v, nn.Module) else v for k, v in fields.items()})


def check(trainer, batch):
    """Traces a step: nothing is missing, and the state keeps its form."""
    state = jax.eval_shape(trainer.init_state, jax.random.key(0))
    after, metrics = jax.eval_shape(lambda s, b: trainer.train_step(s, {}, b), state, batch)
    form = jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert form == jax.tree.map(lambda x: (x.shape, x.dtype), after)
    assert "quantizer/usage" in metrics
    return state


FIRST = {type(row.module): name for name, row in reversed(ROWS.items())}  # row of each kind


@pytest.mark.parametrize("name", FIRST.values())
def test_image_autoencoder(name):
    config = tiny_config()
    config.quantizer = config_of(ROWS[name].module)
    config.accumulate_steps = 2
    assert make_quantizer(**config.quantizer) == ROWS[name].module
    state = check(autoencoder_factory.build_trainer(config), {"image": np.zeros((4, 16, 16, 3), np.float32)})
    assert sorted(state.quantizer_state.get("quantizer", {})) == sorted(ROWS[name].state)


@pytest.mark.parametrize("name", ["diveq", "product_ema_restart"])  # one that draws, one with state of its parts
def test_label_autoencoder(name):
    config = tiny_uvim(1)
    config.quantizer = config_of(ROWS[name].module)
    trainer = label_autoencoder_factory.build_trainer(config)
    check(trainer, dense_batch(trainer.task))
