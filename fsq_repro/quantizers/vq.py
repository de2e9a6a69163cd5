"""Vector quantization as MaskGIT trains it: a codebook learned by gradient (maskgit/nets/vqgan_tokenizer.py).

Loss: commitment_cost * mean((sg(q) - z)^2) + codebook_cost * mean((q - sg(z))^2) + entropy_ratio * entropy term. The
commitment weight belongs to the encoder's term; several ports have it on the other.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from fsq_repro.quantizers.base import LearnedCodebook, Quantized, check_channels, straight_through, usage_metrics
from fsq_repro.quantizers.nearest import nearest_codes, nearest_codes_and_entropy

NARROW = 32  # channels of the widest codes that are called narrow (Yu et al., arXiv 2110.04627, take 32)


class VectorQuantizer(LearnedCodebook):
    """Nearest codeword by squared Euclidean distance, straight-through gradient; the paper's have 256 channels.

    >>> import jax, jax.numpy as jnp
    >>> module, z = VectorQuantizer(codebook_size=64, embedding_dim=4), jnp.ones((2, 8, 8, 4))
    >>> variables = module.init(jax.random.key(0), z, train=True)
    >>> quantized = module.apply(variables, z, train=True)
    >>> quantized.codes.shape, quantized.indices.shape, bool(quantized.loss != 0)
    ((2, 8, 8, 4), (2, 8, 8), True)

    Attributes:
      commitment_cost, codebook_cost, entropy_ratio: weights of the loss terms; 0 switches a term off.
      entropy_temperature: of the softmax in the entropy term.
    """

    commitment_cost: float = 0.25
    codebook_cost: float = 1.0
    entropy_ratio: float = 0.1
    entropy_temperature: float = 0.01

    @property
    def ablation(self) -> str:
        parts = {"narrow": self.embedding_dim <= NARROW, "no_entropy": not self.entropy_ratio}
        return "_".join(name for name, holds in parts.items() if holds)

    def setup(self) -> None:
        self.check_sizes()
        for name in ("commitment_cost", "codebook_cost", "entropy_ratio"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}, but must be a finite number of at least 0.")
        if not self.entropy_temperature > 0:
            raise ValueError(f"entropy_temperature is {self.entropy_temperature}, but must be more than 0.")
        init = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
        self.codebook = self.param("codebook", init, (self.codebook_size, self.embedding_dim), jnp.float32)

    def __call__(self, z: jax.Array, *, train: bool) -> Quantized:
        """z (..., D) -> `Quantized`; losses where `train`."""
        check_channels("z", z, self.embedding_dim)
        x_NxD = z.astype(jnp.float32).reshape(-1, self.embedding_dim)
        if train and self.entropy_ratio:
            indices_N, entropy = nearest_codes_and_entropy(x_NxD, self.codebook, self.entropy_temperature)
        else:
            indices_N = nearest_codes(x_NxD, self.codebook)
        q_NxD = self.codebook[indices_N]
        loss, metrics = jnp.zeros((), jnp.float32), usage_metrics(indices_N, self.codebook_size)
        if train:
            terms = {}
            if self.commitment_cost:
                difference_NxD = jax.lax.stop_gradient(q_NxD) - x_NxD
                terms["commitment_loss"] = self.commitment_cost * jnp.mean(jnp.square(difference_NxD))
            if self.codebook_cost:
                terms["codebook_loss"] = self.codebook_cost * jnp.mean(jnp.square(q_NxD - jax.lax.stop_gradient(x_NxD)))
            if self.entropy_ratio:
                terms["entropy_loss"] = self.entropy_ratio * entropy
            loss = sum(terms.values(), loss)
            metrics |= terms
        codes = straight_through(x_NxD, q_NxD).reshape(z.shape).astype(z.dtype)
        return Quantized(codes, indices_N.reshape(z.shape[:-1]), loss, metrics)

    def codewords(self) -> jax.Array:
        return self.codebook
