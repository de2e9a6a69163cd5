"""Finite Scalar Quantization (paper section 3 and appendix A.1).

Each channel i of the encoder's output is bounded to a range that holds L_i integers and rounded; the code is the vector
of integers, divided by L_i // 2 for the decoder. The codebook is implied by the levels, its size is their product:
nothing is learned, there is no auxiliary loss.

A digit is a channel's integer counted from 0, so digit = round(bounded) + L // 2. Digits are int32 from the rounding on
and indices are made of digits by integer arithmetic: rebuilt from the normalised codes by a cast, as in the paper's
listing, they are wrong in low precision and for some levels even in float32. Rounding is half to even, as jnp.round.
"""

import math
import operator
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fsq_repro.quantizers.base import Quantized, check_channels, check_indices, straight_through, usage_metrics

VARIANTS = ("paper", "corrected")
EPS = 1e-3  # keeps the bounded value inside the outermost bins
MAX_LEVEL = 1000  # above, EPS would cut off the outermost levels

# log2 of the codebook size to match -> levels (Table 1 and A.4.1). A.4.1 prints [7, 5, 5, 5] for 2^12, which is 875
# codes; Table 1 and the UViM experiments have [7, 5, 5, 5, 5].
PAPER_LEVELS = {
    4: (5, 3),
    6: (8, 8),
    8: (8, 6, 5),
    9: (8, 8, 8),
    10: (8, 5, 5, 5),
    11: (8, 8, 6, 5),
    12: (7, 5, 5, 5, 5),
    14: (8, 8, 8, 6, 5),
    16: (8, 8, 8, 5, 5, 5),
}


def suggest_levels(codebook_size: int) -> tuple[int, ...]:
    """The paper's levels for the power of two nearest to `codebook_size` (Table 1, A.4.1), e.g. 1024 -> (8, 5, 5, 5).

    All have levels of at least 5, which the paper recommends, but (5, 3) for 2^4.

    Raises ValueError: the paper has no levels for that power of two; `level_sets` lists factorisations for any size.
    """
    bits = round(math.log2(codebook_size)) if codebook_size >= 1 else None
    if bits not in PAPER_LEVELS:
        sizes = ", ".join(f"2^{b}" for b in PAPER_LEVELS)
        raise ValueError(
            f"codebook_size is {codebook_size}, but the paper has levels for {sizes} only (see level_sets)."
        )
    return PAPER_LEVELS[bits]


def check_levels(levels: Sequence[int]) -> tuple[int, ...]:
    """Levels as a tuple of Python ints.

    Raises ValueError: no levels, a level that is no integer in 3..1000, or 2^31 codes or more (indices are int32).
    """
    try:
        checked = tuple(operator.index(l) for l in levels)
    except TypeError:
        raise ValueError(f"levels is {levels!r}, but must be a sequence of integers in 3..{MAX_LEVEL}.") from None
    if 2 in checked:
        raise ValueError(
            f"levels is {checked}, but a channel needs at least 3: for 2 the paper's bound puts 6% and 94% of normal "
            "inputs on the two levels, and the inverse of tanh that it stands for is not defined."
        )
    if not checked or min(checked) < 3 or max(checked) > MAX_LEVEL:
        raise ValueError(f"levels is {checked}, but must be one or more integers in 3..{MAX_LEVEL}.")
    if math.prod(checked) >= 2**31:
        raise ValueError(f"levels is {checked}, {math.prod(checked)} codes, but int32 indices allow less than 2^31.")
    return checked


def bound(z: jax.Array, levels: Sequence[int], variant: str = "paper") -> jax.Array:
    """Bounds each channel to the open range that rounds to L integers: float (..., d) -> float32 (..., d).

    The integers are -(L-1)/2..(L-1)/2 for odd L and -L/2..L/2-1 for even L.
      "paper": tanh(z + shift) * half - offset with shift = tan(offset / half), as the paper's listing and the official
        notebook have it. For even L the value at z = 0 is slightly off 0 (-1.4e-5 for L = 8, -4e-4 for L = 4).
      "corrected": shift = atanh(offset / half), which the author has confirmed was meant (lucidrains/vector-quantize-
        pytorch issue 94); by the addition theorem of tanh written so that 0 maps to exactly 0, the middle of a bin.

    Raises ValueError: bad levels or variant, or z does not have one channel a level.
    """
    levels = check_levels(levels)
    if variant not in VARIANTS:
        raise ValueError(f"bound is {variant!r}, but must be one of {', '.join(VARIANTS)}.")
    check_channels("z", z, len(levels))
    half = (np.array(levels) - 1) * (1 - EPS) / 2
    offset = np.where(np.array(levels) % 2, 0.0, 0.5)
    z = z.astype(jnp.float32)
    if variant == "paper":
        shift = np.tan(offset / half)
        return jnp.tanh(z + _along_channels(shift, z)) * _along_channels(half, z) - _along_channels(offset, z)
    k = offset / half
    t = jnp.tanh(z)
    return t * _along_channels(half - offset * k, z) / (1 + t * _along_channels(k, z))


def quantize(z: jax.Array, levels: Sequence[int], variant: str = "paper") -> tuple[jax.Array, jax.Array]:
    """Quantizes z, float (..., d), to codes (..., d) in z's dtype and indices (...) int32.

    The codes are bitwise those of `indices_to_codes` (cast to z's dtype), jitted or not. Their gradient is that of
    `bound(z) / (L // 2)`: the rounding has derivative 1. NaN in z stays NaN in the codes; its index is that of z = 0.

    Raises ValueError as `bound` does.
    """
    bounded = bound(z, levels, variant)
    levels = check_levels(levels)
    half_width = _along_channels(np.array(levels) // 2, bounded)
    no_nan = jnp.nan_to_num(jax.lax.stop_gradient(bounded))
    digits = jnp.round(no_nan).astype(jnp.int32) + half_width.astype(np.int32)
    codes = straight_through(bounded / half_width, _digits_to_codes(digits, levels))
    return codes.astype(z.dtype), _digits_to_indices(digits, levels)


def indices_to_codes(indices: jax.Array, levels: Sequence[int]) -> jax.Array:
    """Indices (...) integer in [0, prod(levels)) -> codes (..., d) float32 in [-1, 1].

    The first channel varies fastest, as in the official notebook.

    Raises ValueError: bad levels, or indices that are no integers.
    """
    levels = check_levels(levels)
    check_indices(indices)
    indices = indices.astype(jnp.int32)[..., None]
    digits = indices // _along_channels(_basis(levels), indices) % _along_channels(np.array(levels), indices)
    return _digits_to_codes(digits, levels)


def codes_to_indices(codes: jax.Array, levels: Sequence[int]) -> jax.Array:
    """Codes (..., d) of any float dtype -> indices (...) int32; a code is taken for the nearest integer of its channel.

    Raises ValueError: bad levels, or codes that do not have one channel a level.
    """
    levels = check_levels(levels)
    check_channels("codes", codes, len(levels))
    half_width = _along_channels(np.array(levels) // 2, codes.astype(jnp.float32))
    digits = jnp.round(codes.astype(jnp.float32) * half_width).astype(jnp.int32) + half_width.astype(np.int32)
    return _digits_to_indices(digits, levels)


class FSQ(nn.Module):
    """Finite Scalar Quantization as a quantizer module; it has no parameters, no state and no loss.

    Attributes:
      levels: integers in 3..1000 a channel; the paper recommends at least 5.
      bound: "paper" or "corrected", see the function of that name.
    """

    levels: tuple[int, ...]
    bound: str = "paper"

    ablation = ""

    @property
    def num_channels(self) -> int:
        return len(check_levels(self.levels))

    @property
    def codebook_size(self) -> int:
        return math.prod(check_levels(self.levels))

    def __call__(self, z: jax.Array, *, train: bool) -> Quantized:
        """z float (..., d) -> `Quantized`; training and evaluation do not differ."""
        codes, indices = quantize(z, self.levels, self.bound)
        return Quantized(codes, indices, jnp.zeros((), jnp.float32), usage_metrics(indices, self.codebook_size))

    def indices_to_codes(self, indices: jax.Array) -> jax.Array:
        """Integer (...) -> float32 (..., d)."""
        return indices_to_codes(indices, self.levels)

    def codes_to_indices(self, codes: jax.Array) -> jax.Array:
        """Float (..., d) -> int32 (...)."""
        return codes_to_indices(codes, self.levels)

    def codebook(self) -> jax.Array:
        """The implicit codebook, float32 (codebook_size, d), built here and nowhere else."""
        return self.indices_to_codes(jnp.arange(self.codebook_size, dtype=jnp.int32))


def _basis(levels: tuple[int, ...]) -> np.ndarray:
    return np.cumprod((1, *levels[:-1]))


def _digits_to_indices(digits: jax.Array, levels: tuple[int, ...]) -> jax.Array:
    return jnp.sum(digits * _along_channels(_basis(levels), digits), axis=-1, dtype=jnp.int32)


def _digits_to_codes(digits: jax.Array, levels: tuple[int, ...]) -> jax.Array:
    """Digits (..., d) int32 -> codes (..., d) float32, looked up.

    Not a division: XLA compiles one by a constant to a product with its reciprocal, which rounds differently from the
    division that the same line does when it is not jitted.
    """
    grid = np.concatenate([(np.arange(l) - l // 2) / (l // 2) for l in levels]).astype(np.float32)
    start = np.cumsum((0, *levels[:-1]))
    return jnp.asarray(grid)[digits + _along_channels(start, digits)]


def _along_channels(values: np.ndarray, like: jax.Array) -> np.ndarray:
    """One value a channel, in the dtype of `like` and with as many axes."""
    return values.reshape((1,) * (like.ndim - 1) + (-1,)).astype(like.dtype)
