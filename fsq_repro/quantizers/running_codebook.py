"""What codebooks share that no gradient trains but statistics of the batch: their state, and when it changes.

Statistics are of the global batch, which under jit the sums below are by themselves.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from fsq_repro.quantizers.base import LearnedCodebook
from fsq_repro.quantizers.nearest import nearest_codes

COUNT_FLOOR = 1e-12  # of counts: where decay goes below, the code keeps its mean

Arrays = dict[str, jax.Array]


class RunningCodebook(LearnedCodebook):
    """A codebook in the collection `quantizer`, which a step in training brings up to date.

    A batch may come in parts: with `train` and the collection `batch` mutable a call leaves there what it would have
    updated the state by, and `update` takes that of all parts: sums, but of arrays called `tokens` those of one part.
    """

    def learn(self, batch: Arrays) -> Arrays:
        """Passes on what a call in training found, to whichever collections are mutable; returns metrics."""
        if self.is_mutable_collection("batch"):
            for name, value in batch.items():
                self.put_variable("batch", name, value)
        return self.update(batch) if self.is_mutable_collection("quantizer") else {}

    def update(self, batch: Mapping[str, jax.Array]) -> Arrays:
        """Brings the state up to date with a batch, given what `learn` was given; returns metrics."""
        raise NotImplementedError


def assignment_sums(x_NxD: jax.Array, indices_N: jax.Array, codebook_size: int) -> tuple[jax.Array, jax.Array]:
    """Of the tokens that each code was assigned their number and sum, float32 (K,) and (K, D); no gradient."""
    counts_K = jnp.zeros(codebook_size, jnp.int32).at[indices_N].add(1).astype(jnp.float32)
    zeros_KxD = jnp.zeros((codebook_size, x_NxD.shape[1]), jnp.float32)
    return counts_K, zeros_KxD.at[indices_N].add(jax.lax.stop_gradient(x_NxD))


def floored_decay(counts_K: jax.Array, batch_counts_K: jax.Array, momentum: float) -> jax.Array:
    """Factor (K,) by which counts and sums shrink in a step: `momentum`, but no unused code's count underflows.

    With momentum 0 an unused code would be 0 / 0 after one step, with 0.995 after 20,000.
    """
    unused_K = (batch_counts_K == 0) & (momentum * counts_K < COUNT_FLOOR)
    return jnp.where(unused_K, COUNT_FLOOR / counts_K, momentum)


def draw_tokens(key: jax.Array, x_NxD: jax.Array, number: int) -> jax.Array:
    """Different tokens at random, float32 (number, D); no gradient.

    Of fewer tokens each comes several times, with noise of standard deviation 0.01 / sqrt(D) (jukebox/vqvae/
    bottleneck.py).
    """
    x_NxD = jax.lax.stop_gradient(x_NxD)
    N, D = x_NxD.shape
    noise_key, key = jax.random.split(key)
    if number > N:
        x_NxD = jnp.tile(x_NxD, (-(-number // N), 1))
        x_NxD += 0.01 * D**-0.5 * jax.random.normal(noise_key, x_NxD.shape)
    return x_NxD[jax.random.permutation(key, len(x_NxD))[:number]]


def kmeans(x_NxD: jax.Array, start_KxD: jax.Array, rounds: int) -> jax.Array:
    """Lloyd's algorithm on tokens from given means, float32 (K, D); a mean without tokens stays. No gradient."""

    def one_round(_: int, means_KxD: jax.Array) -> jax.Array:
        counts_K, sums_KxD = assignment_sums(x_NxD, nearest_codes(x_NxD, means_KxD), len(means_KxD))
        return jnp.where(counts_K[:, None] > 0, sums_KxD / jnp.maximum(counts_K, 1)[:, None], means_KxD)

    return jax.lax.fori_loop(0, rounds, one_round, start_KxD)
