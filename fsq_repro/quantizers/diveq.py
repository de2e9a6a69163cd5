"""DiVeQ: a differentiable quantization error, no loss terms (Vali et al., ICLR 2026, arXiv 2509.26469).

In training the encoder's output goes on to its code by a step of the right length along a noisy direction that is held
fixed. The length depends on both ends, so the decoder's loss alone trains encoder and codebook.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from fsq_repro.quantizers.base import (
    Quantized,
    check_at_least_0,
    check_counts,
    joined,
    straight_through,
    usage_metrics,
)
from fsq_repro.quantizers.nearest import nearest_codes
from fsq_repro.quantizers.running_codebook import Arrays, RunningCodebook, assignment_sums

MIN_NORM = 1e-12  # of a step: a shorter one has no direction


class DiVeQ(RunningCodebook):
    """Nearest codeword, reached in training by z + |a| sg((a + noise) / |a + noise|) for a = q - z.

    What comes out in training is off the code by about noise * sqrt(embedding_dim); in evaluation it is the code. The
    gradients are those of the length |a|, the Jacobians I - n a^T / |a| for z and n a^T / |a| for q with n the
    direction. Loss: 0. z is (..., embedding_dim). Take it where no weights of loss terms should be tuned.

    Every restart_every steps, codes that fewer than min_use of these steps used become copies of used ones, drawn by
    how often they were used. State, in the collection `quantizer`: `offset` (codebook_size, embedding_dim), which
    restarts have added to the trained parameter `codebook`, `uses` (codebook_size,) int32 and `steps` int32 since the
    last restart. Training draws from the rng stream `quantizer`.

    >>> import jax
    >>> from fsq_repro.quantizers import DiVeQ
    >>> vq, z = DiVeQ(codebook_size=16, embedding_dim=4), jax.random.normal(jax.random.key(0), (2, 5, 4))
    >>> keys = {"params": jax.random.key(1), "quantizer": jax.random.key(2)}
    >>> variables = vq.init(keys, z, train=False)
    >>> trained = vq.apply(variables, z, train=True, rngs=keys)
    >>> code = vq.apply(variables, trained.indices, method="indices_to_codes")
    >>> bool((trained.codes != code).all()), bool(abs(trained.codes - code).max() < 0.02)
    (True, True)

    Attributes:
      noise: standard deviation of the noise on a. The published argument is called `noise_var` but used as a standard
        deviation, 1e-3; vector-quantize-pytorch takes the root of 5e-3, 70 times as much.
      restart_every: steps between two restarts, 0 for none.
      min_use: share of the steps that a code has to be used in.
    """

    noise: float = 1e-3
    restart_every: int = 100
    min_use: float = 0.01

    @property
    def ablation(self) -> str:
        return joined(no_restarts=not self.restart_every)

    def setup(self) -> None:
        self.check_sizes()
        check_at_least_0(self, "noise", "min_use")
        check_counts(self, "restart_every")
        K, D = self.codebook_size, self.embedding_dim
        self.codebook = self.param("codebook", lambda key: jax.random.uniform(key, (K, D), jnp.float32, 0, 1 / K))
        self.offset = self.variable("quantizer", "offset", lambda: jnp.zeros((K, D), jnp.float32))
        self.uses = self.variable("quantizer", "uses", lambda: jnp.zeros(K, jnp.int32))
        self.steps = self.variable("quantizer", "steps", lambda: jnp.zeros((), jnp.int32))

    def codewords(self) -> jax.Array:
        return self.codebook + jax.lax.stop_gradient(self.offset.value)

    def __call__(self, z: jax.Array, *, train: bool) -> Quantized:
        """z float (..., embedding_dim) -> `Quantized`."""
        z_NxD = self.as_rows(z)
        codebook_KxD = self.codewords()
        indices_N = nearest_codes(z_NxD, codebook_KxD)
        q_NxD = codebook_KxD[indices_N]
        metrics = usage_metrics(indices_N, self.codebook_size)
        if train and not self.is_initializing():
            noise_NxD = self.noise * jax.random.normal(self.make_rng("quantizer"), z_NxD.shape)
            codes_NxD = directed(z_NxD, q_NxD, noise_NxD)
            metrics |= self.learn({"counts": assignment_sums(z_NxD, indices_N, self.codebook_size)[0]})
        else:
            codes_NxD = straight_through(z_NxD, q_NxD)
        codes = codes_NxD.astype(z.dtype).reshape(z.shape)
        return Quantized(codes, indices_N.reshape(z.shape[:-1]), jnp.zeros((), jnp.float32), metrics)

    def update(self, batch: Mapping[str, jax.Array]) -> Arrays:
        """Takes `counts` (K,) of a batch; see `RunningCodebook`."""
        if not self.restart_every:
            return {}
        uses_K, steps = self.uses.value + (batch["counts"] > 0).astype(jnp.int32), self.steps.value + 1
        dead_K = uses_K.astype(jnp.float32) < self.min_use * steps.astype(jnp.float32)
        due = steps == self.restart_every
        key, noise_key = jax.random.split(self.make_rng("quantizer"))
        used_K = jnp.where(dead_K, 0, uses_K).astype(jnp.float32)
        source_K = jax.random.choice(key, self.codebook_size, (self.codebook_size,), p=used_K / jnp.sum(used_K))
        codebook_KxD = jax.lax.stop_gradient(self.codewords())
        copies_KxD = codebook_KxD[source_K] + 1e-9 * jax.random.normal(noise_key, codebook_KxD.shape)
        restarted_K = due & dead_K & jnp.any(~dead_K)
        offset_KxD = copies_KxD - jax.lax.stop_gradient(self.codebook)
        self.offset.value = jnp.where(restarted_K[:, None], offset_KxD, self.offset.value)
        self.uses.value, self.steps.value = jnp.where(due, 0, uses_K), jnp.where(due, 0, steps)
        return {"restarts": jnp.sum(restarted_K, dtype=jnp.float32)}


def directed(z_NxD: jax.Array, q_NxD: jax.Array, noise_NxD: jax.Array) -> jax.Array:
    """z + |q - z| n for the direction n = sg(a + noise) / |a + noise| of a = q - z; float32 (N, D), z where q is z."""
    a_NxD = q_NxD - z_NxD
    direction_NxD = jax.lax.stop_gradient(a_NxD + noise_NxD)
    norm_Nx1 = jnp.linalg.norm(direction_NxD, axis=-1, keepdims=True)
    return z_NxD + _length(a_NxD) * direction_NxD / jnp.maximum(norm_Nx1, MIN_NORM)


def _length(a_NxD: jax.Array) -> jax.Array:
    """|a|, (N, 1), with gradient 0 where a is 0."""
    squared_Nx1 = jnp.sum(jnp.square(a_NxD), axis=-1, keepdims=True)
    zero_Nx1 = squared_Nx1 == 0
    return jnp.where(zero_Nx1, 0.0, jnp.sqrt(jnp.where(zero_Nx1, 1.0, squared_Nx1)))
