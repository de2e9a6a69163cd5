"""MaskGIT's BERT-style post-norm transformer over token ids, shared by the masked and the autoregressive model.

Follows `maskgit/nets/maskgit_transformer.py` of google-research/maskgit. Modules and parameters carry the published
names (`TransformerLayer_0/Attention_0/self_attention/query/kernel`), so published checkpoints load by name.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from fsq_repro.models.attention import attend

LAYER_NORM_EPSILON = 1e-12
# Of the normal before it is cut at two deviations: the weights' own deviation is 0.88 * 0.02, as in the published code.
INITIALIZER = nn.initializers.truncated_normal(0.02)


class Layer(nn.Module):
    """What the layers share: the rate of dropout, whether it is switched off, and the dtype of the computation."""

    dropout: float
    deterministic: bool
    dtype: Any


class Embed(Layer):
    """Ids (B, T) and their positions (T,) -> (vectors (B, T, width), word embeddings float32 (V, width))."""

    vocabulary_size: int
    num_positions: int
    width: int

    @nn.compact
    def __call__(self, ids_BxT: Array, positions_T: Array) -> tuple[Array, Array]:
        embed = {"features": self.width, "embedding_init": INITIALIZER, "dtype": self.dtype}
        words = nn.Embed(self.vocabulary_size, **embed, name="word_embeddings")
        positions = nn.Embed(self.num_positions, **embed, name="position_embeddings")
        x = words(ids_BxT) + positions(positions_T[None, :])
        x = nn.LayerNorm(LAYER_NORM_EPSILON, dtype=self.dtype, name="embeddings_ln")(x)
        return nn.Dropout(self.dropout)(x, deterministic=self.deterministic), words.embedding


class SelfAttention(Layer):
    """Linen's MultiHeadDotProductAttention of its input with itself: the same parameters by name, shape and value.

    Query, key and value are one product. Arguments as of `Attention`.
    """

    num_heads: int

    @nn.compact
    def __call__(self, x_BxTxD: Array, mask: Array | None, position: Array | None) -> Array:
        B, T, D = x_BxTxD.shape
        H, d = self.num_heads, D // self.num_heads
        projections = [HeadProjection(H, d, name=name)(D) for name in ("query", "key", "value")]
        kernel_Dx3xHxd, bias_3xHxd = (jnp.stack(parts, axis=-3) for parts in zip(*projections, strict=True))
        x, kernel, bias = nn.dtypes.promote_dtype(x_BxTxD, kernel_Dx3xHxd, bias_3xHxd, dtype=self.dtype)
        heads_BxTx3xHxd = (x @ kernel.reshape(D, 3 * D)).reshape(B, T, 3, H, d) + bias[None, None]
        query, key, value = (heads_BxTx3xHxd[:, :, i] for i in range(3))
        if position is not None:
            cache_shape = (B, mask.shape[-1], H, d)
            keys = self.variable("cache", "keys", jnp.zeros, cache_shape, self.dtype)
            values = self.variable("cache", "values", jnp.zeros, cache_shape, self.dtype)
            start = (0, position, 0, 0)
            keys.value = key = jax.lax.dynamic_update_slice(keys.value, key, start)
            values.value = value = jax.lax.dynamic_update_slice(values.value, value, start)
        keep = None
        if self.dropout and not self.deterministic:
            # One pattern (T, L) for all examples and heads, as published.
            kept_1x1xTxL = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.dropout, (1, 1, T, T))
            keep = kept_1x1xTxL / jnp.float32(1 - self.dropout)
        y_BxTxHxd = attend(query, key, value, mask, keep)
        out = nn.DenseGeneral(D, axis=(-2, -1), kernel_init=INITIALIZER, dtype=self.dtype, name="out")
        return out(y_BxTxHxd)


class HeadProjection(nn.Module):
    """Parameters of a projection to heads, as Linen's DenseGeneral has them: kernel (D, H, d) and bias (H, d)."""

    num_heads: int
    head_width: int

    @nn.compact
    def __call__(self, width: int) -> tuple[Array, Array]:
        heads = (self.num_heads, self.head_width)
        kernel = self.param("kernel", INITIALIZER, (width, *heads), jnp.float32)
        return kernel, self.param("bias", nn.initializers.zeros, heads, jnp.float32)


class Attention(Layer):
    """Self-attention, dropout, residual and LayerNorm: (B, T, width) -> (B, T, width).

    `mask` is boolean (1, 1, T, L), True where position t may look at position l, or None. With `position` (int32
    scalar) this is one step of decoding: T is 1, keys and values of the L positions are kept in the collection
    `cache` as (B, L, heads, width / heads), and this call writes those of `position`.
    """

    num_heads: int

    @nn.compact
    def __call__(self, x_BxTxD: Array, mask: Array | None, position: Array | None) -> Array:
        shared = (self.dropout, self.deterministic, self.dtype)
        y = SelfAttention(*shared, self.num_heads, name="self_attention")(x_BxTxD, mask, position)
        y = nn.Dropout(self.dropout)(y, deterministic=self.deterministic)
        return nn.LayerNorm(LAYER_NORM_EPSILON, dtype=self.dtype, name="attention_output_ln")(y + x_BxTxD)


class Mlp(Layer):
    """Two dense layers with GELU (the tanh form), dropout, residual and LayerNorm: (B, T, width) -> (B, T, width)."""

    mlp_width: int

    @nn.compact
    def __call__(self, x_BxTxD: Array) -> Array:
        dense = {"kernel_init": INITIALIZER, "dtype": self.dtype}
        y = nn.gelu(nn.Dense(self.mlp_width, **dense, name="intermediate_output")(x_BxTxD))
        y = nn.Dense(x_BxTxD.shape[-1], **dense, name="layer_output")(y)
        y = nn.Dropout(self.dropout)(y, deterministic=self.deterministic)
        return nn.LayerNorm(LAYER_NORM_EPSILON, dtype=self.dtype, name="layer_output_ln")(y + x_BxTxD)


class TransformerLayer(Layer):
    """Attention, then MLP; arguments as of `Attention`."""

    num_heads: int
    mlp_width: int

    @nn.compact
    def __call__(self, x_BxTxD: Array, mask: Array | None, position: Array | None) -> Array:
        shared = (self.dropout, self.deterministic, self.dtype)
        x = Attention(*shared, self.num_heads)(x_BxTxD, mask, position)
        return Mlp(*shared, self.mlp_width)(x)


class Bias(nn.Module):
    """Adds a learned float32 vector along the last axis (a module of its own for the published name)."""

    @nn.compact
    def __call__(self, x_BxTxV: Array) -> Array:
        bias_V = self.param("bias", nn.initializers.zeros, (x_BxTxV.shape[-1],), jnp.float32)
        return x_BxTxV + bias_V[None, None, :]


class MlmLayer(nn.Module):
    """Vectors (B, T, width) -> logits float32 (B, T, V) over the word embeddings (V, width)."""

    dtype: Any

    @nn.compact
    def __call__(self, x_BxTxD: Array, embeddings_VxD: Array) -> Array:
        dense = nn.Dense(x_BxTxD.shape[-1], kernel_init=INITIALIZER, dtype=self.dtype, name="mlm_dense")
        x = nn.LayerNorm(LAYER_NORM_EPSILON, dtype=self.dtype, name="mlm_ln")(nn.gelu(dense(x_BxTxD)))
        # Products of the compute dtype, summed and kept in float32.
        logits = jnp.einsum("btd,vd->btv", x, embeddings_VxD.astype(self.dtype), preferred_element_type=jnp.float32)
        return Bias(name="mlm_bias")(logits)


class TokenTransformer(nn.Module):
    """What the two models over tokens share: the vocabulary, the sizes and the network.

    Ids: 0..K-1 are the codes, K + label the classes, K + num_classes the mask (the last row, where the published
    code's -1 ends up). A label equal to `num_classes` therefore puts the mask into the class slot: "no class", which
    classifier-free guidance trains and samples with (paper section 4.3).

    Attributes:
      codebook_size, num_classes: number of codes, K, and of class labels.
      num_tokens: tokens of an image, S.
      width, num_layers, num_heads, mlp_width: of the network; the defaults are MaskGIT's.
      dropout: rate after the embeddings, on the attention probabilities, and after attention and MLP.
      remat: compute each layer again in the backward pass instead of keeping its activations.
      dtype: of the computation; parameters, statistics of softmax and LayerNorm, and logits are float32.

    Raises ValueError where the sizes cannot work.
    """

    codebook_size: int
    num_classes: int
    num_tokens: int
    width: int = 768
    num_layers: int = 24
    num_heads: int = 16
    mlp_width: int = 3072
    dropout: float = 0.1
    remat: bool = False
    dtype: Any = jnp.float32

    @property
    def mask_id(self) -> int:
        """Id of a masked token, and of "no class"."""
        return self.codebook_size + self.num_classes

    @property
    def vocabulary_size(self) -> int:
        """Number of ids, V: codes, classes and the mask."""
        return self.mask_id + 1

    @nn.compact
    def network(
        self,
        ids_BxT: Array,
        *,
        num_positions: int,
        train: bool,
        mask: Array | None = None,
        position: Array | None = None,
        first: int = 0,
    ) -> Array:
        """Ids int32 (B, T) at positions 0..T-1, or one id each at `position` -> logits float32 (B, T - first, V).

        `mask` and `position` as of `Attention`; `num_positions` is the number of position embeddings. The logits are
        those of the positions from `first` on.
        """
        if self.num_heads < 1 or self.width % self.num_heads:
            raise ValueError(f"num_heads is {self.num_heads}, but must divide the width of {self.width}.")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is {self.dropout}, but must be at least 0 and below 1.")
        shared = (self.dropout, not train, self.dtype)
        positions_T = jnp.arange(ids_BxT.shape[1]) if position is None else position[None]
        embed = Embed(*shared, self.vocabulary_size, num_positions, self.width)
        x_BxTxD, embeddings_VxD = embed(ids_BxT, positions_T)
        layer_class = nn.remat(TransformerLayer) if self.remat else TransformerLayer
        for i in range(self.num_layers):
            layer = layer_class(*shared, self.num_heads, self.mlp_width, name=f"TransformerLayer_{i}")
            x_BxTxD = layer(x_BxTxD, mask, position)
        return MlmLayer(self.dtype)(x_BxTxD[:, first:], embeddings_VxD)
