"""What quantizers share whose codebook learns by the gradient of a loss: search, loss terms, gradient of the codes.

Loss: commitment_cost * mean((sg(q) - x)^2) + codebook_cost * mean((q - sg(x))^2) + entropy_ratio * entropy term (see
`nearest`). The commitment weight belongs to the encoder's term; several ports have it on the other. Means are over all
entries.
"""

import jax
import jax.numpy as jnp

from fsq_repro.quantizers.base import LearnedCodebook, Quantized, check_at_least_0, usage_metrics
from fsq_repro.quantizers.gradients import check_gradient, pass_gradient
from fsq_repro.quantizers.nearest import nearest_codes, nearest_codes_and_entropy


class TrainedCodebook(LearnedCodebook):
    """The code nearest to x = `prepared(z)` by squared Euclidean distance; what a codebook is, subclasses say.

    Attributes:
      commitment_cost, codebook_cost, entropy_ratio: weights of the loss terms; 0 switches a term off.
      entropy_temperature: of the softmax in the entropy term.
      gradient: of the codes for z, "ste" or "rotation" (see `gradients`).
      sync_nu: share of the decoder's gradient that also reaches the code itself (synchronised commitment, Huh et al.
        2305.08842, which has 0.2): codes are STE(x, q) + sync_nu (q - sg(q)).
    """

    commitment_cost: float = 0.25
    codebook_cost: float = 1.0
    entropy_ratio: float = 0.0
    entropy_temperature: float = 0.01
    gradient: str = "ste"
    sync_nu: float = 0.0

    def check_fields(self) -> None:
        """Raises ValueError naming the first field that has no meaning."""
        self.check_sizes()
        check_at_least_0(self, "commitment_cost", "codebook_cost", "entropy_ratio", "sync_nu")
        if not self.entropy_temperature > 0:
            raise ValueError(f"entropy_temperature is {self.entropy_temperature}, but must be more than 0.")
        check_gradient(self.gradient)

    def prepared(self, z_NxD: jax.Array) -> jax.Array:
        """What is compared with the codes, float32 (N, D), differentiable."""
        return z_NxD

    def __call__(self, z: jax.Array, *, train: bool) -> Quantized:
        """z (..., D) -> `Quantized`; losses where `train`."""
        x_NxD = self.prepared(self.as_rows(z))
        codebook_KxD = self.codewords()
        if train and self.entropy_ratio:
            indices_N, entropy = nearest_codes_and_entropy(x_NxD, codebook_KxD, self.entropy_temperature)
        else:
            indices_N = nearest_codes(x_NxD, codebook_KxD)
        q_NxD = codebook_KxD[indices_N]
        loss, metrics = jnp.zeros((), jnp.float32), usage_metrics(indices_N, self.codebook_size)
        if train:
            terms = distance_terms(x_NxD, q_NxD, self.commitment_cost, self.codebook_cost)
            if self.entropy_ratio:
                terms["entropy_loss"] = self.entropy_ratio * entropy
            loss = sum(terms.values(), loss)
            metrics |= terms
        codes_NxD = pass_gradient(x_NxD, q_NxD, self.gradient)
        if self.sync_nu:  # adds 0: the value stays the code
            codes_NxD += self.sync_nu * (q_NxD - jax.lax.stop_gradient(q_NxD))
        codes = codes_NxD.reshape(z.shape).astype(z.dtype)
        return Quantized(codes, indices_N.reshape(z.shape[:-1]), loss, metrics)


def distance_terms(
    x_NxD: jax.Array, q_NxD: jax.Array, commitment_cost: float, codebook_cost: float
) -> dict[str, jax.Array]:
    """The weighted terms that draw x to its code q and q to x, float32 scalars; none for a weight of 0."""
    terms = {}
    if commitment_cost:
        terms["commitment_loss"] = commitment_cost * jnp.mean(jnp.square(jax.lax.stop_gradient(q_NxD) - x_NxD))
    if codebook_cost:
        terms["codebook_loss"] = codebook_cost * jnp.mean(jnp.square(q_NxD - jax.lax.stop_gradient(x_NxD)))
    return terms
