"""Vector quantization as MaskGIT trains it: a codebook learned by gradient (maskgit/nets/vqgan_tokenizer.py)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from fsq_repro.quantizers.base import check_at_least_0, joined
from fsq_repro.quantizers.trained_codebook import TrainedCodebook

NARROW = 32  # channels of the widest codes that are called narrow (Yu et al., arXiv 2110.04627, take 32)


class VectorQuantizer(TrainedCodebook):
    """Nearest codeword by squared Euclidean distance, straight-through gradient; the paper's have 256 channels.

    van den Oord et al., arXiv 1711.00937; the loss with MaskGIT's entropy term, see `trained_codebook`. z is (...,
    embedding_dim), a code any vector; no state. The baseline that other quantizers are measured against: the codebook
    is expressive, but of a large one many codes go unused.

    >>> import jax
    >>> from fsq_repro.quantizers import VectorQuantizer
    >>> vq, z = VectorQuantizer(codebook_size=16, embedding_dim=4), jax.random.normal(jax.random.key(0), (2, 5, 4))
    >>> variables = vq.init(jax.random.key(1), z, train=True)
    >>> quantized = vq.apply(variables, z, train=True)
    >>> quantized.codes.shape, quantized.indices.shape, sorted(quantized.metrics)[:2]
    ((2, 5, 4), (2, 5), ['codebook_loss', 'commitment_loss'])

    Attributes:
      entropy_ratio, ...: see `TrainedCodebook`.
      affine_lr: where other than 0, codes are (1 + affine_lr * s) e + affine_lr * b for a common scale s and shift b
        (D,), learned from 0: codes that go unused move with the others (Huh et al. 2305.08842, which has 10; there
        commitment_cost is 0.02, codebook_cost 0.98 and there is no entropy term).
    """

    entropy_ratio: float = 0.1
    affine_lr: float = 0.0

    @property
    def ablation(self) -> str:
        narrow, rotation = self.embedding_dim <= NARROW, self.gradient == "rotation"
        return joined(
            narrow=narrow,
            no_entropy=not self.entropy_ratio,
            rotation=rotation,
            affine=self.affine_lr,
            sync=self.sync_nu,
        )

    def setup(self) -> None:
        self.check_fields()
        check_at_least_0(self, "affine_lr")
        init = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
        self.codebook = self.param("codebook", init, (self.codebook_size, self.embedding_dim), jnp.float32)
        if self.affine_lr:
            self.affine_scale, self.affine_bias = (
                self.param(name, nn.initializers.zeros, (self.embedding_dim,), jnp.float32)
                for name in ("affine_scale", "affine_bias")
            )

    def codewords(self) -> jax.Array:
        if not self.affine_lr:
            return self.codebook
        scale_1xD, bias_1xD = 1 + self.affine_lr * self.affine_scale[None], self.affine_lr * self.affine_bias[None]
        return scale_1xD * self.codebook + bias_1xD
