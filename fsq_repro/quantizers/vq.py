"""Vector quantization as MaskGIT trains it: a codebook learned by gradient (maskgit/nets/vqgan_tokenizer.py).

Loss: commitment_cost * mean((sg(q) - z)^2) + codebook_cost * mean((q - sg(z))^2) + entropy_ratio * entropy term. The
commitment weight belongs to the encoder's term; several ports have it on the other.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from fsq_repro.quantizers.base import Quantized
from fsq_repro.quantizers.nearest import entropy_loss, nearest


class VectorQuantizer(nn.Module):
    """Nearest codeword by squared Euclidean distance, straight-through gradient.

    Attributes:
      codebook_size: number of codes K.
      embedding_dim: width D of a code; the paper's 256.
      commitment_cost, codebook_cost, entropy_ratio: weights of the loss terms; 0 switches a term off.
      entropy_temperature: of the softmax in the entropy term.
    """

    codebook_size: int
    embedding_dim: int
    commitment_cost: float = 0.25
    codebook_cost: float = 1.0
    entropy_ratio: float = 0.1
    entropy_temperature: float = 0.01

    @property
    def num_channels(self) -> int:
        return self.embedding_dim

    def setup(self):
        check_codebook(self.codebook_size, self.embedding_dim)
        init = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
        self.codebook = self.param("codebook", init, (self.codebook_size, self.embedding_dim), jnp.float32)

    def __call__(self, z: jax.Array, *, train: bool) -> Quantized:
        """z (..., D) -> `Quantized`; losses where `train`."""
        x_NxD = flatten_tokens(z, self.embedding_dim)
        indices_N = nearest(x_NxD, self.codebook)
        q_NxD = self.codebook[indices_N]
        loss, metrics = jnp.zeros((), jnp.float32), {}
        if train:
            terms = {}
            if self.commitment_cost:
                error = jnp.mean(jnp.square(jax.lax.stop_gradient(q_NxD) - x_NxD))
                terms["commitment_loss"] = self.commitment_cost * error
            if self.codebook_cost:
                error = jnp.mean(jnp.square(q_NxD - jax.lax.stop_gradient(x_NxD)))
                terms["codebook_loss"] = self.codebook_cost * error
            if self.entropy_ratio:
                entropy = entropy_loss(x_NxD, self.codebook, self.entropy_temperature)
                terms["entropy_loss"] = self.entropy_ratio * entropy
            loss = sum(terms.values(), loss)
            metrics = terms | {"batch_usage": batch_usage(indices_N, self.codebook_size)}
        codes = straight_through(x_NxD, q_NxD).reshape(z.shape).astype(z.dtype)
        return Quantized(codes, indices_N.reshape(z.shape[:-1]), loss, metrics)

    def indices_to_codes(self, indices: jax.Array) -> jax.Array:
        """Indices int (...) -> codes float32 (..., D)."""
        check_indices(indices)
        return self.codebook[indices]

    def codes_to_indices(self, codes: jax.Array) -> jax.Array:
        """Codes (..., D), or the vectors nearest to them -> indices int32 (...)."""
        return nearest(flatten_tokens(codes, self.embedding_dim), self.codebook).reshape(codes.shape[:-1])


def check_codebook(codebook_size: int, embedding_dim: int) -> None:
    """ValueError unless both are sensible."""
    if not 2 <= codebook_size < 2**31 or embedding_dim < 1:
        raise ValueError(
            f"quantizer.codebook_size = {codebook_size} must be in 2 .. 2^31 - 1 and quantizer.embedding_dim = "
            f"{embedding_dim} at least 1"
        )


def flatten_tokens(z: jax.Array, channels: int) -> jax.Array:
    """(..., channels) of any float dtype -> float32 (N, channels)."""
    if z.shape[-1] != channels:
        raise ValueError(f"z has {z.shape[-1]} channels, quantizer.embedding_dim = {channels} needs {channels}")
    return z.astype(jnp.float32).reshape(-1, channels)


def straight_through(x: jax.Array, q: jax.Array) -> jax.Array:
    """Exactly q (x + sg(q - x) would be off it by a rounding error), with the gradient of x."""
    return jax.lax.stop_gradient(q) + (x - jax.lax.stop_gradient(x))


def batch_usage(indices: jax.Array, codebook_size: int) -> jax.Array:
    """Share of the codes that this batch uses; bounded by its number of tokens, so not the usage of the tables."""
    counts_K = jnp.zeros(codebook_size, jnp.int32).at[indices].add(1)
    return jnp.mean((counts_K > 0).astype(jnp.float32))
