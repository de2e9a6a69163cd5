"""The vector quantizer of UViM, the paper's baseline for dense prediction: a codebook of running averages.

Follows google-research/big_vision (models/proj/uvim/vit.py). The codebook is no parameter: each code has a discounted
count of the tokens that were assigned to it and a discounted sum of them, and codes that have gone unused are revived
by splitting the most used one (Linde, Buzo and Gray). Statistics are of the global batch, which under jit the sums
below are by themselves. Two deviations, both only where the published code could not go on: splitting stops where no
code has enough tokens for two (the published loop would not end), and without splitting the state of an unused code
stops decaying before it underflows to 0 / 0.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from fsq_repro.quantizers.base import Quantized, joined, usage_metrics
from fsq_repro.quantizers.gradients import check_gradient, pass_gradient
from fsq_repro.quantizers.nearest import nearest_codes
from fsq_repro.quantizers.running_codebook import Arrays, RunningCodebook, assignment_sums, floored_decay


class EmaVectorQuantizer(RunningCodebook):
    """Nearest unit-norm codeword of the standardised encoder output.

    State, in the collection `quantizer`: `dictionary` (codebook_size, embedding_dim), the discounted sums, and `counts`
    (codebook_size,). A codeword is its sum / count, scaled to length 1. Both are updated when `train` and the
    collection is mutable; splitting draws from the rng stream `quantizer`. Codes are of the state before the update.

    >>> import jax
    >>> from fsq_repro.quantizers import EmaVectorQuantizer
    >>> vq, z = EmaVectorQuantizer(codebook_size=16, embedding_dim=4), jax.random.normal(jax.random.key(0), (2, 5, 4))
    >>> keys = {"params": jax.random.key(1), "quantizer": jax.random.key(2)}
    >>> variables = vq.init(keys, z, train=False)
    >>> quantized, state = vq.apply(variables, z, train=True, mutable=["quantizer"], rngs=keys)
    >>> quantized.codes.shape, quantized.indices.shape, state["quantizer"]["counts"].shape
    ((2, 5, 4), (2, 5), (16,))

    Attributes:
      momentum: of counts and sums, in [0, 1). A code that goes unused falls from a count of 1 to `min_count` in
        log(min_count) / log(momentum) steps: 460 with the defaults.
      min_count: codes with a lower count are replaced by splitting.
      perturbation: relative size of the random difference between the two halves of a split code.
      commitment_cost: weight of mean((z - sg(q))^2), z standardised; all of UViM's configs have 0.
      splitting: whether unused codes are replaced.
      standardize: whether each vector of the encoder's output is brought to zero mean and unit variance first.
      gradient: of the codes, "ste" or "rotation" (see `gradients`).
    """

    momentum: float = 0.995
    min_count: float = 0.1
    perturbation: float = 0.001
    commitment_cost: float = 0.0
    splitting: bool = True
    standardize: bool = True
    gradient: str = "ste"

    published_dim = 768

    @property
    def ablation(self) -> str:
        return joined(no_splitting=not self.splitting, rotation=self.gradient == "rotation")

    def setup(self) -> None:
        self.check_sizes()
        for name, below in (("momentum", 1), ("perturbation", 1), ("min_count", 1), ("commitment_cost", float("inf"))):
            if not 0 <= getattr(self, name) < below:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 0 and less than {below}.")
        check_gradient(self.gradient)
        K, D = self.codebook_size, self.embedding_dim
        normal = nn.initializers.normal(stddev=K**-0.5)
        self.dictionary = self.variable("quantizer", "dictionary", lambda: normal(self.make_rng("quantizer"), (K, D)))
        self.counts = self.variable("quantizer", "counts", lambda: jnp.ones(K, jnp.float32))

    def __call__(self, z: jax.Array, *, train: bool) -> Quantized:
        """z float (..., embedding_dim) -> `Quantized`."""
        z_NxD = self.as_rows(z)
        if self.standardize:
            z_NxD = jax.nn.standardize(z_NxD, axis=-1)
        codebook_KxD = self.codewords()
        indices_N = nearest_codes(z_NxD, codebook_KxD)
        q_NxD = codebook_KxD[indices_N]
        indices = indices_N.reshape(z.shape[:-1])
        metrics = usage_metrics(indices, self.codebook_size)
        loss = jnp.zeros((), jnp.float32)
        if train and self.commitment_cost:
            loss = metrics["commitment_loss"] = self.commitment_cost * jnp.mean(jnp.square(z_NxD - q_NxD))
        if train and not self.is_initializing():
            counts_K, sums_KxD = assignment_sums(z_NxD, indices_N, self.codebook_size)
            metrics |= self.learn({"counts": counts_K, "sums": sums_KxD})
        codes = pass_gradient(z_NxD, q_NxD, self.gradient).astype(z.dtype).reshape(z.shape)
        return Quantized(codes, indices, loss, metrics)

    def update(self, batch: Mapping[str, jax.Array]) -> Arrays:
        """Takes `counts` (K,) and `sums` (K, D) of a batch's tokens; see `RunningCodebook`.

        Returns metrics: shares of the codes that went unused, of the tokens that the most used code got, the splits.
        """
        batch_counts_K = batch["counts"]
        decay_K = floored_decay(self.counts.value, batch_counts_K, self.momentum)
        counts_K = decay_K * self.counts.value + batch_counts_K
        sums_KxD = decay_K[:, None] * self.dictionary.value + batch["sums"]
        metrics = {
            "zeros_ratio": jnp.mean(batch_counts_K == 0, dtype=jnp.float32),
            "max_ratio": jnp.max(batch_counts_K) / jnp.sum(batch_counts_K),
        }
        if self.splitting:
            key = self.make_rng("quantizer")
            sums_KxD, counts_K, splits = split_codes(key, sums_KxD, counts_K, self.min_count, self.perturbation)
            metrics["splits"] = splits.astype(jnp.float32)
        self.dictionary.value, self.counts.value = sums_KxD, counts_K
        return metrics

    def codewords(self) -> jax.Array:
        """The codewords, float32 (codebook_size, embedding_dim), of length 1; no gradient."""
        mean_KxD = jax.lax.stop_gradient(self.dictionary.value / self.counts.value[:, None])
        return mean_KxD / jnp.linalg.norm(mean_KxD, axis=-1, keepdims=True)


def split_codes(
    key: jax.Array, sums_KxD: jax.Array, counts_K: jax.Array, min_count: float, perturbation: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Replaces each code with a count below `min_count` by one half of the code that is then the most used.

    The least used code takes the sum of the most used, each entry times U(1 - perturbation, 1 + perturbation); sum and
    count of both are then halved. One code at a time, until all counts reach `min_count` or none could spare it.

    Returns (sums, counts, number of splits int32).
    """

    def unfinished(state: tuple) -> jax.Array:
        counts_K = state[2]
        return jnp.any(counts_K < min_count) & (jnp.max(counts_K) >= 2 * min_count)

    def split(state: tuple) -> tuple:
        key, sums_KxD, counts_K, splits = state
        key, noise_key = jax.random.split(key)
        most, least = jnp.argmax(counts_K), jnp.argmin(counts_K)
        noise_D = jax.random.uniform(noise_key, sums_KxD.shape[1:], jnp.float32, 1 - perturbation, 1 + perturbation)
        half_D, half_count = sums_KxD[most] / 2, counts_K[most] / 2
        # One scatter for both rows: with two, XLA copies the whole dictionary in every round.
        rows_2xD = jnp.stack([half_D, half_D * noise_D])
        sums_KxD = sums_KxD.at[jnp.stack([most, least])].set(rows_2xD, unique_indices=True)
        counts_K = counts_K.at[most].set(half_count).at[least].set(half_count)
        return key, sums_KxD, counts_K, splits + 1

    return jax.lax.while_loop(unfinished, split, (key, sums_KxD, counts_K, jnp.zeros((), jnp.int32)))[1:]
