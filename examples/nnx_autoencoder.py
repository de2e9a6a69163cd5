"""An autoencoder of your own, in Flax NNX, with a quantizer of this package; needs jax and flax alone.

  pip install . && python examples/nnx_autoencoder.py

It learns gratings of 8 x 8 pixels, each as 4 tokens of a codebook of 240 codes, in seconds on a CPU.
"""

import functools

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from fsq_repro.quantizers.nnx import FSQ

PIXELS, TOKENS, WIDTH = 64, 4, 128


class Autoencoder(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.quantizer = FSQ((8, 6, 5))  # others: LFQ(8), EmaVectorQuantizer(256, 8, rngs=rngs), ...
        channels = TOKENS * self.quantizer.num_channels
        self.encoder = nnx.Sequential(
            nnx.Linear(PIXELS, WIDTH, rngs=rngs), nnx.gelu, nnx.Linear(WIDTH, channels, rngs=rngs)
        )
        self.decoder = nnx.Sequential(
            nnx.Linear(channels, WIDTH, rngs=rngs), nnx.gelu, nnx.Linear(WIDTH, PIXELS, rngs=rngs)
        )

    def __call__(self, images: jax.Array, *, train: bool):
        """Images (B, 64) -> reconstructions (B, 64) and the quantizer's output for (B, 4, num_channels)."""
        z = self.encoder(images).reshape(len(images), TOKENS, -1)
        quantized = self.quantizer(z, train=train)
        return self.decoder(quantized.codes.reshape(len(images), -1)), quantized


@functools.partial(jax.jit, static_argnums=1)
def gratings(key: jax.Array, count: int) -> jax.Array:
    """Random waves across 8 x 8 pixels, (count, 64) in [-1, 1]."""
    angle, phase = jax.random.uniform(key, (2, count, 1), maxval=2 * jnp.pi)
    y, x = jnp.mgrid[:8, :8].reshape(2, 1, PIXELS)
    return jnp.sin(0.8 * (jnp.cos(angle) * x + jnp.sin(angle) * y) + phase)


@nnx.jit
def train_step(model: Autoencoder, optimizer: nnx.Optimizer, images: jax.Array) -> dict[str, jax.Array]:
    def loss(model: Autoencoder):
        reconstructions, quantized = model(images, train=True)
        error = jnp.mean(jnp.square(reconstructions - images))
        return error + quantized.loss, {"error": error, "usage": quantized.metrics["usage"]}

    grads, metrics = nnx.grad(loss, has_aux=True)(model)
    optimizer.update(model, grads)
    return metrics


def main(steps: int = 500) -> list[float]:
    """Trains and prints; returns the mean squared error of each step."""
    model = Autoencoder(rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(2e-3), wrt=nnx.Param)
    errors = []
    for step in range(steps):
        metrics = train_step(model, optimizer, gratings(jax.random.key(step), 256))
        errors.append(float(metrics["error"]))
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step}: error {metrics['error']:.4f}, codes in use {metrics['usage']:.0%}")
    tokens = model(gratings(jax.random.key(steps), 1), train=False)[1].indices
    print(f"an image as tokens: {tokens[0].tolist()}")
    return errors


if __name__ == "__main__":
    main()
