"""Table 2: UViM on depth, panoptic segmentation and colorization, measured runs beside baselines and published rows.

Two claims are not the paper's: that the models learnt anything (baselines), and that the codes carry more than stage II
predicts (stage I is better).
"""

import itertools
from collections.abc import Callable, Iterable, Sequence

from fsq_repro.metrics.table import BASELINES, MetricKey
from fsq_repro.reporting import paper_uvim, verdicts
from fsq_repro.reporting.claims import (
    NOT_OF_THE_PAPER,
    OURS,
    Claim,
    Finding,
    Pairs,
    Side,
    alike,
    same_size,
    side,
)
from fsq_repro.reporting.groups import Group, keys_of, titled
from fsq_repro.reporting.markdown import (
    MISSING,
    Cell,
    chosen_on_notes,
    findings_text,
    footnoted_table,
    metric_cell,
    seeds_text,
    setting_line,
)
from fsq_repro.reporting.paper_uvim import Published, PublishedTask
from fsq_repro.reporting.records import TASKS, RunRecord
from fsq_repro.reporting.uvim_models import (
    FID_5K,
    METRICS,
    Comparison,
    Model,
    baselines,
    comparisons,
    of_the_data,
    same_measurement,
)

TITLES = {"depth": "Depth estimation", "panoptic": "Panoptic segmentation", "colorization": "Colorization"}
FURTHER = {
    "depth": ("abs_rel", "log10", "delta1", "delta2", "delta3", "images", "images_skipped"),
    "panoptic": (
        *("sq", "rq", "pq_things", "sq_things", "rq_things", "pq_stuff", "sq_stuff", "rq_stuff"),
        *("classes", "images"),
    ),
    "colorization": ("colourfulness", "mse", "images"),
}
USAGE = tuple(map(MetricKey, ("usage", "codes_used", "entropy_bits", "uniform_usage", "tokens")))
BASELINE = "baseline, measured here"
MARK = "‡"  # of published scores
STAGES_NOTE = (
    "Stage II predicts the codes from the image; stage I (oracle) encodes and decodes the true labels. Deviations of "
    "stage II are over its seeds on one stage I. Usage is counted over the validation labels' codes."
)

SOURCE = "section 5.3, Table 2"
WITHIN = 0.03
FAR_FEWER = 0.5  # of VQ's usage; Table 2: 0.78% against 99%
FULL_USAGE = 0.95  # of the usage that a uniform source would show; Table 2: 99% to 100%
CLEARLY = 0.10  # better than a baseline by more than this share of it


def _predictors(c: Comparison, quantizer: str, context: bool) -> list[Group]:
    chosen = [m for m in c.models if (m.first.quantizer, m.first.context) == (quantizer, context)]
    return [m.stage2 for m in chosen if m.stage2]


def _quantizers(first: str, second: str) -> Callable[..., Pairs]:
    """Two quantizers' predictions, both with context, at one codebook size."""

    def pairs(c: Comparison, key: MetricKey) -> Pairs:
        groups = _predictors(c, first, True) + _predictors(c, second, True)
        return [(_labelled(c, a), _labelled(c, b)) for a, b in same_size(first, second)(groups, key)]

    return pairs


def _labelled(c: Comparison, s: Side) -> Side:
    """A side under its model's name, commas left out: they stand between the models of a sentence."""
    (model,) = [m for m in c.models if s.group is not None and s.group in m.groups]
    return side(s.group, s.key, model.variant.replace(",", ""))


def _fsq_usage(c: Comparison, key: MetricKey) -> Pairs:
    uniform = MetricKey("uniform_usage")
    for m in c.models:
        g = m.of_labels(key)
        if m.first.quantizer == "fsq" and g.values(key) and g.values(uniform):
            yield side(g, key, m.variant.replace(",", "")), side(g, uniform, "a uniform source")


def _usage_without_splitting(c: Comparison, key: MetricKey) -> Pairs:
    quantizers = ("ema_vq_no_splitting", "ema_vq")
    groups = [m.of_labels(key) for m in c.models if m.first.quantizer in quantizers and m.first.context]
    return same_size(*quantizers)(groups, key)


def _context(c: Comparison, key: MetricKey) -> Pairs:
    for quantizer in ("fsq", "ema_vq"):
        for a in _predictors(c, quantizer, True):
            for b in _predictors(c, quantizer, False):
                if a.first.target_bits == b.first.target_bits and alike(a, b, key):
                    yield _labelled(c, side(a, key)), _labelled(c, side(b, key))


def _stage1_and_stage2(c: Comparison, key: MetricKey) -> Pairs:
    for m in c.models:
        if len(m.groups) == 2 and _comparable(m.stage1, key, m.stage2, key):
            yield side(m.stage1, key, m.variant.replace(",", "")), side(m.stage2, key, "its stage II")


def _against_baseline(baseline: str) -> Callable[..., Pairs]:
    def pairs(c: Comparison, key: MetricKey) -> Pairs:
        for bound, g in baselines(c.records, key):
            for m in c.models:
                if bound.baseline == baseline and m.stage2 and _comparable(m.stage2, key, g, bound):
                    exact = verdicts.exactly(g.statistic(bound).mean)
                    yield side(m.stage2, key, m.variant.replace(",", "")), Side("a baseline of", key, exact)

    return pairs


def _comparable(a: Group, key: MetricKey, b: Group, other: MetricKey) -> bool:
    return bool(a.values(key) and b.values(other)) and same_measurement(a.protocol(key), b.protocol(other))


def _claims(task: str, metric: str) -> tuple[Claim, ...]:
    """What is judged for a task by its metric; baselines apart."""
    claims = [
        Claim(
            f"{{title}}: FSQ within {WITHIN:.0%} of VQ, or ahead",
            f"{SOURCE}: 0.5-3% behind, though 3.8% in FID-5k",
            metric,
            _quantizers("fsq", "ema_vq"),
            better_by=-WITHIN,
        ),
        Claim(
            f"FSQ uses at least {FULL_USAGE:.0%} of the codes that a uniform source would use",
            f"Table 2: 99-100%; {OURS}",
            "usage",
            _fsq_usage,
            above=FULL_USAGE,
        ),
    ]
    if task == "depth":
        claims += [
            Claim(
                f"VQ without splitting uses far fewer codes than VQ (below {FAR_FEWER:g} of its usage)",
                f"{SOURCE}; {OURS}",
                "usage",
                _usage_without_splitting,
                below=FAR_FEWER,
            ),
            Claim(
                "{title}: VQ is better than VQ without splitting",
                SOURCE,
                metric,
                _quantizers("ema_vq", "ema_vq_no_splitting"),
                better_by=0,
            ),
        ]
    if task == "panoptic":
        text = "{title}: a stage I that sees the image (context) is better than one that does not"
        claims.append(Claim(text, SOURCE, metric, _context, better_by=0))
    text = "{title}: stage I (true labels encoded and decoded) is better than stage II"
    source = f"{NOT_OF_THE_PAPER}; UViM's README has it so"
    return (*claims, Claim(text, source, metric, _stage1_and_stage2, better_by=0))


CLAIMS = {task: _claims(task, metric) for task, metric in METRICS.items()}


def uvim_findings(c: Comparison) -> list[Finding]:
    """Judges the claims that concern this task on the models of one setting."""
    findings = []
    for claim in CLAIMS[c.task]:
        findings.append(claim.judge(c, c.metric if claim.metric == c.metric.metric else MetricKey(claim.metric)))
    if c.task == "panoptic":
        findings.append(_fsq_loses_less(c))
    for name in dict.fromkeys(key.baseline for key, _ in baselines(c.records, c.metric)):
        text = f"{{title}}: clearly better than the baseline {name.replace('_', ' ')} (by more than {CLEARLY:.0%})"
        source = f"{NOT_OF_THE_PAPER}; {OURS}"
        findings.append(
            Claim(text, source, c.metric.metric, _against_baseline(name), better_by=CLEARLY).judge(c, c.metric)
        )
    return findings


def _fsq_loses_less(c: Comparison) -> Finding:
    """A difference of differences: what each quantizer loses without context."""
    by_quantizer = {q: [p for p in _context(c, c.metric) if p[0].group.first.quantizer == q] for q in ("fsq", "ema_vq")}
    found, evidence = [], []
    for (a, without_a), (b, without_b) in itertools.product(*by_quantizer.values()):
        if a.group.first.target_bits == b.group.first.target_bits and alike(a.group, b.group, c.metric):
            signs = ((-1, a), (1, without_a), (1, b), (-1, without_b))
            found.append(verdicts.is_positive((sign, s.statistic) for sign, s in signs))
            losses = [x.statistic.mean - y.statistic.mean for x, y in ((a, without_a), (b, without_b))]
            evidence.append("FSQ {} against VQ {}".format(*map(c.metric.declared.show, losses)))
    text = f"{titled(c.metric)}: without context FSQ loses less than VQ"
    return Finding(text, SOURCE, verdicts.conclude(found), ", ".join(evidence))


def uvim_table(records: Iterable[RunRecord]) -> str:
    """Table 2 and the further metrics, Markdown: a section per task, in it the tables of each setting.

    Rows: what was measured, then the baselines, then the published rows, marked as not comparable with other data.
    Below: protocols, and for each claim of the paper whether it appears in these runs.
    """
    parts = []
    compared = list(comparisons(records))
    for task in TASKS:
        mine = [c for c in compared if c.task == task]
        if mine:
            parts.append(f"## {TITLES[task]} (Table 2)\n")
        for c in mine:
            tables = [t for t in (_main_table(c), _further_table(c)) if t]
            parts += [f"{setting_line(c.setting, c.records)}\n", "\n\n".join(tables) + "\n"]
            parts.append(findings_text(uvim_findings(c)))
    return "\n".join(parts)


def _main_table(c: Comparison) -> str:
    title = titled(c.metric)
    header = ["model", "source", "codebook", f"{title}, stage II", f"{title}, stage I (oracle)"]
    header += [*map(titled, USAGE), "runs"]
    published = paper_uvim.TABLE2[c.task]
    rows = [_measured_row(m, c.metric) for m in c.models]
    for key, g in baselines(c.records, c.metric):
        lead = [BASELINES[key.baseline], BASELINE, MISSING]
        rows.append([*lead, _baseline_cell(g, key), *[MISSING] * (2 + len(USAGE))])
    rows += [_published_row(p, published, c.metric) for p in published.rows]
    groups = [g for m in c.models for g in m.groups]
    notes = [
        *chosen_on_notes(groups),
        STAGES_NOTE,
        f"{MARK} Published {published.metric} ({published.data}): not comparable with rows measured on other data, at "
        "another resolution or with another network; theirs: mean ± standard deviation over three trainings of stage "
        "II.",
        *([paper_uvim.PQ_NOTE] if c.task == "panoptic" else []),
    ]
    return footnoted_table(header, rows, groups, notes)


def _measured_row(m: Model, key: MetricKey) -> list[Cell | str]:
    stage1_seed = f"; stage I: seed {m.first.stage1.seed}" if m.stage2 else "; stage I only"
    return [
        f"UViM ({m.variant})",
        "measured here",
        f"{m.first.codebook_size:,}",
        metric_cell(m.stage2, key),
        metric_cell(m.stage1, key),
        *(metric_cell(m.of_labels(k), k) for k in USAGE),
        seeds_text(m.groups[0]) + stage1_seed,
    ]


def _published_row(p: Published, task: PublishedTask, key: MetricKey) -> list[str]:
    # Over a column of another network's distance each value says what it is.
    name = f"{task.metric} " if task.metric == FID_5K.title and key != FID_5K else ""

    def score(value: float | None, std: float | None = None) -> str:
        if value is None:
            return MISSING
        deviation = f" ± {std:g}" if std is not None else ""
        return f"{name}{task.form.format(value)}{deviation} {MARK}"

    return [
        p.model,
        p.source,
        f"{p.codebook_size:,}" if p.codebook_size else MISSING,
        score(p.score, p.std),
        score(p.stage1),
        MISSING if p.usage is None else f"{p.usage:.0%}" if p.usage > 0.01 else f"{p.usage:.2%}",
        *[MISSING] * len(USAGE),
    ]


def _further_table(c: Comparison) -> str:
    """The other metrics of both stages, of all that any run has; empty if there are none."""
    distances = [k for k in keys_of(c.records, "colorization_fd") if k != c.metric]
    present = {k.metric for r in c.records for k in r.metrics}
    keys = [*distances, *(MetricKey(name) for name in FURTHER[c.task] if name in present)]
    if not keys:
        return ""
    rows = []
    for stage in ("II", "I"):
        for m in c.models:
            g = m.stage2 if stage == "II" else m.stage1
            if g is not None:
                lead = [f"UViM ({m.variant})", f"stage {stage}"]
                rows.append([*lead, *(metric_cell(g, k) for k in keys), seeds_text(g)])
    rows += _further_baselines(c, keys)
    header = ["model", "stage", *map(titled, keys), "runs"]
    return footnoted_table(header, rows, [g for m in c.models for g in m.groups])


def _further_baselines(c: Comparison, keys: Sequence[MetricKey]) -> list[list[Cell | str]]:
    """A row per baseline; more than one where it was measured in several ways."""
    found = [baselines(c.records, k) for k in keys]
    rows = []
    for baseline in dict.fromkeys(k.baseline for column in found for k, _ in column):
        columns = [[_baseline_cell(g, k) for k, g in column if k.baseline == baseline] for column in found]
        for cells in itertools.zip_longest(*columns, fillvalue=MISSING):
            rows.append([BASELINES[baseline], BASELINE, *cells, MISSING])
    return rows


def _baseline_cell(g: Group, key: MetricKey) -> Cell:
    cell = metric_cell(g, key)
    return Cell(cell.text, of_the_data(cell.protocol))
