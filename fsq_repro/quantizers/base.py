"""What all quantizers share: their output, the straight-through estimator, and how much of the codebook a batch uses.

A quantizer is a Linen module `__call__(z, *, train) -> Quantized` with the attributes `num_channels` (channels of z,
what the encoder must emit), `codebook_size`, `levels` (of each channel; None for a learned codebook) and `ablation`
(how its settings differ in kind from the published method's, in records behind its name; "" for not at all), the
methods `indices_to_codes` and `codes_to_indices`, and the classmethod `suggest(codebook_size)`, fields for about that
size. Inside everything is float32 and int32, whatever the dtype of z.

State that no gradient trains is in the collection `quantizer`; what is drawn comes from the rng stream `quantizer`. In
evaluation the codes are those of the indices, nothing is drawn, no state changes and the loss is 0. In training they
are those of the state before its update, unless a quantizer's docstring says otherwise.
"""

from typing import Any

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
      codes: (..., num_channels) in z's dtype, what the decoder reads; with a gradient for z, in most the straight-
        through one.
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
    def suggest(cls, codebook_size: int) -> dict[str, Any]:
        """The size itself, and the published width."""
        return {"codebook_size": codebook_size, "embedding_dim": cls.published_dim}

    def check_sizes(self) -> None:
        """Raises ValueError unless both sizes are integers in 1..2^31 - 1."""
        for name, value in (("codebook_size", self.codebook_size), ("embedding_dim", self.embedding_dim)):
            if not isinstance(value, int) or not 1 <= value < 2**31:
                raise ValueError(f"{name} is {value!r}, but must be an integer in 1..2^31 - 1.")

    def as_rows(self, z: jax.Array, name: str = "z") -> jax.Array:
        """Float (..., D) -> float32 (N, D), a token per row; ValueError for other shapes or dtypes."""
        check_channels(name, z, self.embedding_dim)
        return z.astype(jnp.float32).reshape(-1, self.embedding_dim)

    def codewords(self) -> jax.Array:
        """The codebook, float32 (K, D)."""
        raise NotImplementedError

    def indices_to_codes(self, indices: jax.Array) -> jax.Array:
        """Integer (...) -> float32 (..., D)."""
        check_indices(indices)
        return self.codewords()[indices]

    def codes_to_indices(self, codes: jax.Array) -> jax.Array:
        """Codes float (..., D), or vectors near them -> int32 (...), the nearest codeword."""
        return nearest_codes(self.as_rows(codes, "codes"), self.codewords()).reshape(codes.shape[:-1])


def check_channels(name: str, x: jax.Array, num_channels: int) -> None:
    """Raises ValueError unless x is floating point with `num_channels` on its last axis."""
    if x.ndim < 1 or x.shape[-1] != num_channels:
        raise ValueError(f"{name} has shape {x.shape}, but its last axis must have {num_channels} channels.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{name} has dtype {x.dtype}, but must be floating point.")


def joined(**parts: object) -> str:
    """For `ablation`, what holds: joined(narrow=True, no_entropy=False, sync=True) -> "narrow_sync"."""
    return "_".join(name for name, holds in parts.items() if holds)


def check_at_least_0(module: nn.Module, *fields: str) -> None:
    """Raises ValueError unless these fields of the module are finite numbers of at least 0."""
    for name in fields:
        if not 0 <= getattr(module, name) < float("inf"):
            raise ValueError(f"{name} is {getattr(module, name)}, but must be a finite number of at least 0.")


def check_counts(module: nn.Module, *fields: str) -> None:
    """Raises ValueError unless these fields of the module are integers of at least 0."""
    for name in fields:
        value = getattr(module, name)
        if not isinstance(value, int) or value < 0:
            raise ValueError(f"{name} is {value!r}, but must be an integer of at least 0.")


def check_indices(indices: jax.Array) -> None:
    """Raises ValueError unless the indices are integers."""
    if not jnp.issubdtype(indices.dtype, jnp.integer):
        raise ValueError(f"indices has dtype {indices.dtype}, but must be integers.")
