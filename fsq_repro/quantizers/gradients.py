"""How the gradient passes from a code to the vector that it stands for: straight through, or turned and scaled.

The value is the code in both cases, to the last bit, and no gradient reaches the codebook: that needs its own loss or
running averages.
"""

import jax
import jax.numpy as jnp

from fsq_repro.quantizers.base import straight_through

GRADIENTS = ("ste", "rotation")
MIN_NORM = 1e-6  # of z and q: a shorter one has no direction, and |q| / |z| no bound


def pass_gradient(z_NxD: jax.Array, q_NxD: jax.Array, gradient: str) -> jax.Array:
    """Value of the codes q, gradient for z as `gradient` says, "ste" or "rotation"; float32 (N, D).

    q must be the code nearest to z: with "rotation" others make training diverge (vector-quantize-pytorch issue 223).
    One channel has no rotation but the identity and its negative; there "rotation" is "ste", as in that package.
    """
    return rotate(z_NxD, q_NxD) if gradient == "rotation" and z_NxD.shape[-1] > 1 else straight_through(z_NxD, q_NxD)


def check_gradient(gradient: str) -> None:
    """Raises ValueError unless `gradient` is one of GRADIENTS."""
    if gradient not in GRADIENTS:
        raise ValueError(f"gradient is {gradient!r}, but must be one of {', '.join(GRADIENTS)}.")


@jax.custom_jvp
def rotate(z: jax.Array, q: jax.Array) -> jax.Array:
    """Value of q; as a function of z the rotation and scaling that takes z to q, held fixed (Fifty et al. 2410.06424).

    With u = z / |z|, v = q / |q| and r = (u + v) / |u + v| the derivative along dz is

        |q| / |z| (dz - 2 (dz.r) r + 2 (dz.u) v)

    so the angle between gradient and code is that between gradient and z. Where v = -u there is no r and what is left
    is a reflection; where z or q is shorter than MIN_NORM, dz itself. NaN in z stays NaN, as in `straight_through`.

    Args:
      z, q: float32 (..., D).
    """
    return straight_through(z, q)


@rotate.defjvp
def _rotate_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    z, q = primals
    dz = tangents[0]
    (u, z_norm), (v, q_norm) = _direction(z), _direction(q)
    r, _ = _direction(u + v)
    turned = dz - 2 * _dot(dz, r) * r + 2 * _dot(dz, u) * v
    short = (z_norm < MIN_NORM) | (q_norm < MIN_NORM)
    return rotate(z, q), jnp.where(short, dz, turned * (q_norm / jnp.maximum(z_norm, MIN_NORM)))


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.sum(a * b, axis=-1, keepdims=True)


def _direction(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """x / max(|x|, MIN_NORM) and |x|."""
    norm = jnp.linalg.norm(x, axis=-1, keepdims=True)
    return x / jnp.maximum(norm, MIN_NORM), norm
