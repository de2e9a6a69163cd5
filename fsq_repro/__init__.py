"""Finite Scalar Quantization: VQ-VAE Made Simple, reproduced in JAX and Flax."""

__version__ = "0.1.0"
