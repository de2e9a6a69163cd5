"""UViM's stage I: a ViT autoencoder of dense labels around any quantizer, with the image as context (paper 4.4).

Follows google-research/big_vision (models/proj/uvim/vit.py) with what all three published configs share: the features
are resized linearly to the grid of codes and back, heads start at zero. Parameters carry the published names, so the
published checkpoints load by name; their `state` is the collection `quantizer` of `EmaVectorQuantizer`, which also
standardises its input, as UViM's dictionary needs. FSQ bounds its input itself and gets it as it is.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from fsq_repro.models.autoencoder import depth_to_space, space_to_depth
from fsq_repro.models.vit_layers import Encoder, PatchEmbed, position_init
from fsq_repro.quantizers.base import Quantized


def patchify(x_BxHxWxC: Array, patch: int) -> Array:
    """(B, H, W, C) -> (B, patches, C, patch * patch), patches and the pixels in them in raster order.

    The layout in which the published module takes labels and gives logits.
    """
    B, _, _, C = x_BxHxWxC.shape
    return space_to_depth(x_BxHxWxC, patch).reshape(B, -1, patch**2, C).swapaxes(2, 3)


def unpatchify(x_BxTxCxP: Array, grid: tuple[int, int]) -> Array:
    """The inverse of `patchify` for an image of `grid` = (rows, columns) patches."""
    B, T, C, P = x_BxTxCxP.shape
    return depth_to_space(x_BxTxCxP.swapaxes(2, 3).reshape(B, *grid, P * C), math.isqrt(P))


def resize_grid(x_BxTxD: Array, size: int) -> Array:
    """Linear, antialiased resize of a square grid of tokens: (B, s * s, D) -> (B, size * size, D)."""
    B, T, D = x_BxTxD.shape
    x = x_BxTxD.reshape(B, math.isqrt(T), math.isqrt(T), D)
    return jax.image.resize(x, (B, size, size, D), method="linear").reshape(B, size**2, D)


def kept_codes(key: Array, batch: int, length: int) -> Array:
    """Mask of UViM's "random" code dropout, boolean (batch, length), True where a code is kept.

    Each example draws a threshold u ~ U(0, 1); of `length` importances spread evenly inside (0, 1) those above u are
    kept, at random positions. So any number of kept codes, from none to all, is equally likely.
    """
    threshold_key, position_key = jax.random.split(key)
    thresholds_B = jax.random.uniform(threshold_key, (batch,))
    importance_S = jnp.linspace(1.0, 0.0, length + 2)[1:-1]
    kept_BxS = importance_S[None, :] > thresholds_B[:, None]
    return jax.random.permutation(position_key, kept_BxS, axis=1, independent=True)


class LabelAutoencoder(nn.Module):
    """Label maps -> codes -> label maps, both ways with a look at the image.

    Labels are a dict of float (B, resolution, resolution, channels), one-hot for classes; S = code_grid^2 codes of
    an example are in raster order. The context is the image, (B, resolution, resolution, C) in [-1, 1], and ignored
    (it may be None) where both contexts are switched off.

    Attributes:
      quantizer: any module of `fsq_repro.quantizers`; its `num_channels` is what the encoder emits. With
        `EmaVectorQuantizer(4096, 768)` this is the published model.
      labels: pairs of (label, channels), e.g. (("semantics", 134), ("instances", 100)): one embedding and one head
        each. The embeddings of all labels are summed.
      resolution, patch_size: sides of labels and context and of their patches, in pixels.
      code_grid: codes along one side.
      width, encoder_depth, decoder_depth, num_heads, mlp_width: of the two ViTs; the defaults are the published ones.
      encoder_context, decoder_context: whether that ViT sees the context.
      code_dropout: whether training zeroes a random share of the codes, see `kept_codes`.
      remat: see `vit_layers.Encoder`.
      dtype: of the computation; parameters and logits are float32.

    Raises ValueError where the sizes cannot work.
    """

    quantizer: nn.Module
    labels: tuple[tuple[str, int], ...]
    resolution: int = 512
    patch_size: int = 16
    code_grid: int = 16
    width: int = 768
    encoder_depth: int = 6
    decoder_depth: int = 12
    num_heads: int = 12
    mlp_width: int = 3072
    encoder_context: bool = True
    decoder_context: bool = True
    code_dropout: bool = True
    remat: bool = False
    dtype: Any = jnp.float32

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.resolution // self.patch_size

    def setup(self):
        names = [name for name, _ in self.labels]
        if not names or len(set(names)) < len(names) or any(channels < 1 for _, channels in self.labels):
            raise ValueError(f"labels is {self.labels}, but must be pairs of a label, each once, and its channels.")
        patch, side = self.patch_size, self.resolution
        if patch < 1 or side < 1 or side % patch:
            raise ValueError(f"resolution is {side}, but must be a multiple of patch_size {patch}.")
        if not 1 <= self.code_grid <= self.grid:
            raise ValueError(f"code_grid is {self.code_grid}, but must be in 1..{self.grid} (patches along one side).")
        dtype = {"dtype": self.dtype}
        self.embeddings = {
            name: nn.DenseGeneral(self.width, axis=(-2, -1), **dtype, name=f"embedding_{name}") for name in names
        }
        self.heads = {
            name: nn.DenseGeneral((channels, patch**2), kernel_init=nn.initializers.zeros, **dtype, name=f"head_{name}")
            for name, channels in self.labels
        }
        if self.encoder_context:
            self.ctx_enc_embedding = PatchEmbed(self.width, patch, **dtype)
        if self.decoder_context:
            self.ctx_dec_embedding = PatchEmbed(self.width, patch, **dtype)
        positions = (position_init(self.width), (1, self.grid**2, self.width))
        self.pos_embedding_encoder = self.param("pos_embedding_encoder", *positions)
        self.pos_embedding_decoder = self.param("pos_embedding_decoder", *positions)
        self.encoder = Encoder(self.encoder_depth, self.num_heads, self.mlp_width, self.remat, **dtype)
        self.decoder = Encoder(self.decoder_depth, self.num_heads, self.mlp_width, self.remat, **dtype)
        self.encoder_head = nn.Dense(self.quantizer.num_channels, **dtype)
        self.decoder_stem = nn.Dense(self.width, **dtype)

    def encode(self, labels: dict[str, Array], context: Array | None) -> Array:
        """Labels, and the context if the encoder sees it -> z (B, S, num_channels), not yet quantized."""
        x_BxTxD = sum(embed(patchify(labels[name], self.patch_size)) for name, embed in self.embeddings.items())
        if self.encoder_context:
            x_BxTxD += self.ctx_enc_embedding(context)
        x_BxTxD = self.encoder(x_BxTxD + self.pos_embedding_encoder.astype(self.dtype))
        return self.encoder_head(resize_grid(x_BxTxD, self.code_grid))

    def draw_kept_codes(self, batch: int) -> Array:
        """`kept_codes` of a training batch, from the rng stream `dropout`."""
        return kept_codes(self.make_rng("dropout"), batch, self.code_grid**2)

    def decode(
        self, codes: Array, context: Array | None, *, train: bool = False, kept_BxS: Array | None = None
    ) -> dict[str, Array]:
        """Codes, and the context if the decoder sees it -> logits (or the values of a regression) of each label.

        Codes (B, S, num_channels) -> {label: float32 (B, resolution, resolution, channels)}. `train` applies code
        dropout, a dropped code is the zero vector; `kept_BxS` says which codes are kept where these are a part of a
        training batch, boolean (B, S), drawn by default.
        """
        if train and self.code_dropout:
            kept_BxS = self.draw_kept_codes(len(codes)) if kept_BxS is None else kept_BxS
            codes = jnp.where(kept_BxS[:, :, None], codes, 0)
        x_BxTxD = resize_grid(self.decoder_stem(codes), self.grid)
        if self.decoder_context:
            x_BxTxD += self.ctx_dec_embedding(context)
        x_BxTxD = self.decoder(x_BxTxD + self.pos_embedding_decoder.astype(self.dtype))
        grid = (self.grid, self.grid)
        return {name: unpatchify(head(x_BxTxD).astype(jnp.float32), grid) for name, head in self.heads.items()}

    def __call__(
        self, labels: dict[str, Array], context: Array | None, *, train: bool, kept_BxS: Array | None = None
    ) -> tuple[dict[str, Array], Quantized]:
        """Labels and context -> (logits as of `decode`, `Quantized`)."""
        quantized = self.quantizer(self.encode(labels, context), train=train)
        return self.decode(quantized.codes, context, train=train, kept_BxS=kept_BxS), quantized
