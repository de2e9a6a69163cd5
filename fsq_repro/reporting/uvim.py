"""Table 2: UViM on depth, panoptic segmentation and colorization, measured runs beside baselines and published rows."""

import itertools
from collections.abc import Iterable, Sequence

from fsq_repro.reporting import paper_uvim
from fsq_repro.reporting.claims_uvim import uvim_findings
from fsq_repro.reporting.groups import FID_5K, Group, frechet_names
from fsq_repro.reporting.markdown import (
    MISSING,
    Cell,
    figure_cell,
    footnoted_table,
    seeds_cell,
    setting_line,
    several_seeds,
    title_and_format,
)
from fsq_repro.reporting.paper_uvim import Published, PublishedTask
from fsq_repro.reporting.records import TASKS, RunRecord
from fsq_repro.reporting.uvim_models import BASELINES, Comparison, Model, baselines, comparisons, of_the_data

TITLES = {"depth": "Depth estimation", "panoptic": "Panoptic segmentation", "colorization": "Colorization"}
FURTHER = {
    "depth": ("abs_rel", "log10", "delta1", "delta2", "delta3", "images", "images_skipped"),
    "panoptic": (
        *("sq", "rq", "pq_things", "sq_things", "rq_things", "pq_stuff", "sq_stuff", "rq_stuff"),
        *("classes", "images"),
    ),
    "colorization": ("colourfulness", "mse", "images"),
}
USAGE = ("usage", "codes_used", "entropy_bits", "uniform_usage", "tokens")
BASELINE = "baseline, measured here"
MARK = "‡"  # of published scores
STAGES_NOTE = (
    "Stage II predicts the codes from the image; stage I (oracle) encodes and decodes the true labels. Deviations of "
    "stage II are over its seeds on one stage I. Usage is counted over the validation labels' codes."
)


def uvim_table(records: Iterable[RunRecord]) -> str:
    """Table 2 and the further metrics, Markdown: a section a task, in it the tables of each setting.

    Rows: what was measured, then the baselines (figures METRIC@NAME), then the published rows, marked as not comparable
    with other data. Below: protocols, and for each claim of the paper whether it appears in these runs.
    """
    parts = []
    compared = list(comparisons(records))
    for task in TASKS:
        mine = [c for c in compared if c.task == task]
        if mine:
            parts.append(f"## {TITLES[task]} (Table 2)\n")
        for c in mine:
            tables = [t for t in (_main_table(c), _further_table(c)) if t]
            parts.append(f"{setting_line(c.setting, c.records)}\n\n" + "\n\n".join(tables) + "\n")
            judged = [f"- {f}" for f in uvim_findings(c)]
            parts.append("Do the paper's claims appear in these runs?\n\n" + "\n".join(judged) + "\n")
    return "\n".join(parts)


def _main_table(c: Comparison) -> str:
    title = title_and_format(c.metric)[0]
    header = ["model", "source", "codebook", f"{title}, stage II", f"{title}, stage I (oracle)"]
    header += [*(title_and_format(n)[0] for n in USAGE), "runs"]
    published = paper_uvim.TABLE2[c.task]
    rows = [_measured_row(m, c.metric) for m in c.models]
    for name, g in baselines(c.records, c.metric):
        lead = [Cell(BASELINES[name]), Cell(BASELINE), Cell(MISSING)]
        rows.append([*lead, _baseline_cell(g, f"{c.metric}@{name}"), *[Cell(MISSING)] * (2 + len(USAGE))])
    rows += [_published_row(p, published, c.metric) for p in published.rows]
    notes = [
        STAGES_NOTE,
        f"{MARK} Published {published.metric} ({published.data}): not comparable with rows measured on other data, at "
        "another resolution or with another network; theirs: mean ± standard deviation over three trainings of stage "
        "II.",
        *([paper_uvim.PQ_NOTE] if c.task == "panoptic" else []),
    ]
    return footnoted_table(header, rows, several_seeds(g for m in c.models for g in m.groups), notes)


def _measured_row(m: Model, metric: str) -> list[Cell]:
    runs = seeds_cell(m.groups[0]).text
    stage1_seed = f"; stage I: seed {m.first.stage1.seed}" if m.stage2 else "; stage I only"
    return [
        Cell(f"UViM ({m.variant})"),
        Cell("measured here"),
        Cell(f"{m.first.codebook_size:,}"),
        _cell(m.stage2, metric),
        _cell(m.stage1, metric),
        *(figure_cell(m.of_labels(n), n) for n in USAGE),
        Cell(runs + stage1_seed),
    ]


def _published_row(p: Published, task: PublishedTask, metric: str) -> list[Cell]:
    # Over a column of another network's distance each value says what it is.
    name = f"{task.metric} " if task.metric == "FID-5k" and metric != FID_5K else ""

    def score(value: float | None, std: float | None = None) -> Cell:
        if value is None:
            return Cell(MISSING)
        deviation = f" ± {std:g}" if std is not None else ""
        return Cell(f"{name}{task.form.format(value)}{deviation} {MARK}")

    usage = MISSING if p.usage is None else f"{p.usage:.0%}" if p.usage > 0.01 else f"{p.usage:.2%}"
    return [
        Cell(p.model),
        Cell(p.source),
        Cell(f"{p.codebook_size:,}" if p.codebook_size else MISSING),
        score(p.score, p.std),
        score(p.stage1),
        Cell(usage),
        *[Cell(MISSING)] * len(USAGE),
    ]


def _further_table(c: Comparison) -> str:
    """The other metrics of both stages, of all that any run has; empty if there are none."""
    distances = [n for n in frechet_names(c.records, "cfd") if n != c.metric]
    names = [*distances, *FURTHER[c.task]]
    names = [n for n in names if any(full.partition("@")[0] == n for r in c.records for full in r.figures)]
    if not names:
        return ""
    rows = []
    for stage in ("II", "I"):
        for m in c.models:
            g = m.stage2 if stage == "II" else m.stage1
            if g is not None:
                lead = [Cell(f"UViM ({m.variant})"), Cell(f"stage {stage}")]
                rows.append([*lead, *(figure_cell(g, n) for n in names), seeds_cell(g)])
    rows += _further_baselines(c, names)
    header = ["model", "stage", *(title_and_format(n)[0] for n in names), "runs"]
    return footnoted_table(header, rows, several_seeds(g for m in c.models for g in m.groups))


def _further_baselines(c: Comparison, names: Sequence[str]) -> list[list[Cell]]:
    """A row a baseline; more than one where it was measured in several ways."""
    found = [baselines(c.records, n) for n in names]
    rows = []
    for baseline in dict.fromkeys(b for column in found for b, _ in column):
        columns = [
            [_baseline_cell(g, f"{n}@{b}") for b, g in column if b == baseline]
            for n, column in zip(names, found, strict=True)
        ]
        for cells in itertools.zip_longest(*columns, fillvalue=Cell(MISSING)):
            rows.append([Cell(BASELINES[baseline]), Cell(BASELINE), *cells, Cell(MISSING)])
    return rows


def _cell(g: Group | None, name: str) -> Cell:
    return figure_cell(g, name) if g is not None else Cell(MISSING)


def _baseline_cell(g: Group, name: str) -> Cell:
    cell = figure_cell(g, name)
    return Cell(cell.text, of_the_data(cell.protocol))
