"""Stage I: the autoencoder with any quantizer, against L2, perceptual and adversarial losses (paper A.4.1).

Generator (encoder, quantizer, decoder) and discriminator are updated in every step from one forward pass through the
autoencoder, as the published training code of the same group does (magvit `vqgan_trainer.py`). A term of weight 0 is
not built: no perceptual network is loaded and no discriminator initialised.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct
from jax.sharding import Mesh

from fsq_repro.data.images import to_uint8
from fsq_repro.losses import gan
from fsq_repro.losses.perceptual import PerceptualLoss, load_perceptual
from fsq_repro.metrics.usage import CodebookUsage
from fsq_repro.models.autoencoder import Autoencoder
from fsq_repro.runtime import sharding
from fsq_repro.trainers.accumulation import accumulate, codebook_statistics, update_codebook
from fsq_repro.visualization.grids import reconstruction_grid

Metrics = dict[str, jax.Array]


@struct.dataclass
class AutoencoderState:
    """All that a bitwise resume needs; empty dicts where the GAN or a quantizer's state is not in use."""

    step: jax.Array
    rng: jax.Array
    params: Any
    ema_params: Any
    quantizer_state: Any
    opt_state: Any
    discriminator_params: Any
    discriminator_opt_state: Any


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """Weights of the loss terms (the paper's by default); 0 switches a term off. `r1` acts where `gan` does."""

    l2: float = 1.0
    perceptual: float = 0.1
    gan: float = 0.1
    r1: float = 10.0


@dataclasses.dataclass(frozen=True)
class AutoencoderTrainer:
    """Stage-I trainer; attributes and methods as of `loop.Trainer`, and:

    Attributes:
      discriminator: used where `weights.gan` > 0.
      optimizer: of autoencoder and discriminator, each with a state of its own.
      weights: of the loss terms.
      resolution: image side in pixels.
      ema_decay: decay of the average of the parameters that evaluation uses.
      perceptual_network, perceptual_path: see `load_perceptual`.
    """

    model: Autoencoder
    discriminator: nn.Module
    optimizer: optax.GradientTransformation
    weights: LossWeights
    resolution: int
    ema_decay: float
    perceptual_network: str
    perceptual_path: str = ""
    accumulate_steps: int = 1

    def load_frozen(self) -> Any:
        """The perceptual network's weights, {} without one."""
        return self._perceptual().params if self.weights.perceptual else {}

    def _perceptual(self) -> PerceptualLoss:
        return load_perceptual(self.perceptual_network, self.perceptual_path)

    def init_state(self, rng: jax.Array) -> AutoencoderState:
        """Initial state from a typed key; the discriminator's weights do not depend on the quantizer."""
        model_key, discriminator_key, state_key = jax.random.split(rng, 3)
        images = jnp.zeros((1, self.resolution, self.resolution, 3), jnp.float32)
        variables = self.model.init({"params": model_key, "quantizer": model_key}, images, train=False)
        discriminator_params = self.discriminator.init(discriminator_key, images)["params"] if self.weights.gan else {}
        return AutoencoderState(
            step=jnp.zeros((), jnp.int32),
            rng=state_key,
            params=variables["params"],
            ema_params=jax.tree.map(jnp.copy, variables["params"]),
            quantizer_state=variables.get("quantizer", {}),
            opt_state=self.optimizer.init(variables["params"]),
            discriminator_params=discriminator_params,
            discriminator_opt_state=self.optimizer.init(discriminator_params) if self.weights.gan else {},
        )

    def train_step(
        self, state: AutoencoderState, frozen: Any, batch: dict[str, jax.Array]
    ) -> tuple[AutoencoderState, Metrics]:
        """One step on `batch["image"]` (B, H, W, 3) in [0, 1]; returns the new state and float32 scalars."""
        rng = jax.random.fold_in(state.rng, state.step)

        def gradients(images: jax.Array, number: int | jax.Array) -> tuple[Any, Any]:
            grad, key = jax.value_and_grad(self.generator_loss, has_aux=True), jax.random.fold_in(rng, 1 + number)
            (_, (reconstruction, updated, metrics)), grads = grad(state.params, state, frozen, images, key)
            discriminator_grads = {}
            if self.weights.gan:
                grad = jax.value_and_grad(self.discriminator_loss, has_aux=True)
                (_, more), discriminator_grads = grad(state.discriminator_params, images, reconstruction)
                metrics |= more
            return (grads, discriminator_grads, metrics), codebook_statistics(updated, number)

        means, batch_sums = accumulate(gradients, batch["image"], self.accumulate_steps)
        grads, discriminator_grads, metrics = means
        updates, opt_state = self.optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        variables = {"params": state.params, "quantizer": state.quantizer_state}
        quantizer_state, more = update_codebook(self.model, variables, batch_sums, rng)
        if self.weights.gan:
            old = state.discriminator_params
            updates, moments = self.optimizer.update(discriminator_grads, state.discriminator_opt_state, old)
            new = optax.apply_updates(old, updates)
            state = state.replace(discriminator_params=new, discriminator_opt_state=moments)
        return state.replace(
            step=state.step + 1,
            params=params,
            ema_params=optax.incremental_update(params, state.ema_params, 1 - self.ema_decay),
            quantizer_state=quantizer_state,
            opt_state=opt_state,
        ), metrics | more | {"gradient_norm": optax.global_norm(grads)}

    def generator_loss(
        self, params: Any, state: AutoencoderState, frozen: Any, images: jax.Array, rng: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, Any, Metrics]]:
        """Returns (total, (reconstruction, collection `batch`, metrics)); the discriminator is held fixed."""
        variables = {"params": params, "quantizer": state.quantizer_state}
        (reconstruction, quantized), updated = self.model.apply(
            variables, images, train=True, mutable=["batch"], rngs={"quantizer": rng}
        )
        terms = {"quantizer": quantized.loss}
        weights = self.weights
        if weights.l2:
            terms["l2"] = weights.l2 * jnp.mean(jnp.square(reconstruction - images))
        if weights.perceptual:
            terms["perceptual"] = weights.perceptual * self._perceptual()(frozen, images, reconstruction)
        if weights.gan:
            logits = self._discriminate(jax.lax.stop_gradient(state.discriminator_params), reconstruction)
            terms["gan"] = weights.gan * gan.generator_loss(logits)
        total = sum(terms.values())
        metrics = {"loss": total} | {f"loss/{k}": v for k, v in terms.items()}
        metrics |= {f"quantizer/{k}": v for k, v in quantized.metrics.items()}
        return total, (reconstruction, updated, metrics)

    def discriminator_loss(self, params: Any, images: jax.Array, reconstruction: jax.Array) -> tuple[Any, Metrics]:
        """Returns (total, metrics); no gradient reaches the autoencoder through `reconstruction`."""
        fake = self._discriminate(params, jax.lax.stop_gradient(reconstruction))
        real = self._discriminate(params, images)
        metrics = {"discriminator/loss": gan.discriminator_loss(real, fake)}
        total = metrics["discriminator/loss"]
        if self.weights.r1:
            metrics["discriminator/r1"] = self.weights.r1 * gan.r1_penalty(self._discriminate, params, images)
            total += metrics["discriminator/r1"]
        metrics |= {"discriminator/real_logit": jnp.mean(real), "discriminator/fake_logit": jnp.mean(fake)}
        return total, metrics

    def _discriminate(self, params: Any, images: jax.Array) -> jax.Array:
        return self.discriminator.apply({"params": params}, images)

    def make_evaluator(self, mesh: Mesh) -> Callable[[AutoencoderState, Iterable[dict]], tuple[dict[str, float], dict]]:
        """The check that the loop makes now and then: EMA weights on some batches -> (scalars, pictures)."""

        def apply(variables: dict[str, Any], batch: dict) -> tuple[jax.Array, ...]:
            return batch["image"], *reconstruct(self.model, variables, batch["image"]), batch["mask"]

        # Replicated outputs: each process then holds the figures of the global batch.
        apply = jax.jit(apply, out_shardings=sharding.replicated(mesh))

        def evaluate(state: AutoencoderState, batches: Iterable[dict]) -> tuple[dict[str, float], dict]:
            usage, squared_error, values, pictures = CodebookUsage(self.model.quantizer.codebook_size), 0.0, 0, {}
            variables = {"params": state.ema_params, "quantizer": state.quantizer_state}
            for batch in batches:
                arrays = apply(variables, sharding.put_batch(batch, mesh))
                images, reconstruction, indices, mask = map(np.asarray, arrays)
                images, reconstruction = images[mask], reconstruction[mask]
                usage.update(indices[mask])
                squared_error += float(np.sum(np.square(images - reconstruction), dtype=np.float64))
                values += images.size
                if not pictures:
                    shown = to_uint8(images[:16]), to_uint8(reconstruction[:16])
                    pictures["reconstructions"] = reconstruction_grid(*shown)
            found = usage.compute()
            scalars = {f"validation/{name}": found[name] for name in ("usage", "entropy_bits")}
            return {"validation/mse": squared_error / values} | scalars, pictures

        return evaluate


def reconstruct(model: Autoencoder, variables: dict[str, Any], images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Images (B, H, W, 3) in [0, 1] -> (reconstructions clipped to [0, 1], indices (B, h, w) int32)."""
    reconstruction, quantized = model.apply(variables, images, train=False)
    return jnp.clip(reconstruction, 0.0, 1.0), quantized.indices
