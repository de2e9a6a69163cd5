"""Tables of the autoencoders (stage 1): measured runs beside what the paper reports, protocols as footnotes."""

from collections.abc import Callable, Iterable, Sequence

from fsq_repro.reporting import paper
from fsq_repro.reporting.claims import levels_findings, tradeoff_findings
from fsq_repro.reporting.groups import Group, display_quantizer, frechet_label, frechet_names, network_of
from fsq_repro.reporting.markdown import (
    MISSING,
    Cell,
    figure_cell,
    footnoted_table,
    levels_cell,
    markdown_table,
    scale_of,
    seeds_cell,
    several_seeds,
    study,
    title_and_format,
)
from fsq_repro.reporting.records import RunRecord

Lead = Sequence[tuple[str, Callable[[Group], str]]]


def tradeoff_table(records: Iterable[RunRecord]) -> str:
    """Codebook size against reconstruction distance and usage (Fig. 3a and 3c), Markdown; one section a setting.

    Rows by target bits, then quantizer. Below each table: the protocols, and for each claim of the paper whether it
    appears in these runs. Records of stage 2 are not looked at.
    """
    figures = ("psnr", "ssim", "usage", "entropy_bits", "uniform_usage", "tokens")
    lead = (
        ("target", lambda g: f"2^{g.first.target_bits:g}"),
        ("quantizer", lambda g: display_quantizer(g.first.quantizer)),
        ("levels", lambda g: levels_cell(g).text),
        ("codebook", lambda g: f"{g.first.codebook_size:,}"),
        ("bits", lambda g: f"{g.first.bits:.2f}"),
    )
    return study(
        "Trade-off: codebook size, reconstruction and usage",
        [r for r in records if r.stage1 is None],
        lambda groups: _table(groups, lead, figures, _paper_cell),
        tradeoff_findings,
    )


def levels_table(records: Iterable[RunRecord]) -> str:
    """Level sets of about one codebook size side by side (Fig. 10 and section 3.2), Markdown; FSQ autoencoders only."""
    lead = (
        ("target", lambda g: f"2^{g.first.target_bits:g}"),
        ("levels", lambda g: levels_cell(g).text),
        ("dimensions", lambda g: str(len(g.first.levels))),
        ("smallest level", lambda g: str(min(g.first.levels))),
        ("codebook", lambda g: f"{g.first.codebook_size:,}"),
        ("bits", lambda g: f"{g.first.bits:.2f}"),
    )
    figures = ("psnr", "ssim", "usage", "entropy_bits", "tokens")
    text = study(
        "Level sets at one codebook size",
        [r for r in records if r.levels and r.stage1 is None],
        lambda groups: _table(groups, lead, figures, _paper_levels_cell),
        levels_findings,
    )
    return f"{text}\nThe paper's rule ({paper.LEVELS_SOURCE}): {paper.LEVELS_RULE}\n"


def level_histogram_table(records: Iterable[RunRecord]) -> str:
    """Share of each level and saturation, one row for each dimension of each FSQ autoencoder, Markdown.

    Saturation is the share on the two outermost levels; an even spread over L levels gives 2/L.
    """
    records = [r for r in records if r.levels and r.level_histograms and r.stage1 is None]
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
    return "## Use of each level by FSQ\n\n" + markdown_table(header, rows)


def format_header(record: RunRecord) -> str:
    """Column titles for `format_row`, for runs of this one's stage that are evaluated like it."""
    if record.task:
        titles = [title_and_format(n)[0] for n in _task_figures(record)]
        return _line("run", "seed", "quantizer", "stage", "codebook", titles, "usage", "minutes")
    if record.stage1:
        titles = [frechet_label(n) for n in frechet_names([record], "sfd")] or ["sampling FD"]
        rest = ("precision", "recall", "cost", "entropy", "minutes")
        return _line("run", "seed", "quantizer", "generator", "codebook", titles, *rest)
    titles = [frechet_label(n) for n in frechet_names([record])] or ["rFD"]
    return _line(
        "run", "seed", "quantizer", "levels", "codebook", titles, "PSNR", "SSIM", "usage", "entropy", "minutes"
    )


def format_row(record: RunRecord) -> str:
    """One run in one line of text, for the terminal while a sweep goes on. Figures without a protocol show as a
    dash. Of stage 2, precision and recall are those of the first distance's network, the cost is in bits a token."""

    def show(name: str, form: str, scale: float = 1) -> str:
        measured = record.measured(name)
        return MISSING if measured is None else form.format(scale * measured.value)

    if record.task:
        return _line(
            record.run,
            str(record.seed),
            display_quantizer(record.quantizer),
            "II" if record.stage1 else "I",
            f"{record.codebook_size:,}",
            [show(n, title_and_format(n)[1], scale_of(n)) for n in _task_figures(record)],
            show("usage", "{:.1%}"),
            MISSING if record.wall_time_s is None else f"{record.wall_time_s / 60:.1f}",
        )
    names = frechet_names([record], "sfd" if record.stage1 else "rfd")
    if record.stage1:
        middle = record.generator
        network = network_of(names[0]) if names else ""
        figures = ((f"precision_{network}", "{:.3f}"), (f"recall_{network}", "{:.3f}"), ("compression_bits", "{:.3f}"))
    else:
        middle = "x".join(map(str, record.levels or ())) or MISSING
        figures = (("psnr", "{:.2f}"), ("ssim", "{:.3f}"), ("usage", "{:.1%}"))
    return _line(
        record.run,
        str(record.seed),
        display_quantizer(record.quantizer),
        middle,
        f"{record.codebook_size:,}",
        [show(n, "{:.2f}") for n in names] or [MISSING],
        *(show(n, form) for n, form in figures),
        show("entropy_bits", "{:.2f}"),
        MISSING if record.wall_time_s is None else f"{record.wall_time_s / 60:.1f}",
    )


def _task_figures(record: RunRecord) -> list[str]:
    """What a line of the terminal shows of a run of UViM."""
    figures = {"depth": ["rmse", "delta1"], "panoptic": ["pq", "sq", "rq"]}
    return figures.get(record.task) or [*frechet_names([record], "cfd"), "mse"]


def _line(run, seed, quantizer, middle, codebook, distances: Sequence[str], *rest) -> str:
    left = f"{run:<32} {seed:>4}  {quantizer:<19} {middle:<14} {codebook:>8}"
    return left + "".join(f" {d:>28}" for d in distances) + "".join(f" {x:>9}" for x in rest)


def _table(groups: Sequence[Group], lead: Lead, figures: Sequence[str], paper_cell: Callable[[Group], str]) -> str:
    """All reconstruction distances, then these figures; a row a group, the paper's words last."""
    names = [*frechet_names(r for g in groups for r in g.records), *figures]
    header = [*(title for title, _ in lead), *(title_and_format(n)[0] for n in names), "runs", "paper"]
    rows = [
        [
            *(Cell(text(g)) for _, text in lead),
            *(figure_cell(g, n) for n in names),
            seeds_cell(g),
            Cell(paper_cell(g)),
        ]
        for g in groups
    ]
    return footnoted_table(header, rows, several_seeds(groups), [paper.PROTOCOL])


def _paper_cell(g: Group) -> str:
    said = paper.statements(g.first.quantizer, g.first.target_bits)
    return "; ".join(f"{s.text} ({s.source})" for s in said) or MISSING


def _paper_levels_cell(g: Group) -> str:
    return "breaks the rule of 5 levels" if min(g.first.levels) < 5 else "keeps the rule of 5 levels"
