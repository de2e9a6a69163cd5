"""The vector quantizer of UViM, the paper's baseline for dense prediction: a codebook of running averages.

Follows google-research/big_vision (models/proj/uvim/vit.py). The codebook is no parameter: each code has a discounted
count of the tokens that were assigned to it and a discounted sum of them, and codes that have gone unused are revived
by splitting the most used one (Linde, Buzo and Gray). Statistics are of the global batch, which under jit the sums
below are by themselves. Two deviations, both only where the published code could not go on: splitting stops where no
code has enough tokens for two (the published loop would not end), and without splitting the state of an unused code
stops decaying before it underflows to 0 / 0.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from fsq_repro.quantizers.base import LearnedCodebook, Quantized, check_channels, straight_through, usage_metrics
from fsq_repro.quantizers.nearest import nearest_codes

COUNT_FLOOR = 1e-12  # of counts: where decay goes below, the code keeps its direction


class EmaVectorQuantizer(LearnedCodebook):
    """Nearest unit-norm codeword of the standardised encoder output.

    State, in the collection `quantizer`: `dictionary` (codebook_size, embedding_dim), the discounted sums, and `counts`
    (codebook_size,). A codeword is its sum / count, scaled to length 1. Both are updated when `train` and the
    collection is mutable; splitting draws from the rng stream `quantizer`. Codes are of the state before the update.

    A batch may come in parts: with `train` and the collection `batch` mutable a call leaves there what it would have
    updated the state by, arrays of the state's names and shapes, and `update` takes their sums over the parts.

    >>> import jax, jax.numpy as jnp
    >>> module, z = EmaVectorQuantizer(codebook_size=64, embedding_dim=4), jnp.ones((2, 8, 8, 4))
    >>> rngs = {"params": jax.random.key(0), "quantizer": jax.random.key(1)}
    >>> variables = module.init(rngs, z, train=True)
    >>> quantized, variables = module.apply(variables, z, train=True, mutable=["quantizer"], rngs=rngs)
    >>> quantized.codes.shape, quantized.indices.shape, variables["quantizer"]["counts"].shape
    ((2, 8, 8, 4), (2, 8, 8), (64,))

    Attributes:
      momentum: of counts and sums, in [0, 1). A code that goes unused falls from a count of 1 to `min_count` in
        log(min_count) / log(momentum) steps: 460 with the defaults.
      min_count: codes with a lower count are replaced by splitting.
      perturbation: relative size of the random difference between the two halves of a split code.
      commitment_cost: weight of mean((z - sg(q))^2), z standardised; all of UViM's configs have 0.
      splitting: whether unused codes are replaced.
      standardize: whether each vector of the encoder's output is brought to zero mean and unit variance first.
    """

    momentum: float = 0.995
    min_count: float = 0.1
    perturbation: float = 0.001
    commitment_cost: float = 0.0
    splitting: bool = True
    standardize: bool = True

    published_dim = 768

    @property
    def ablation(self) -> str:
        return "" if self.splitting else "no_splitting"

    def setup(self) -> None:
        self.check_sizes()
        for name, below in (("momentum", 1), ("perturbation", 1), ("min_count", 1), ("commitment_cost", float("inf"))):
            if not 0 <= getattr(self, name) < below:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 0 and less than {below}.")
        K, D = self.codebook_size, self.embedding_dim
        normal = nn.initializers.normal(stddev=K**-0.5)
        self.dictionary = self.variable("quantizer", "dictionary", lambda: normal(self.make_rng("quantizer"), (K, D)))
        self.counts = self.variable("quantizer", "counts", lambda: jnp.ones(K, jnp.float32))

    def __call__(self, z: jax.Array, *, train: bool) -> Quantized:
        """z float (..., embedding_dim) -> `Quantized`."""
        check_channels("z", z, self.embedding_dim)
        z_NxD = z.astype(jnp.float32).reshape(-1, self.embedding_dim)
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
            counts_K = jnp.zeros(self.codebook_size, jnp.int32).at[indices_N].add(1).astype(jnp.float32)
            sums_KxD = jnp.zeros_like(self.dictionary.value).at[indices_N].add(jax.lax.stop_gradient(z_NxD))
            if self.is_mutable_collection("batch"):
                self.put_variable("batch", "counts", counts_K)
                self.put_variable("batch", "dictionary", sums_KxD)
            if self.is_mutable_collection("quantizer"):
                metrics |= self.update(counts_K, sums_KxD)
        codes = straight_through(z_NxD, q_NxD).astype(z.dtype).reshape(z.shape)
        return Quantized(codes, indices, loss, metrics)

    def update(self, batch_counts_K: jax.Array, batch_sums_KxD: jax.Array) -> dict[str, jax.Array]:
        """Brings the state up to date with a batch: of the tokens assigned to each code their number and sum, float32.

        Returns metrics: shares of the codes that went unused, of the tokens that the most used code got, the splits.
        """
        # With momentum 0 an unused code would be 0 / 0 after one step, with 0.995 after 20,000.
        unused_K = (batch_counts_K == 0) & (self.momentum * self.counts.value < COUNT_FLOOR)
        decay_K = jnp.where(unused_K, COUNT_FLOOR / self.counts.value, self.momentum)
        counts_K = decay_K * self.counts.value + batch_counts_K
        sums_KxD = decay_K[:, None] * self.dictionary.value + batch_sums_KxD
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
