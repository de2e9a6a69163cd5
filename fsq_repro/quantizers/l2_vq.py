"""Vector quantization on the unit sphere, of few channels (ViT-VQGAN, arXiv 2110.04627; LlamaGen, 2406.06525).

Encoder output and codes are scaled to length 1 before they are compared, so the nearest code is that of the largest
cosine. Codes stay as long as each other and are found by direction: with few channels nearly all of 16,384 are used.
"""

import jax
import jax.numpy as jnp

from fsq_repro.quantizers.base import joined
from fsq_repro.quantizers.normalization import unit_length
from fsq_repro.quantizers.trained_codebook import TrainedCodebook


class L2VectorQuantizer(TrainedCodebook):
    """Nearest unit codeword of the normalised encoder output.

    u = z / |z|, v = e / |e|, index argmin |u - v_k|^2, code v_i, a unit vector. Loss: commitment_cost * mean((u -
    sg(v_i))^2) + codebook_cost * mean((sg(u) - v_i)^2) + entropy_ratio * entropy term on the same distances. z is (...,
    embedding_dim), no state. The gradient passes straight through to u and on through the normalisation, as LlamaGen
    has it (value and gradient are of one function); ViT-VQGAN passes it to z itself. Take it as the vector quantizer
    of today's image tokenizers: 8 channels with up to 16,384 codes, 32 in ViT-VQGAN.

    >>> import jax
    >>> from fsq_repro.quantizers import L2VectorQuantizer
    >>> vq, z = L2VectorQuantizer(codebook_size=16, embedding_dim=4), jax.random.normal(jax.random.key(0), (2, 5, 4))
    >>> quantized, variables = vq.init_with_output(jax.random.key(1), z, train=True)
    >>> bool(abs((quantized.codes**2).sum(-1) - 1).max() < 1e-6)
    True

    Attributes: see `TrainedCodebook`; the published entropy_ratio is 0 (LlamaGen; its option has temperature 0.01).
    """

    published_dim = 8  # LlamaGen's; ViT-VQGAN has 32

    @property
    def ablation(self) -> str:
        return joined(entropy=self.entropy_ratio, rotation=self.gradient == "rotation", sync=self.sync_nu)

    def setup(self) -> None:
        self.check_fields()
        # LlamaGen's: each entry uniform, then length 1. ViT-VQGAN draws from N(0, 1) and leaves the lengths.
        self.codebook = self.param("codebook", _uniform_directions, (self.codebook_size, self.embedding_dim))

    def prepared(self, z_NxD: jax.Array) -> jax.Array:
        return unit_length(z_NxD)

    def codewords(self) -> jax.Array:
        """Float32 (K, D), of length 1; the gradient goes through the normalisation, so it is orthogonal to each e."""
        return unit_length(self.codebook)


def _uniform_directions(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return unit_length(jax.random.uniform(key, shape, jnp.float32, -1, 1))
