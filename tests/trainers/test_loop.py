"""The loop: resume, interruption, non-finite losses."""

import dataclasses
import json
import os
import pathlib
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.data.pipeline import Augmentation, eval_batches, train_iterator
from fsq_repro.runtime.checkpoints import Checkpoints
from fsq_repro.runtime.errors import UserError
from fsq_repro.trainers import factory, loop
from fsq_repro.trainers.autoencoder import AutoencoderTrainer
from tests.tiny import NoiseSource, compiled_once, tiny_config

pytestmark = pytest.mark.usefixtures("fast_compile")


def run(path: pathlib.Path, config, trainer=None, evaluation_batches=None):
    source = NoiseSource()
    return loop.train(
        trainer or factory.build_trainer(config),
        train_iterator(source, batch_size=8, resolution=16, seed=config.seed, augmentation=Augmentation()),
        evaluation_batches or (lambda: eval_batches(source, batch_size=8, resolution=16)),
        path,
        factory.build_loop(config),
    )


def assert_same(a, b):
    def raw(x):
        return np.asarray(jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x)

    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(raw(x), raw(y)), a, b)


def test_interrupted_and_resumed_equals_uninterrupted_bitwise(tmp_path):
    """SIGTERM before step 3; the whole state (both networks, EMA, optimisers, rng, codebook) comes out the same."""
    config = tiny_config("quantizer=ema_vq,bits=6", gan=True)
    config.eval_every = 2
    trainer = compiled_once(factory.build_trainer(config))
    whole = run(tmp_path / "whole", config, trainer)

    def stop():
        os.kill(os.getpid(), signal.SIGTERM)
        return eval_batches(NoiseSource(), batch_size=8, resolution=16)

    with pytest.raises(loop.Interrupted, match="after step 3"):
        run(tmp_path / "parts", config, trainer, evaluation_batches=stop)
    assert Checkpoints(tmp_path / "parts" / "checkpoints", create=False).steps == [3]
    parts = run(tmp_path / "parts", config, trainer)
    assert int(parts.step) == config.steps
    assert_same(whole, parts)
    lines = [json.loads(line) for line in (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [2, 4, 6, 8]
    assert list((tmp_path / "whole" / "samples").glob("*.png"))
    # The same command once more has nothing to do.
    assert_same(parts, run(tmp_path / "parts", config, trainer))


@dataclasses.dataclass(frozen=True)
class NanFromSixthStep(AutoencoderTrainer):
    def train_step(self, state, frozen, batch):
        poison = jnp.where(state.step >= 5, jnp.nan, 1.0)
        return super().train_step(state, frozen, batch | {"image": batch["image"] * poison})


def test_non_finite_loss_stops_with_step_and_last_good_checkpoint(tmp_path):
    config = tiny_config()
    trainer = factory.build_trainer(config)
    fields = {f.name: getattr(trainer, f.name) for f in dataclasses.fields(trainer)}
    with pytest.raises(UserError, match=r"not finite at step 6; the last good checkpoint is of step 4"):
        run(tmp_path, config, trainer=NanFromSixthStep(**fields))
    assert Checkpoints(tmp_path / "checkpoints", create=False).steps == [4]


def test_restoring_another_architecture_names_the_first_difference(tmp_path):
    config = tiny_config()
    config.steps, config.checkpoint_every = 1, 1
    config.optimizer.warmup_steps = 0
    run(tmp_path, config)
    config.steps = 2
    config.model.num_res_blocks = 2
    with pytest.raises(UserError, match=r"does not fit the config: \S+ has shape"):
        run(tmp_path, config)
    assert Checkpoints(tmp_path / "checkpoints", create=False).steps == [1]


def test_batch_must_divide_by_the_devices(tmp_path):
    config = tiny_config()
    config.batch_size = 6
    with pytest.raises(ValueError, match="batch_size = 6 must be a multiple of the 4 devices"):
        factory.build_train_iterator(config, NoiseSource())
