"""A claim is data: which numbers are compared, by how much they must differ, and who says so.

A comparison is made only between groups of one setting whose metrics share a protocol. A claim for which runs are
missing is "not measured", never "yes".
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fsq_repro.metrics.table import MetricKey
from fsq_repro.reporting import verdicts
from fsq_repro.reporting.groups import Group, Statistic, keys_of, shown, titled

NOT_OF_THE_PAPER = "no claim of the paper"
OURS = "our threshold"


@dataclasses.dataclass(frozen=True)
class Finding:
    """A claim, where it comes from, a word of `verdicts`, and the numbers behind it."""

    claim: str
    source: str
    verdict: str
    evidence: str

    def __str__(self) -> str:
        return f"{self.claim} ({self.source}): **{self.verdict}**{'; ' + self.evidence if self.evidence else ''}."


@dataclasses.dataclass(frozen=True)
class Side:
    """One side of a comparison: a metric of a group, which has it; or a value that no run measured."""

    label: str
    key: MetricKey
    statistic: Statistic
    group: Group | None = None

    def __str__(self) -> str:
        return f"{self.label} {shown(self.key, self.statistic)}"


Pairs = Iterable[tuple[Side, Side]]


@dataclasses.dataclass(frozen=True)
class Claim:
    """Of each pair of sides, the first lies between multiples of the second, `above` and `below`.

    With `better_by` instead, the first is better, in the metric's direction, by more than this share of the second; a
    negative share allows it to be worse by so much.
    """

    text: str  # {title} stands for the metric's
    source: str  # where it is made, and whose the threshold is
    metric: str  # judged for each feature network and reference
    pairs: Callable[[Any, MetricKey], Pairs]  # of what is judged and a key of the metric
    above: float | None = None
    below: float | None = None
    better_by: float | None = None
    only_with: str = ""  # the quantizer without whose runs the claim is left out instead of "not measured"

    def judge(self, subject: Any, key: MetricKey) -> Finding:
        """Compares each pair of the subject."""
        above, below = self.above, self.below
        if self.better_by is not None and key.declared.better == "lower":
            below = 1 - self.better_by
        elif self.better_by is not None:
            above = 1 + self.better_by
        pairs = list(self.pairs(subject, key))
        found = verdicts.conclude(compare(*pair, above, below) for pair in pairs)
        return Finding(self.text.format(title=titled(key)), self.source, found, ", ".join(versus(*p) for p in pairs))


@dataclasses.dataclass(frozen=True)
class RankClaim:
    """A metric falls as another one rises, over the points of one family."""

    text: str
    source: str
    metric: str
    rising: str
    quantizer: str
    only_with: str = ""  # as of `Claim`

    def judge(self, groups: Sequence[Group], key: MetricKey) -> Finding:
        """Correlates the ranks over all groups that were measured like the first."""
        rising = MetricKey(self.rising)
        points = [g for g in family(groups, self.quantizer) if g.values(key) and g.values(rising)]
        points = [g for g in points if all(alike(g, points[0], k) for k in (key, rising))]
        verdict, evidence = verdicts.NOT_MEASURED, ""
        if len(points) > 1:
            x, y = ([g.statistic(k).mean for g in points] for k in (rising, key))
            verdict, rho = verdicts.falls_with(x, y)
            evidence = f"Spearman's rho {rho:+.2f} over {len(points)} points"
        return Finding(self.text.format(title=titled(key)), self.source, verdict, evidence)


def judge_all(claims: Iterable[Claim | RankClaim], groups: Sequence[Group]) -> list[Finding]:
    """Each claim for each network and reference that the groups have its metric of."""
    findings, present = [], {g.first.quantizer for g in groups}
    for claim in claims:
        if claim.only_with and claim.only_with not in present:
            continue
        of_networks = "{" in MetricKey(claim.metric).declared.title
        keys = keys_of((g.first for g in groups), claim.metric) if of_networks else [MetricKey(claim.metric)]
        findings += [claim.judge(groups, key) for key in keys]
    return findings


def compare(a: Side, b: Side, above: float | None = None, below: float | None = None) -> str:
    """Whether above * b < a < below * b. Two metrics of one group are compared seed by seed."""

    def positive(sign: float, factor: float) -> str:
        if a.group is not None and a.group is b.group:
            pairs = zip(a.group.values(a.key), b.group.values(b.key), strict=True)
            return verdicts.is_positive([(1.0, Statistic.of([sign * (x - factor * y) for x, y in pairs]))])
        return verdicts.is_positive([(sign, a.statistic), (-sign * factor, b.statistic)])

    bounds = ((1.0, above), (-1.0, below))
    return verdicts.within(positive(sign, factor) for sign, factor in bounds if factor is not None)


def versus(a: Side, b: Side) -> str:
    """`A 1.1 against B 1.0 (+10.0%)`."""
    change = f" ({a.statistic.mean / b.statistic.mean - 1:+.1%})" if b.statistic.mean else ""
    return f"{a} against {b}{change}"


def side(g: Group, key: MetricKey, label: str | None = None) -> Side:
    """A group's metric, which it must have; without a label under the group's quantizer and size, `FSQ 2^10`."""
    return Side(label or f"{g.quantizer} 2^{g.first.target_bits:g}", key, g.statistic(key), g)


def alike(a: Group, b: Group, key: MetricKey) -> bool:
    """Whether both groups have the metric, measured under one protocol."""
    return a.protocol(key) is not None and a.protocol(key) == b.protocol(key)


def family(groups: Sequence[Group], quantizer: str, low: float = 0, high: float = math.inf) -> list[Group]:
    """The groups of one quantizer with low <= target bits <= high."""
    return [g for g in groups if g.first.quantizer == quantizer and low <= g.first.target_bits <= high]


def same_size(first: str, second: str, low: float = 0, high: float = math.inf) -> Callable[..., Pairs]:
    """One quantizer against another at each codebook size of low <= target bits <= high."""

    def pairs(groups: Sequence[Group], key: MetricKey) -> Pairs:
        for a in family(groups, first, low, high):
            for b in family(groups, second, low, high):
                if a.first.target_bits == b.first.target_bits and alike(a, b, key):
                    yield side(a, key), side(b, key)

    return pairs


def larger_first(quantizer: str, low: float = 0) -> Callable[..., Pairs]:
    """Each codebook size against the next smaller one, from `low` bits on."""

    def pairs(groups: Sequence[Group], key: MetricKey) -> Pairs:
        ordered = best_by_size(family(groups, quantizer, low), key)
        return [(side(b, key), side(a, key)) for a, b in zip(ordered, ordered[1:], strict=False) if alike(a, b, key)]

    return pairs


def smaller_first(quantizer: str, low: float = 0) -> Callable[..., Pairs]:
    """The pairs of `larger_first` with their sides exchanged."""
    return lambda groups, key: [(b, a) for a, b in larger_first(quantizer, low)(groups, key)]


def against(metric: str, label: str, quantizer: str | None = None, low: float = 0) -> Callable[..., Pairs]:
    """A metric of each group, or of a quantizer's from `low` bits on, against another one of the same network."""

    def pairs(groups: Sequence[Group], key: MetricKey) -> Pairs:
        other = dataclasses.replace(key, metric=metric)
        for g in groups if quantizer is None else family(groups, quantizer, low):
            if g.values(key) and g.values(other):
                yield side(g, key), side(g, other, label)

    return pairs


def best_by_size(groups: Sequence[Group], key: MetricKey) -> list[Group]:
    """Of each codebook size the group with the best mean, by size; sizes without the metric are left out."""
    sign = -1 if key.declared.better == "higher" else 1
    measured = [(g.first.target_bits, sign * g.statistic(key).mean, g) for g in groups if g.values(key)]
    measured.sort(key=lambda item: item[:2])
    return [next(same)[-1] for _, same in itertools.groupby(measured, key=lambda item: item[0])]
