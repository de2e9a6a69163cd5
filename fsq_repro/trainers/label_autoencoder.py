"""UViM's stage I: learns to code dense labels, given the image, in a few codes of any quantizer (paper 4.4).

Follows google-research/big_vision `trainers/proj/uvim/vqvae.py`: the task's loss, and nothing for the quantizer (its
commitment weight is 0 in all published configs). No average of the parameters is kept.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import Mesh

from fsq_repro.metrics.usage import CodebookUsage
from fsq_repro.models.label_autoencoder import LabelAutoencoder
from fsq_repro.runtime import sharding
from fsq_repro.tasks.base import Arrays, Task
from fsq_repro.trainers.accumulation import accumulate, update_codebook


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
    """Stage-I trainer of a task.

    Attributes:
      model, task: the autoencoder and what it is for.
      optimizer: optax transformation.
      accumulate_steps: microbatches of a step, see `accumulation`.
    """

    model: LabelAutoencoder
    task: Task
    optimizer: optax.GradientTransformation
    accumulate_steps: int = 1

    def load_frozen(self) -> Any:
        """Nothing is frozen."""
        return {}

    def init_state(self, rng: jax.Array) -> LabelAutoencoderState:
        """Initial state from a typed key."""
        params_key, quantizer_key, state_key = jax.random.split(rng, 3)
        side = self.model.resolution
        labels = {name: jnp.zeros((1, side, side, channels)) for name, channels in self.task.labels}
        keys = {"params": params_key, "quantizer": quantizer_key}
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

        def loss_fn(params: Any, batch: Arrays) -> tuple[jax.Array, tuple[Any, Arrays]]:
            (outputs, quantized), updated = self.model.apply(
                variables | {"params": params},
                self.task.inputs(batch),
                batch["context"],
                train=True,
                kept_BxS=batch.get("kept"),
                mutable=["batch"],
            )
            loss_B, terms = self.task.loss(outputs, batch)
            total = jnp.mean(loss_B) + quantized.loss
            metrics = {"loss": total, "loss/quantizer": quantized.loss}
            metrics |= {f"loss/{name}": jnp.mean(term_B) for name, term_B in terms.items()}
            metrics |= {f"quantizer/{name}": value for name, value in quantized.metrics.items()}
            return total, (updated.get("batch", {}), metrics)

        def gradients(batch: Arrays, _: int | jax.Array) -> tuple[Any, Any]:
            (_, (batch_sums, metrics)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params, batch)
            return (grads, metrics), batch_sums

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

        def measure(state: LabelAutoencoderState, batch: Arrays) -> tuple[Arrays, jax.Array, jax.Array]:
            outputs, indices_BxS = reconstruct(self.model, self.task, variables_of(state), batch)
            return self.task.loss(outputs, batch)[1], indices_BxS, batch["mask"]

        # Replicated outputs: each process then holds the values of the global batch.
        measure = jax.jit(measure, out_shardings=sharding.replicated(mesh))

        def evaluate(state: LabelAutoencoderState, batches: Iterable[dict]) -> tuple[dict[str, float], dict]:
            usage, sums, count = CodebookUsage(self.model.quantizer.codebook_size), {}, 0
            for batch in batches:
                terms, indices, mask = jax.tree.map(np.asarray, measure(state, sharding.put_batch(batch, mesh)))
                usage.update(indices[mask])
                count += int(mask.sum())
                for name, value_B in terms.items():
                    sums[name] = sums.get(name, 0.0) + float(value_B[mask].sum(dtype=np.float64))
            found = usage.compute()
            means = {name: total / count for name, total in sums.items()}
            means |= {name: found[name] for name in ("usage", "entropy_bits")}
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
