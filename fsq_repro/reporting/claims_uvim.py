"""The paper's claims on UViM: section 5.3 with Table 2; and two that are not the paper's: that the models learnt
anything (baselines), and that the codes carry more than stage II predicts (stage I is better)."""

from collections.abc import Sequence

from fsq_repro.reporting.findings import Finding, judge, same_size
from fsq_repro.reporting.groups import Group, Statistic
from fsq_repro.reporting.markdown import scale_of, title_and_format
from fsq_repro.reporting.uvim_models import Comparison, Model, baselines, same_measurement

SOURCE = "section 5.3, Table 2"
WITHIN = 0.03
FAR_FEWER = 0.5  # of VQ's usage (our threshold; Table 2: 0.78% against 99%)
FULL_USAGE = 0.95  # our threshold; Table 2: 99% to 100%
CLEARLY = 0.10  # better than a baseline by more than this share of it (our threshold)


def uvim_findings(c: Comparison) -> list[Finding]:
    """Judges the claims that concern this task on the models of one setting."""
    title = title_and_format(c.metric)[0]
    findings = [_fsq_close(c, title), _fsq_fully_used(c.models)]
    if c.task == "depth":
        findings += [_without_splitting_fewer_codes(c), _without_splitting_worse(c, title)]
    if c.task == "panoptic":
        findings += [_context_helps(c, title), _fsq_loses_less(c, title)]
    return [*findings, _stage1_better(c, title), *_beats_baselines(c, title)]


def lower_is_better(metric: str) -> bool:
    """Whether a task's metric is an error or a distance."""
    return metric != "pq"


def _better(metric: str, a: float, b: float, share: float = 0.0) -> bool:
    """Whether `a` is better than `b` by more than this share of `b`; a negative share allows it to be worse."""
    return a < (1 - share) * b if lower_is_better(metric) else a > (1 + share) * b


def _fsq_close(c: Comparison, title: str) -> Finding:
    verdicts = []
    for a, b in same_size(_stage2(c, "fsq", True), _stage2(c, "ema_vq", True), c.metric):
        x, y = a.statistic(c.metric), b.statistic(c.metric)
        change = f", {x.mean / y.mean - 1:+.1%}" if y.mean else ""
        evidence = f"FSQ {_show(c.metric, x)} against VQ {_show(c.metric, y)}{change}"
        verdicts.append((_better(c.metric, x.mean, y.mean, -WITHIN), evidence))
    source = f"{SOURCE}: 0.5-3% behind, though 3.8% in FID-5k"
    return judge(f"{title}: FSQ within {WITHIN:.0%} of VQ, or ahead", source, verdicts)


def _fsq_fully_used(models: Sequence[Model]) -> Finding:
    verdicts = []
    for m in models:
        g = m.of_labels("usage")
        usage, uniform = g.statistic("usage"), g.statistic("uniform_usage")
        if m.first.quantizer == "fsq" and usage:
            of_uniform = f" (a uniform source: {uniform.mean:.1%})" if uniform else ""
            evidence = f"{_label(m)} {usage.mean:.1%} of {m.first.codebook_size:,} codes{of_uniform}"
            verdicts.append((usage.mean >= FULL_USAGE, evidence))
    return judge(f"usage of FSQ at least {FULL_USAGE:.0%}", "Table 2: 99-100%; our threshold", verdicts)


def _without_splitting_fewer_codes(c: Comparison) -> Finding:
    plain = [m.of_labels("usage") for m in c.models if m.first.quantizer == "ema_vq_no_splitting" and m.first.context]
    split = [m.of_labels("usage") for m in c.models if m.first.quantizer == "ema_vq" and m.first.context]
    verdicts = []
    for a, b in same_size(plain, split, "usage"):
        x, y = a.statistic("usage").mean, b.statistic("usage").mean
        verdicts.append((x < FAR_FEWER * y, f"{x:.2%} against {y:.2%}"))
    claim = f"VQ without splitting uses far fewer codes than VQ (below {FAR_FEWER:g} of its usage)"
    return judge(claim, f"{SOURCE}; our threshold", verdicts)


def _without_splitting_worse(c: Comparison, title: str) -> Finding:
    pairs = same_size(_stage2(c, "ema_vq_no_splitting", True), _stage2(c, "ema_vq", True), c.metric)
    verdicts = [_compared(c.metric, b, a) for a, b in pairs]
    return judge(f"{title}: VQ without splitting is worse than VQ", SOURCE, verdicts)


def _context_helps(c: Comparison, title: str) -> Finding:
    verdicts = []
    for quantizer, label in (("fsq", "FSQ"), ("ema_vq", "VQ")):
        for a, b in same_size(_stage2(c, quantizer, True), _stage2(c, quantizer, False), c.metric):
            better, evidence = _compared(c.metric, a, b)
            verdicts.append((better, f"{label} {evidence}"))
    return judge(f"{title}: a stage I that sees the image (context) is better than one that does not", SOURCE, verdicts)


def _fsq_loses_less(c: Comparison, title: str) -> Finding:
    losses = []
    for quantizer in ("fsq", "ema_vq"):
        pairs = same_size(_stage2(c, quantizer, True), _stage2(c, quantizer, False), c.metric)
        losses.append(
            [(a, scale_of(c.metric) * (a.statistic(c.metric).mean - b.statistic(c.metric).mean)) for a, b in pairs]
        )
    verdicts = [
        (x < y, f"FSQ {x:.1f} against VQ {y:.1f}")
        for a, x in losses[0]
        for b, y in losses[1]
        if same_size([a], [b], c.metric)
    ]
    return judge(f"{title}: without context FSQ loses less than VQ", SOURCE, verdicts)


def _stage1_better(c: Comparison, title: str) -> Finding:
    verdicts = []
    for m in c.models:
        oracle, predicted = (_measured(g, c.metric) for g in (m.stage1, m.stage2))
        if oracle and predicted and same_measurement(oracle[1], predicted[1]):
            better, evidence = _compared(c.metric, m.stage1, m.stage2)
            verdicts.append((better, f"{_label(m)} {evidence}"))
    source = "no claim of the paper; UViM's README has it so"
    return judge(f"{title}: stage I (true labels encoded and decoded) is better than stage II", source, verdicts)


def _beats_baselines(c: Comparison, title: str) -> list[Finding]:
    by_name: dict[str, list[tuple[bool, str]]] = {}
    for name, b in baselines(c.records, c.metric):
        verdicts = by_name.setdefault(name, [])
        full = f"{c.metric}@{name}"
        bound = b.statistic(full)
        for m in c.models:
            predicted = _measured(m.stage2, c.metric)
            if predicted and same_measurement(predicted[1], b.protocol(full)):
                evidence = f"{_label(m)} {_show(c.metric, predicted[0])} against {_show(c.metric, bound)}"
                verdicts.append((_better(c.metric, predicted[0].mean, bound.mean, CLEARLY), evidence))
    return [
        judge(
            f"{title}: clearly better than the baseline {name.replace('_', ' ')} (by more than {CLEARLY:.0%})",
            "no claim of the paper; our threshold",
            verdicts,
        )
        for name, verdicts in by_name.items()
    ]


def _stage2(c: Comparison, quantizer: str, context: bool) -> list[Group]:
    chosen = [m for m in c.models if (m.first.quantizer, m.first.context) == (quantizer, context)]
    return [m.stage2 for m in chosen if m.stage2]


def _measured(g: Group | None, name: str) -> tuple[Statistic, dict] | None:
    return (g.statistic(name), g.protocol(name)) if g is not None and g.statistic(name) else None


def _label(m: Model) -> str:
    return m.variant.replace(",", "")  # commas stand between the models of a sentence


def _compared(metric: str, a: Group, b: Group) -> tuple[bool, str]:
    """Whether `a` is better, and both numbers."""
    x, y = a.statistic(metric), b.statistic(metric)
    return _better(metric, x.mean, y.mean), f"{_show(metric, x)} against {_show(metric, y)}"


def _show(metric: str, s: Statistic) -> str:
    scale = scale_of(metric)
    return f"{scale * s.mean:.4g}" + (f" +- {scale * s.std:.2g}" if s.std is not None else "")
