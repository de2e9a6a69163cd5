"""What measured values decide: a difference counts if its 95% Student interval over the seeds excludes 0.

The interval is Welch's: quantizers need not vary alike over seeds (a collapsing codebook varies more), and bounds that
do not vary at all (a baseline, a uniform source) fit into the same formula. Three seeds against three that vary alike
are told apart by 2.78 standard errors, by more where one side varies more.
"""

import math
from collections.abc import Iterable, Sequence

import scipy.stats

from fsq_repro.reporting.groups import Statistic

YES, NO, PARTLY = "yes", "no", "partly"
NOISE, ONE_SEED, UNDECIDED = "within noise", "one seed, undecided", "undecided"
NOT_MEASURED = "not measured"
CONFIDENCE = 0.95
RANK_POINTS, RANK_CORRELATION = 5, 0.9  # the least that a rank correlation is read from

RULE = (
    "A difference counts if its 95% Student interval over the seeds (Welch) excludes 0, else it is within noise; one "
    "seed on either side decides nothing."
)


def exactly(value: float) -> Statistic:
    """A value that does not depend on the seed."""
    return Statistic(value, 0.0, math.inf)


def is_positive(terms: Iterable[tuple[float, Statistic]]) -> str:
    """Whether a sum of weighted means, each over seeds of its own, is above 0: YES, NO (below), NOISE or ONE_SEED."""
    terms = [(weight, s) for weight, s in terms if weight]
    if any(s.std is None for _, s in terms):
        return ONE_SEED
    total = sum(weight * s.mean for weight, s in terms)
    variances = [(weight * s.std) ** 2 / s.count for weight, s in terms]
    half_width = 0.0
    if variance := sum(variances):
        # Welch and Satterthwaite's degrees of freedom.
        inverse = sum((v / variance) ** 2 / (s.count - 1) for v, (_, s) in zip(variances, terms, strict=True))
        half_width = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, 1 / inverse)) * math.sqrt(variance)
    return YES if total > half_width else NO if total < -half_width else NOISE


def within(verdicts: Iterable[str]) -> str:
    """One value between several bounds: NO if it breaks any, YES if it keeps all, else why that is undecided."""
    verdicts = list(verdicts)
    return NO if NO in verdicts else conclude(verdicts)


def conclude(verdicts: Iterable[str]) -> str:
    """Several comparisons of one claim: YES or NO if all say so, PARTLY if some hold and some are refuted, else why it
    is undecided; NOT_MEASURED without any."""
    found = set(verdicts)
    if not found:
        return NOT_MEASURED
    if {YES, NO} <= found:
        return PARTLY
    return next((word for word in (ONE_SEED, NOISE, UNDECIDED) if word in found), None) or found.pop()


def falls_with(x: Sequence[float], y: Sequence[float]) -> tuple[str, float]:
    """Whether y falls as x rises: the verdict and Spearman's rank correlation (0 if either is constant).

    Decided from five points on and a correlation of 0.9: three points have 0.5 or more by chance in every second case.
    """
    constant = len(set(x)) < 2 or len(set(y)) < 2
    rho = 0.0 if constant else round(float(scipy.stats.spearmanr(x, y).statistic), 9)
    if len(x) < RANK_POINTS or abs(rho) < RANK_CORRELATION:
        return UNDECIDED, rho
    return (YES if rho < 0 else NO), rho
