"""The training loop of every trainer; read it from top to bottom.

It never waits for a step before the next one is dispatched: the metrics of step t are read while step t + 1 runs.
Only before a checkpoint is the last step's loss read first, so every checkpoint has a finite loss behind it.
"""

import contextlib
import dataclasses
import logging
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import jax
import numpy as np
from clu import parameter_overview

from fsq_repro.errors import UserError, explained_items
from fsq_repro.runtime import sharding
from fsq_repro.runtime.checkpoints import Checkpoints
from fsq_repro.runtime.processes import StopSignal
from fsq_repro.runtime.writers import MetricWriter, lacks_check
from fsq_repro.trainers.compiled_step import init_state, lower_step, place_state
from fsq_repro.visualization.grids import save_png

log = logging.getLogger(__name__)


class Trainer(Protocol):
    """What the loop needs of a trainer. The state is the trainer's own; the loop reads only `.step` and `.params`.

    All have a `model` (stage II of MaskGIT in its generator) and an `optimizer`, an optax transformation.
    `accumulate_steps`: microbatches that `train_step` cuts a batch into, see `accumulation`.
    """

    accumulate_steps: int

    def init_state(self, rng: jax.Array) -> Any:
        """Initial state from a typed key."""

    def load_frozen(self) -> Any:
        """Arrays that the step reads and never changes."""

    def train_step(self, state: Any, frozen: Any, batch: dict) -> tuple[Any, dict[str, jax.Array]]:
        """One step on a batch; returns the new state and float32 scalars."""

    def make_evaluator(self, mesh: Any) -> Callable[[Any, Iterable[dict]], tuple[dict[str, float], dict]]:
        """The check that the loop makes now and then on some validation batches: state -> (scalars, pictures)."""


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """How long and how often; all in steps. `batch_size` is global. `fsdp`: see `runtime.sharding`."""

    seed: int
    steps: int
    batch_size: int
    log_every: int
    eval_every: int
    checkpoint_every: int
    fsdp: int = 1

    def evaluates_at(self, step: int) -> bool:
        return step % self.eval_every == 0 or step == self.steps


class Interrupted(Exception):
    """SIGTERM or SIGINT: the state was saved and the same command goes on from there."""


def train(
    trainer: Trainer,
    data_iterator: Any,
    evaluation_batches: Callable[[], Iterable[dict]],
    run_path: pathlib.Path,
    config: LoopConfig,
    start_from: Callable[[Any], Any] = lambda state: state,
    on_checkpoint: Callable[[], None] = lambda: None,
    checkpoint: int | None = None,
) -> Any:
    """Trains to `config.steps`, from the last checkpoint of `run_path` if there is one; returns the final state.

    Args:
      data_iterator: grain iterator over this process's part of the batches; its state is saved and restored.
      evaluation_batches: makes the iterable of validation batches for the check during training.
      start_from: what a new run's initial state goes through: published weights come in here.
      on_checkpoint: called when a checkpoint has been saved.
      checkpoint: step of the checkpoint to continue from where later ones are damaged, see `Checkpoints.resume`.

    Raises:
      UserError: a loss was not finite, a checkpoint does not fit the config or cannot be read, or a batch cannot be
        made.
      Interrupted: after SIGTERM or SIGINT.
    """
    is_main = jax.process_index() == 0

    # ---- Mesh
    mesh = sharding.make_mesh(config.fsdp)

    # ---- State
    key = jax.random.key(config.seed)
    checkpoints = Checkpoints(run_path / "checkpoints")
    if checkpoints.latest_step() is None and checkpoint is None:
        state = start_from(init_state(trainer.init_state, key, mesh))
        log.info("parameters:\n%s", parameter_overview.get_parameter_overview(state.params, include_stats=False))
    else:
        abstract = place_state(jax.eval_shape(trainer.init_state, key), mesh)
        state = checkpoints.resume(abstract, data_iterator, checkpoint)
        log.info("resumed from step %d", int(state.step))
    step = first = int(state.step)
    unchecked = config.evaluates_at(step) and lacks_check(run_path, step)  # ended between saving and evaluating
    if step >= config.steps and not unchecked:
        log.info("step %d of %d: the run is finished", step, config.steps)
        return state
    checkpoints.check_room(state)
    frozen = jax.device_put(trainer.load_frozen(), sharding.replicated(mesh))

    # ---- Compile
    batches = explained_items(data_iterator)
    batch = sharding.put_batch(next(batches), mesh)
    started = time.monotonic()
    train_step = lower_step(trainer.train_step, state, frozen, batch, mesh).compile()
    log.info("compiled the step in %.1f s", time.monotonic() - started)

    # ---- Step, log, evaluate, save
    evaluate = trainer.make_evaluator(mesh)
    writer = MetricWriter(run_path, is_main_process=is_main, step=step)
    window = _Window(config.steps, config.batch_size, step)
    pending = None

    def check() -> None:
        whole = sharding.gathered(state, mesh, (*sharding.NETWORKS, "ema_params"))
        scalars, pictures = evaluate(whole, explained_items(evaluation_batches()))
        del whole
        log.info("step %d  %s", step, "  ".join(f"{k} {v:.4g}" for k, v in scalars.items()))
        writer.write_images(step, pictures)
        if is_main:
            for name, picture in pictures.items():
                save_png(run_path / "samples" / f"{name}_{step:07d}.png", picture)
        writer.write_scalars(step, scalars)  # last: by this line a resumed run knows that all is there
        window.restart(step)

    with StopSignal() as stop:
        try:
            if unchecked:
                check()
            while step < config.steps:
                if step > first:
                    with window.waiting():
                        batch = next(batches)
                    batch = sharding.put_batch(batch, mesh)
                state, metrics = train_step(state, frozen, batch)
                if pending is not None:
                    window.add(*_read(pending, checkpoints), writer, config.log_every)
                step += 1
                pending = (step, metrics)

                stopping = stop.requested()
                must_save = step % config.checkpoint_every == 0 or step == config.steps or stopping
                must_evaluate = config.evaluates_at(step)
                if must_save or must_evaluate:
                    window.add(*_read(pending, checkpoints), writer, config.log_every)
                    pending = None
                if must_save:
                    checkpoints.save(step, state, data_iterator)
                    on_checkpoint()
                if stopping:
                    raise Interrupted(
                        f"stopped by a signal after step {step}, which was saved; the same command resumes"
                    )
                if must_evaluate:
                    check()
        finally:
            writer.close()
            checkpoints.close()
    return state


def _read(pending: tuple[int, dict[str, jax.Array]], checkpoints: Checkpoints) -> tuple[int, dict[str, float]]:
    """Waits for a step's metrics and checks them."""
    step, metrics = pending
    values = {k: float(v) for k, v in metrics.items()}
    if bad := [k for k, v in values.items() if not np.isfinite(v)]:
        last = checkpoints.latest_step()
        where = f"the last good checkpoint is of step {last}" if last is not None else "there is no checkpoint yet"
        raise UserError(
            f"{', '.join(bad)} not finite at step {step}; {where}; lower optimizer.learning_rate or look at "
            "metrics.jsonl"
        )
    return step, values


class _Window:
    """Means of the metrics since the last line, and the progress line itself.

    `data_wait` is the share of that time in which the host waited for the next batch, 0 to 1. The device may still have
    been busy with the step before, so it is the most that faster data could save.
    """

    def __init__(self, steps: int, batch_size: int, step: int):
        self._steps, self._batch_size = steps, batch_size
        self.restart(step)

    def restart(self, step: int) -> None:
        self._values: list[dict[str, float]] = []
        self._first, self._started, self._waited = step, time.monotonic(), 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts what is done in it as waiting for data."""
        started = time.monotonic()
        yield
        self._waited += time.monotonic() - started

    def add(self, step: int, values: dict[str, float], writer: Any, every: int) -> None:
        self._values.append(values)
        if step % every and step != self._steps:
            return
        means = {k: float(np.mean([v[k] for v in self._values])) for k in values}
        elapsed = max(time.monotonic() - self._started, 1e-9)
        rate, data_wait = (step - self._first) / elapsed, self._waited / elapsed
        writer.write_scalars(step, means | {"images_per_second": rate * self._batch_size, "data_wait": data_wait})
        shown = [k for k in means if k.startswith("loss") or k == "discriminator/loss"]
        log.info(
            "step %d/%d  %s  %.0f images/s%s  %d:%02d left",
            step,
            self._steps,
            "  ".join(f"{k} {means[k]:.4g}" for k in shown),
            rate * self._batch_size,
            f"  {data_wait:.0%} waiting for data" if data_wait > 0.02 else "",
            *divmod(int((self._steps - step) / rate), 60),
        )
        self.restart(step)
