"""Finite Scalar Quantization (paper section 3 and appendix A.1).

Each channel i of the encoder's output is bounded to a range that holds L_i integers and rounded; the code is the vector
of integers, divided by L_i // 2 for the decoder. The codebook is implied by the levels, its size is their product:
nothing is learned, there is no auxiliary loss.

A digit is a channel's integer counted from 0, so digit = round(bounded) + L // 2. Digits are int32 from the rounding on
and indices are made of digits by integer arithmetic: rebuilt from the normalised codes by a cast, as in the paper's
listing, they are wrong in low precision and for some levels even in float32. Rounding is half to even, as jnp.round.
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fsq_repro.quantizers import digits as mixed_radix
from fsq_repro.quantizers.base import Quantized, check_channels, check_indices, straight_through, usage_metrics
from fsq_repro.quantizers.digits import along_channels
from fsq_repro.quantizers.dithering import dither

VARIANTS = ("paper", "corrected", "symmetric", "ifsq")
EPS = 1e-3  # keeps the bounded value inside the outermost bins; above 1000 levels it would cut off the outermost

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


def check_levels(levels: Sequence[int], variant: str = "paper") -> tuple[int, ...]:
    """Levels as a tuple of Python ints.

    Raises ValueError: unknown variant, no levels, a level that is no integer in 3..1000 ("symmetric": 2..1000, "ifsq":
    odd ones only), or 2^31 codes or more (indices are int32).
    """
    if variant not in VARIANTS:
        raise ValueError(f"bound is {variant!r}, but must be one of {', '.join(VARIANTS)}.")
    least = 2 if variant == "symmetric" else 3
    integers = mixed_radix.as_integers(levels, least)
    if 2 in integers and variant != "symmetric":
        raise ValueError(
            f"levels is {integers}, but a channel needs at least 3: for 2 the paper's bound puts 6% and 94% of normal "
            "inputs on the two levels, and the inverse of tanh that it stands for is not defined."
        )
    checked = mixed_radix.check_levels(integers, least)
    if variant == "ifsq" and not all(l % 2 for l in checked):
        raise ValueError(f"levels is {checked}, but must be odd for the bound 'ifsq'.")
    return checked


def bound(z: jax.Array, levels: Sequence[int], variant: str = "paper") -> jax.Array:
    """Bounds each channel to a range that rounds to L values: float (..., d) -> float32 (..., d).

    The values are the integers -(L-1)/2..(L-1)/2 for odd L and -L/2..L/2-1 for even L, but for "symmetric" with even L
    the halves -(L-1)/2..(L-1)/2.
      "paper": tanh(z + shift) * half - offset with shift = tan(offset / half), as the paper's listing and the official
        notebook have it. For even L the value at z = 0 is slightly off 0 (-1.4e-5 for L = 8, -4e-4 for L = 4).
      "corrected": shift = atanh(offset / half), which the author has confirmed was meant (lucidrains/vector-quantize-
        pytorch issue 94); by the addition theorem of tanh written so that 0 maps to exactly 0, the middle of a bin.
      "symmetric": tanh(z) * (L-1)/2 (Parker et al., arXiv 2411.19842). Codes are evenly spaced from -1 to 1, whatever
        L; with 2 levels they are signs.
      "ifsq": tanh(0.8 z) * (L-1)/2 for odd L (Lin et al., arXiv 2601.17124, whose code has 2 sigmoid(1.6 z) - 1).

    Raises ValueError: bad levels or variant, or z does not have one channel per level.
    """
    levels = check_levels(levels, variant)
    check_channels("z", z, len(levels))
    z = z.astype(jnp.float32)
    if variant in ("symmetric", "ifsq"):
        return jnp.tanh(z if variant == "symmetric" else 0.8 * z) * along_channels((np.array(levels) - 1) / 2, z)
    half = (np.array(levels) - 1) * (1 - EPS) / 2
    offset = np.where(np.array(levels) % 2, 0.0, 0.5)
    if variant == "paper":
        shift = np.tan(offset / half)
        return jnp.tanh(z + along_channels(shift, z)) * along_channels(half, z) - along_channels(offset, z)
    k = offset / half
    t = jnp.tanh(z)
    return t * along_channels(half - offset * k, z) / (1 + t * along_channels(k, z))


def quantize(z: jax.Array, levels: Sequence[int], variant: str = "paper") -> tuple[jax.Array, jax.Array]:
    """Quantizes z, float (..., d), to codes (..., d) in z's dtype and indices (...) int32.

    The codes are bitwise those of `indices_to_codes` (cast to z's dtype), jitted or not. Their gradient is that of
    `bound(z) / (L // 2)`, for "symmetric" of tanh(z): the rounding has derivative 1. NaN in z stays NaN in the codes;
    its index is that of z = 0.

    Raises ValueError as `bound` does.
    """
    bounded = bound(z, levels, variant)
    levels = check_levels(levels, variant)
    no_nan = jnp.nan_to_num(jax.lax.stop_gradient(bounded))
    rounded = jnp.round(no_nan)
    if variant == "symmetric":  # The floor and not a rounding of no_nan - 1/2, which loses the sign of a small one.
        rounded = jnp.where(along_channels(np.array(levels) % 2 == 0, no_nan) > 0, jnp.floor(no_nan), rounded)
    digits = rounded.astype(jnp.int32) + along_channels(np.array(levels) // 2, rounded).astype(np.int32)
    codes = _digits_to_codes(digits, levels, variant)
    codes = straight_through(bounded / along_channels(_middle(levels, variant), bounded), codes)
    return codes.astype(z.dtype), mixed_radix.digits_to_indices(digits, levels)


def indices_to_codes(indices: jax.Array, levels: Sequence[int], variant: str = "paper") -> jax.Array:
    """Indices (...) integer in [0, prod(levels)) -> codes (..., d) float32 in [-1, 1].

    The first channel varies fastest, as in the official notebook.

    Raises ValueError: bad levels, or indices that are no integers.
    """
    levels = check_levels(levels, variant)
    check_indices(indices)
    return _digits_to_codes(mixed_radix.indices_to_digits(indices, levels), levels, variant)


def codes_to_indices(codes: jax.Array, levels: Sequence[int], variant: str = "paper") -> jax.Array:
    """Codes (..., d) of any float dtype -> indices (...) int32; a code is taken for the nearest value of its channel.

    Raises ValueError: bad levels, or codes that do not have one channel per level.
    """
    levels = check_levels(levels, variant)
    check_channels("codes", codes, len(levels))
    codes = codes.astype(jnp.float32)
    middle = along_channels(_middle(levels, variant), codes)
    return mixed_radix.digits_to_indices(jnp.round(codes * middle + middle).astype(jnp.int32), levels)


class FSQ(nn.Module):
    """Finite Scalar Quantization (Mentzer et al., arXiv 2309.15505); it has no parameters, no state and no loss.

    Codes are round(bound(z)) / (L // 2) per channel, the index is the sum of digit_i * L_1 * ... * L_(i-1). The
    baseline to begin with: nothing collapses and nothing has to be tuned.

    With `noise` the codes in training are no codes: of each sample (first axis of z), by chance of 50%, all values are
    tanh(z) with uniform noise of a bin's width instead, of 25% tanh(z) itself (see `dithering`); the indices are those
    of the codes. It draws from the rng stream `quantizer`. Evaluation has codes.

    >>> import jax, jax.numpy as jnp
    >>> module = FSQ((8, 5, 5, 5))
    >>> quantized = module.apply({}, jnp.zeros((2, 16, 16, 4)), train=True)
    >>> quantized.codes.shape, quantized.indices.shape, module.codebook_size
    ((2, 16, 16, 4), (2, 16, 16), 1000)
    >>> bool(jnp.all(module.indices_to_codes(quantized.indices) == quantized.codes))
    True

    Attributes:
      levels: integers in 3..1000, one per channel; the paper recommends at least 5. Which ones, depends on the bound.
      bound: "paper", "corrected", "symmetric" or "ifsq", see the function of that name.
      noise: whether training has the noise of Parker et al. (arXiv 2411.19842); with the bound "symmetric" only.
    """

    levels: tuple[int, ...]
    bound: str = "paper"
    noise: bool = False

    @property
    def ablation(self) -> str:
        kind = self.bound if self.bound in ("symmetric", "ifsq") else ""
        return f"{kind}_noise" if self.noise else kind

    @property
    def num_channels(self) -> int:
        return len(check_levels(self.levels, self.bound))

    @property
    def codebook_size(self) -> int:
        return math.prod(check_levels(self.levels, self.bound))

    @classmethod
    def suggest(cls, codebook_size: int) -> dict[str, Any]:
        """The paper's levels, see `suggest_levels`."""
        return {"levels": suggest_levels(codebook_size)}

    def __call__(self, z: jax.Array, *, train: bool) -> Quantized:
        """z float (..., d) -> `Quantized`; training and evaluation do not differ without noise."""
        if self.noise and self.bound != "symmetric":
            raise ValueError(f"noise is True, but the bound is {self.bound!r} and must be 'symmetric' for it.")
        codes, indices = quantize(z, self.levels, self.bound)
        if train and self.noise:
            values = dither(self.make_rng("quantizer"), jnp.tanh(z.astype(jnp.float32)), codes, self.levels)
            codes = values.astype(z.dtype)
        return Quantized(codes, indices, jnp.zeros((), jnp.float32), usage_metrics(indices, self.codebook_size))

    def indices_to_codes(self, indices: jax.Array) -> jax.Array:
        """Integer (...) -> float32 (..., d)."""
        return indices_to_codes(indices, self.levels, self.bound)

    def codes_to_indices(self, codes: jax.Array) -> jax.Array:
        """Float (..., d) -> int32 (...)."""
        return codes_to_indices(codes, self.levels, self.bound)

    def codebook(self) -> jax.Array:
        """The implicit codebook, float32 (codebook_size, d), built here and nowhere else."""
        return self.indices_to_codes(jnp.arange(self.codebook_size, dtype=jnp.int32))


def _middle(levels: tuple[int, ...], variant: str) -> np.ndarray:
    """The digit of code 0, which is also half of the codes' range: float64 (d,), a half for "symmetric" with even L."""
    return (np.array(levels) - 1) / 2 if variant == "symmetric" else np.array(levels) // 2 * 1.0


def _digits_to_codes(digits: jax.Array, levels: tuple[int, ...], variant: str) -> jax.Array:
    """Digits (..., d) int32 -> codes (..., d) float32."""
    middle = _middle(levels, variant)
    values = np.concatenate([(np.arange(l) - m) / m for l, m in zip(levels, middle, strict=True)])
    return mixed_radix.look_up(digits, values, levels)
