"""UViM's stage I: learns to code dense labels, given the image, in a few codes of any quantizer (paper 4.4).

Follows google-research/big_vision `trainers/proj/uvim/vqvae.py`: the task's loss, and nothing for the quantizer (its
commitment weight is 0 in all published configs). No average of the parameters is kept.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from fsq_repro.models.label_autoencoder import LabelAutoencoder
from fsq_repro.tasks.base import Arrays, Task
from fsq_repro.trainers.accumulation import accumulate, codebook_statistics, update_codebook
from fsq_repro.trainers.check_totals import make_totals


@struct.dataclass
class LabelAutoencoderState:
    """All that a bitwise resume needs; `quantizer_state` is empty for FSQ."""

    step: jax.Array
    rng: jax.Array
    params: Any
    quantizer_state: Any
    opt_state: Any


@dataclasses.dataclass(frozen=True)
class LabelAutoencoderTrainer:
    """Stage-I trainer of a task; attributes and methods as of `loop.Trainer`."""

    model: LabelAutoencoder
    task: Task
    optimizer: optax.GradientTransformation
    accumulate_steps: int = 1

    def load_frozen(self) -> Any:
        return {}

    def init_state(self, rng: jax.Array) -> LabelAutoencoderState:
        params_key, quantizer_key, state_key = jax.random.split(rng, 3)
        keys = {"params": params_key, "quantizer": quantizer_key}
        side = self.model.resolution
        labels = {name: jnp.zeros((1, side, side, channels)) for name, channels in self.task.labels}
        variables = self.model.init(keys, labels, jnp.zeros((1, side, side, 3)), train=False)
        return LabelAutoencoderState(
            step=jnp.zeros((), jnp.int32),
            rng=state_key,
            params=variables["params"],
            quantizer_state=variables.get("quantizer", {}),
            opt_state=self.optimizer.init(variables["params"]),
        )

    def train_step(self, state: LabelAutoencoderState, frozen: Any, batch: Arrays) -> tuple[Any, Arrays]:
        """One step on a prepared batch (see `tasks.base`); returns the new state and float32 scalars."""
        dropout_key, quantizer_key = jax.random.split(jax.random.fold_in(state.rng, state.step))
        variables = variables_of(state)
        if self.model.code_dropout:
            B, rngs = len(jax.tree.leaves(batch)[0]), {"dropout": dropout_key}
            batch = batch | {"kept": self.model.apply(variables, B, rngs=rngs, method="draw_kept_codes")}

        def loss_fn(params: Any, batch: Arrays, key: jax.Array) -> tuple[jax.Array, tuple[Any, Arrays]]:
            (outputs, quantized), updated = self.model.apply(
                variables | {"params": params},
                self.task.inputs(batch),
                batch["context"],
                train=True,
                kept_BxS=batch.get("kept"),
                mutable=["batch"],
                rngs={"quantizer": key},
            )
            loss_B, terms = self.task.loss(outputs, batch)
            total = jnp.mean(loss_B) + quantized.loss
            metrics = {"loss": total, "loss/quantizer": quantized.loss}
            metrics |= {f"loss/{name}": jnp.mean(term_B) for name, term_B in terms.items()}
            metrics |= {f"quantizer/{name}": value for name, value in quantized.metrics.items()}
            return total, (updated, metrics)

        def gradients(batch: Arrays, number: int | jax.Array) -> tuple[Any, Any]:
            key = jax.random.fold_in(quantizer_key, 1 + number)
            (_, (updated, metrics)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params, batch, key)
            return (grads, metrics), codebook_statistics(updated, number)

        (grads, metrics), batch_sums = accumulate(gradients, batch, self.accumulate_steps)
        quantizer_state, more = update_codebook(self.model, variables, batch_sums, quantizer_key)
        updates, opt_state = self.optimizer.update(grads, state.opt_state, state.params)
        return state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            quantizer_state=quantizer_state,
            opt_state=opt_state,
        ), metrics | more | {"gradient_norm": optax.global_norm(grads)}

    def make_evaluator(self, mesh: Mesh) -> Callable[[LabelAutoencoderState, Iterable[dict]], tuple[dict, dict]]:
        """The check that the loop makes now and then: losses and codebook usage on some validation batches."""

        def measure(variables: dict[str, Any], batch: Arrays) -> tuple[jax.Array, Arrays]:
            outputs, indices_BxS = reconstruct(self.model, self.task, variables, batch)
            return indices_BxS, self.task.loss(outputs, batch)[1]

        totals = make_totals(measure, self.model.quantizer.codebook_size, mesh)

        def evaluate(state: LabelAutoencoderState, batches: Iterable[dict]) -> tuple[dict[str, float], dict]:
            usage, sums, count = totals(variables_of(state), batches)
            means = {name: total / count for name, total in sums.items()}
            means |= {name: usage[name] for name in ("usage", "entropy_bits")}
            return {f"validation/{name}": value for name, value in means.items()}, {}

        return evaluate


def variables_of(state: LabelAutoencoderState) -> dict[str, Any]:
    """The variables of `LabelAutoencoder` in a train state."""
    return {"params": state.params, "quantizer": state.quantizer_state}


def reconstruct(
    model: LabelAutoencoder, task: Task, variables: dict[str, Any], batch: Arrays
) -> tuple[Arrays, jax.Array]:
    """Prepared batch -> (the autoencoder's outputs for its true labels, indices int32 (B, S))."""
    outputs, quantized = model.apply(variables, task.inputs(batch), batch["context"], train=False)
    return outputs, quantized.indices
