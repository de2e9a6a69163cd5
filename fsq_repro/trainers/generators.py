"""The two generators of tokens, behind one interface: masked (MaskGIT) and autoregressive, over the same layers.

A generator is a network together with its training loss, its sampler and the order in which it codes tokens. Tokens
are int32 (B, S) in raster order, labels int32 (B,); the label `num_classes` means "no class" (the mask token in the
class's place), which guidance and label dropping use.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fsq_repro.losses.token_loss import is_likeliest, smoothed_cross_entropy
from fsq_repro.metrics.compression import masked_token_bits, token_bits
from fsq_repro.models.autoregressive_transformer import init_cache
from fsq_repro.models.transformer_layers import TokenTransformer
from fsq_repro.sampling.autoregressive_decoding import autoregressive_decode
from fsq_repro.sampling.guidance import guide, guide_step, is_unguided
from fsq_repro.sampling.mask_schedules import m2t_groups, random_masks, raster_groups
from fsq_repro.sampling.parallel_decoding import sample_keys
from fsq_repro.sampling.registry import Sampler

PROBED_RATIOS = (0.45, 0.6, 0.75, 0.9, 1.0)  # of masked tokens, from the training bound of A.4.2 to all


@dataclasses.dataclass(frozen=True)
class TokenGenerator:
    """What both share; there are `grid` tokens along one side, S = grid^2."""

    model: TokenTransformer
    grid: int
    label_smoothing: float

    def logits(self, params: Any, tokens_BxS: jax.Array, labels_B: jax.Array) -> jax.Array:
        """Logits float32 (B, S, K) of the codes, given the tokens that are not `mask_id` or, causally, those before."""
        return self.model.apply({"params": params}, tokens_BxS, labels_B)[..., : self.model.codebook_size]

    def loss(
        self, params: Any, tokens_BxS: jax.Array, labels_B: jax.Array, predicted_BxS: jax.Array, dropout_key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Training loss on the tokens to predict, mean over examples, with dropout, and metrics."""
        rngs, inputs_BxS = {"dropout": dropout_key}, self._inputs(tokens_BxS, predicted_BxS)
        logits = self.model.apply({"params": params}, inputs_BxS, labels_B, train=True, rngs=rngs)
        loss = smoothed_cross_entropy(logits, tokens_BxS, predicted_BxS.astype(jnp.float32), self.label_smoothing)
        hits_BxS = is_likeliest(logits[..., : self.model.codebook_size], tokens_BxS)
        return loss, {"loss": loss} | self._shares(hits_BxS, predicted_BxS)


@dataclasses.dataclass(frozen=True)
class MaskedGenerator(TokenGenerator):
    """MaskGIT: masked tokens are predicted together and decoded in a few parallel steps by `sampler`.

    `min_ratio` and `bound` are of training, see `random_masks`; `m2t_alpha` and `m2t_num_groups` of `m2t_groups`,
    the schedule that compression uses.
    """

    min_ratio: float
    bound: str
    sampler: Sampler
    m2t_alpha: float
    m2t_num_groups: int

    name = "masked"

    def draw(self, rng: jax.Array, batch_size: int) -> tuple[jax.Array, jax.Array]:
        """What a step on a batch draws: the tokens to predict, which are masked, bool (B, S), and a key for dropout."""
        mask_key, dropout_key = jax.random.split(rng)
        masks = random_masks(mask_key, batch_size, self.grid**2, min_ratio=self.min_ratio, bound=self.bound)
        return masks, dropout_key

    def _inputs(self, tokens_BxS: jax.Array, masked_BxS: jax.Array) -> jax.Array:
        return jnp.where(masked_BxS, self.model.mask_id, tokens_BxS)

    def _shares(self, hits_BxS: jax.Array, masked_BxS: jax.Array) -> dict[str, jax.Array]:
        return {
            "masked_accuracy": jnp.sum(hits_BxS & masked_BxS) / jnp.sum(masked_BxS),
            "mask_ratio": jnp.mean(masked_BxS.astype(jnp.float32)),
        }

    def sample(self, params: Any, key: jax.Array, indices_B: jax.Array, labels_B: jax.Array, guidance: Any = 0):
        """Tokens of the samples with these global indices: the same for any batch and number of devices."""
        logits_fn = guide(functools.partial(self.logits, params), guidance, self.model.num_classes)
        return self.sampler(logits_fn, sample_keys(key, indices_B), labels_B, self.grid**2, self.model.mask_id)

    def probe(self, params: Any, tokens_BxS: jax.Array, labels_B: jax.Array) -> dict[str, jax.Array]:
        """Per example, by share of masked tokens: accuracy and cost in bits of the masked tokens, float32 (B,).

        The masked positions of example i of a batch are always the same.
        """
        noise_BxS = jax.random.uniform(jax.random.key(0), tokens_BxS.shape)
        rank_BxS = jnp.argsort(jnp.argsort(noise_BxS, axis=1), axis=1)
        values = {}
        for ratio in PROBED_RATIOS:
            masked_BxS = rank_BxS < int(np.ceil(ratio * tokens_BxS.shape[1]))
            logits = self.logits(params, self._inputs(tokens_BxS, masked_BxS), labels_B)
            for name, value_BxS in _accuracy_and_bits(logits, tokens_BxS).items():
                sum_B = jnp.sum(jnp.where(masked_BxS, value_BxS, 0.0), 1)
                values[f"{name}_at_{ratio:g}"] = sum_B / jnp.sum(masked_BxS, 1)
        return values

    @property
    def groups(self) -> list[np.ndarray]:
        """The order in which compression codes the positions: M2T's schedule."""
        return m2t_groups(self.grid, self.grid, alpha=self.m2t_alpha, num_groups=self.m2t_num_groups)

    def token_bits(self, params: Any, tokens_BxS: jax.Array, labels_B: jax.Array) -> jax.Array:
        """Cost of each token in bits, float32 (B, S)."""
        logits_fn = functools.partial(self.logits, params)
        return masked_token_bits(logits_fn, tokens_BxS, labels_B, self.groups, self.model.mask_id)

    def sampler_protocol(self) -> dict:
        return self.sampler.protocol()

    def compression_protocol(self) -> dict:
        return {"order": f"M2T, alpha {self.m2t_alpha:g}, {self.m2t_num_groups} groups ({len(self.groups)} not empty)"}


@dataclasses.dataclass(frozen=True)
class AutoregressiveGenerator(TokenGenerator):
    """The same tokens one after the other in raster order, with cached keys and values."""

    name = "autoregressive"

    def draw(self, rng: jax.Array, batch_size: int) -> tuple[jax.Array, jax.Array]:
        """See `MaskedGenerator.draw`; all tokens are predicted."""
        return jnp.ones((batch_size, self.grid**2), bool), rng

    def _inputs(self, tokens_BxS: jax.Array, predicted_BxS: jax.Array) -> jax.Array:
        return tokens_BxS  # the network is causal

    def _shares(self, hits_BxS: jax.Array, predicted_BxS: jax.Array) -> dict[str, jax.Array]:
        return {"accuracy": jnp.mean(hits_BxS.astype(jnp.float32))}

    def sample(self, params: Any, key: jax.Array, indices_B: jax.Array, labels_B: jax.Array, guidance: Any = 0):
        """See `MaskedGenerator.sample`."""
        model = self.model

        def step(cache: Any, ids_B: jax.Array, position: jax.Array) -> tuple[jax.Array, Any]:
            variables = {"params": params, "cache": cache}
            logits, updated = model.apply(variables, ids_B, position, method="decode_step", mutable=["cache"])
            return logits[:, : model.codebook_size], updated["cache"]

        cache = init_cache(model, len(labels_B) if is_unguided(guidance) else 2 * len(labels_B))
        guided, class_ids_B = guide_step(step, guidance, model.mask_id), model.codebook_size + labels_B
        return autoregressive_decode(guided, cache, class_ids_B, sample_keys(key, indices_B), self.grid**2)

    def probe(self, params: Any, tokens_BxS: jax.Array, labels_B: jax.Array) -> dict[str, jax.Array]:
        """Per example: accuracy and cost in bits a token, float32 (B,)."""
        values = _accuracy_and_bits(self.logits(params, tokens_BxS, labels_B), tokens_BxS)
        return {name: jnp.mean(value_BxS, 1) for name, value_BxS in values.items()}

    @property
    def groups(self) -> list[np.ndarray]:
        """Raster order, one position at a time."""
        return raster_groups(self.grid**2)

    def token_bits(self, params: Any, tokens_BxS: jax.Array, labels_B: jax.Array) -> jax.Array:
        return token_bits(self.logits(params, tokens_BxS, labels_B), tokens_BxS)

    def sampler_protocol(self) -> dict:
        return {"sampler": "autoregressive, raster order, temperature 1"}

    def compression_protocol(self) -> dict:
        return {"order": "raster, teacher-forced"}


Generator = MaskedGenerator | AutoregressiveGenerator


def _accuracy_and_bits(logits_BxSxK: jax.Array, tokens_BxS: jax.Array) -> dict[str, jax.Array]:
    log_probs = jax.nn.log_softmax(logits_BxSxK)
    log_prob_BxS = jnp.take_along_axis(log_probs, tokens_BxS[..., None], axis=-1)[..., 0]
    hits_BxS = is_likeliest(logits_BxSxK, tokens_BxS)
    return {"accuracy": hits_BxS.astype(jnp.float32), "bits": -log_prob_BxS / np.log(2)}
