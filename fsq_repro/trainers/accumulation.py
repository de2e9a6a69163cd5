"""Gradient accumulation: a step on a batch whose activations do not fit into memory at once.

The compiled step goes through its batch in `accumulate_steps` parts, the microbatches, one after the other, with the
same parameters; what each gives is averaged, and one update follows. Where the loss is a mean over examples and the
network draws nothing, this is the step on the whole batch but for the order of sums. What is drawn for an example (the
mask of its tokens, whether its label or its codes are dropped) is drawn for the whole batch, and cut with it. Different
are the terms and draws that are no example's own:

- VQ's entropy term is that of a microbatch, averaged (the published one is of a device's part of the batch).
- UViM's dictionary adds up the tokens of all microbatches, is updated once, and splits once a step: as without. So do
  other codebooks of running averages; those whose codes restart from tokens take them from the first microbatch.
- What a quantizer draws in training (DiVeQ's noise) it draws for each microbatch anew.
- Dropout inside a transformer draws for each microbatch anew.
- Logged figures that are no means over examples (a batch's codebook usage and perplexity, the share of masked tokens
  that were right) are those of a microbatch, averaged.

Gradients are summed over devices in each microbatch; the compilers of GPU and TPU may move that behind the last. Their
running sum lies whole on each device, also where FSDP splits the parameters (seen in XLA's program for CPU).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def accumulate(function: Callable[[Any, Any], tuple[Any, Any]], batch: Any, accumulate_steps: int) -> tuple[Any, Any]:
    """Calls a function on each microbatch in turn; returns the means and sums over them.

    Each device's part of the batch is cut: microbatch i has the examples i, i + A, i + 2A ... (A: `accumulate_steps`),
    so that no example leaves its device and every device has work in every microbatch.

    Args:
      function: (microbatch, its number i) -> (pytree of float arrays to be averaged, pytree of arrays to be added).
      batch: pytree of arrays (B, ...); A times the number of devices divides B.
      accumulate_steps: 1 calls the function on the batch as it is.
    """
    if accumulate_steps == 1:
        return function(batch, 0)
    microbatches = jax.tree.map(lambda x: x.reshape(-1, accumulate_steps, *x.shape[1:]).swapaxes(0, 1), batch)

    def add(total: Any, numbered: tuple[Any, Any]) -> tuple[Any, None]:
        number, microbatch = numbered
        return jax.tree.map(jnp.add, total, function(microbatch, number)), None

    results = jax.eval_shape(function, jax.tree.map(lambda x: x[0], microbatches), 0)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), results)
    (means, sums), _ = jax.lax.scan(add, zeros, (jnp.arange(accumulate_steps), microbatches))
    return jax.tree.map(lambda x: x / accumulate_steps, means), sums


def check_division(batch_size: int, accumulate_steps: int, devices: int) -> None:
    """ValueError unless every device has as many examples of a batch, and of a microbatch, as the others."""
    if accumulate_steps < 1:
        raise ValueError(f"accumulate_steps = {accumulate_steps} must be at least 1")
    if batch_size % devices:
        raise ValueError(f"batch_size = {batch_size} must be a multiple of the {devices} devices")
    if batch_size // devices % accumulate_steps:
        raise ValueError(
            f"accumulate_steps = {accumulate_steps} must divide the {batch_size // devices} examples that each of the "
            f"{devices} devices has of batch_size = {batch_size}"
        )


def codebook_statistics(updated: Any, number: int | jax.Array) -> Any:
    """What a call with the collection `batch` mutable left there for `update_codebook`, {} if nothing, to be added up.

    Of arrays called `tokens`, which are no sums, only those of the first microbatch count; `number` is this one's.
    """

    def keep(path: tuple[Any, ...], x: jax.Array) -> jax.Array:
        return jnp.where(number == 0, x, jnp.zeros_like(x)) if path[-1].key == "tokens" else x

    return jax.tree_util.tree_map_with_path(keep, updated.get("batch", {}))


def update_codebook(model: Any, variables: Any, batch_sums: Any, rng: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
    """Updates the state of a model's `quantizer`, once a step.

    `batch_sums` are the `codebook_statistics` of the microbatches, added up, {} where a quantizer's state does not
    change; `rng` of the stream `quantizer`. Returns the new collection `quantizer`, and metrics.
    """
    if not batch_sums:
        return variables.get("quantizer", {}), {}
    metrics, updated = model.apply(
        variables,
        method=lambda m: m.quantizer.update(batch_sums["quantizer"]),
        mutable=["quantizer"],
        rngs={"quantizer": rng},
    )
    return updated["quantizer"], {f"quantizer/{name}": value for name, value in metrics.items()}
