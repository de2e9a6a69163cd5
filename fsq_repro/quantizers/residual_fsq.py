"""Residual FSQ: each further stage quantizes what the one before has left over, on a grid that is L times as fine.

Follows `ResidualFSQ` of lucidrains/vector-quantize-pytorch 1.32.0 (FSQ itself is Mentzer et al., arXiv 2309.15505) in
its values: with s = 1 + 1 / (L - 1) per channel, y = s tanh(z / s); stage i adds c_i = Q(r L^i) / L^i of the residual r
= y - c_0 - ... - c_(i-1), Q the rounding of a value clipped to [-1, 1] to L evenly spaced ones. No tanh in the stages,
or the finer ones would see another scale. One gradient, that of y, goes through the sum: in the published code each
stage that is not clipped adds one of its own, so it is up to num_stages times as large.

All cells are equal: with n stages a channel has L^n evenly spaced values.
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fsq_repro.quantizers.base import Quantized, check_channels, check_indices, straight_through, usage_metrics
from fsq_repro.quantizers.digits import along_channels, check_levels, digits_to_indices, indices_to_digits, look_up
from fsq_repro.quantizers.level_sets import level_sets


def bound(z: jax.Array, levels: Sequence[int]) -> jax.Array:
    """s tanh(z / s) with s = 1 + 1 / (L - 1): float (..., d) -> float32 (..., d), a cell more than Q's clip."""
    z = z.astype(jnp.float32)
    s = jnp.asarray(along_channels(1 + 1 / (np.array(levels) - 1), z))
    return s * jnp.tanh(z / s)


def stage_digits(y: jax.Array, levels: tuple[int, ...], num_stages: int) -> list[jax.Array]:
    """Digits of each stage, int32 (..., d), of bounded values float32 (..., d), coarsest first. NaN counts as 0."""
    residual, digits = jnp.nan_to_num(jax.lax.stop_gradient(y)), []
    most = along_channels(np.array(levels) - 1, residual)
    for stage in range(num_stages):
        scale = along_channels(np.array(levels, np.float64) ** stage, residual)
        clipped = jnp.clip(residual * scale, -1, 1)
        digits.append(jnp.floor(most * (clipped + 1) / 2 + 0.5).astype(jnp.int32))
        residual = residual - _stage_codes(digits[-1], levels, stage)
    return digits


def digits_to_codes(digits: list[jax.Array], levels: tuple[int, ...]) -> jax.Array:
    """The sum of the stages' codes, float32 (..., d)."""
    coarse, *finer = [_stage_codes(d, levels, stage) for stage, d in enumerate(digits)]
    return sum(finer, coarse)


def _stage_codes(digits: jax.Array, levels: tuple[int, ...], stage: int) -> jax.Array:
    """Of one stage: (2 digit / (L - 1) - 1) / L^stage."""
    values = np.concatenate([(2 * np.arange(l) - (l - 1)) / (l - 1) / float(l) ** stage for l in levels])
    return look_up(digits, values, levels)


class ResidualFSQ(nn.Module):
    """FSQ in stages of finer and finer grids, as one code: see the formulas on top of this file.

    The index is that of stage 0 + K times that of stage 1 + ..., K = prod(stage_levels), the first channel of a stage
    fastest; the coarse code of a token is that of index % K. No parameters, no state, no loss. For few channels with
    many values, and for decoders or generators that go from coarse to fine.

    >>> import jax, jax.numpy as jnp
    >>> module = ResidualFSQ(stage_levels=(5, 5, 3), num_stages=2)
    >>> quantized = module.apply({}, jnp.zeros((2, 8, 8, 3)), train=True)
    >>> quantized.codes.shape, module.codebook_size, quantized.indices[0, 0, 0].tolist()
    ((2, 8, 8, 3), 5625, 2812)

    Attributes:
      stage_levels: integers in 2..1000, one per channel, the same in each stage.
      num_stages: stages; prod(stage_levels)^num_stages is less than 2^31.
    """

    stage_levels: tuple[int, ...]
    num_stages: int = 2

    ablation = ""
    levels = None  # An index is no list of one digit per channel.

    @property
    def num_channels(self) -> int:
        return len(check_levels(self.stage_levels, name="stage_levels"))

    @property
    def codebook_size(self) -> int:
        self._check()
        return math.prod(self.stage_levels) ** self.num_stages

    @classmethod
    def suggest(cls, codebook_size: int) -> dict[str, Any]:
        """Two stages of the levels whose product is nearest to the root of the size, by ratio."""
        bits = math.log2(codebook_size) / 2
        if bits < 4:
            raise ValueError(
                f"codebook_size is {codebook_size}, but residual_fsq has levels to suggest from 2^8 codes on; choose "
                "stage_levels."
            )
        levels = min(level_sets(bits), key=lambda levels: abs(math.log2(math.prod(levels)) - bits))
        return {"stage_levels": levels, "num_stages": 2}

    def __call__(self, z: jax.Array, *, train: bool) -> Quantized:
        """z float (..., d) -> `Quantized`; training and evaluation do not differ."""
        self._check()
        check_channels("z", z, self.num_channels)
        y = bound(z, self.stage_levels)
        digits = stage_digits(y, self.stage_levels, self.num_stages)
        codes = straight_through(y, digits_to_codes(digits, self.stage_levels))
        indices = self._digits_to_indices(digits)
        metrics = usage_metrics(indices, self.codebook_size)
        return Quantized(codes.astype(z.dtype), indices, jnp.zeros((), jnp.float32), metrics)

    def indices_to_codes(self, indices: jax.Array) -> jax.Array:
        """Integer (...) -> float32 (..., d)."""
        self._check()
        check_indices(indices)
        digits = indices_to_digits(indices, self.stage_levels * self.num_stages)
        return digits_to_codes(jnp.split(digits, self.num_stages, axis=-1), self.stage_levels)

    def codes_to_indices(self, codes: jax.Array) -> jax.Array:
        """Float (..., d) -> int32 (...), of the nearest code."""
        self._check()
        check_channels("codes", codes, self.num_channels)
        return self._digits_to_indices(stage_digits(codes.astype(jnp.float32), self.stage_levels, self.num_stages))

    def _digits_to_indices(self, digits: list[jax.Array]) -> jax.Array:
        return digits_to_indices(jnp.concatenate(digits, axis=-1), self.stage_levels * self.num_stages)

    def _check(self) -> None:
        size = math.prod(check_levels(self.stage_levels, name="stage_levels"))
        if not isinstance(self.num_stages, int) or self.num_stages < 1 or size**self.num_stages >= 2**31:
            limit = f"{size}^num_stages less than 2^31"
            raise ValueError(f"num_stages is {self.num_stages!r}, but must be a positive integer with {limit}.")
