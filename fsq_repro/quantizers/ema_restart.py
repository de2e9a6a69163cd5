"""Vector quantization with running averages and restarts: the VQ of Jukebox, and of vector-quantize-pytorch.

Each code is the discounted mean of the tokens that were assigned to it (van den Oord et al., arXiv 1711.00937, appendix
A.1); a code that is hardly used starts anew from a token of the batch (Jukebox, Dhariwal et al., arXiv 2005.00341).
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from fsq_repro.quantizers.base import Quantized, check_at_least_0, check_counts, joined, usage_metrics
from fsq_repro.quantizers.gradients import check_gradient, pass_gradient
from fsq_repro.quantizers.nearest import nearest_codes
from fsq_repro.quantizers.running_codebook import (
    Arrays,
    RunningCodebook,
    assignment_sums,
    draw_tokens,
    floored_decay,
    kmeans,
)


class EmaRestartQuantizer(RunningCodebook):
    """Nearest codeword of a codebook of running averages, whose dead codes restart from tokens.

    After a batch of which code k got n tokens with sum s, counts_k <- m counts_k + (1 - m) n, sums_k <- m sums_k +
    (1 - m) s and e_k = sums_k / counts_k. Then each code with counts_k < min_count becomes a random token of the
    batch. z is (..., embedding_dim). Loss: commitment_cost * mean((z - sg(q))^2). Codes of a call are of the state
    before its update. Take it where the codebook should follow the encoder without an optimizer; audio codecs do.

    State, in the collection `quantizer`: `codebook` and `sums` (codebook_size, embedding_dim), `counts`
    (codebook_size,). Counts are 0 until the first training batch, whose tokens become the codebook, each with a count
    of 1. Updates draw from the rng stream `quantizer`.

    >>> import jax
    >>> from fsq_repro.quantizers import EmaRestartQuantizer
    >>> vq, z = EmaRestartQuantizer(codebook_size=16, embedding_dim=4), jax.random.normal(jax.random.key(0), (2, 5, 4))
    >>> keys = {"params": jax.random.key(1), "quantizer": jax.random.key(2)}
    >>> variables = vq.init(keys, z, train=False)
    >>> quantized, state = vq.apply(variables, z, train=True, mutable=["quantizer"], rngs=keys)
    >>> float(state["quantizer"]["counts"].sum())  # the first batch starts the codebook
    16.0

    Attributes: the defaults are Jukebox's; vector-quantize-pytorch 1.32 has momentum 0.8, smoothing 1e-5,
        commitment_cost 1, and reset, kmeans_rounds (10) and min_count as options.
      momentum: of counts and sums, in [0, 1).
      min_count: codes with a lower count restart, 0 for none. At 1 a code needs one token per batch in the long run,
        so it has to be lower where a batch has hardly more tokens than there are codes.
      reset: whether a restart also sets the count to min_count and the sum to match, so that the code stays. Otherwise,
        as in Jukebox, it shows another token after each step until its count has grown.
      smoothing: Laplace's, of the counts that sums are divided by: (counts_k + smoothing) / (n + K smoothing) n for n
        the sum of counts.
      kmeans_rounds: of Lloyd's algorithm on the first batch, from its random tokens.
      gradient: of the codes, "ste" or "rotation" (see `gradients`; its paper's VQ-VAE has momentum 0.8, no restarts).
    """

    momentum: float = 0.99
    min_count: float = 1.0
    reset: bool = False
    smoothing: float = 0.0
    commitment_cost: float = 0.02
    kmeans_rounds: int = 0
    gradient: str = "ste"

    published_dim = 64

    @property
    def ablation(self) -> str:
        return joined(
            no_restarts=not self.min_count,
            reset=self.reset and self.min_count,
            smoothed=self.smoothing,
            kmeans=self.kmeans_rounds,
            rotation=self.gradient == "rotation",
        )

    def setup(self) -> None:
        self.check_sizes()
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum}, but must be at least 0 and less than 1.")
        check_at_least_0(self, "min_count", "smoothing", "commitment_cost")
        check_counts(self, "kmeans_rounds")
        check_gradient(self.gradient)
        K, D = self.codebook_size, self.embedding_dim
        self.codebook = self.variable(
            "quantizer", "codebook", lambda: jax.random.normal(self.make_rng("quantizer"), (K, D))
        )
        self.sums = self.variable("quantizer", "sums", lambda: jnp.zeros((K, D), jnp.float32))
        self.counts = self.variable("quantizer", "counts", lambda: jnp.zeros(K, jnp.float32))

    def codewords(self) -> jax.Array:
        return jax.lax.stop_gradient(self.codebook.value)

    def __call__(self, z: jax.Array, *, train: bool) -> Quantized:
        """z float (..., embedding_dim) -> `Quantized`."""
        z_NxD = self.as_rows(z)
        codebook_KxD = self.codewords()
        indices_N = nearest_codes(z_NxD, codebook_KxD)
        q_NxD = codebook_KxD[indices_N]
        loss, metrics = jnp.zeros((), jnp.float32), usage_metrics(indices_N, self.codebook_size)
        if train and self.commitment_cost:
            loss = metrics["commitment_loss"] = self.commitment_cost * jnp.mean(jnp.square(z_NxD - q_NxD))
        learns = any(self.is_mutable_collection(name) for name in ("batch", "quantizer"))
        if train and learns and not self.is_initializing():
            counts_K, sums_KxD = assignment_sums(z_NxD, indices_N, self.codebook_size)
            metrics |= self.learn({"counts": counts_K, "sums": sums_KxD, "tokens": self.candidates(z_NxD)})
        codes = pass_gradient(z_NxD, q_NxD, self.gradient).astype(z.dtype).reshape(z.shape)
        return Quantized(codes, indices_N.reshape(z.shape[:-1]), loss, metrics)

    def candidates(self, z_NxD: jax.Array) -> jax.Array:
        """What codes of this batch start from, float32 (K, D): tokens, of the first batch means of their clusters."""
        z_NxD = jax.lax.stop_gradient(z_NxD)
        tokens_KxD = draw_tokens(self.make_rng("quantizer"), z_NxD, self.codebook_size)
        if not self.kmeans_rounds:
            return tokens_KxD
        first = jnp.all(self.counts.value == 0)
        return jax.lax.cond(first, lambda: kmeans(z_NxD, tokens_KxD, self.kmeans_rounds), lambda: tokens_KxD)

    def update(self, batch: Mapping[str, jax.Array]) -> Arrays:
        """Takes `counts` (K,), `sums` and `tokens` (K, D) of a batch; see `RunningCodebook`."""
        K, tokens_KxD = self.codebook_size, batch["tokens"]
        first = jnp.all(self.counts.value == 0)
        before_K = jnp.where(first, 1.0, self.counts.value)
        decay_K = floored_decay(before_K, batch["counts"], self.momentum)
        counts_K = decay_K * before_K + (1 - self.momentum) * batch["counts"]
        sums_KxD = decay_K[:, None] * self.sums.value + (1 - self.momentum) * batch["sums"]
        total = jnp.sum(counts_K)
        smoothed_K = (counts_K + self.smoothing) / (total + K * self.smoothing) * total if self.smoothing else counts_K
        dead_K = counts_K < self.min_count
        codebook_KxD = jnp.where(dead_K[:, None], tokens_KxD, sums_KxD / smoothed_K[:, None])
        if self.reset:
            counts_K = jnp.where(dead_K, self.min_count, counts_K)
            sums_KxD = jnp.where(dead_K[:, None], self.min_count * tokens_KxD, sums_KxD)
        self.codebook.value = jnp.where(first, tokens_KxD, codebook_KxD)
        self.sums.value = jnp.where(first, tokens_KxD, sums_KxD)
        self.counts.value = jnp.where(first, 1.0, counts_K)
        return {"restarts": jnp.where(first, 0.0, jnp.sum(dead_K, dtype=jnp.float32))}
