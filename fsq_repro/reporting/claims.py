"""Whether the paper's claims appear in measured runs: computed from the records, with the numbers, never assumed.

A comparison is made only between groups of one setting whose figures share a protocol. A claim for which runs are
missing is "not measured", never "yes".
"""

import dataclasses
from collections.abc import Iterable

from fsq_repro.reporting.groups import Group, Statistic, display_quantizer, frechet_label, frechet_names


@dataclasses.dataclass(frozen=True)
class Finding:
    """A claim, where it comes from, "yes" | "no" | "partly" | "not measured", and the numbers behind the verdict."""

    claim: str
    source: str
    verdict: str
    evidence: str

    def __str__(self) -> str:
        return f"{self.claim} ({self.source}): **{self.verdict}**{'; ' + self.evidence if self.evidence else ''}."


def tradeoff_findings(groups: list[Group]) -> list[Finding]:
    """Judges the claims of Fig. 3a and 3c, and of section 3.3, on the groups of one setting."""
    names = frechet_names(r for g in groups for r in g.records)
    fsq = [g for g in groups if g.first.quantizer == "fsq"]
    vq = [g for g in groups if g.first.quantizer == "vq"]
    findings = [
        _usage_at_least(fsq, 8, 0.95, "small codebooks are used fully, inferred; our threshold"),
        _usage_at_least(fsq, 10, 0.80, "Fig. 4 reports 100% for [8,5,5,5] on ImageNet 256; our threshold"),
        _usage_at_least(fsq, 14, 0.95, "section 5.1, Fig. 3c: almost all of 2^14; our threshold"),
        _fsq_more_used(fsq, vq),
        _vq_usage_collapses(vq),
    ]
    for name in names:
        findings += [
            _fsq_ahead(fsq, vq, name),
            _vq_ahead_when_small(fsq, vq, name),
            _fsq_improves(fsq, name),
            _vq_worsens(vq, name),
        ]
    return [*findings, _fewer_parameters(fsq, vq)]


def levels_findings(groups: list[Group]) -> list[Finding]:
    """Judges Fig. 10 (smallest level of 5 or more is better) within each codebook size of one setting."""
    fsq = [g for g in groups if g.first.levels]
    findings = []
    for name in frechet_names(r for g in fsq for r in g.records):
        pairs = []
        for bits in sorted({g.first.target_bits for g in fsq}):
            measured = [g for g in fsq if g.first.target_bits == bits and g.statistic(name)]
            many = [g for g in measured if min(g.first.levels) >= 5]
            few = [g for g in measured if min(g.first.levels) < 5]
            if many and few:
                pairs.append((_best(many, name), _best(few, name)))
        claim = f"{frechet_label(name)}: levels of 5 and more beat sets with a smaller level at the same codebook size"
        source = "Fig. 10, there sampling FID"
        findings.append(_compare(claim, source, pairs, name, _levels_label))
    return findings


def _usage_at_least(fsq: list[Group], bits: float, threshold: float, source: str) -> Finding:
    claim = f"usage of FSQ >= {threshold:.0%} at 2^{bits}"
    measured = [(g, g.statistic("usage")) for g in fsq if g.first.target_bits == bits]
    return _judge(claim, source, [(u.mean >= threshold, f"{_levels_label(g)} {_percent(u)}") for g, u in measured if u])


def _fsq_more_used(fsq: list[Group], vq: list[Group]) -> Finding:
    pairs = [(a, b) for a, b in _same_size(fsq, vq, "usage") if a.first.target_bits > 10]
    verdicts = [
        (a.statistic("usage").mean > b.statistic("usage").mean, _versus(a, b, "usage", _percent, _size_label))
        for a, b in pairs
    ]
    return _judge("FSQ uses a larger share of its codebook than VQ beyond 2^10", "section 5.1, Fig. 3c", verdicts)


def _vq_usage_collapses(vq: list[Group]) -> Finding:
    verdicts = []
    for g in vq:
        usage, codes = g.statistic("usage"), g.statistic("codes_used")
        if g.first.target_bits > 11 and usage and codes:
            evidence = f"2^{g.first.target_bits:g} {_percent(usage)}, {codes.mean:,.0f} codes"
            verdicts.append((usage.mean < 0.5 and codes.mean <= 2**10, evidence))
    return _judge("usage of VQ < 50% and at most 2^10 codes beyond 2^11", "section 5.1, Fig. 3c", verdicts)


def _fsq_ahead(fsq: list[Group], vq: list[Group], name: str) -> Finding:
    pairs = [(a, b) for a, b in _same_size(fsq, vq, name) if a.first.target_bits > 10]
    claim = f"{frechet_label(name)}: FSQ ahead of VQ beyond 2^10"
    return _compare(claim, "section 5.1, said of sampling FID, Fig. 3b", pairs, name, _size_label)


def _vq_ahead_when_small(fsq: list[Group], vq: list[Group], name: str) -> Finding:
    pairs = [(b, a) for a, b in _same_size(fsq, vq, name) if a.first.target_bits <= 8]
    claim = f"{frechet_label(name)}: VQ slightly ahead of FSQ up to 2^8"
    return _compare(claim, "section 5.1, Fig. 3a", pairs, name, _size_label)


def _fsq_improves(fsq: list[Group], name: str) -> Finding:
    claim = f"{frechet_label(name)}: FSQ improves with every larger codebook"
    return _chain(claim, "section 5.1, Fig. 3a", fsq, name, lambda a, b: b < a)


def _vq_worsens(vq: list[Group], name: str) -> Finding:
    claim = f"{frechet_label(name)}: VQ worsens beyond 2^11"
    return _chain(claim, "section 5.1, Fig. 3a", [g for g in vq if g.first.target_bits >= 11], name, lambda a, b: b > a)


def _fewer_parameters(fsq: list[Group], vq: list[Group]) -> Finding:
    verdicts = []
    for a in fsq:
        for b in vq:
            p, q = a.first.parameters, b.first.parameters
            if a.first.target_bits == b.first.target_bits and p and q:
                verdicts.append((p < q, f"2^{a.first.target_bits:g} {p:,} against {q:,}"))
    return _judge("FSQ models have fewer parameters than VQ models of the same codebook size", "section 3.3", verdicts)


def _same_size(a: list[Group], b: list[Group], name: str) -> list[tuple[Group, Group]]:
    """Pairs of equal target bits whose figure was measured under one protocol."""
    return [
        (x, y)
        for x in a
        for y in b
        if x.first.target_bits == y.first.target_bits
        and x.protocol(name) is not None
        and x.protocol(name) == y.protocol(name)
    ]


def _compare(claim: str, source: str, pairs: list[tuple[Group, Group]], name: str, label) -> Finding:
    """The first of each pair should have the lower figure."""
    verdicts = [
        (a.statistic(name).mean < b.statistic(name).mean, _versus(a, b, name, _number, label))
        for a, b in pairs
        if a.protocol(name) == b.protocol(name)
    ]
    return _judge(claim, source, verdicts)


def _chain(claim: str, source: str, groups: list[Group], name: str, holds) -> Finding:
    """Each step from one codebook size to the next should hold; where a size has several level sets, its best
    counts."""
    measured = [g for g in groups if g.statistic(name)]
    sizes = sorted({g.first.target_bits for g in measured})
    ordered = [_best([g for g in measured if g.first.target_bits == bits], name) for bits in sizes]
    verdicts = []
    for a, b in zip(ordered, ordered[1:], strict=False):
        if a.protocol(name) == b.protocol(name):
            x, y = a.statistic(name), b.statistic(name)
            evidence = f"2^{a.first.target_bits:g} to 2^{b.first.target_bits:g}: {_number(x)} to {_number(y)}"
            verdicts.append((holds(x.mean, y.mean), evidence))
    return _judge(claim, source, verdicts)


def _best(groups: list[Group], name: str) -> Group:
    return min(groups, key=lambda g: g.statistic(name).mean)


def _judge(claim: str, source: str, verdicts: Iterable[tuple[bool, str]]) -> Finding:
    verdicts = list(verdicts)
    held = [v for v, _ in verdicts]
    verdict = "not measured" if not held else "yes" if all(held) else "partly" if any(held) else "no"
    return Finding(claim, source, verdict, ", ".join(evidence for _, evidence in verdicts))


def _versus(a: Group, b: Group, name: str, show, label) -> str:
    return f"{label(a)} {show(a.statistic(name))} against {label(b)} {show(b.statistic(name))}"


def _size_label(g: Group) -> str:
    return f"{display_quantizer(g.first.quantizer)} 2^{g.first.target_bits:g}"


def _levels_label(g: Group) -> str:
    return f"[{','.join(map(str, g.first.levels))}]" if g.first.levels else f"{g.first.codebook_size:,} codes"


def _percent(s: Statistic) -> str:
    return f"{s.mean:.1%}" + (f" +- {s.std:.1%}" if s.std is not None else "")


def _number(s: Statistic) -> str:
    return f"{s.mean:.4g}" + (f" +- {s.std:.2g}" if s.std is not None else "")
