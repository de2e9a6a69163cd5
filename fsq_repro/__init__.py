"""Finite Scalar Quantization: VQ-VAE Made Simple, reproduced in JAX and Flax."""
