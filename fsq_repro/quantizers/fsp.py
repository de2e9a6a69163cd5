"""Finite scalar perturbation (Zhai et al., arXiv 2602.17133): bins of equal probability, noise instead of rounding."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fsq_repro.quantizers.base import (
    Quantized,
    check_at_least_0,
    check_channels,
    check_indices,
    straight_through,
    usage_metrics,
)
from fsq_repro.quantizers.digits import along_channels, check_levels, digits_to_indices, indices_to_digits, look_up
from fsq_repro.quantizers.scalar_levels import ScalarLevels

UNIT_VARIANCE = 12**0.5  # times a value uniform over an interval of length 1
EPS = float(np.finfo(np.float32).eps)  # keeps probabilities off 0 and 1, where the inverses are infinite


def _laplace(z: jax.Array) -> jax.Array:
    tail = 0.5 * jnp.exp(-jnp.where(z < 0, -z, z))  # not jnp.abs, whose gradient is 0 at 0
    return jnp.where(z < 0, tail, 1 - tail)


class Distribution(NamedTuple):
    """Its cumulative distribution function, the inverse of that, and the variance that the published code asks for."""

    cdf: Callable[[jax.Array], jax.Array]
    inverse: Callable[[jax.Array], jax.Array]
    variance: float


DISTRIBUTIONS = {
    "tanh": Distribution(lambda z: (jnp.tanh(z) + 1) / 2, lambda p: jnp.arctanh(2 * p - 1), 0.8225),  # pi^2 / 12
    "sigmoid": Distribution(jax.nn.sigmoid, jax.scipy.special.logit, 3.29),  # pi^2 / 3
    "normal": Distribution(jax.scipy.special.ndtr, jax.scipy.special.ndtri, 1.0),
    "laplace": Distribution(
        _laplace, lambda p: -jnp.sign(p - 0.5) * jnp.log1p(-2 * jnp.minimum(jnp.abs(p - 0.5), 0.5)), 2.0
    ),
    # It has no variance; the published code leaves 1, of its standard preset.
    "cauchy": Distribution(lambda z: jnp.arctan(z) / np.pi + 0.5, lambda p: jnp.tan(np.pi * (p - 0.5)), 1.0),
}


def bins(p: jax.Array, levels: tuple[int, ...]) -> jax.Array:
    """Number of the bin of L equal ones that each probability is in: float32 (..., d) in [0, 1] -> int32 (..., d)."""
    count = along_channels(np.array(levels), p)
    return jnp.clip(jnp.floor(jnp.nan_to_num(p) * count), 0, count - 1).astype(jnp.int32)


def perturb(
    p: jax.Array, middle: jax.Array, shift: jax.Array, select: jax.Array, rate: float, levels: tuple[int, ...]
) -> jax.Array:
    """Training's probabilities (..., d), of `p` and the middles of its bins, with the random numbers given.

    `shift` and `select` are uniform in [0, 1): where `select` is above `rate`, p moves by up to half a bin, or not at
    all where that would leave (0, 1); elsewhere it becomes the middle.
    """
    proposal = p + (2 * shift - 1) * along_channels(0.5 / np.array(levels), p)
    moved = jnp.where((proposal > 0) & (proposal < 1), proposal, p)
    return jnp.where(select > rate, moved, middle)


def moment_errors(z_NxD: jax.Array, variance_target: float) -> dict[str, jax.Array]:
    """Mean over channels of the squared errors of the batch's moments, float32 scalars.

    Targets are mean 0, the given (unbiased) variance, skewness 0 and excess kurtosis 0.
    """
    centred_NxD = z_NxD - jnp.mean(z_NxD, axis=0, keepdims=True)
    variance_1xD = jnp.sum(jnp.square(centred_NxD), axis=0, keepdims=True) / max(len(z_NxD) - 1, 1)
    scores_NxD = centred_NxD / jnp.sqrt(jnp.maximum(variance_1xD, 1e-16))
    moments = {
        "mean": jnp.mean(z_NxD, axis=0),
        "variance": variance_1xD - variance_target,
        "skewness": jnp.mean(scores_NxD**3, axis=0),
        "kurtosis": jnp.mean(scores_NxD**4, axis=0) - 3,
    }
    return {name: jnp.mean(jnp.square(error)) for name, error in moments.items()}


class FSP(ScalarLevels):
    """Finite scalar perturbation (Zhai et al., arXiv 2602.17133): p = cdf(z) of each channel in L bins of equal width.

    Evaluation: code (middle of p's bin - 1/2) sqrt(12), of variance 1 where p is uniform, or cdf^-1(middle) with
    `inverse`. The outer bins are not half as wide as the others, as rounding makes FSQ's.

    Training: of each value, by a chance of `quantize_rate`, the same; else p + U(-1/2, 1/2) / L in place of the middle.
    So codes in training are no codes, and with the published rate of 0 the decoder never sees one; the indices are
    those of p. It draws from the rng stream `quantizer`. The loss brings the moments of z over the batch to those of
    the distribution, so that p is uniform:

      loss = sum over mean, variance, skewness, kurtosis of weight * mean over channels of (moment - target)^2.

    The gradient is that of (p - 1/2) sqrt(12), with `inverse` that of z. No parameters, no state. Follows the
    implementation in lucidrains/vector-quantize-pytorch 1.32.0, whose preset "kurt" has weights 0.06 and 0.05 for
    skewness and kurtosis and a variance of 1.

    >>> import jax, jax.numpy as jnp
    >>> module = FSP((8, 5))
    >>> quantized = module.apply({}, jnp.array([[0.0, -4.0]]), train=False)
    >>> [round(float(c), 3) for c in quantized.codes[0]], quantized.indices.tolist()
    ([0.217, -1.386], [4])

    Attributes:
      levels: integers in 2..1000, one per channel.
      distribution: "tanh", "sigmoid", "normal", "laplace" or "cauchy": whose cdf p is.
      inverse: whether codes are mapped back to the range of z.
      quantize_rate: share of the values that training quantizes, 0..1.
      mean_weight, variance_weight, skewness_weight, kurtosis_weight: of the loss; 0 switches a term off.
      variance_target: None for that of the distribution.
    """

    distribution: str = "tanh"
    inverse: bool = False
    quantize_rate: float = 0.0
    mean_weight: float = 0.1
    variance_weight: float = 0.07
    skewness_weight: float = 0.0
    kurtosis_weight: float = 0.0
    variance_target: float | None = None

    @property
    def weights(self) -> dict[str, float]:
        return {name: getattr(self, f"{name}_weight") for name in ("mean", "variance", "skewness", "kurtosis")}

    def setup(self) -> None:
        if self.distribution not in DISTRIBUTIONS:
            raise ValueError(f"distribution is {self.distribution!r}, but must be one of {', '.join(DISTRIBUTIONS)}.")
        if not 0 <= self.quantize_rate <= 1:
            raise ValueError(f"quantize_rate is {self.quantize_rate}, but must be in 0..1.")
        check_at_least_0(self, *(f"{name}_weight" for name in self.weights))

    def __call__(self, z: jax.Array, *, train: bool) -> Quantized:
        """z float (..., d) -> `Quantized`; loss where `train`."""
        check_channels("z", z, self.num_channels)
        x = z.astype(jnp.float32)
        distribution = DISTRIBUTIONS[self.distribution]
        p = distribution.cdf(x)
        smooth = x if self.inverse else (p - 0.5) * UNIT_VARIANCE
        digits = bins(jax.lax.stop_gradient(p), self.levels)
        codes = self._digits_to_codes(digits)
        loss = jnp.zeros((), jnp.float32)
        indices = digits_to_indices(digits, self.levels)
        metrics = usage_metrics(indices, self.codebook_size)
        if train and self.quantize_rate < 1:
            shift, select = jax.random.uniform(self.make_rng("quantizer"), (2, *p.shape), jnp.float32)
            middle = look_up(digits, self._middles(), self.levels)
            read = perturb(jax.lax.stop_gradient(p), middle, shift, select, self.quantize_rate, self.levels)
            codes = self._decode(read)
        if train and any(self.weights.values()):
            target = distribution.variance if self.variance_target is None else self.variance_target
            errors = moment_errors(x.reshape(-1, self.num_channels), target)
            loss += sum(weight * errors[name] for name, weight in self.weights.items() if weight)
            metrics["moment_loss"] = loss
        return Quantized(straight_through(smooth, codes).astype(z.dtype), indices, loss, metrics)

    def indices_to_codes(self, indices: jax.Array) -> jax.Array:
        """Integer (...) -> float32 (..., d), the first channel fastest."""
        check_indices(indices)
        return self._digits_to_codes(indices_to_digits(indices, self.levels))

    def codes_to_indices(self, codes: jax.Array) -> jax.Array:
        """Float (..., d) -> int32 (...), by the bin that a code is in."""
        check_channels("codes", codes, self.num_channels)
        x = codes.astype(jnp.float32)
        p = DISTRIBUTIONS[self.distribution].cdf(x) if self.inverse else x / UNIT_VARIANCE + 0.5
        return digits_to_indices(bins(p, self.levels), self.levels)

    def _middles(self) -> np.ndarray:
        """Of the bins of all channels, one after another, float32 (sum(levels),)."""
        return np.concatenate([(np.arange(l) + 0.5) / l for l in check_levels(self.levels)]).astype(np.float32)

    def _decode(self, p: jax.Array) -> jax.Array:
        """Probabilities -> codes, float32 of the same shape."""
        if self.inverse:
            return DISTRIBUTIONS[self.distribution].inverse(jnp.clip(p, EPS, 1 - EPS))
        return (p - 0.5) * UNIT_VARIANCE

    def _digits_to_codes(self, digits: jax.Array) -> jax.Array:
        with jax.ensure_compile_time_eval():  # of a jitted function too, where XLA might round otherwise
            values = self._decode(jnp.asarray(self._middles()))
        return look_up(digits, values, self.levels)
