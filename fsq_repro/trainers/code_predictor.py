"""UViM's stage II: a transformer that predicts from the image the codes that stage I gives to its labels (paper 4.4).

Follows google-research/big_vision `trainers/proj/uvim/train.py`: stage I is frozen and codes each batch of labels in
the step, since they are cropped anew every time; cross-entropy, mean over codes, no smoothing.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import Mesh

from fsq_repro.losses.token_loss import is_likeliest
from fsq_repro.models.code_predictor import START, CodePredictor
from fsq_repro.runtime import sharding
from fsq_repro.sampling.autoregressive_decoding import autoregressive_decode
from fsq_repro.tasks.base import Arrays
from fsq_repro.trainers.accumulation import accumulate
from fsq_repro.trainers.check_totals import make_totals


@struct.dataclass
class CodePredictorState:
    """All that a bitwise resume needs: nothing in the step is random."""

    step: jax.Array
    params: Any
    opt_state: Any


@dataclasses.dataclass(frozen=True)
class CodePredictorTrainer:
    """Stage-II trainer; attributes and methods as of `loop.Trainer`, and:

    Attributes:
      coder: stage I, an `inference.label_coder.LabelCoder`.
      temperature: of the decoding, 0 for the likeliest code.
    """

    model: CodePredictor
    optimizer: optax.GradientTransformation
    coder: Any
    temperature: float
    accumulate_steps: int = 1

    def load_frozen(self) -> Any:
        """Stage I's arrays."""
        return jax.tree.map(np.asarray, self.coder.variables)

    def init_state(self, rng: jax.Array) -> CodePredictorState:
        images = jnp.zeros((1, self.model.image_size, self.model.image_size, 3))
        params = self.model.init(rng, images, jnp.zeros((1, self.model.num_codes), jnp.int32))["params"]
        return CodePredictorState(step=jnp.zeros((), jnp.int32), params=params, opt_state=self.optimizer.init(params))

    def train_step(self, state: CodePredictorState, frozen: Any, batch: Arrays) -> tuple[Any, Arrays]:
        """One step on a prepared batch (see `tasks.base`); returns the new state and float32 scalars."""

        def gradients(batch: Arrays, _: int | jax.Array) -> tuple[Any, Any]:
            codes_BxS = self.coder.encode_with(frozen, batch)

            def loss_fn(params: Any) -> tuple[jax.Array, jax.Array]:
                nats_BxS, correct_BxS = self.code_losses(params, batch["context"], codes_BxS)
                return jnp.mean(nats_BxS), jnp.mean(correct_BxS, dtype=jnp.float32)

            return jax.value_and_grad(loss_fn, has_aux=True)(state.params), ()

        ((loss, accuracy), grads), _ = accumulate(gradients, batch, self.accumulate_steps)
        updates, opt_state = self.optimizer.update(grads, state.opt_state, state.params)
        return state.replace(
            step=state.step + 1, params=optax.apply_updates(state.params, updates), opt_state=opt_state
        ), {"loss": loss, "accuracy": accuracy, "gradient_norm": optax.global_norm(grads)}

    def code_losses(self, params: Any, context: jax.Array, codes_BxS: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Cross-entropy of each code in nats, float32 (B, S), and whether it is the likeliest, bool (B, S)."""
        logits_BxSxV = self.model.apply({"params": params}, context, codes_BxS)
        targets_BxS = codes_BxS + 1  # entry 0 is the start
        nats_BxS = optax.softmax_cross_entropy_with_integer_labels(logits_BxSxV, targets_BxS)
        return nats_BxS, is_likeliest(logits_BxSxV, targets_BxS)

    def predict_codes(self, params: Any, context: jax.Array, keys_B: jax.Array) -> jax.Array:
        """Images (B, H, W, 3) in [-1, 1] and a key each -> codes int32 (B, S)."""
        variables = {"params": params}
        cache = self.model.apply(variables, context, method="init_cache")
        step = functools.partial(self.model.apply, variables, method="decode_step")
        start_B = jnp.full(len(context), START, jnp.int32)
        return autoregressive_decode(step, cache, start_B, keys_B, self.model.num_codes, self.temperature)

    def make_evaluator(self, mesh: Mesh) -> Callable[[CodePredictorState, Iterable[dict]], tuple[dict, dict]]:
        """The check that the loop makes now and then: bits a code and accuracy on some validation batches.

        `validation/marginal_entropy_bits` stands beside them: a model that looks at the image is below it.
        """

        def measure(variables: tuple[Any, Any], batch: Arrays) -> tuple[jax.Array, Arrays]:
            params, frozen = variables
            codes_BxS = self.coder.encode_with(frozen, batch)
            nats_BxS, correct_BxS = self.code_losses(params, batch["context"], codes_BxS)
            return codes_BxS, {"nats": nats_BxS, "correct": correct_BxS}

        totals = make_totals(measure, self.model.codebook_size, mesh)
        frozen = jax.device_put(self.load_frozen(), sharding.replicated(mesh))

        def evaluate(state: CodePredictorState, batches: Iterable[dict]) -> tuple[dict[str, float], dict]:
            usage, sums, _ = totals((state.params, frozen), batches)
            return {
                "validation/bits": sums["nats"] / np.log(2) / usage["tokens"],
                "validation/accuracy": sums["correct"] / usage["tokens"],
                "validation/marginal_entropy_bits": usage["entropy_bits"],
            }, {}

        return evaluate
