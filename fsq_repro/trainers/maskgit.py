"""Stage II: a transformer over the tokens of a trained stage-I autoencoder (MaskGIT; paper 4.2, 4.3, A.4.2).

MaskGIT's own training loop was never released. What its configs, the same group's magvit trainer and the paper say is
followed: loss on masked tokens, 10% of labels replaced by the mask token, AdamW, an average of the parameters. The
autoencoder is frozen: batches bring tokens, or images that are encoded in the step.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import Mesh

from fsq_repro.data.images import to_uint8
from fsq_repro.runtime import sharding
from fsq_repro.trainers.accumulation import accumulate
from fsq_repro.trainers.check_totals import make_totals
from fsq_repro.trainers.generators import Generator
from fsq_repro.visualization.grids import image_grid

Metrics = dict[str, jax.Array]
PICTURES_PER_CHECK = 16


@struct.dataclass
class MaskGITState:
    """All that a bitwise resume needs."""

    step: jax.Array
    rng: jax.Array
    params: Any
    ema_params: Any
    opt_state: Any


@dataclasses.dataclass(frozen=True)
class MaskGITTrainer:
    """Stage-II trainer; attributes and methods as of `loop.Trainer`, and:

    Attributes:
      generator: masked or autoregressive.
      ema_decay: decay of the average of the parameters that sampling and evaluation use.
      label_drop: share of the labels that are replaced by "no class".
      tokenizer: stage I's autoencoder, an `inference.tokenizer.Tokenizer`.
      encode: batches bring images, which the step encodes; otherwise they bring tokens.
    """

    generator: Generator
    optimizer: optax.GradientTransformation
    ema_decay: float
    label_drop: float
    tokenizer: Any
    encode: bool
    accumulate_steps: int = 1

    def load_frozen(self) -> Any:
        """The autoencoder's arrays where the step encodes, {} elsewhere."""
        return jax.tree.map(np.asarray, self.tokenizer.variables) if self.encode else {}

    def init_state(self, rng: jax.Array) -> MaskGITState:
        model_key, state_key = jax.random.split(rng)
        tokens = jnp.zeros((1, self.generator.grid**2), jnp.int32)
        params = self.generator.model.init(model_key, tokens, jnp.zeros(1, jnp.int32))["params"]
        return MaskGITState(
            step=jnp.zeros((), jnp.int32),
            rng=state_key,
            params=params,
            ema_params=jax.tree.map(jnp.copy, params),
            opt_state=self.optimizer.init(params),
        )

    def train_step(self, state: MaskGITState, frozen: Any, batch: dict[str, jax.Array]) -> tuple[MaskGITState, Metrics]:
        """One step on `tokens` int32 (B, S), or `image` (B, H, W, 3) in [0, 1], and `label` int32 (B,)."""
        drop_key, loss_key = jax.random.split(jax.random.fold_in(state.rng, state.step))
        dropped_B = jax.random.bernoulli(drop_key, self.label_drop, batch["label"].shape)
        labels_B = jnp.where(dropped_B, self.generator.model.num_classes, batch["label"])
        predicted_BxS, dropout_key = self.generator.draw(loss_key, len(labels_B))

        def gradients(batch: dict[str, jax.Array], number: int | jax.Array) -> tuple[Any, Any]:
            tokens = self.tokenizer.encode_with(frozen, batch["image"]) if self.encode else batch["tokens"]
            tokens_BxS = tokens.reshape(len(tokens), -1)
            key = dropout_key if self.accumulate_steps == 1 else jax.random.fold_in(dropout_key, number)
            grad = jax.value_and_grad(self.generator.loss, has_aux=True)
            (_, metrics), grads = grad(state.params, tokens_BxS, batch["label"], batch["predicted"], key)
            return (grads, metrics), ()

        batch = batch | {"label": labels_B, "predicted": predicted_BxS}
        (grads, metrics), _ = accumulate(gradients, batch, self.accumulate_steps)
        updates, opt_state = self.optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return state.replace(
            step=state.step + 1,
            params=params,
            ema_params=optax.incremental_update(params, state.ema_params, 1 - self.ema_decay),
            opt_state=opt_state,
        ), metrics | {"gradient_norm": optax.global_norm(grads)}

    def make_evaluator(self, mesh: Mesh) -> Callable[[MaskGITState, Iterable[dict]], tuple[dict[str, float], dict]]:
        """The check that the loop makes now and then: EMA weights on validation tokens -> (scalars, pictures).

        Accuracy and bits a token are given by mask ratio, with `marginal_entropy_bits` beside them: a model that has
        learned anything stays below it, also where its accuracy looks low (a few per cent are normal at 2^12 codes).
        """

        def measure(params: Any, batch: dict[str, jax.Array]) -> tuple[jax.Array, Metrics]:
            return batch["tokens"], self.generator.probe(params, batch["tokens"], batch["label"])

        model = self.generator.model
        totals = make_totals(measure, model.codebook_size, mesh)
        labels_P = np.arange(PICTURES_PER_CHECK) % model.num_classes

        def sample(params: Any) -> jax.Array:
            return self.generator.sample(params, jax.random.key(0), jnp.arange(PICTURES_PER_CHECK), labels_P)

        sample = jax.jit(sample, out_shardings=sharding.replicated(mesh))

        def evaluate(state: MaskGITState, batches: Iterable[dict]) -> tuple[dict[str, float], dict]:
            usage, sums, count = totals(state.ema_params, batches)
            scalars = {f"validation/{name}": total / count for name, total in sums.items()}
            scalars["validation/marginal_entropy_bits"] = usage["entropy_bits"]

            tokens = np.asarray(sample(state.ema_params))
            images = self.tokenizer.decode(tokens.reshape(-1, self.generator.grid, self.generator.grid))
            return scalars, {"samples": image_grid(to_uint8(np.asarray(images)))}

        return evaluate
