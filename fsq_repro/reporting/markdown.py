"""Markdown that all tables share: cells with protocols, footnotes, one section a setting."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fsq_repro.reporting.findings import Finding
from fsq_repro.reporting.groups import (
    Group,
    Setting,
    Statistic,
    frechet_label,
    group_runs,
    protocol_text,
    split_by_setting,
)
from fsq_repro.reporting.records import RunRecord

MISSING = "–"
NO_PROTOCOL = "–†"
NO_PROTOCOL_NOTE = "† Left out: the run record gives this figure without its protocol."

FORMATS = {
    "psnr": ("PSNR (dB)", "{:.2f}"),
    "ssim": ("SSIM", "{:.3f}"),
    "usage": ("usage", "{:.1%}"),
    "entropy_bits": ("entropy (bits)", "{:.2f}"),
    "uniform_usage": ("usage of a uniform source", "{:.1%}"),
    "tokens": ("tokens counted", "{:,.0f}"),
    "compression_bits": ("compression cost (bits a token)", "{:.3f}"),
    "coder_bits": ("coder (bits a token)", "{:.3f}"),
    "codes_used": ("codes used", "{:,.0f}"),
    "rmse": ("RMSE (m)", "{:.3f}"),
    "abs_rel": ("abs-rel", "{:.3f}"),
    "log10": ("log10", "{:.3f}"),
    "delta1": ("δ < 1.25", "{:.3f}"),
    "delta2": ("δ < 1.25²", "{:.3f}"),
    "delta3": ("δ < 1.25³", "{:.3f}"),
    "colourfulness": ("colourfulness", "{:.3g}"),
    "mse": ("MSE", "{:.3g}"),
    "classes": ("classes", "{:,.0f}"),
    "images": ("images", "{:,.0f}"),
    "images_skipped": ("images skipped", "{:,.0f}"),
    **{
        f"{name}{segments}": (f"{name.upper()}{segments.replace('_', ' ')}", "{:.1f}")
        for name in ("pq", "sq", "rq")
        for segments in ("", "_things", "_stuff")
    },
}
# Panoptic qualities are recorded as fractions and shown as the paper does.
TIMES_100 = ("pq", "sq", "rq")
# Figures of samples are named after their feature network: {start of the name: (title, format)}.
NETWORK_FORMATS = {
    "inception_score_": ("Inception score", "{:.1f}"),
    "precision_": ("precision-{}", "{:.3f}"),
    "recall_": ("recall-{}", "{:.3f}"),
    "class_fd_own_": ("FD-{} own class", "{:.2f}"),
    "class_fd_other_": ("FD-{} other class", "{:.2f}"),
    "class_fd_soup_": ("FD-{} soup", "{:.2f}"),
    "class_fd_marginal_soup_": ("FD-{} marginal soup", "{:.2f}"),
}
SAME_FOR_ALL_SEEDS = (
    "uniform_usage",
    "tokens",
    "images",
    "images_skipped",
)  # set by the split and the codebook size: no deviation to show


@dataclasses.dataclass(frozen=True)
class Cell:
    """A table cell's text and, if it shows a measured figure, how that was measured."""

    text: str
    protocol: dict[str, Any] | None = None


def title_and_format(name: str) -> tuple[str, str]:
    """A figure's column title and number format; those of NAME@... are those of NAME."""
    name = name.partition("@")[0]
    if name in FORMATS:
        return FORMATS[name]
    for start, (title, form) in NETWORK_FORMATS.items():
        if name.startswith(start):
            return title.format(name.removeprefix(start)), form
    return frechet_label(name), "{:.2f}"


def scale_of(name: str) -> float:
    """What a recorded value is multiplied by before it is shown."""
    return 100.0 if re.split("[_@]", name)[0] in TIMES_100 else 1.0


def figure_cell(g: Group, name: str) -> Cell:
    """Mean and deviation of a figure; a dash if it was not measured, a marked dash if it has no protocol."""
    statistic = g.statistic(name)
    if statistic is not None:
        return Cell(_format(name, statistic), g.protocol(name))
    unprotocolled = any(name in r.figures and r.measured(name) is None for r in g.records)
    return Cell(NO_PROTOCOL if unprotocolled else MISSING)


def seeds_cell(g: Group) -> Cell:
    """Number of runs and their seeds."""
    return Cell(f"{len(g.records)} (seed{'s' if len(g.seeds) > 1 else ''} {', '.join(map(str, g.seeds))})")


def levels_cell(g: Group) -> Cell:
    """FSQ's levels, a dash for other quantizers."""
    return Cell(f"[{', '.join(map(str, g.first.levels))}]" if g.first.levels else MISSING)


def footnoted_table(
    header: Sequence[str], rows: Sequence[Sequence[Cell]], several_seeds: bool, notes: Sequence[str] = ()
) -> str:
    """A Markdown table and its footnotes, protocols first and then `notes`.

    A column measured one way carries its footnote mark in the header, else each of its cells does.
    """
    marks: dict[str, str] = {}  # protocol text -> footnote mark, in order of appearance
    covers: dict[str, list[str]] = {}  # protocol text -> titles of the columns measured so
    uniform: list[str | None] = []  # by column: its protocol text if it has one only
    for title, column in zip(header, zip(*rows, strict=True), strict=True):
        texts = list(dict.fromkeys(protocol_text(c.protocol) for c in column if c.protocol))
        for text in texts:
            marks.setdefault(text, f"[{chr(ord('a') + len(marks))}]" if len(marks) < 26 else f"[{len(marks) + 1}]")
            covers.setdefault(text, []).append(title)
        uniform.append(texts[0] if len(texts) == 1 else None)

    def shown(cell: Cell, column: int) -> str:
        return (
            f"{cell.text} {marks[protocol_text(cell.protocol)]}" if cell.protocol and not uniform[column] else cell.text
        )

    titles = [f"{title} {marks[text]}" if text else title for title, text in zip(header, uniform, strict=True)]
    lines = [f"{mark} {', '.join(covers[text])}: {text}." for text, mark in marks.items()]
    if any(cell.text == NO_PROTOCOL for row in rows for cell in row):
        lines.append(NO_PROTOCOL_NOTE)
    if several_seeds:
        lines.append("Several seeds: mean ± sample standard deviation.")
    table = markdown_table(titles, [[shown(cell, i) for i, cell in enumerate(row)] for row in rows])
    return table + "\n" + "\n".join(f"{line}  " for line in [*lines, *notes])  # two blanks: a line break in Markdown


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A plain Markdown table, one line a row."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def study(
    title: str,
    records: Iterable[RunRecord],
    tables: Callable[[list[Group]], str],
    findings: Callable[[list[Group]], list[Finding]],
) -> str:
    """A titled section; for each setting its tables with footnotes, and what they say on the paper's claims."""
    parts = [f"## {title}\n"]
    for setting, runs in split_by_setting(records).items():
        groups = group_runs(runs)
        parts.append(f"{setting_line(setting, runs)}\n\n{tables(groups)}\n")
        judged = [f"- {f}" for f in findings(groups)]
        if judged:
            parts.append("Do the paper's claims appear in these runs?\n\n" + "\n".join(judged) + "\n")
    return "\n".join(parts)


def several_seeds(groups: Iterable[Group]) -> bool:
    """Whether any group holds more than one run."""
    return any(len(g.records) > 1 for g in groups)


def setting_line(setting: Setting, runs: Sequence[RunRecord]) -> str:
    """The setting, its number of runs, and what they ran on."""
    devices = sorted({r.device for r in runs if r.device})
    revisions = sorted({r.git_revision[:12] for r in runs if r.git_revision})
    seconds = sum(r.wall_time_s or 0 for r in runs)
    line = f"Setting: {setting}. {len(runs)} runs, {seconds / 60:.0f} minutes of training"
    line += f" on {', '.join(devices)}" if devices else ""
    return line + (f", revision {', '.join(revisions)}." if revisions else ".")


def _format(name: str, statistic: Statistic) -> str:
    form, scale = title_and_format(name)[1], scale_of(name)
    text = form.format(scale * statistic.mean)
    if statistic.std is None or name in SAME_FOR_ALL_SEEDS:
        return text
    return f"{text} ± {form.format(scale * statistic.std)}"
