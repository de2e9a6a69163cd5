"""Lookup-free quantization of MAGVIT-v2 (Yu et al., arXiv 2310.05737): the sign of each channel."""

import jax
import jax.numpy as jnp

from fsq_repro.quantizers.base import Quantized, check_channels, usage_metrics
from fsq_repro.quantizers.bits import SignQuantizer, quantize_signs
from fsq_repro.quantizers.normalization import unit_length

EPS = 1e-5  # in the logarithm of the batch term


class LFQ(SignQuantizer):
    """Lookup-free quantization (Yu et al., arXiv 2310.05737): codes sign(x), entropy terms against collapse.

    With x = sqrt(d) z / |z|, or z itself without `normalize`, and p = softmax(2 x.c / entropy_temperature) over all
    codes c,

      loss = entropy_ratio (mean_n H(p_n) - diversity_weight H(mean_n p_n)) + commitment_cost mean((x - sg q)^2),

    the entropies those of the global batch and exact. No parameters, no state. x gets the codes' gradient unchanged.
    For large codebooks, 2^10 codes and more; below, a learned codebook is as good.

    The method assumes a normalisation in front: its author's example has a GroupNorm without affine part before the
    last convolution and calls it important (lucidrains/vector-quantize-pytorch issue 89); without one, z can grow
    instead of the entropy terms being met. Here it is part of the quantizer, per token. It takes no mean out of z,
    since of vectors with mean 0 none has the code of all +1.

    Follows Open-MAGVIT2: exact logarithms for tokens, log(p + 1e-5) for the batch. vector-quantize-pytorch and MaskBit
    have log(max(p, 1e-5)) in both, which differs by 3e-4. The weights 0.1 and 0.25 are those of the author
    (issue 88 there) and of Open-MAGVIT2; MaskBit has 0.02 and 0.25, vector-quantize-pytorch 0.1 and 0.

    >>> import jax, jax.numpy as jnp
    >>> module = LFQ(num_bits=10)
    >>> quantized = module.apply({}, jnp.ones((2, 16, 16, 10)), train=False)
    >>> quantized.codes.shape, int(quantized.indices[0, 0, 0]), module.codebook_size
    ((2, 16, 16, 10), 1023, 1024)
    >>> module.apply({}, jnp.array([1]), method="indices_to_codes")[0, :2].tolist()
    [1.0, -1.0]

    Attributes beside those of `SignQuantizer`:
      entropy_temperature: of the softmax in the entropy terms.
      normalize: whether z is brought to length sqrt(d), that of a code, first.
    """

    commitment_cost: float = 0.25
    entropy_temperature: float = 0.01
    normalize: bool = True

    @property
    def scale(self) -> float:
        return 1.0

    @property
    def ablation(self) -> str:
        parts = ("" if self.normalize else "unnormalized", super().ablation)
        return "_".join(part for part in parts if part)

    def setup(self) -> None:
        super().setup()
        if not self.entropy_temperature > 0:
            raise ValueError(f"entropy_temperature is {self.entropy_temperature}, but must be more than 0.")

    def __call__(self, z: jax.Array, *, train: bool) -> Quantized:
        """z float (..., num_bits) -> `Quantized`; losses where `train`."""
        check_channels("z", z, self.num_channels)
        x = z.astype(jnp.float32)
        if self.normalize:
            x = unit_length(x) * self.num_bits**0.5
        codes, indices = quantize_signs(x, self.scale)
        loss, metrics = jnp.zeros((), jnp.float32), usage_metrics(indices, self.codebook_size)
        if train and self.entropy_ratio:
            logits_NxD = 4 / self.entropy_temperature * x.reshape(-1, self.num_bits)
            terms, entropies = self.entropy_terms(logits_NxD, EPS)
            metrics |= entropies | {"entropy_loss": self.entropy_ratio * terms}
            loss += metrics["entropy_loss"]
        if train and self.commitment_cost:
            distance = jnp.mean(jnp.square(x - jax.lax.stop_gradient(codes)))
            metrics["commitment_loss"] = self.commitment_cost * distance
            loss += metrics["commitment_loss"]
        return Quantized(codes.astype(z.dtype), indices, loss, metrics)
