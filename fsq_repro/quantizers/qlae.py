"""Latent quantization of QLAE (Hsu et al., arXiv 2305.18378): a few learned values for each channel."""

import jax
import jax.numpy as jnp
import numpy as np

from fsq_repro.quantizers.base import (
    Quantized,
    check_at_least_0,
    check_channels,
    check_indices,
    straight_through,
    usage_metrics,
)
from fsq_repro.quantizers.digits import check_levels, digits_to_indices, indices_to_digits, look_up
from fsq_repro.quantizers.scalar_levels import ScalarLevels


def nearest_digits(z: jax.Array, values: jax.Array, levels: tuple[int, ...]) -> jax.Array:
    """Number of the nearest value of each channel, the first of equally near ones: int32 (..., d).

    `z` float32 (..., d), `values` float32 (sum(levels),), those of the channels one after another.
    """
    z_NxD = z.reshape(-1, len(levels))
    of_channels = jnp.split(values, np.cumsum(levels)[:-1])
    digits = [jnp.argmin(jnp.abs(z_NxD[:, i, None] - v[None]), axis=1) for i, v in enumerate(of_channels)]
    return jnp.stack(digits, axis=1).astype(jnp.int32).reshape(z.shape)


class QLAE(ScalarLevels):
    """Latent quantization (Hsu et al., arXiv 2305.18378): channel i becomes the nearest of levels[i] values.

      loss = codebook_cost mean((sg z - q)^2) + commitment_cost mean((z - sg q)^2)

    z is not bounded. The values are the parameter `values` (sum(levels),), those of the channels one after another, at
    first spread evenly over [-1/2, 1/2]; they learn by the codebook term alone, the encoder gets the codes' gradient
    unchanged. The relative of FSQ whose grid is learned. The paper has 10 channels of 10 values and trains with a
    weight decay of 0.1, which it calls part of the method; keep the values themselves out of it.

    Follows kylehkhsu/latent_quantization, both weights 0.01 (its dSprites config has 0.001). In the port of
    vector-quantize-pytorch values are detached and never learn.

    >>> import jax, jax.numpy as jnp
    >>> module, z = QLAE((5, 4)), jnp.array([[0.1, -0.3]])
    >>> variables = module.init(jax.random.key(0), z, train=False)
    >>> quantized = module.apply(variables, z, train=False)
    >>> [round(float(c), 3) for c in quantized.codes[0]], quantized.indices.tolist()
    ([0.0, -0.167], [7])

    Attributes:
      levels: integers in 2..1000, the number of values of each channel; the paper has 10.
      codebook_cost, commitment_cost: weights of the loss terms; 0 switches a term off.
    """

    codebook_cost: float = 0.01
    commitment_cost: float = 0.01

    def setup(self) -> None:
        check_at_least_0(self, "codebook_cost", "commitment_cost")
        first = np.concatenate([np.linspace(-0.5, 0.5, l) for l in check_levels(self.levels)])
        self.values = self.param("values", lambda key: jnp.asarray(first, jnp.float32))

    def __call__(self, z: jax.Array, *, train: bool) -> Quantized:
        """z float (..., d) -> `Quantized`; losses where `train`."""
        check_channels("z", z, self.num_channels)
        x = z.astype(jnp.float32)
        digits = jax.lax.stop_gradient(nearest_digits(x, self.values, self.levels))
        q, indices = look_up(digits, self.values, self.levels), digits_to_indices(digits, self.levels)
        loss, metrics = jnp.zeros((), jnp.float32), usage_metrics(indices, self.codebook_size)
        if train and self.codebook_cost:
            metrics["codebook_loss"] = self.codebook_cost * jnp.mean(jnp.square(q - jax.lax.stop_gradient(x)))
            loss += metrics["codebook_loss"]
        if train and self.commitment_cost:
            metrics["commitment_loss"] = self.commitment_cost * jnp.mean(jnp.square(x - jax.lax.stop_gradient(q)))
            loss += metrics["commitment_loss"]
        return Quantized(straight_through(x, q).astype(z.dtype), indices, loss, metrics)

    def indices_to_codes(self, indices: jax.Array) -> jax.Array:
        """Integer (...) -> float32 (..., d), the first channel fastest."""
        check_indices(indices)
        return look_up(indices_to_digits(indices, self.levels), self.values, self.levels)

    def codes_to_indices(self, codes: jax.Array) -> jax.Array:
        """Float (..., d) -> int32 (...), by the nearest value of each channel."""
        check_channels("codes", codes, self.num_channels)
        digits = nearest_digits(codes.astype(jnp.float32), self.values, self.levels)
        return digits_to_indices(digits, self.levels)
