"""SimVQ: vector quantization whose codes all learn together, by one matrix (Zhu et al., arXiv 2411.02038).

The codebook is a random one that never changes, seen through a learned linear layer. A step on the layer's kernel moves
every code, also those that no token was assigned to, so that large codebooks stay in use.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from fsq_repro.quantizers.base import joined
from fsq_repro.quantizers.trained_codebook import TrainedCodebook


class SimVectorQuantizer(TrainedCodebook):
    """Nearest codeword of e = C W + b for a frozen C (codebook_size, embedding_dim) and learned W (D, D) and b (D,).

    Loss: commitment_cost * mean((z - sg(q))^2) + codebook_cost * mean((sg(z) - q)^2) with 0.25 on the encoder's term;
    the class default of the published code, `legacy`, has it on the other. z is (..., embedding_dim). Each call makes
    the codebook, K D^2 operations. Take it for codebooks of 2^14 codes and more.

    State, in the collection `quantizer`: `frozen_codebook`, C, drawn from N(0, 1 / D). It has no gradient, is never
    updated, and is needed to decode.

    >>> import jax
    >>> from fsq_repro.quantizers import SimVectorQuantizer
    >>> vq, z = SimVectorQuantizer(codebook_size=16, embedding_dim=4), jax.random.normal(jax.random.key(0), (2, 5, 4))
    >>> variables = vq.init({"params": jax.random.key(1), "quantizer": jax.random.key(2)}, z, train=True)
    >>> jax.tree.map(lambda x: x.shape, variables)
    {'params': {'bias': (4,), 'kernel': (4, 4)}, 'quantizer': {'frozen_codebook': (16, 4)}}

    Attributes: see `TrainedCodebook`; there is no entropy term in the paper.
      bias: whether there is b. The published code has it; vector-quantize-pytorch has not, and rotation by default.
    """

    bias: bool = True

    @property
    def ablation(self) -> str:
        rotation = self.gradient == "rotation"
        return joined(no_bias=not self.bias, entropy=self.entropy_ratio, rotation=rotation, sync=self.sync_nu)

    def setup(self) -> None:
        self.check_fields()
        K, D = self.codebook_size, self.embedding_dim
        self.frozen_codebook = self.variable(
            "quantizer", "frozen_codebook", lambda: D**-0.5 * jax.random.normal(self.make_rng("quantizer"), (K, D))
        )
        uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # +-1 / sqrt(D), as torch's Linear
        self.W = self.param("kernel", uniform, (D, D), jnp.float32)
        self.b = self.param("bias", self._init_bias, (D,)) if self.bias else None

    @staticmethod
    def _init_bias(key: jax.Array, shape: tuple[int]) -> jax.Array:
        limit = shape[0] ** -0.5
        return jax.random.uniform(key, shape, jnp.float32, -limit, limit)

    def codewords(self) -> jax.Array:
        frozen_KxD = jax.lax.stop_gradient(self.frozen_codebook.value)
        codebook_KxD = jnp.matmul(frozen_KxD, self.W, precision=jax.lax.Precision.HIGHEST)
        return codebook_KxD if self.b is None else codebook_KxD + self.b[None]
