"""How a claim of the paper is judged: computed from the records, with the numbers, never assumed.

A comparison is made only between groups of one setting whose figures share a protocol. A claim for which runs are
missing is "not measured", never "yes".
"""

import dataclasses
from collections.abc import Callable, Iterable

from fsq_repro.reporting.groups import Group, Statistic, display_quantizer


@dataclasses.dataclass(frozen=True)
class Finding:
    """A claim, where it comes from, "yes" | "no" | "partly" | "not measured", and the numbers behind the verdict."""

    claim: str
    source: str
    verdict: str
    evidence: str

    def __str__(self) -> str:
        return f"{self.claim} ({self.source}): **{self.verdict}**{'; ' + self.evidence if self.evidence else ''}."


def same_size(a: list[Group], b: list[Group], name: str) -> list[tuple[Group, Group]]:
    """Pairs of equal target bits whose figure was measured under one protocol."""
    return [
        (x, y)
        for x in a
        for y in b
        if x.first.target_bits == y.first.target_bits
        and x.protocol(name) is not None
        and x.protocol(name) == y.protocol(name)
    ]


def compare(
    claim: str, source: str, pairs: list[tuple[Group, Group]], name: str, label: Callable[[Group], str]
) -> Finding:
    """The first of each pair should have the lower figure."""
    verdicts = [
        (a.statistic(name).mean < b.statistic(name).mean, versus(a, b, name, number, label))
        for a, b in pairs
        if a.protocol(name) == b.protocol(name)
    ]
    return judge(claim, source, verdicts)


def chain(claim: str, source: str, groups: list[Group], name: str, holds: Callable[[float, float], bool]) -> Finding:
    """Each step from one codebook size to the next should hold; where a size has several level sets, its best
    counts."""
    ordered = best_by_size(groups, name)
    verdicts = []
    for a, b in zip(ordered, ordered[1:], strict=False):
        if a.protocol(name) == b.protocol(name):
            x, y = a.statistic(name), b.statistic(name)
            evidence = f"2^{a.first.target_bits:g} to 2^{b.first.target_bits:g}: {number(x)} to {number(y)}"
            verdicts.append((holds(x.mean, y.mean), evidence))
    return judge(claim, source, verdicts)


def best_by_size(groups: list[Group], name: str) -> list[Group]:
    """Of each codebook size the group with the lowest figure, by size; sizes without the figure are left out."""
    measured = [g for g in groups if g.statistic(name)]
    sizes = sorted({g.first.target_bits for g in measured})
    return [best([g for g in measured if g.first.target_bits == bits], name) for bits in sizes]


def best(groups: list[Group], name: str) -> Group:
    """The group with the lowest figure; all must have it."""
    return min(groups, key=lambda g: g.statistic(name).mean)


def judge(claim: str, source: str, verdicts: Iterable[tuple[bool, str]]) -> Finding:
    """ "yes" if every comparison holds, "no" if none does, "not measured" without one; the evidence lists all."""
    verdicts = list(verdicts)
    held = [v for v, _ in verdicts]
    verdict = "not measured" if not held else "yes" if all(held) else "partly" if any(held) else "no"
    return Finding(claim, source, verdict, ", ".join(evidence for _, evidence in verdicts))


def versus(a: Group, b: Group, name: str, show: Callable[[Statistic], str], label: Callable[[Group], str]) -> str:
    """`A 1.0 against B 2.0`."""
    return f"{label(a)} {show(a.statistic(name))} against {label(b)} {show(b.statistic(name))}"


def size_label(g: Group) -> str:
    """`FSQ 2^10`."""
    return f"{display_quantizer(g.first.quantizer)} 2^{g.first.target_bits:g}"


def levels_label(g: Group) -> str:
    """`[8,5,5,5]`, or `1,024 codes`."""
    return f"[{','.join(map(str, g.first.levels))}]" if g.first.levels else f"{g.first.codebook_size:,} codes"


def percent(s: Statistic) -> str:
    """`81.0%`, with the deviation over seeds if there is one."""
    return f"{s.mean:.1%}" + (f" +- {s.std:.1%}" if s.std is not None else "")


def number(s: Statistic) -> str:
    """Four digits, with the deviation over seeds if there is one."""
    return f"{s.mean:.4g}" + (f" +- {s.std:.2g}" if s.std is not None else "")
