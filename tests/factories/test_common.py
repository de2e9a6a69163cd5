"""Schedules by optax's own warm-ups, and the facts that all records have."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from fsq_repro.experiments.registry import kind_of
from fsq_repro.factories import autoencoder, common
from tests.tiny import tiny_config


@pytest.mark.parametrize("warmup_steps", [0, 1, 7])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_schedules_are_joined_of_a_warm_up_and_the_rest_bitwise(schedule, warmup_steps):
    rate, steps = 3e-4, 40
    c = ConfigDict({"learning_rate": rate, "warmup_steps": warmup_steps, "schedule": schedule})
    rest = {
        "constant": optax.constant_schedule(rate),
        "cosine": optax.cosine_decay_schedule(rate, steps - warmup_steps),
    }[schedule]
    warmup = optax.linear_schedule(0.0, rate, warmup_steps)
    joined = optax.join_schedules([warmup, rest], [warmup_steps]) if warmup_steps else rest
    found = common.build_schedule(c, steps)
    for step in map(jnp.int32, range(steps)):
        np.testing.assert_array_equal(np.float32(found(step)), np.float32(joined(step)))


@pytest.mark.parametrize(
    ("arg", "quantizer", "levels"),
    [
        ("quantizer=fsq,bits=8", "fsq", [8, 6, 5]),
        ("quantizer=vq,bits=8", "vq_narrow", None),  # the tests' codes are
        ("quantizer=vq_no_entropy,bits=8", "vq_narrow_no_entropy", None),
        ("quantizer=ema_vq,bits=8", "ema_vq", None),
    ],
)
def test_facts_name_the_quantizer(arg, quantizer, levels):
    config = tiny_config(arg)
    facts = kind_of(config).facts(config, autoencoder.build_trainer(config))
    assert (facts["quantizer"], facts["levels"]) == (quantizer, levels)
    assert facts["codebook_size"] == (240 if levels else 256) and (facts["num_tokens"], facts["stage"]) == (16, 1)
