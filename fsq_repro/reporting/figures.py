"""Figures from run records: the trade-off curves (Fig. 3a and 3c), level sets (Fig. 10) and the use of each level.

Each takes the records of one setting. Only figures measured under one protocol share an axis; the caption states it.
"""

import collections
import itertools
import os
import textwrap
from collections.abc import Iterable, Sequence

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from fsq_repro.reporting.groups import (
    Group,
    display_quantizer,
    frechet_label,
    frechet_names,
    group_runs,
    protocol_text,
    split_by_setting,
)
from fsq_repro.reporting.records import RunRecord

# Okabe and Ito's colours, told apart by colour-blind readers too: (colour, marker, line style, marker face).
STYLES = {
    "fsq": ("#0072B2", "o", "-", "#0072B2"),
    "vq": ("#E69F00", "s", "-", "#E69F00"),
    "vq_no_entropy": ("#D55E00", "D", ":", "white"),
}
SPARE_STYLES = (("#009E73", "^", "--", "#009E73"), ("#CC79A7", "v", "--", "#CC79A7"), ("#000000", "P", "--", "#000000"))
GREY = "#8a8a8a"
RC = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def tradeoff_figure(records: Iterable[RunRecord], path: str | os.PathLike) -> None:
    """Codebook size against reconstruction distance (left) and codebook usage (right), one line a quantizer; PNG.

    Points are means over seeds, bars their sample standard deviation. The thin grey line is the usage that a uniform
    source would show for as many tokens.

    Raises:
      ValueError: no run has both a Frechet distance and usage with protocols, or the records are of several settings.
    """
    everything = _one_setting(records)
    groups = [g for g in everything if g.statistic("usage")]
    name = _primary_distance(groups)
    groups, protocol, _ = _same_protocol(groups, name)
    groups, _, _ = _same_protocol(groups, "usage")
    left_out = len(everything) - len(groups)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(9.0, 4.1), dpi=160)
        left, right = figure.subplots(1, 2)
        for quantizer, style in _styles(groups).items():
            mine = sorted((g for g in groups if g.first.quantizer == quantizer), key=lambda g: g.first.bits)
            _curve(left, mine, name, 1.0, style, display_quantizer(quantizer))
            _curve(right, mine, "usage", 100.0, style, display_quantizer(quantizer))
        uniform = sorted(
            (g.first.bits, g.statistic("uniform_usage").mean) for g in groups if g.statistic("uniform_usage")
        )
        if uniform:
            x, y = np.array(uniform).T
            right.plot(x, 100 * y, color=GREY, linewidth=0.8, zorder=1, label="uniform source, as many tokens")
        for axes in (left, right):
            axes.set_xlabel("codebook size")
            axes.xaxis.set_major_locator(MultipleLocator(2))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda bits, _: f"$2^{{{bits:g}}}$"))
            axes.margins(x=0.08)
        left.set_ylabel(f"{frechet_label(name)}, lower is better")
        left.set_title("Reconstruction", loc="left", fontweight="bold")
        right.set_ylabel("codebook usage, %")
        right.set_ylim(0, 105)
        right.set_title("Usage", loc="left", fontweight="bold")
        handles, labels = right.get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper center", ncols=len(labels), fontsize=8)
        _finish(figure, _caption(groups, name, protocol, left_out), path, top=0.94)


def levels_figure(records: Iterable[RunRecord], path: str | os.PathLike) -> None:
    """Bits against reconstruction distance of FSQ level sets, coloured by the smallest level, each labelled; PNG.

    Raises:
      ValueError: no FSQ run has a Frechet distance with protocol, or the records are of several settings.
    """
    groups = _one_setting([r for r in records if r.levels])
    name = _primary_distance(groups)
    groups, protocol, left_out = _same_protocol(groups, name)
    smallest = sorted({min(g.first.levels) for g in groups})
    colours = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.85, len(smallest)))
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(7.0, 4.6), dpi=160)
        axes = figure.subplots()
        for low, colour in zip(smallest, colours, strict=True):
            mine = [g for g in groups if min(g.first.levels) == low]
            x = [g.first.bits for g in mine]
            statistics = [g.statistic(name) for g in mine]
            deviations = [s.std or 0.0 for s in statistics]
            y = [s.mean for s in statistics]
            axes.errorbar(x, y, deviations, fmt="o", color=colour, capsize=2, elinewidth=0.8, label=f"{low}")
        axes.margins(x=0.14, y=0.12)
        _label_points(axes, [(g.first.bits, g.statistic(name).mean, _levels_text(g)) for g in groups])
        axes.set_xlabel("bits, $\\log_2$ of the codebook size")
        axes.set_ylabel(f"{frechet_label(name)}, lower is better")
        axes.set_title("FSQ level sets", loc="left", fontweight="bold")
        axes.legend(title="smallest\nlevel", loc="upper left", bbox_to_anchor=(1.0, 1.0))
        _finish(figure, _caption(groups, name, protocol, left_out), path)


def level_histogram_figure(records: Iterable[RunRecord], path: str | os.PathLike) -> None:
    """Share of tokens on each level, a row for each FSQ run (seeds summed) and a column for each dimension; PNG.

    The grey line is the even share. Tall outermost bars mean that the encoder drives the bounding function into
    saturation.

    Raises:
      ValueError: no record has level histograms, or the records are of several settings.
    """
    groups = _one_setting([r for r in records if r.levels and r.level_histograms])
    columns = max(len(g.first.levels) for g in groups)
    with matplotlib.rc_context(RC | {"axes.grid": False, "font.size": 8}):
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
                axes.axhline(100 / len(share), color=GREY, linewidth=0.8)
                axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
                axes.set_title(f"dim. {i + 1}: {share[0] + share[-1]:.0f}% outermost", fontsize=7)
            row[0].set_ylabel(f"{_levels_text(g)}\ntokens, %")
        _finish(figure, "Bars: share of tokens on each level, lowest first. Grey line: even use.", path)


def _one_setting(records: Iterable[RunRecord]) -> list[Group]:
    settings = split_by_setting(records)
    if len(settings) != 1:
        names = "; ".join(map(str, settings)) or "none"
        raise ValueError(f"a figure is drawn from fitting runs of one setting, got: {names}.")
    return group_runs(next(iter(settings.values())))


def _primary_distance(groups: Sequence[Group]) -> str:
    names = [n for n in frechet_names(r for g in groups for r in g.records) if any(g.statistic(n) for g in groups)]
    if not names:
        raise ValueError("no run has a Frechet distance with protocol; nothing to draw.")
    return names[0]


def _same_protocol(groups: Sequence[Group], name: str) -> tuple[list[Group], str, int]:
    """Groups measured under the commonest protocol of a figure, that protocol, and how many other groups there are."""
    texts = [protocol_text(g.protocol(name)) if g.protocol(name) else None for g in groups]
    protocol = collections.Counter(t for t in texts if t).most_common(1)[0][0]
    kept = [g for g, text in zip(groups, texts, strict=True) if text == protocol]
    return kept, protocol, len(groups) - len(kept)


def _styles(groups: Sequence[Group]) -> dict[str, tuple]:
    """A style for each quantizer present: the paper's two first."""
    present = {g.first.quantizer for g in groups}
    spare = itertools.cycle(SPARE_STYLES)
    ordered = [q for q in STYLES if q in present] + sorted(present - set(STYLES))
    return {q: STYLES.get(q) or next(spare) for q in ordered}


def _curve(axes, groups: Sequence[Group], name: str, scale: float, style: tuple, label: str) -> None:
    colour, marker, line, face = style
    statistics = [g.statistic(name) for g in groups]
    deviation = [scale * (s.std or 0.0) for s in statistics]
    axes.errorbar(
        [g.first.bits for g in groups],
        [scale * s.mean for s in statistics],
        deviation if any(deviation) else None,
        color=colour,
        marker=marker,
        linestyle=line,
        markerfacecolor=face,
        markersize=5,
        capsize=2,
        elinewidth=0.8,
        label=label,
    )


def _label_points(axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Writes each text right of its point, moved up while it would cover another text or point."""
    low, high = axes.get_ylim()
    left, right = axes.get_xlim()
    height, width = 0.04 * (high - low), 0.18 * (right - left)
    texts: list[tuple[float, float]] = []
    for x, y, text in sorted(points, key=lambda p: p[1]):

        def covers(at: float, x: float = x) -> bool:
            on_text = any(abs(tx - x) < width and abs(ty - at) < height for tx, ty in texts)
            return on_text or any(0 < px - x < width and abs(py - at) < 0.7 * height for px, py, _ in points)

        at = y
        while covers(at):
            at += height / 4
        texts.append((x, at))
        axes.annotate(
            text,
            (x, y),
            (x + 0.02 * (right - left), at),
            fontsize=7,
            va="center",
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.4, "shrinkB": 2},
        )


def _levels_text(group: Group) -> str:
    return f"[{','.join(map(str, group.first.levels))}]"


def _caption(groups: Sequence[Group], name: str, protocol: str, left_out: int) -> str:
    first = groups[0].first
    seeds = sorted({len(g.records) for g in groups})
    setting = next(iter(split_by_setting([first])))
    number = (
        "1 seed a point" if seeds == [1] else f"{'-'.join(map(str, seeds))} seeds a point, bars: standard deviation"
    )
    text = f"{setting}; {number}. {frechet_label(name)}: {protocol}."
    return text + (f" Left out: {left_out} run(s) measured otherwise." if left_out else "")


def _finish(figure: Figure, caption: str, path: str | os.PathLike, top: float = 1.0) -> None:
    """Lays out below `top`, writes the caption under the panels and saves."""
    lines = textwrap.wrap(caption, width=int(figure.get_figwidth() * 20))
    inches = 0.13 * len(lines) + 0.05
    figure.text(0.012, 0.05 / figure.get_figheight(), "\n".join(lines), fontsize=6.5, color="#555555", va="bottom")
    figure.tight_layout(rect=(0, inches / figure.get_figheight(), 1, top))
    FigureCanvasAgg(figure).print_png(path)
