"""Binary spherical quantization (Zhao et al., arXiv 2406.07548): the sign of each channel, on the unit sphere."""

import jax
import jax.numpy as jnp

from fsq_repro.quantizers.base import Quantized, check_channels, usage_metrics
from fsq_repro.quantizers.bits import SignQuantizer, quantize_signs
from fsq_repro.quantizers.normalization import unit_length

EPS = 1e-8  # in the logarithm of the batch term
GRADIENTS = ("scaled", "ste")


class BSQ(SignQuantizer):
    """Binary spherical quantization (Zhao et al., arXiv 2406.07548): codes sign(u) / sqrt(d) of u = z / |z|.

    With p = softmax(2 inverse_temperature u.c) over the codes c of length 1, of each group of `entropy_group` bits,

      loss = entropy_ratio (mean_n H(p_n) - diversity_weight sum_g H(mean_n p_n,g)) / inverse_temperature
             + commitment_cost mean_n |u - sg q|^2.

    With groups of one bit the entropies are sums over bits, as in the paper; their sum over groups is never below the
    exact one, that of one group of all bits. No parameters, no state; only the direction of z matters. For large
    codebooks: nothing here grows with their size.

    Follows zhaoyue-zephyrus/bsq-vit. Its quantizer's weight is 1 and its trainer multiplies that by 0.1, which is
    `entropy_ratio` here (there it falls from three times as much over the first 2000 steps). The published configs have
    18 bits in groups of 1 or 9 and 36 bits in groups of 1; more than 30 are no int32 index and are refused.

    >>> import jax, jax.numpy as jnp
    >>> module = BSQ(num_bits=16)
    >>> quantized = module.apply({}, jnp.ones((2, 8, 8, 16)), train=False)
    >>> quantized.codes[0, 0, 0, :2].tolist(), module.codebook_size
    ([0.25, 0.25], 65536)

    Attributes beside those of `SignQuantizer`:
      inverse_temperature: of the softmax in the entropy terms.
      gradient: of the codes with respect to u, 1 / sqrt(d) for "scaled", as bsq-vit has it, or 1 for "ste", as
        vector-quantize-pytorch.
    """

    entropy_group: int | None = 1
    inverse_temperature: float = 1.0
    gradient: str = "scaled"

    @property
    def scale(self) -> float:
        return self.num_channels**-0.5

    def setup(self) -> None:
        super().setup()
        if not 0 < self.inverse_temperature < float("inf"):
            raise ValueError(f"inverse_temperature is {self.inverse_temperature}, but must be finite and more than 0.")
        if self.gradient not in GRADIENTS:
            raise ValueError(f"gradient is {self.gradient!r}, but must be one of {', '.join(GRADIENTS)}.")

    def __call__(self, z: jax.Array, *, train: bool) -> Quantized:
        """z float (..., num_bits) -> `Quantized`; losses where `train`."""
        check_channels("z", z, self.num_channels)
        u = unit_length(z.astype(jnp.float32))
        codes, indices = quantize_signs(u * self.scale if self.gradient == "scaled" else u, self.scale)
        loss, metrics = jnp.zeros((), jnp.float32), usage_metrics(indices, self.codebook_size)
        if train and self.entropy_ratio:
            logits_NxD = 4 * self.inverse_temperature * self.scale * u.reshape(-1, self.num_bits)
            terms, entropies = self.entropy_terms(logits_NxD, EPS)
            metrics |= entropies | {"entropy_loss": self.entropy_ratio / self.inverse_temperature * terms}
            loss += metrics["entropy_loss"]
        if train and self.commitment_cost:
            distance = jnp.mean(jnp.sum(jnp.square(u - jax.lax.stop_gradient(codes)), axis=-1))
            metrics["commitment_loss"] = self.commitment_cost * distance
            loss += metrics["commitment_loss"]
        return Quantized(codes.astype(z.dtype), indices, loss, metrics)
