"""UViM's stage II: a ViT encoder of the image and a causal decoder that predicts the label's codes one by one.

Follows `models/proj/uvim/vtt.py` of google-research/big_vision without dropout, which all of UViM's configs have at 0.
Modules and parameters carry the published names (`decoder/EncDecBlock0/CrossAttn/query/kernel`), so published
checkpoints load by name.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from fsq_repro.models.vit_layers import LAYER_NORM_EPSILON, Encoder, MlpBlock, PatchEmbed, check_sizes, position_init

START = -1  # what the decoder is fed in front of the first code


class LayerCache(NamedTuple):
    """What one decoder layer keeps while it decodes, each (B, length, heads, width / heads)."""

    keys: Array  # of the S positions, written one by one
    values: Array
    memory_keys: Array  # of the P patches, computed once
    memory_values: Array


class Attention(nn.Module):
    """Linen's multi-head attention without biases, in two steps, so that keys and values can be kept."""

    width: int
    num_heads: int
    dtype: Any

    def setup(self):
        heads = (self.num_heads, self.width // self.num_heads)
        dense = functools.partial(nn.DenseGeneral, use_bias=False, dtype=self.dtype)
        self.query, self.key, self.value = dense(heads), dense(heads), dense(heads)
        self.out = dense(self.width, axis=(-2, -1))

    def keys_and_values(self, x_BxLxD: Array) -> tuple[Array, Array]:
        """What is attended to: (B, L, width) -> keys and values (B, L, heads, width / heads)."""
        return self.key(x_BxLxD), self.value(x_BxLxD)

    def __call__(self, x_BxTxD: Array, keys: Array, values: Array, mask: Array | None = None) -> Array:
        """(B, T, width) and what `keys_and_values` gave -> (B, T, width); `mask` boolean (B or 1, heads or 1, T, L)."""
        return self.out(jax.nn.dot_product_attention(self.query(x_BxTxD), keys, values, mask=mask))


class DecoderBlock(nn.Module):
    """Self-attention, cross-attention to the memory, MLP: each behind a LayerNorm and added to its input."""

    width: int
    num_heads: int
    mlp_width: int
    dtype: Any

    def setup(self):
        norms = (nn.LayerNorm(LAYER_NORM_EPSILON, dtype=self.dtype, name=f"LayerNorm{i}") for i in (1, 2, 3))
        self.self_norm, self.cross_norm, self.mlp_norm = norms
        attention = functools.partial(Attention, self.width, self.num_heads, self.dtype)
        self.self_attention, self.cross_attention = attention(name="SelfAttn"), attention(name="CrossAttn")
        self.mlp = MlpBlock(self.mlp_width, self.dtype, name="MLP")

    def init_cache(self, memory_BxPxD: Array, num_codes: int) -> LayerCache:
        """Zeros for the positions to come, and the memory's keys and values."""
        memory_keys, memory_values = self.cross_attention.keys_and_values(memory_BxPxD)
        zeros = jnp.zeros((len(memory_BxPxD), num_codes, *memory_keys.shape[2:]), memory_keys.dtype)
        return LayerCache(zeros, zeros, memory_keys, memory_values)

    def __call__(
        self,
        x_BxTxD: Array,
        memory_BxPxD: Array | None,
        mask: Array,
        cache: LayerCache | None = None,
        position: Array | None = None,
    ) -> tuple[Array, LayerCache | None]:
        """(B, T, width) -> (B, T, width), and the cache with this position in it, if there is one.

        `mask` is boolean (1, 1, T, L), True where position t may look at position l. With `cache` and `position`
        (int32 scalar) this is one step of decoding: T is 1, L is S, and the memory is in the cache.
        """
        y = self.self_norm(x_BxTxD)
        keys, values = self.self_attention.keys_and_values(y)
        if cache is None:
            memory_keys, memory_values = self.cross_attention.keys_and_values(memory_BxPxD)
        else:
            start = (0, position, 0, 0)
            keys = jax.lax.dynamic_update_slice(cache.keys, keys, start)
            values = jax.lax.dynamic_update_slice(cache.values, values, start)
            memory_keys, memory_values = cache.memory_keys, cache.memory_values
            cache = LayerCache(keys, values, memory_keys, memory_values)
        x_BxTxD += self.self_attention(y, keys, values, mask)
        x_BxTxD += self.cross_attention(self.cross_norm(x_BxTxD), memory_keys, memory_values)
        return x_BxTxD + self.mlp(self.mlp_norm(x_BxTxD)), cache


class Decoder(nn.Module):
    """Token embedding, blocks, last LayerNorm and output layer, which is computed in float32."""

    num_layers: int
    num_heads: int
    mlp_width: int
    remat: bool
    dtype: Any
    vocabulary_size: int
    width: int
    token_std: float

    def setup(self):
        init, V = nn.initializers.normal(self.token_std), self.vocabulary_size
        self.embed = nn.Embed(V, self.width, embedding_init=init, dtype=self.dtype, name="EmbedTargets")
        block_class = nn.remat(DecoderBlock) if self.remat else DecoderBlock
        self.blocks = [
            block_class(self.width, self.num_heads, self.mlp_width, self.dtype, name=f"EncDecBlock{i}")
            for i in range(self.num_layers)
        ]
        self.norm = nn.LayerNorm(LAYER_NORM_EPSILON, dtype=self.dtype, name="LayerNorm")
        self.head = nn.Dense(V, kernel_init=nn.initializers.zeros, dtype=jnp.float32, name="LogitsDense")

    def __call__(
        self,
        ids_BxT: Array,
        positions_1xTxD: Array,
        memory_BxPxD: Array | None,
        mask: Array,
        cache: list[LayerCache] | None = None,
        position: Array | None = None,
    ) -> tuple[Array, list[LayerCache | None]]:
        """Ids (B, T) and their position embeddings -> (logits float32 (B, T, V), cache); see `DecoderBlock`."""
        x_BxTxD, updated = self.embed(ids_BxT) + positions_1xTxD, []
        for block, layer_cache in zip(self.blocks, cache or [None] * self.num_layers, strict=True):
            x_BxTxD, layer_cache = block(x_BxTxD, memory_BxPxD, mask, layer_cache, position)
            updated.append(layer_cache)
        B, T, D = x_BxTxD.shape
        logits_NxV = self.head(self.norm(x_BxTxD).reshape(B * T, D))  # its gradient is faster on CPU in two dimensions
        return logits_NxV.reshape(B, T, self.vocabulary_size), updated


class CodePredictor(nn.Module):
    """Codes given an image; encoder and decoder have the same sizes, by default those of UViM's configs.

    Code c has row c + 1 of the token embedding and logit c + 1, row 0 is that of `START`: V = codebook_size + 1.

    Attributes:
      codebook_size: number of codes, K.
      num_codes: codes of an image, S.
      image_size, patch_size: sides of the images and of the encoder's patches in pixels; there are P patches.
      width, num_layers, num_heads, mlp_width: of encoder and of decoder.
      token_std: standard deviation of the initial token embeddings; 1 is Linen's and the published code's.
      position_scale: initial position embeddings of both have a deviation of position_scale / sqrt(width).
      remat: see `vit_layers.Encoder`.
      dtype: of the computation; parameters, statistics of softmax and LayerNorm, and logits are float32.

    Raises ValueError where the sizes cannot work.
    """

    codebook_size: int
    num_codes: int = 256
    image_size: int = 512
    patch_size: int = 16
    width: int = 1024
    num_layers: int = 24
    num_heads: int = 16
    mlp_width: int = 4096
    token_std: float = 1.0
    position_scale: float = 1.0
    remat: bool = False
    dtype: Any = jnp.float32

    def setup(self):
        check_sizes(self.width, self.num_heads)
        side, patch = self.image_size, self.patch_size
        if patch < 1 or side < 1 or side % patch:
            raise ValueError(f"image_size is {side}, but must be a multiple of {patch} (patch_size).")
        body = (self.num_layers, self.num_heads, self.mlp_width, self.remat, self.dtype)
        self.patches = PatchEmbed(self.width, patch, self.dtype, name="EmbedPatches")
        self.encoder = Encoder(*body)
        self.decoder = Decoder(*body, self.codebook_size + 1, self.width, self.token_std)
        init, P = position_init(self.width, self.position_scale), (side // patch) ** 2
        self.encoder_positions = self.param("pos_embedding_encoder", init, (1, P, self.width))
        self.decoder_positions = self.param("pos_embedding_decoder", init, (1, self.num_codes, self.width))

    def encode(self, images: Array) -> Array:
        """Images (B, image_size, image_size, 3) in [-1, 1] -> memory (B, P, width) of dtype `dtype`."""
        return self.encoder(self.patches(images) + self.encoder_positions.astype(self.dtype))

    def __call__(self, images: Array, codes_BxS: Array) -> Array:
        """Logits of every code given the image and the codes before it (teacher forcing).

        Images as of `encode` and codes int32 in 0..K-1 -> float32 (B, S, V). Entry i belongs to code i, whose target is
        therefore codes[:, i] + 1.
        """
        S = self.num_codes
        ids_BxS = 1 + jnp.pad(codes_BxS[:, :-1], ((0, 0), (1, 0)), constant_values=START)
        causal_1x1xSxS = jnp.tril(jnp.ones((S, S), bool))[None, None]
        return self.decoder(ids_BxS, self.decoder_positions.astype(self.dtype), self.encode(images), causal_1x1xSxS)[0]

    def init_cache(self, images: Array) -> list[LayerCache]:
        """Encodes images, as of `encode`, for `decode_step`: the cache of each decoder layer, of dtype `dtype`.

        A cache may be used again from position 0 on: a step looks only at positions up to its own.
        """
        memory_BxPxD = self.encode(images)
        return [block.init_cache(memory_BxPxD, self.num_codes) for block in self.decoder.blocks]

    def decode_step(self, cache: list[LayerCache], codes_B: Array, position: Array) -> tuple[Array, list[LayerCache]]:
        """One step of `sampling.autoregressive_decoding.autoregressive_decode`.

        Args:
          cache: of `init_cache` or of the step before.
          codes_B: int32, `START` at position 0, afterwards the code at position - 1.
          position: int32 scalar in 0..S-1, may be traced; positions must come in order.

        Returns logits float32 (B, K) of the codes alone (`START` is never a target), and the updated cache.
        """
        positions_1x1xD = jax.lax.dynamic_slice_in_dim(self.decoder_positions, position, 1, axis=1).astype(self.dtype)
        visible_1x1x1xS = (jnp.arange(self.num_codes) <= position)[None, None, None]
        logits_Bx1xV, cache = self.decoder(
            1 + codes_B[:, None], positions_1x1xD, None, visible_1x1x1xS, cache, position
        )
        return logits_Bx1xV[:, 0, 1:], cache
