"""What quantizers with one bit per channel share: the bits and their index, and the entropy terms.

A code is +-scale in each of d channels. The first channel is the LOWEST bit of the index, as in all quantizers here and
in Open-MAGVIT2 and MaskBit; vector-quantize-pytorch and bsq-vit have it as the highest.

The entropy terms are of softmax(2 z.c / temperature) over all 2^d codes c. That is a product of one distribution per
bit, so the entropy of a token is a sum over bits and the probabilities of all codes are an outer product of those of
two halves of the bits. Nothing of size tokens x 2^d is built.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fsq_repro.quantizers.base import check_at_least_0, check_channels, check_indices, straight_through
from fsq_repro.quantizers.digits import digits_to_indices, indices_to_digits
from fsq_repro.quantizers.nearest import num_chunks, num_groups, split_tokens

MAX_BITS = 30  # of an int32 index
MAX_GROUP = 20  # bits whose joint distribution the batch term may be of


def quantize_signs(x: jax.Array, scale: float) -> tuple[jax.Array, jax.Array]:
    """x float32 (..., d) -> codes +-scale (..., d), of gradient 1, and indices (...) int32.

    0 becomes -scale. NaN stays NaN in the codes; in the index its bit is 0.
    """
    positive = x > 0
    codes = straight_through(x, jnp.where(positive, jnp.float32(scale), jnp.float32(-scale)))
    return codes, digits_to_indices(positive.astype(jnp.int32), (2,) * x.shape[-1])


def token_entropy(logits_NxD: jax.Array) -> jax.Array:
    """Mean over tokens of the entropy of their d independent bits, in nats, a float32 scalar.

    `logits_NxD` float32 are log p(bit is 1) - log p(bit is 0). The same as by all 2^d codes.
    """
    size = jnp.abs(logits_NxD)
    return jnp.mean(jnp.sum(jnp.log1p(jnp.exp(-size)) + size * jax.nn.sigmoid(-size), axis=1))


def mean_code_probabilities(logits_NxD: jax.Array, group: int) -> jax.Array:
    """Mean over tokens of the probabilities of the codes of each group of bits, float32 (d / group, 2^group).

    `logits_NxD` as for `token_entropy`; the first bit of a group is the lowest of its codes' numbers. Tokens go through
    in chunks, each of 2^(group / 2) numbers per token, forward and backward.
    """
    N, D = logits_NxD.shape
    groups, half = D // group, group // 2
    devices = num_groups(N)
    chunks = num_chunks(N // devices, groups * 2 ** (group - half))

    @jax.checkpoint
    def sums(logits_XxCxD: jax.Array, weight_XxC: jax.Array) -> jax.Array:
        logits = logits_XxCxD.reshape(*weight_XxC.shape, groups, group)
        low, high = _code_probabilities(logits[..., :half]), _code_probabilities(logits[..., half:])
        low *= weight_XxC[..., None, None]
        return jnp.einsum("xcgh,xcgl->xghl", high, low, precision=jax.lax.Precision.HIGHEST)

    def one_chunk(total: jax.Array, part: list[jax.Array]) -> tuple[jax.Array, None]:
        return total + sums(*part), None

    # What a chunk is padded with counts 0 times.
    parts = [split_tokens(a, devices, chunks) for a in (logits_NxD, jnp.ones(N, jnp.float32))]
    zeros = jnp.zeros((devices, groups, 2 ** (group - half), 2**half), jnp.float32)
    total, _ = jax.lax.scan(one_chunk, zeros, parts)
    return jnp.sum(total, axis=0).reshape(groups, -1) / N


def _code_probabilities(logits: jax.Array) -> jax.Array:
    """(..., b) logits of bits -> (..., 2^b) probabilities of codes, the first bit the lowest."""
    b = logits.shape[-1]
    bits_BxK = (np.arange(2**b) >> np.arange(b)[:, None] & 1).astype(np.float32)
    log_p = jnp.concatenate([jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)], axis=-1)
    return jnp.exp(jnp.matmul(log_p, np.concatenate([bits_BxK, 1 - bits_BxK]), precision=jax.lax.Precision.HIGHEST))


class SignQuantizer(nn.Module):
    """d = `num_bits` channels, codes +-scale.

    Attributes:
      num_bits: 1..30.
      entropy_ratio: weight of the entropy terms, mean_n H(p_n) - diversity_weight * H(mean_n p_n): each token's code
        certain, all codes used. The loss is negative in normal operation.
      diversity_weight: of the second of them.
      entropy_group: bits that the second is of at once, the sum over such groups in place of that over all codes; it
        divides `num_bits` and is at most 20. None for all bits.
      commitment_cost: weight of the distance between the encoder's output and its code; gradient to the encoder.
    """

    num_bits: int
    entropy_ratio: float = 0.1
    diversity_weight: float = 1.0
    entropy_group: int | None = None
    commitment_cost: float = 0.0

    @property
    def ablation(self) -> str:
        return "" if self.entropy_ratio else "no_entropy"

    @property
    def scale(self) -> float:
        raise NotImplementedError

    @property
    def num_channels(self) -> int:
        if not isinstance(self.num_bits, int) or not 1 <= self.num_bits <= MAX_BITS:
            raise ValueError(f"num_bits is {self.num_bits!r}, but must be an integer in 1..{MAX_BITS} (int32 indices).")
        return self.num_bits

    @property
    def codebook_size(self) -> int:
        return 2**self.num_channels

    @property
    def levels(self) -> tuple[int, ...]:
        return (2,) * self.num_channels

    @property
    def group(self) -> int:
        """Bits of a group of the batch term."""
        return self.num_channels if self.entropy_group is None else self.entropy_group

    @classmethod
    def suggest(cls, codebook_size: int) -> dict[str, Any]:
        """The number of bits whose codes are nearest to `codebook_size` by ratio."""
        return {"num_bits": round(math.log2(codebook_size))}

    def setup(self) -> None:
        check_at_least_0(self, "entropy_ratio", "diversity_weight", "commitment_cost")
        joint = self.entropy_ratio and self.diversity_weight
        if self.group < 1 or self.num_channels % self.group or (joint and self.group > MAX_GROUP):
            raise ValueError(
                f"entropy_group is {self.entropy_group}, but for {self.num_bits} bits it must divide their number and "
                f"be at most {MAX_GROUP}."
            )

    def entropy_terms(self, logits_NxD: jax.Array, eps: float) -> tuple[jax.Array, dict[str, jax.Array]]:
        """mean_n H(p_n) - diversity_weight * H(mean_n p_n), and both entropies as metrics, in nats.

        `logits_NxD` as for `token_entropy`; `eps` is added to the probability in the logarithm of the second.
        """
        metrics = {"token_entropy": token_entropy(logits_NxD)}
        if not self.diversity_weight:
            return metrics["token_entropy"], metrics
        mean_p = mean_code_probabilities(logits_NxD, self.group)
        metrics["batch_entropy"] = -jnp.sum(mean_p * jnp.log(mean_p + eps))
        return metrics["token_entropy"] - self.diversity_weight * metrics["batch_entropy"], metrics

    def indices_to_codes(self, indices: jax.Array) -> jax.Array:
        """Integer (...) -> float32 (..., num_bits)."""
        check_indices(indices)
        bits = indices_to_digits(indices, self.levels)
        return jnp.where(bits > 0, jnp.float32(self.scale), jnp.float32(-self.scale))

    def codes_to_indices(self, codes: jax.Array) -> jax.Array:
        """Float (..., num_bits), of any scale -> int32 (...)."""
        check_channels("codes", codes, self.num_channels)
        return digits_to_indices((codes > 0).astype(jnp.int32), self.levels)
