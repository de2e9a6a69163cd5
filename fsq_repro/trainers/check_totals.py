"""What the checks during training of three trainers share: codes and sums over some validation batches."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from fsq_repro.metrics.usage import CodebookUsage
from fsq_repro.runtime import sharding


def make_totals(measure: Callable, codebook_size: int, mesh: Mesh) -> Callable[[Any, Iterable[dict]], tuple]:
    """A function (variables, batches) -> (`CodebookUsage.compute()`, {metric: its sum in float64}, examples).

    `measure` is (variables, batch) -> (codes int32 (B, ...), {metric: (B, ...)}); it is jitted. Padding is left out.
    """

    def masked(variables: Any, batch: dict) -> tuple[jax.Array, dict[str, jax.Array], jax.Array]:
        return *measure(variables, batch), batch["mask"]

    # Replicated outputs: each process then holds the values of the global batch.
    masked = jax.jit(masked, out_shardings=sharding.replicated(mesh))

    def totals(variables: Any, batches: Iterable[dict]) -> tuple[dict, dict[str, float], int]:
        usage, sums, count = CodebookUsage(codebook_size), {}, 0
        for batch in batches:
            codes, values_of, mask_B = jax.tree.map(np.asarray, masked(variables, sharding.put_batch(batch, mesh)))
            usage.update(codes[mask_B])
            count += int(mask_B.sum())
            for name, values in values_of.items():
                sums[name] = sums.get(name, 0.0) + float(values[mask_B].sum(dtype=np.float64))
        return usage.compute(), sums, count

    return totals
