"""The loop: resume, interruption, non-finite losses, the share of time that goes into waiting for data."""

import dataclasses
import json
import logging
import os
import pathlib
import signal
import time
import types

import flax.struct
import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.data.pipeline import Augmentation, eval_batches, train_iterator
from fsq_repro.errors import UserError
from fsq_repro.factories import autoencoder as autoencoder_factory
from fsq_repro.factories import common
from fsq_repro.runtime.checkpoints import Checkpoints
from fsq_repro.trainers import loop
from fsq_repro.trainers.autoencoder import AutoencoderTrainer
from tests.tiny import NoiseSource, compiled_once, tiny_config


def run(path: pathlib.Path, config, trainer=None, evaluation_batches=None):
    source = NoiseSource()
    return loop.train(
        trainer or autoencoder_factory.build_trainer(config),
        train_iterator(source, batch_size=8, resolution=16, seed=config.seed, augmentation=Augmentation()),
        evaluation_batches or (lambda: eval_batches(source, batch_size=8, resolution=16)),
        path,
        common.build_loop(config),
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
    trainer = compiled_once(autoencoder_factory.build_trainer(config))
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

    # A run that ends between saving and evaluating is evaluated when it goes on, also after its last step.
    for step in (4, 8):
        path, calls = tmp_path / f"ended_at_{step}", []

        def end(step=step, calls=calls):
            calls.append(None)
            if 2 * len(calls) == step:
                raise KeyboardInterrupt
            return eval_batches(NoiseSource(), batch_size=8, resolution=16)

        with pytest.raises(KeyboardInterrupt):
            run(path, config, trainer, evaluation_batches=end)
        assert_same(whole, run(path, config, trainer))
        assert _metrics(path) == _metrics(tmp_path / "whole")
        pictures = [sorted(p.name for p in (x / "samples").iterdir()) for x in (path, tmp_path / "whole")]
        assert pictures[0] == pictures[1]


def _metrics(path: pathlib.Path) -> list[dict]:
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("images_per_second", "data_wait")} for line in lines]


@dataclasses.dataclass(frozen=True)
class NanFromSixthStep(AutoencoderTrainer):
    def train_step(self, state, frozen, batch):
        poison = jnp.where(state.step >= 5, jnp.nan, 1.0)
        return super().train_step(state, frozen, batch | {"image": batch["image"] * poison})


def test_non_finite_loss_stops_with_step_and_last_good_checkpoint(tmp_path):
    config = tiny_config()
    trainer = autoencoder_factory.build_trainer(config)
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


def test_another_number_of_processes_is_refused(tmp_path):
    config = tiny_config()
    config.steps, config.checkpoint_every, config.optimizer.warmup_steps = 1, 1, 0
    run(tmp_path, config)
    (file,) = (tmp_path / "checkpoints" / "1" / "data").glob("process_*.json")
    file.rename(file.with_name("process_0-of-2.json"))
    config.steps = 2
    with pytest.raises(UserError, match="was saved by 2 processes, which shared the data, and cannot"):
        run(tmp_path, config)


def test_batch_must_divide_by_the_devices():
    config = tiny_config()
    config.batch_size = 6
    with pytest.raises(ValueError, match="batch_size = 6 must be a multiple of the 4 devices"):
        common.check_devices(config)


@flax.struct.dataclass
class CounterState:
    step: jax.Array
    params: dict[str, jax.Array]


class Counter:
    """The smallest trainer."""

    def init_state(self, rng):
        return CounterState(jnp.int32(0), {"kernel": jnp.ones(3)})

    def load_frozen(self):
        return ()

    def train_step(self, state, frozen, batch):
        return state.replace(step=state.step + 1), {"loss": jnp.mean(batch["image"])}

    def make_evaluator(self, mesh):
        return lambda state, batches: ({}, {})


def wait_of_training(path: pathlib.Path, make, read_options) -> list[dict]:
    """What is logged at steps 10 and 20 of training on batches that `make` draws."""
    iterator = iter(grain.MapDataset.range(1000).map(make).to_iter_dataset(read_options))
    config = loop.LoopConfig(seed=0, steps=20, batch_size=8, log_every=10, eval_every=100, checkpoint_every=100)
    loop.train(Counter(), iterator, list, path, config)
    metrics = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [m for m in metrics if "loss" in m]


@pytest.mark.parametrize("seconds, share", [(3.0, 0.75), (0.01, 0.01 / 1.01), (0.0, 0.0)])
def test_share_of_time_waiting_for_data(tmp_path, caplog, monkeypatch, seconds, share):
    """By a clock of our own: `seconds` to draw a batch, one second for the rest of a step."""
    caplog.set_level(logging.INFO, "fsq_repro.trainers.loop")
    clock = [0.0]
    monkeypatch.setattr(loop, "time", types.SimpleNamespace(monotonic=lambda: clock[0]))
    put_batch = loop.sharding.put_batch

    def make(index):
        clock[0] += seconds
        return {"image": np.zeros((8, 2), np.float32)}

    def put(batch, mesh):
        clock[0] += 1.0
        return put_batch(batch, mesh)

    monkeypatch.setattr(loop.sharding, "put_batch", put)
    metrics = wait_of_training(tmp_path, make, grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
    assert [m["step"] for m in metrics] == [10, 20]
    assert [m["data_wait"] for m in metrics] == pytest.approx([share, share], abs=1e-9)
    lines = [r.message for r in caplog.records if "images/s" in r.message]
    assert len(lines) == 2 and all(("waiting" in line) == (share > 0.02) for line in lines)
    assert all("  75% waiting for data" in line for line in lines if "waiting" in line)


def test_batches_read_ahead_are_not_waited_for(tmp_path):
    made = []

    def make(index):
        started = time.monotonic()
        time.sleep(0.02)
        made.append(time.monotonic() - started)
        return {"image": np.zeros((8, 2), np.float32)}

    metrics = wait_of_training(tmp_path, make, grain.ReadOptions(num_threads=16, prefetch_buffer_size=64))
    waited = sum(m["data_wait"] * 10 * 8 / m["images_per_second"] for m in metrics)
    assert 0 < waited < 0.25 * sum(made[:20])


def test_training_goes_on_from_the_checkpoint_before_a_damaged_one(tmp_path):
    """Not by itself, and to the state and the position in the data of an unbroken run."""

    def counted(path: pathlib.Path, checkpoint: int | None = None):
        data = iter(grain.MapDataset.range(100).map(lambda i: {"image": np.full(8, i, np.float32)}).to_iter_dataset())
        config = loop.LoopConfig(seed=0, steps=6, batch_size=8, log_every=10, eval_every=100, checkpoint_every=2)
        return loop.train(Counter(), data, list, path, config, checkpoint=checkpoint), data.get_state()

    with pytest.raises(UserError, match="no checkpoint in"):
        counted(tmp_path, checkpoint=4)
    whole, position = counted(tmp_path)
    (tmp_path / "checkpoints" / "6" / "state" / "_METADATA").write_bytes(b"")
    with pytest.raises(UserError, match=r"step 6 in \S+ cannot be read \(.*: --checkpoint=4 takes it"):
        counted(tmp_path)
    parts, end = counted(tmp_path, checkpoint=4)
    assert_same(whole, parts)
    assert end == position == {"next_index": 6}
    assert Checkpoints(tmp_path / "checkpoints", create=False).steps == [4, 6]
