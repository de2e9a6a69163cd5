"""LPIPS, the perceptual distance of Zhang et al. 2018 (arXiv 1801.03924), version 0.1 with linear heads."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from fsq_repro.models.conv_stacks import STACKS, conv_taps

# LPIPS's own normalisation of images in [-1, 1]; to rounding ImageNet's of images in [0, 1].
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
EPS = 1e-10


def lpips_distance(params: Any, x: Array, y: Array, network: str) -> Array:
    """Distance of each pair of images: float32 (B, H, W, 3) in [0, 1], twice -> (B,).

    Args:
      params: of `pretrained.load_lpips_weights(network)`.
      network: "alexnet" (sides from 31 px) or "vgg16" (sides from 16 px); smaller images raise ValueError.
    """
    # Two passes, not one over both: where y needs no gradient, its backward pass is never run.
    taps_x, taps_y = (conv_taps(STACKS[network], params["convolutions"], _normalize_image(image)) for image in (x, y))
    distance = jnp.zeros(x.shape[0], jnp.float32)
    for head_C, f_BxHxWxC, g_BxHxWxC in zip(params["heads"], taps_x, taps_y, strict=True):
        difference = jnp.square(_unit_channels(f_BxHxWxC) - _unit_channels(g_BxHxWxC))
        distance += jnp.mean(difference @ head_C, axis=(1, 2))
    return distance


def _normalize_image(image: Array) -> Array:
    shift, scale = (jnp.asarray(v, jnp.float32).reshape(1, 1, 1, 3) for v in (SHIFT, SCALE))
    return (2 * image - 1 - shift) / scale


def _unit_channels(f_BxHxWxC: Array) -> Array:
    """Scales the channel vector of each position to length 1; vectors of zeros stay zero, with a finite gradient."""
    squared_norm = jnp.sum(jnp.square(f_BxHxWxC), axis=-1, keepdims=True)
    # The square root's slope is infinite at zero, which a dead position (all ReLUs closed) reaches.
    return f_BxHxWxC / (jnp.sqrt(jnp.maximum(squared_norm, EPS**2)) + EPS)
