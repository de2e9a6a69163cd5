"""Alternated optimisation of a codebook: it moves first, the encoder follows (Huh et al., arXiv 2305.08842).

In each step the codebook descends the gradient of its own loss for the tokens of the batch, and what the decoder reads
are the codes after that, under the indices from before.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from fsq_repro.quantizers.base import Quantized, check_at_least_0, joined, usage_metrics
from fsq_repro.quantizers.gradients import check_gradient, pass_gradient
from fsq_repro.quantizers.nearest import nearest_codes
from fsq_repro.quantizers.running_codebook import Arrays, RunningCodebook, assignment_sums


class AlternatedVectorQuantizer(RunningCodebook):
    """Nearest codeword, as it is after this step's update of the codebook.

    e <- e - codebook_lr * grad mean((q - sg(z))^2), which for a code with n of the N tokens and their sum s is e_k -
    codebook_lr * 2 / (N D) (n e_k - s). Loss: commitment_cost * mean((z - sg(q))^2) with the new q. z is (...,
    embedding_dim). In training codes are those of the state after the update, unlike in the other quantizers; where a
    batch comes in parts, after an update by the part alone. A study of how codebooks are optimised: no user has
    reported a gain (vector-quantize-pytorch issue 57).

    State, in the collection `quantizer`: `codebook` (codebook_size, embedding_dim).

    >>> import jax
    >>> from fsq_repro.quantizers import AlternatedVectorQuantizer
    >>> vq, z = AlternatedVectorQuantizer(16, 4, codebook_lr=1.0), jax.random.normal(jax.random.key(0), (2, 5, 4))
    >>> variables = vq.init({"params": jax.random.key(1), "quantizer": jax.random.key(2)}, z, train=False)
    >>> quantized, state = vq.apply(variables, z, train=True, mutable=["quantizer"])
    >>> bool((quantized.codes == state["quantizer"]["codebook"][quantized.indices]).all())
    True

    Attributes:
      codebook_lr: learning rate of the codebook, plain gradient descent; has no default, since with N tokens per
        batch and K codes a code moves by about 2 codebook_lr / (K D) of the way to its tokens' mean.
      commitment_cost: weight of the encoder's term; vqtorch has 0 here (its beta must be 1).
      gradient: of the codes, "ste" or "rotation" (see `gradients`).
    """

    codebook_lr: float
    commitment_cost: float = 0.0
    gradient: str = "ste"

    @classmethod
    def suggest(cls, codebook_size: int) -> dict[str, Any]:
        """As other codebooks, with a rate by which codes move a tenth of the way in a step."""
        sizes = super().suggest(codebook_size)
        return sizes | {"codebook_lr": 0.05 * codebook_size * cls.published_dim}

    @property
    def ablation(self) -> str:
        return joined(rotation=self.gradient == "rotation")

    def setup(self) -> None:
        self.check_sizes()
        check_at_least_0(self, "codebook_lr", "commitment_cost")
        check_gradient(self.gradient)
        init, shape = nn.initializers.normal(1.0), (self.codebook_size, self.embedding_dim)
        self.codebook = self.variable("quantizer", "codebook", lambda: init(self.make_rng("quantizer"), shape))

    def codewords(self) -> jax.Array:
        return jax.lax.stop_gradient(self.codebook.value)

    def __call__(self, z: jax.Array, *, train: bool) -> Quantized:
        """z float (..., embedding_dim) -> `Quantized`."""
        z_NxD = self.as_rows(z)
        codebook_KxD = self.codewords()
        indices_N = nearest_codes(z_NxD, codebook_KxD)
        loss, metrics = jnp.zeros((), jnp.float32), usage_metrics(indices_N, self.codebook_size)
        if train and not self.is_initializing():
            counts_K, sums_KxD = assignment_sums(z_NxD, indices_N, self.codebook_size)
            batch = {"counts": counts_K, "sums": sums_KxD}
            codebook_KxD = self.stepped(batch)
            metrics |= self.learn(batch)
        q_NxD = codebook_KxD[indices_N]
        if train and self.commitment_cost:
            loss = metrics["commitment_loss"] = self.commitment_cost * jnp.mean(jnp.square(z_NxD - q_NxD))
        codes = pass_gradient(z_NxD, q_NxD, self.gradient).astype(z.dtype).reshape(z.shape)
        return Quantized(codes, indices_N.reshape(z.shape[:-1]), loss, metrics)

    def stepped(self, batch: Mapping[str, jax.Array]) -> jax.Array:
        """The codebook (K, D) after a step by a batch's `counts` (K,) and `sums` (K, D)."""
        codebook_KxD = self.codewords()
        rate = self.codebook_lr * 2 / (jnp.sum(batch["counts"]) * self.embedding_dim)
        return codebook_KxD - rate * (batch["counts"][:, None] * codebook_KxD - batch["sums"])

    def update(self, batch: Mapping[str, jax.Array]) -> Arrays:
        """Takes `counts` and `sums` of a batch; see `RunningCodebook`."""
        self.codebook.value = self.stepped(batch)
        return {}
