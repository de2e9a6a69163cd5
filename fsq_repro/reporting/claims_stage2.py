"""The paper's claims on generators (stage 2): sampling and compression, Fig. 3b, Fig. 3d and section 5.1.

The last ones (a real coder's stream, one class against the others, soups) are not the paper's: they say whether the
generator learnt anything and whether its cost is a cost that a decoder can read.
"""

import dataclasses

import numpy as np
import scipy.stats

from fsq_repro.reporting.claims import levels_findings
from fsq_repro.reporting.findings import (
    Finding,
    best_by_size,
    chain,
    compare,
    judge,
    number,
    same_size,
    size_label,
)
from fsq_repro.reporting.groups import Group, frechet_label, frechet_names, network_of
from fsq_repro.reporting.records import GENERATORS

SATURATED = 0.05  # a change of less than this share counts as none (our threshold)
SLIGHTLY = 0.10  # above by at most this share (our threshold)
CODER_TOLERANCE = 0.01  # of the coder's stream against the model's cost (our threshold)
WELL_BELOW = 0.9  # own class against other classes (our threshold)


def sampling_findings(groups: list[Group]) -> list[Finding]:
    """Judges sampling and compression on the stage-2 groups of one setting, each kind of generator by itself."""
    return _by_generator(groups, _findings)


def levels_sampling_findings(groups: list[Group]) -> list[Finding]:
    """Judges Fig. 10 by sampling distance on the stage-2 groups of one setting, each kind of generator by itself."""
    return _by_generator(groups, lambda mine: levels_findings(mine, "sfd"))


def _by_generator(groups: list[Group], judge_all) -> list[Finding]:
    present = [name for name in GENERATORS if any(g.first.generator == name for g in groups)]
    findings = []
    for name in present:
        for f in judge_all([g for g in groups if g.first.generator == name]):
            if f.verdict == "not measured" and name != "masked":
                continue  # the paper's claims are on masked transformers: for others they need not be measured
            findings.append(f if len(present) == 1 else dataclasses.replace(f, claim=f"{name}: {f.claim}"))
    return findings


def _findings(groups: list[Group]) -> list[Finding]:
    fsq = [g for g in groups if g.first.quantizer == "fsq"]
    vq = [g for g in groups if g.first.quantizer == "vq"]
    findings = []
    for name in frechet_names((r for g in groups for r in g.records), "sfd"):
        findings += [
            _fsq_ahead(fsq, vq, name),
            _vq_worsens(vq, name),
            _fsq_saturates(fsq, name),
            _anticorrelated(fsq, "FSQ", name),
            _anticorrelated(vq, "VQ", name),
            *_own_class(groups, network_of(name)),
        ]
    bits, source = "compression_bits", "section 5.1, Fig. 3d"
    return [
        *findings,
        chain("compression cost of FSQ rises with the codebook size", source, fsq, bits, lambda a, b: b > a),
        _slightly_above(fsq, vq),
        chain(
            "compression cost of VQ drops beyond 2^11, where its usage collapses",
            source,
            [g for g in vq if g.first.target_bits >= 11],
            bits,
            lambda a, b: b < a,
        ),
        _cheaper_than_uniform(groups),
        _below(
            "compression cost below the marginal entropy, every point",
            "no claim of the paper",
            groups,
            bits,
            "entropy_bits",
        ),
        _coder(groups),
    ]


def _fsq_ahead(fsq: list[Group], vq: list[Group], name: str) -> Finding:
    pairs = [(a, b) for a, b in same_size(fsq, vq, name) if a.first.target_bits > 10]
    return compare(
        f"{frechet_label(name)}: FSQ ahead of VQ beyond 2^10", "section 5.1, Fig. 3b", pairs, name, size_label
    )


def _vq_worsens(vq: list[Group], name: str) -> Finding:
    claim = f"{frechet_label(name)}: VQ worsens beyond 2^11"
    return chain(claim, "section 5.1, Fig. 3b", [g for g in vq if g.first.target_bits >= 11], name, lambda a, b: b > a)


def _fsq_saturates(fsq: list[Group], name: str) -> Finding:
    claim = f"{frechet_label(name)}: FSQ saturates from 2^12, larger codebooks change it by less than {SATURATED:.0%}"
    ordered = [g for g in best_by_size(fsq, name) if g.first.target_bits >= 12]
    verdicts = []
    for g in ordered[1:]:
        start = ordered[0]
        if start.first.target_bits == 12 and g.protocol(name) == start.protocol(name):
            a, b = start.statistic(name).mean, g.statistic(name).mean
            evidence = f"2^12 to 2^{g.first.target_bits:g}: {a:.4g} to {b:.4g}, {b / a - 1:+.1%}"
            verdicts.append((abs(b - a) < SATURATED * a, evidence))
    return judge(claim, "section 5.1, Fig. 3b; our threshold", verdicts)


def _anticorrelated(family: list[Group], label: str, name: str) -> Finding:
    """Spearman's rank correlation over the points of one family; fewer than three say nothing."""
    points = [g for g in family if g.statistic(name) and g.statistic("compression_bits")]
    points = [g for g in points if all(g.protocol(n) == points[0].protocol(n) for n in (name, "compression_bits"))]
    verdicts = []
    if len(points) >= 3:
        cost, distance = ([g.statistic(n).mean for g in points] for n in ("compression_bits", name))
        # A constant correlates with nothing.
        rho = scipy.stats.spearmanr(cost, distance).statistic if min(np.ptp(cost), np.ptp(distance)) > 0 else 0.0
        verdicts = [(rho < 0, f"Spearman's rho {rho:+.2f} over {len(points)} points")]
    claim = f"{frechet_label(name)}: falls as the compression cost rises, {label}"
    return judge(claim, "section 5.1, Fig. 3b and 3d; at least 3 points", verdicts)


def _own_class(groups: list[Group], network: str) -> list[Finding]:
    own = f"class_fd_own_{network}"
    source = "no claim of the paper; our threshold"
    return [
        _below(
            f"FD-{network}: samples of a class are nearer to it than to other classes (below {WELL_BELOW:g} of it)",
            source,
            groups,
            own,
            f"class_fd_other_{network}",
            WELL_BELOW,
        ),
        _below(
            f"FD-{network}: samples of a class are nearer to it than tokens drawn from its histogram (soup)",
            "appendix A.3 shows soups",
            groups,
            own,
            f"class_fd_soup_{network}",
        ),
    ]


def _below(claim: str, source: str, groups: list[Group], name: str, bound: str, factor: float = 1.0) -> Finding:
    """The first figure should lie below `factor` times the second in every group."""
    verdicts = []
    for g in groups:
        a, b = g.statistic(name), g.statistic(bound)
        if a and b:
            verdicts.append((a.mean < factor * b.mean, f"{size_label(g)} {number(a)} against {number(b)}"))
    return judge(claim, source, verdicts)


def _slightly_above(fsq: list[Group], vq: list[Group]) -> Finding:
    name = "compression_bits"
    verdicts = []
    for a, b in same_size(fsq, vq, name):
        ratio = a.statistic(name).mean / b.statistic(name).mean
        evidence = f"2^{a.first.target_bits:g} {number(a.statistic(name))} against {number(b.statistic(name))}"
        verdicts.append((1 < ratio <= 1 + SLIGHTLY, f"{evidence}, {ratio - 1:+.1%}"))
    claim = f"compression cost of FSQ slightly above VQ's at equal size (by at most {SLIGHTLY:.0%})"
    return judge(claim, "section 5.1, Fig. 3d; our threshold", verdicts)


def _cheaper_than_uniform(groups: list[Group]) -> Finding:
    measured = [(g, g.statistic("compression_bits")) for g in groups]
    verdicts = [
        (s.mean < g.first.bits, f"{size_label(g)} {number(s)} against {g.first.bits:.4g}") for g, s in measured if s
    ]
    return judge("compression cost below log2|C|, every point", "Fig. 3d, line Uniform", verdicts)


def _coder(groups: list[Group]) -> Finding:
    verdicts = []
    for g in groups:
        a, b = g.statistic("coder_bits"), g.statistic("coder_expected_bits")
        if a and b:
            overhead = a.mean / b.mean - 1
            evidence = f"{size_label(g)} {number(a)} against {number(b)}, {overhead:+.2%}"
            verdicts.append((abs(overhead) < CODER_TOLERANCE, evidence))
    claim = f"a range coder's stream is within {CODER_TOLERANCE:.0%} of the model's cost"
    return judge(claim, "no claim of the paper; our threshold", verdicts)
