"""IBQ: index backpropagation quantization (Shi et al., arXiv 2412.02692; Open-MAGVIT2's repository SEED-Voken).

The choice of a code is a one-hot vector whose gradient is that of a softmax over the whole codebook, so that every
token trains every code and a large codebook stays in use.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from fsq_repro.quantizers.base import (
    LearnedCodebook,
    Quantized,
    check_at_least_0,
    joined,
    usage_metrics,
)
from fsq_repro.quantizers.nearest import nearest_codes, nearest_codes_and_entropy, soft_codes
from fsq_repro.quantizers.trained_codebook import distance_terms


class IndexBackpropagationQuantizer(LearnedCodebook):
    """The code with the largest inner product, not the nearest one; nothing is normalised.

    p = softmax(z.e), i = argmax, codes = (p + sg(onehot(i) - p)) e, whose value is e_i. Loss: propagated_cost *
    mean((codes - z)^2) + commitment_cost * mean((sg(e_i) - z)^2) + codebook_cost * mean((e_i - sg(z))^2) +
    entropy_ratio * entropy term on softmax(z.e / entropy_temperature); the first is differentiated throughout. z is
    (..., embedding_dim), no state. A code that is shorter than another in its direction is never chosen, so
    `codes_to_indices` searches for the nearest code: that inverts `indices_to_codes` for all of them. Take it for
    codebooks of 2^14 to 2^18 codes, with 256 channels (32 outside of images, SEED-Voken issue 59). All tokens x all
    codes are gone through once forward and twice backward, in chunks.

    >>> import jax
    >>> from fsq_repro.quantizers import IndexBackpropagationQuantizer
    >>> ibq = IndexBackpropagationQuantizer(codebook_size=16, embedding_dim=4)
    >>> z = jax.random.normal(jax.random.key(0), (2, 5, 4))
    >>> quantized, variables = ibq.init_with_output(jax.random.key(1), z, train=True)
    >>> bool((quantized.codes == variables["params"]["codebook"][quantized.indices]).all())
    True

    Attributes:
      propagated_cost, commitment_cost, codebook_cost, entropy_ratio: weights of the loss terms; 0 switches a term off.
        As in the published code, the 0.25 is on the codebook's term; the paper has it on the encoder's (issue 60).
      entropy_temperature: of the softmax in the entropy term.
    """

    propagated_cost: float = 1.0
    commitment_cost: float = 1.0
    codebook_cost: float = 0.25
    entropy_ratio: float = 0.05
    entropy_temperature: float = 0.01

    @property
    def ablation(self) -> str:
        return joined(no_entropy=not self.entropy_ratio)

    def setup(self) -> None:
        self.check_sizes()
        check_at_least_0(self, "propagated_cost", "commitment_cost", "codebook_cost", "entropy_ratio")
        if not self.entropy_temperature > 0:
            raise ValueError(f"entropy_temperature is {self.entropy_temperature}, but must be more than 0.")
        shape = (self.codebook_size, self.embedding_dim)
        self.codebook = self.param("codebook", nn.initializers.normal(1.0), shape, jnp.float32)

    def codewords(self) -> jax.Array:
        return self.codebook

    def __call__(self, z: jax.Array, *, train: bool) -> Quantized:
        """z float (..., embedding_dim) -> `Quantized`."""
        z_NxD = self.as_rows(z)
        if train and self.entropy_ratio:
            indices_N, entropy = nearest_codes_and_entropy(z_NxD, self.codebook, self.entropy_temperature, True)
        else:
            indices_N = nearest_codes(z_NxD, self.codebook, inner=True)
        codes_NxD = soft_codes(z_NxD, self.codebook, indices_N)
        loss, metrics = jnp.zeros((), jnp.float32), usage_metrics(indices_N, self.codebook_size)
        if train:
            terms = distance_terms(z_NxD, self.codebook[indices_N], self.commitment_cost, self.codebook_cost)
            if self.propagated_cost:
                terms["propagated_loss"] = self.propagated_cost * jnp.mean(jnp.square(codes_NxD - z_NxD))
            if self.entropy_ratio:
                terms["entropy_loss"] = self.entropy_ratio * entropy
            loss = sum(terms.values(), loss)
            metrics |= terms
        codes = codes_NxD.reshape(z.shape).astype(z.dtype)
        return Quantized(codes, indices_N.reshape(z.shape[:-1]), loss, metrics)
