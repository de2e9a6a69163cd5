"""What all quantizers share: their output, the straight-through estimator, and how much of the codebook a batch uses.

A quantizer is a Linen module `__call__(z, *, train) -> Quantized` with the attributes `num_channels` (channels of z,
what the encoder must emit), `codebook_size`, `levels` (of each channel; None for a learned codebook) and `ablation`
(how its settings differ in kind from the published method's, in records behind its name; "" for not at all), the
methods `indices_to_codes` and `codes_to_indices`, and the classmethod `suggest(codebook_size)`, fields for about that
size. Inside everything is float32 and int32, whatever the dtype of z.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from fsq_repro.quantizers.nearest import nearest_codes

COUNTS_PER_TOKEN = 4  # in usage_metrics


@struct.dataclass
class Quantized:
    """Output of a quantizer for z of shape (..., num_channels).

    Attributes:
      codes: (..., num_channels) in z's dtype, what the decoder reads; the gradient passes straight through to z.
      indices: (...) int32 in [0, codebook_size).
      loss: float32 scalar to be added to the training loss; 0 where the quantizer has none.
      metrics: float32 scalars to be logged.
    """

    codes: jax.Array
    indices: jax.Array
    loss: jax.Array
    metrics: dict[str, jax.Array]


@jax.custom_jvp
def straight_through(z: jax.Array, quantized: jax.Array) -> jax.Array:
    """Value of `quantized`, gradient of `z` (same shape and dtype).

    `z + stop_gradient(quantized - z)`, the usual form, rounds: its value is not exactly a code. NaN in z stays NaN, so
    that a diverged encoder is seen in the loss instead of being rounded to a valid code.
    """
    return jnp.where(jnp.isnan(z), z, quantized)


@straight_through.defjvp
def _straight_through_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    return straight_through(*primals), tangents[0]


def usage_metrics(indices: jax.Array, codebook_size: int) -> dict[str, jax.Array]:
    """Share of the codebook that one batch of indices uses, and the perplexity of the batch.

    Both depend on how many tokens the batch has: they are to watch a run by, the evaluation counts over a whole data
    set. Memory is for the tokens only, however large the codebook: of one with more than `COUNTS_PER_TOKEN` codes a
    token, runs of the sorted indices are counted, which takes a CPU five times as long.

    Args:
      indices: int32 of any shape, in [0, codebook_size).

    Returns float32 scalars, "usage" and "perplexity".
    """
    slots_N, num_slots = indices.reshape(-1), codebook_size
    if codebook_size > COUNTS_PER_TOKEN * indices.size:
        indices_N = jnp.sort(slots_N)
        starts_N = jnp.concatenate([jnp.ones(1, bool), indices_N[1:] != indices_N[:-1]])
        slots_N, num_slots = jnp.cumsum(starts_N, dtype=jnp.int32) - 1, indices.size
    counts = jnp.zeros(num_slots, jnp.int32).at[slots_N].add(1)
    p = counts.astype(jnp.float32) / indices.size
    used = jnp.sum(counts > 0, dtype=jnp.float32)
    return {"usage": used / codebook_size, "perplexity": jnp.exp(-jnp.sum(jax.scipy.special.xlogy(p, p)))}


class LearnedCodebook(nn.Module):
    """What quantizers with a learned codebook share: K = `codebook_size` codes of D = `embedding_dim` channels."""

    codebook_size: int
    embedding_dim: int

    levels = None
    published_dim = 256  # the embedding_dim that the method was published with

    @property
    def num_channels(self) -> int:
        return self.embedding_dim

    @classmethod
    def suggest(cls, codebook_size: int) -> dict[str, int]:
        """The size itself, and the published width."""
        return {"codebook_size": codebook_size, "embedding_dim": cls.published_dim}

    def check_sizes(self) -> None:
        """Raises ValueError unless both sizes are integers in 1..2^31 - 1."""
        for name, value in (("codebook_size", self.codebook_size), ("embedding_dim", self.embedding_dim)):
            if not isinstance(value, int) or not 1 <= value < 2**31:
                raise ValueError(f"{name} is {value!r}, but must be an integer in 1..2^31 - 1.")

    def codewords(self) -> jax.Array:
        """The codebook, float32 (K, D)."""
        raise NotImplementedError

    def indices_to_codes(self, indices: jax.Array) -> jax.Array:
        """Integer (...) -> float32 (..., D)."""
        check_indices(indices)
        return self.codewords()[indices]

    def codes_to_indices(self, codes: jax.Array) -> jax.Array:
        """Codes float (..., D), or vectors near them -> int32 (...), the nearest codeword."""
        check_channels("codes", codes, self.embedding_dim)
        codes_NxD = codes.astype(jnp.float32).reshape(-1, self.embedding_dim)
        return nearest_codes(codes_NxD, self.codewords()).reshape(codes.shape[:-1])


def check_channels(name: str, x: jax.Array, num_channels: int) -> None:
    """Raises ValueError unless x is floating point with `num_channels` on its last axis."""
    if x.ndim < 1 or x.shape[-1] != num_channels:
        raise ValueError(f"{name} has shape {x.shape}, but its last axis must have {num_channels} channels.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{name} has dtype {x.dtype}, but must be floating point.")


def check_indices(indices: jax.Array) -> None:
    """Raises ValueError unless the indices are integers."""
    if not jnp.issubdtype(indices.dtype, jnp.integer):
        raise ValueError(f"indices has dtype {indices.dtype}, but must be integers.")
