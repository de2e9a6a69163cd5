"""How evenly the autoencoders use each of FSQ's levels."""

from collections.abc import Iterable

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fsq_repro.reporting import drawing, markdown
from fsq_repro.reporting.records import RunRecord


def level_histogram_table(records: Iterable[RunRecord]) -> str:
    """Share of each level and saturation, a row per dimension of each FSQ autoencoder, Markdown; empty without any.

    Saturation is the share on the two outermost levels; an even spread over L levels gives 2/L.
    """
    records = [r for r in records if r.level_histograms and r.stage1 is None]
    shares = "share of each level, lowest first (%)"
    header = ["run", "seed", "dimension", "levels", shares, "saturation", "even spread"]
    rows = []
    for r in sorted(records, key=lambda r: (r.target_bits, r.run, r.seed)):
        for i, counts in enumerate(r.level_histograms):
            total = sum(counts)
            shares = " ".join(f"{100 * c / total:.1f}" for c in counts)
            outermost, even = (counts[0] + counts[-1]) / total, 2 / len(counts)
            lead = [r.run, str(r.seed), f"{i + 1} of {len(r.levels)}", str(len(counts))]
            rows.append([*lead, shares, f"{outermost:.1%}", f"{even:.1%}"])
    return "## Use of each level by FSQ\n\n" + markdown.markdown_table(header, rows) if rows else ""


def level_histogram_figure(records: Iterable[RunRecord], path: drawing.PathLike) -> None:
    """Share of tokens on each level, a row for each FSQ run (seeds summed) and a column for each dimension; PNG.

    The grey line is the even share. Tall outermost bars mean that the encoder drives the bounding function into
    saturation. NothingToDrawError if no record has level histograms, ValueError for records of several settings.
    """
    records = [r for r in records if r.level_histograms and r.stage1 is None]
    if not records:
        raise drawing.NothingToDrawError("no record has level histograms; nothing to draw.")
    groups, _, _ = drawing.stages(records)
    columns = max(len(g.first.levels) for g in groups)
    with matplotlib.rc_context(drawing.RC | {"axes.grid": False, "font.size": 8}):
        figure = Figure(figsize=(1.0 + 1.45 * columns, 0.5 + 1.35 * len(groups)), dpi=160)
        grid = figure.subplots(len(groups), columns, squeeze=False, sharey=True)
        for row, g in zip(grid, groups, strict=True):
            for i, axes in enumerate(row):
                if i >= len(g.first.levels):
                    axes.set_visible(False)
                    continue
                counts = np.sum([r.level_histograms[i] for r in g.records], axis=0)
                share = 100 * counts / counts.sum()
                axes.bar(np.arange(len(share)), share, color="#0072B2", width=0.85)
                axes.axhline(100 / len(share), color=drawing.GREY, linewidth=0.8)
                axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
                axes.set_title(f"dim. {i + 1}: {share[0] + share[-1]:.0f}% outermost", fontsize=7)
            without = "\nno context" if g.first.context is False else ""
            row[0].set_ylabel(f"{g.levels_text}{without}\ntokens, %")
        drawing.finish(figure, "Bars: share of tokens on each level, lowest first. Grey line: even use.", path)
