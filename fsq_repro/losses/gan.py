"""Adversarial losses of MaskGIT's stage I: non-saturating GAN with R1 (maskgit/libml/losses.py, vqgan_config.py)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Discriminator = Callable[[Any, jax.Array], jax.Array]  # (params, images (B, H, W, 3)) -> logits (B, 1)


def generator_loss(fake_logits: jax.Array) -> jax.Array:
    """-log sigmoid(D(fake)), mean over the batch."""
    return jnp.mean(jax.nn.softplus(-fake_logits))


def discriminator_loss(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """Sigmoid cross-entropy: real -> 1, fake -> 0; the two means added."""
    return jnp.mean(jax.nn.softplus(-real_logits)) + jnp.mean(jax.nn.softplus(fake_logits))


def r1_penalty(discriminator: Discriminator, params: Any, real: jax.Array) -> jax.Array:
    """Mean over the batch of ||grad_x D(x)||^2 on real images (no factor 1/2, as published)."""
    grads_BxHxWxC = jax.grad(lambda x: jnp.sum(discriminator(params, x)))(real)
    return jnp.mean(jnp.sum(jnp.square(grads_BxHxWxC), axis=(1, 2, 3)))
