"""MaskGIT's bidirectional transformer: predicts the masked tokens of an image from the others and the class."""

import jax.numpy as jnp
from jax import Array

from fsq_repro.models.transformer_layers import TokenTransformer


class MaskedTransformer(TokenTransformer):
    """The masked model of stage II (paper section 4.2; attributes and ids as of `TokenTransformer`)."""

    def __call__(self, tokens_BxS: Array, labels_B: Array, *, train: bool = False) -> Array:
        """Logits of every token given the unmasked ones and the class.

        Tokens int32, codes or `mask_id`, and labels int32 in 0..num_classes, which is "no class" -> float32 (B, S, V)
        over the whole vocabulary, the codes first. `train` is with dropout (rng `dropout` where the rate is above 0).
        """
        ids = jnp.concatenate([self.codebook_size + labels_B[:, None], tokens_BxS], axis=1)
        # The published module's call has the class's logits too.
        return self.network(ids, num_positions=self.num_tokens + 1, train=train, first=1)
