"""Product quantization: the channels in equal parts, a quantizer for each (Jegou et al. 2011; El-Nouby et al. 2022,
arXiv 2212.07372)."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from fsq_repro.quantizers.base import Quantized, check_channels, check_indices
from fsq_repro.quantizers.running_codebook import Arrays


class ProductQuantizer(nn.Module):
    """`groups` quantizers of one kind, each with parameters, state and randomness of its own, side by side.

    z is (..., groups * C) for a quantizer of C channels; group g has the channels g C .. (g + 1) C - 1. With K codes
    each there are K^groups, of which sum_g i_g K^g is the index of the digits i_g: the first group varies fastest.
    Loss and metrics are means over the groups. FSQ is the product of scalar quantizers; of vectors it gives a large
    codebook with few parameters. As many codes as int32 has; more need an index for each group.

    State: that of the quantizers, under `parts_0`, `parts_1`, ... in the collection `quantizer`.

    >>> import jax
    >>> from fsq_repro.quantizers import ProductQuantizer, VectorQuantizer
    >>> pq = ProductQuantizer(VectorQuantizer(codebook_size=16, embedding_dim=4), groups=3)
    >>> z = jax.random.normal(jax.random.key(0), (2, 5, 12))
    >>> quantized, variables = pq.init_with_output(jax.random.key(1), z, train=True)
    >>> pq.codebook_size, quantized.codes.shape, quantized.indices.shape
    (4096, (2, 5, 12), (2, 5))

    Attributes:
      quantizer: the one that each group has a copy of; in a config the fields of one, with its name.
      groups: how many.
    """

    quantizer: nn.Module
    groups: int

    @property
    def num_channels(self) -> int:
        self._check_groups()
        return self.groups * self.quantizer.num_channels

    @property
    def codebook_size(self) -> int:
        return self.quantizer.codebook_size**self.groups

    @property
    def levels(self) -> tuple[int, ...] | None:
        return None if self.quantizer.levels is None else tuple(self.quantizer.levels) * self.groups

    @classmethod
    def suggest(cls, codebook_size: int) -> dict[str, Any]:
        """Two codebooks of the root of the size, 128 channels each."""
        part = {"name": "vq", "codebook_size": round(codebook_size**0.5), "embedding_dim": 128}
        return {"groups": 2, "quantizer": part}

    @property
    def ablation(self) -> str:
        return self.quantizer.ablation

    def setup(self) -> None:
        self._check_groups()
        if self.codebook_size >= 2**31:
            raise ValueError(
                f"groups is {self.groups}, {self.quantizer.codebook_size}^{self.groups} codes, but int32 indices allow "
                "less than 2^31."
            )
        self.parts = [self.quantizer.clone(parent=None) for _ in range(self.groups)]

    def __call__(self, z: jax.Array, *, train: bool) -> Quantized:
        """z float (..., num_channels) -> `Quantized`."""
        check_channels("z", z, self.num_channels)
        outputs = [part(z_g, train=train) for part, z_g in zip(self.parts, self._split(z), strict=True)]
        codes = jnp.concatenate([q.codes for q in outputs], axis=-1)
        loss, metrics = jax.tree.map(lambda *x: sum(x) / self.groups, *((q.loss, q.metrics) for q in outputs))
        return Quantized(codes, self._index([q.indices for q in outputs]), loss, metrics)

    def indices_to_codes(self, indices: jax.Array) -> jax.Array:
        """Integer (...) in [0, codebook_size) -> float32 (..., num_channels)."""
        check_indices(indices)
        K = self.quantizer.codebook_size
        digits = [indices // K**g % K for g in range(self.groups)]
        return jnp.concatenate([p.indices_to_codes(d) for p, d in zip(self.parts, digits, strict=True)], axis=-1)

    def codes_to_indices(self, codes: jax.Array) -> jax.Array:
        """Codes float (..., num_channels) -> int32 (...)."""
        check_channels("codes", codes, self.num_channels)
        return self._index([p.codes_to_indices(c) for p, c in zip(self.parts, self._split(codes), strict=True)])

    def update(self, batch: Mapping[str, Mapping[str, jax.Array]]) -> Arrays:
        """Updates each quantizer's state with what its calls left, by its name; returns the means of their metrics."""
        metrics = [part.update(batch[str(part.name)]) for part in self.parts]
        return jax.tree.map(lambda *x: sum(x) / self.groups, *metrics)

    def _check_groups(self) -> None:
        if not isinstance(self.groups, int) or self.groups < 1:
            raise ValueError(f"groups is {self.groups!r}, but must be an integer of at least 1.")

    def _split(self, x: jax.Array) -> list[jax.Array]:
        return jnp.split(x, self.groups, axis=-1)

    def _index(self, digits: list[jax.Array]) -> jax.Array:
        return sum((d * self.quantizer.codebook_size**g for g, d in enumerate(digits)), jnp.zeros((), jnp.int32))
