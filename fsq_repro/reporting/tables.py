"""Markdown tables: measured runs beside what the paper reports, with protocols as footnotes."""

from collections.abc import Callable, Iterable, Sequence

from fsq_repro.reporting import paper
from fsq_repro.reporting.claims import Finding, levels_findings, tradeoff_findings
from fsq_repro.reporting.groups import (
    Group,
    Setting,
    Statistic,
    display_quantizer,
    frechet_label,
    frechet_names,
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
}
SAME_FOR_ALL_SEEDS = ("uniform_usage", "tokens")  # set by the split and the codebook size: no deviation to show


def tradeoff_table(records: Iterable[RunRecord]) -> str:
    """Codebook size against reconstruction distance and usage (Fig. 3a and 3c), Markdown; one section a setting.

    Rows by target bits, then quantizer. Below each table: the protocols, and for each claim of the paper whether it
    appears in these runs.
    """
    figures = ("psnr", "ssim", "usage", "entropy_bits", "uniform_usage", "tokens")
    lead = (
        ("target", lambda g: f"2^{g.first.target_bits:g}"),
        ("quantizer", lambda g: display_quantizer(g.first.quantizer)),
        ("levels", _levels),
        ("codebook", lambda g: f"{g.first.codebook_size:,}"),
        ("bits", lambda g: f"{g.first.bits:.2f}"),
    )
    return _study(
        "Trade-off: codebook size, reconstruction and usage", records, lead, figures, _paper_cell, tradeoff_findings
    )


def levels_table(records: Iterable[RunRecord]) -> str:
    """Level sets of about one codebook size side by side (Fig. 10 and section 3.2), Markdown; FSQ runs only."""
    lead = (
        ("target", lambda g: f"2^{g.first.target_bits:g}"),
        ("levels", _levels),
        ("dimensions", lambda g: str(len(g.first.levels))),
        ("smallest level", lambda g: str(min(g.first.levels))),
        ("codebook", lambda g: f"{g.first.codebook_size:,}"),
        ("bits", lambda g: f"{g.first.bits:.2f}"),
    )
    figures = ("psnr", "ssim", "usage", "entropy_bits", "tokens")
    fsq = [r for r in records if r.levels]
    text = _study("Level sets at one codebook size", fsq, lead, figures, _paper_levels_cell, levels_findings)
    return f"{text}\nThe paper's rule ({paper.LEVELS_SOURCE}): {paper.LEVELS_RULE}\n"


def level_histogram_table(records: Iterable[RunRecord]) -> str:
    """Share of each level and saturation, one row for each dimension of each FSQ run, Markdown.

    Saturation is the share on the two outermost levels; an even spread over L levels gives 2/L.
    """
    records = [r for r in records if r.levels and r.level_histograms]
    records.sort(key=lambda r: (r.target_bits, r.run, r.seed))
    header = [
        "run",
        "seed",
        "dimension",
        "levels",
        "share of each level, lowest first (%)",
        "saturation",
        "even spread",
    ]
    rows = []
    for r in records:
        for i, counts in enumerate(r.level_histograms):
            total = sum(counts)
            shares = " ".join(f"{100 * c / total:.1f}" for c in counts)
            outermost, even = (counts[0] + counts[-1]) / total, 2 / len(counts)
            lead = [r.run, str(r.seed), f"{i + 1} of {len(r.levels)}", str(len(counts))]
            rows.append([*lead, shares, f"{outermost:.1%}", f"{even:.1%}"])
    return "## Use of each level by FSQ\n\n" + _markdown(header, rows)


def format_header(record: RunRecord) -> str:
    """Column titles for `format_row`, for runs evaluated like this one."""
    titles = [frechet_label(n) for n in frechet_names([record])] or ["rFD"]
    rest = ("PSNR", "SSIM", "usage", "entropy", "minutes")
    return _line("run", "seed", "quantizer", "levels", "codebook", titles, *rest)


def format_row(record: RunRecord) -> str:
    """One run in one line of text, for the terminal while a sweep goes on. Figures without a protocol show as a
    dash."""

    def show(name: str, form: str) -> str:
        measured = record.measured(name)
        return MISSING if measured is None else form.format(measured.value)

    distances = [show(n, "{:.2f}") for n in frechet_names([record])] or [MISSING]
    return _line(
        record.run,
        str(record.seed),
        display_quantizer(record.quantizer),
        "x".join(map(str, record.levels or ())) or MISSING,
        f"{record.codebook_size:,}",
        distances,
        show("psnr", "{:.2f}"),
        show("ssim", "{:.3f}"),
        show("usage", "{:.1%}"),
        show("entropy_bits", "{:.2f}"),
        MISSING if record.wall_time_s is None else f"{record.wall_time_s / 60:.1f}",
    )


def _line(run, seed, quantizer, levels, codebook, distances: Sequence[str], *rest) -> str:
    left = f"{run:<18} {seed:>4}  {quantizer:<19} {levels:<11} {codebook:>8}"
    return left + "".join(f" {d:>24}" for d in distances) + "".join(f" {x:>8}" for x in rest)


def _study(
    title: str,
    records: Iterable[RunRecord],
    lead: Sequence[tuple[str, Callable[[Group], str]]],
    figures: Sequence[str],
    paper_cell: Callable[[Group], str],
    findings: Callable[[list[Group]], list[Finding]],
) -> str:
    """A titled section a setting: table, footnotes, findings."""
    parts = [f"## {title}\n"]
    for setting, runs in split_by_setting(records).items():
        groups = group_runs(runs)
        table, notes = _table(groups, lead, [*frechet_names(runs), *figures], paper_cell)
        parts.append(f"{_setting_line(setting, runs)}\n\n{table}\n{notes}\n")
        judged = [f"- {f}" for f in findings(groups)]
        if judged:
            parts.append("Do the paper's claims appear in these runs?\n\n" + "\n".join(judged) + "\n")
    return "\n".join(parts)


def _setting_line(setting: Setting, runs: Sequence[RunRecord]) -> str:
    devices = sorted({r.device for r in runs if r.device})
    revisions = sorted({r.git_revision[:12] for r in runs if r.git_revision})
    seconds = sum(r.wall_time_s or 0 for r in runs)
    line = f"Setting: {setting}. {len(runs)} runs, {seconds / 60:.0f} minutes of training"
    line += f" on {', '.join(devices)}" if devices else ""
    return line + (f", revision {', '.join(revisions)}." if revisions else ".")


def _table(
    groups: Sequence[Group],
    lead: Sequence[tuple[str, Callable[[Group], str]]],
    names: Sequence[str],
    paper_cell: Callable[[Group], str],
) -> tuple[str, str]:
    """Returns the Markdown table and its footnotes. A column measured one way carries its footnote mark in the header,
    else each cell does."""
    marks: dict[str, str] = {}  # protocol text -> footnote mark, in order of appearance
    covers: dict[str, list[str]] = {}  # protocol text -> figures measured so
    uniform: dict[str, str | None] = {}
    for name in names:
        texts = [protocol_text(g.protocol(name)) for g in groups if g.protocol(name)]
        for text in dict.fromkeys(texts):
            marks.setdefault(text, f"[{chr(ord('a') + len(marks))}]" if len(marks) < 26 else f"[{len(marks) + 1}]")
            covers.setdefault(text, []).append(_title(name))
        uniform[name] = texts[0] if len(set(texts)) == 1 else None

    unprotocolled = False
    rows = []
    for g in groups:
        cells = [cell(g) for _, cell in lead]
        for name in names:
            statistic = g.statistic(name)
            if statistic is not None:
                mark = "" if uniform[name] else " " + marks[protocol_text(g.protocol(name))]
                cells.append(_format(name, statistic) + mark)
            elif any(name in r.figures for r in g.records):
                cells.append(NO_PROTOCOL)
                unprotocolled = True
            else:
                cells.append(MISSING)
        seeds = f"{len(g.records)} (seed{'s' if len(g.seeds) > 1 else ''} {', '.join(map(str, g.seeds))})"
        rows.append([*cells, seeds, paper_cell(g)])
    header = [title for title, _ in lead]
    header += [f"{_title(n)} {marks[uniform[n]]}" if uniform[n] else _title(n) for n in names]
    notes = [f"{mark} {', '.join(covers[text])}: {text}." for text, mark in marks.items()]
    if unprotocolled:
        notes.append(NO_PROTOCOL_NOTE)
    if any(len(g.records) > 1 for g in groups):
        notes.append("Several seeds: mean ± sample standard deviation.")
    notes.append(paper.PROTOCOL)
    table = _markdown([*header, "runs", "paper"], rows)
    return table, "\n".join(f"{note}  " for note in notes)  # two blanks: a line break in Markdown


def _title(name: str) -> str:
    return FORMATS[name][0] if name in FORMATS else frechet_label(name)


def _format(name: str, statistic: Statistic) -> str:
    form = FORMATS[name][1] if name in FORMATS else "{:.2f}"
    text = form.format(statistic.mean)
    return text if statistic.std is None or name in SAME_FOR_ALL_SEEDS else f"{text} ± {form.format(statistic.std)}"


def _levels(g: Group) -> str:
    return f"[{', '.join(map(str, g.first.levels))}]" if g.first.levels else MISSING


def _paper_cell(g: Group) -> str:
    said = paper.statements(g.first.quantizer, g.first.target_bits)
    return "; ".join(f"{s.text} ({s.source})" for s in said) or MISSING


def _paper_levels_cell(g: Group) -> str:
    return "breaks the rule of 5 levels" if min(g.first.levels) < 5 else "keeps the rule of 5 levels"


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
