"""The causal twin of the masked transformer: predicts the tokens of an image one by one in raster order."""

import jax
import jax.numpy as jnp
from jax import Array

from fsq_repro.models.transformer_layers import TokenTransformer


class AutoregressiveTransformer(TokenTransformer):
    """MaskGIT's network with causal attention (attributes and ids as of `TokenTransformer`).

    Its input is the class followed by all tokens but the last, so it has S positions, one fewer than the masked model.
    """

    def __call__(self, tokens_BxS: Array, labels_B: Array, *, train: bool = False) -> Array:
        """Logits of every token given the class and the tokens before it (teacher forcing).

        Codes int32 (B, S) -> float32 (B, S, V), else as of `MaskedTransformer`. Entry i belongs to token i.
        """
        ids = jnp.concatenate([self.codebook_size + labels_B[:, None], tokens_BxS[:, :-1]], axis=1)
        S = self.num_tokens
        causal_1x1xSxS = jnp.tril(jnp.ones((S, S), bool))[None, None]
        return self.network(ids, num_positions=S, train=train, mask=causal_1x1xSxS)

    def decode_step(self, ids_B: Array, position: Array) -> Array:
        """Logits float32 (B, V) of token `position`; reads and writes the collection `cache` (see `init_cache`).

        Args:
          ids_B: int32, the class id (K + label) at position 0, afterwards the token at position - 1.
          position: int32 scalar in 0..S-1, may be traced; positions must come in order.
        """
        visible_1x1x1xS = (jnp.arange(self.num_tokens) <= position)[None, None, None]
        logits = self.network(
            ids_B[:, None], num_positions=self.num_tokens, train=False, mask=visible_1x1x1xS, position=position
        )
        return logits[:, 0]


def init_cache(model: AutoregressiveTransformer, batch_size: int):
    """Zeros for the `cache` collection of `decode_step`: keys and values (B, S, heads, width / heads) a layer.

    Computes nothing but the shapes. The same cache may be used again from position 0 on: a step looks only at
    positions up to its own, which it and the steps before it have written.
    """
    ids_B, position = jnp.zeros(batch_size, jnp.int32), jnp.int32(0)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), ids_B, position, method="decode_step"))
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), variables["cache"])
