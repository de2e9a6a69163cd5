"""The paper's claims on autoencoders (stage 1): Fig. 3a, Fig. 3c and section 3.3, and Fig. 10."""

from fsq_repro.reporting.findings import (
    Finding,
    best,
    chain,
    compare,
    judge,
    levels_label,
    percent,
    same_size,
    size_label,
    versus,
)
from fsq_repro.reporting.groups import Group, frechet_label, frechet_names


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


def levels_findings(groups: list[Group], kind: str = "rfd") -> list[Finding]:
    """Judges Fig. 10 (smallest level of 5 or more is better) within each codebook size of one setting, by
    reconstruction ("rfd") or, as the paper does, by samples ("sfd")."""
    fsq = [g for g in groups if g.first.levels]
    findings = []
    for name in frechet_names((r for g in fsq for r in g.records), kind):
        pairs = []
        for bits in sorted({g.first.target_bits for g in fsq}):
            measured = [g for g in fsq if g.first.target_bits == bits and g.statistic(name)]
            many = [g for g in measured if min(g.first.levels) >= 5]
            few = [g for g in measured if min(g.first.levels) < 5]
            if many and few:
                pairs.append((best(many, name), best(few, name)))
        claim = f"{frechet_label(name)}: levels of 5 and more beat sets with a smaller level at the same codebook size"
        source = "Fig. 10" if kind == "sfd" else "Fig. 10, there sampling FID"
        findings.append(compare(claim, source, pairs, name, levels_label))
    return findings


def _usage_at_least(fsq: list[Group], bits: float, threshold: float, source: str) -> Finding:
    claim = f"usage of FSQ >= {threshold:.0%} at 2^{bits}"
    measured = [(g, g.statistic("usage")) for g in fsq if g.first.target_bits == bits]
    return judge(claim, source, [(u.mean >= threshold, f"{levels_label(g)} {percent(u)}") for g, u in measured if u])


def _fsq_more_used(fsq: list[Group], vq: list[Group]) -> Finding:
    pairs = [(a, b) for a, b in same_size(fsq, vq, "usage") if a.first.target_bits > 10]
    verdicts = [
        (a.statistic("usage").mean > b.statistic("usage").mean, versus(a, b, "usage", percent, size_label))
        for a, b in pairs
    ]
    return judge("FSQ uses a larger share of its codebook than VQ beyond 2^10", "section 5.1, Fig. 3c", verdicts)


def _vq_usage_collapses(vq: list[Group]) -> Finding:
    verdicts = []
    for g in vq:
        usage, codes = g.statistic("usage"), g.statistic("codes_used")
        if g.first.target_bits > 11 and usage and codes:
            evidence = f"2^{g.first.target_bits:g} {percent(usage)}, {codes.mean:,.0f} codes"
            verdicts.append((usage.mean < 0.5 and codes.mean <= 2**10, evidence))
    return judge("usage of VQ < 50% and at most 2^10 codes beyond 2^11", "section 5.1, Fig. 3c", verdicts)


def _fsq_ahead(fsq: list[Group], vq: list[Group], name: str) -> Finding:
    pairs = [(a, b) for a, b in same_size(fsq, vq, name) if a.first.target_bits > 10]
    claim = f"{frechet_label(name)}: FSQ ahead of VQ beyond 2^10"
    return compare(claim, "section 5.1, said of sampling FID, Fig. 3b", pairs, name, size_label)


def _vq_ahead_when_small(fsq: list[Group], vq: list[Group], name: str) -> Finding:
    pairs = [(b, a) for a, b in same_size(fsq, vq, name) if a.first.target_bits <= 8]
    claim = f"{frechet_label(name)}: VQ slightly ahead of FSQ up to 2^8"
    return compare(claim, "section 5.1, Fig. 3a", pairs, name, size_label)


def _fsq_improves(fsq: list[Group], name: str) -> Finding:
    claim = f"{frechet_label(name)}: FSQ improves with every larger codebook"
    return chain(claim, "section 5.1, Fig. 3a", fsq, name, lambda a, b: b < a)


def _vq_worsens(vq: list[Group], name: str) -> Finding:
    claim = f"{frechet_label(name)}: VQ worsens beyond 2^11"
    return chain(claim, "section 5.1, Fig. 3a", [g for g in vq if g.first.target_bits >= 11], name, lambda a, b: b > a)


def _fewer_parameters(fsq: list[Group], vq: list[Group]) -> Finding:
    verdicts = []
    for a in fsq:
        for b in vq:
            p, q = a.first.parameters, b.first.parameters
            if a.first.target_bits == b.first.target_bits and p and q:
                verdicts.append((p < q, f"2^{a.first.target_bits:g} {p:,} against {q:,}"))
    return judge("FSQ models have fewer parameters than VQ models of the same codebook size", "section 3.3", verdicts)
