"""Figures from run records: trade-off curves (Fig. 3), level sets (Fig. 10), use of each level.

Each takes the records of one setting of autoencoders, together with the generators on their tokens. Only figures
measured under one protocol share a line; the caption states it.
"""

import os
from collections.abc import Iterable, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from fsq_repro.reporting.drawing import (
    GREY,
    LOWER_IS_BETTER,
    RC,
    NothingToDrawError,
    caption_of,
    curve,
    finish,
    label_points,
    levels_text,
    measured_so,
    primary_distance,
    same_protocol,
    stages,
    style_of,
    styles,
)
from fsq_repro.reporting.groups import (
    Group,
    display_quantizer,
    frechet_label,
)
from fsq_repro.reporting.records import GENERATORS, RunRecord

TITLES = {"a": "Reconstruction", "b": "Sampling", "c": "Usage", "d": "Compression cost"}
ENTROPY = {"linewidth": 0.9, "linestyle": ":", "marker": ".", "markersize": 3}


def tradeoff_figure(records: Iterable[RunRecord], path: str | os.PathLike) -> None:
    """Codebook size against (a) reconstruction distance, (b) sampling distance, (c) usage, (d) compression cost; PNG.

    The panels and their letters are those of Fig. 3; panels that no run was measured for are left out. One line a
    quantizer and kind of generator (autoregressive ones hollow and dashed). Points are means over seeds, bars their
    sample standard deviation. Grey: in (c) the usage that a uniform source would show for as many tokens, in (d) its
    cost, log2 of the codebook size; thin dots in (d): the marginal entropy of the tokens.

    Of each kind of generator the setting with most runs is drawn; the caption counts what is left out.

    Raises:
      NothingToDrawError: nothing has been measured (of an autoencoder both a Frechet distance and usage are needed).
      ValueError: the records belong to autoencoders of several settings.
    """
    stage1, stage2, left_out = stages(records)
    rfd, sfd = primary_distance(stage1), primary_distance([g for kind in stage2 for g in kind], "sfd")
    used = same_protocol(same_protocol([g for g in stage1 if g.statistic("usage")], rfd), "usage") if rfd else []
    left_out += len(stage1) - len(used)
    sampled = [g for kind in stage2 for g in same_protocol(kind, sfd)] if sfd else []
    coded = [g for kind in stage2 for g in same_protocol(kind, "compression_bits")]
    left_out += len({id(g) for kind in stage2 for g in kind} - {id(g) for g in sampled + coded})
    drawn = [*used, *sampled, *coded]
    if not drawn:
        raise NothingToDrawError("no run has a Frechet distance with protocol, and usage, or a cost; nothing to draw.")
    panels = "".join(name for name, groups in zip("abcd", (used, sampled, used, coded), strict=True) if groups)
    look = styles(g.first.quantizer for g in drawn)
    with matplotlib.rc_context(RC):
        rows = max(1, len(panels) // 2)
        figure = Figure(figsize=(9.0, 0.7 + 3.4 * rows), dpi=160)
        axes = dict(zip(panels, figure.subplots(rows, len(panels) // rows, squeeze=False).flat, strict=True))
        if used:
            _lines(axes["a"], used, rfd, look)
            axes["a"].set(ylabel=frechet_label(rfd) + LOWER_IS_BETTER)
            _usage(axes["c"], used, look)
        if sampled:
            _lines(axes["b"], sampled, sfd, look)
            axes["b"].set(ylabel=frechet_label(sfd).removeprefix("sampling ") + LOWER_IS_BETTER)
        if coded:
            _cost(axes["d"], coded, look)
        for letter, ax in axes.items():
            ax.set_title(f"({letter}) {TITLES[letter]}", loc="left", fontweight="bold")
            ax.set_xlabel("codebook size")
            ax.xaxis.set_major_locator(MultipleLocator(2))
            ax.xaxis.set_major_formatter(FuncFormatter(lambda bits, _: f"$2^{{{bits:g}}}$"))
            ax.margins(x=0.08)
        handles = {label: h for ax in axes.values() for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        figure.legend(handles.values(), handles, loc="upper center", ncols=min(4, len(handles)), fontsize=8)
        legend_rows = -(-len(handles) // 4)
        measured = [
            *measured_so(used, rfd),
            *measured_so(sampled, sfd),
            *measured_so(coded, "compression_bits"),
        ]
        caption = caption_of(drawn, measured, left_out)
        finish(figure, caption, path, top=1 - (0.06 + 0.19 * legend_rows) / figure.get_figheight())


def _lines(ax, groups: Sequence[Group], name: str, look: dict[str, tuple], scale: float = 1.0) -> None:
    """A line for each quantizer and kind of generator."""
    for quantizer in look:
        for generator in (None, *GENERATORS):
            mine = [g for g in groups if (g.first.quantizer, g.first.generator) == (quantizer, generator)]
            if mine:
                label = display_quantizer(quantizer) + (", autoregressive" if generator == "autoregressive" else "")
                curve(ax, mine, name, style_of(mine[0], look), label, scale)


def _usage(ax, groups: Sequence[Group], look: dict[str, tuple]) -> None:
    _lines(ax, groups, "usage", look, 100.0)
    uniform = sorted((g.first.bits, g.statistic("uniform_usage").mean) for g in groups if g.statistic("uniform_usage"))
    if uniform:
        x, y = np.array(uniform).T
        ax.plot(x, 100 * y, color=GREY, linewidth=0.8, zorder=1, label="uniform source, as many tokens")
    ax.set_ylabel("codebook usage, %")
    ax.set_ylim(0, 105)


def _cost(ax, groups: Sequence[Group], look: dict[str, tuple]) -> None:
    _lines(ax, groups, "compression_bits", look)
    bits = [g.first.bits for g in groups]
    ends = (min(bits) - 0.3, max(bits) + 0.3)
    ax.plot(ends, ends, color=GREY, linewidth=0.8, zorder=1)
    middle = sum(ends) / 2
    ax.annotate("uniform, $\\log_2|C|$", (middle,) * 2, (-8, 4), textcoords="offset points", ha="right", fontsize=8)
    for quantizer, (colour, *_) in look.items():
        # Autoencoders' tokens: the same for both kinds of generators.
        entropy = {
            g.first.bits: g.statistic("entropy_bits").mean
            for g in groups
            if g.first.quantizer == quantizer and g.statistic("entropy_bits")
        }
        if entropy:
            x, y = np.array(sorted(entropy.items())).T
            ax.plot(x, y, color=colour, zorder=1, **ENTROPY)
    ax.plot([], [], color=GREY, label="marginal entropy of the tokens", **ENTROPY)
    ax.set_ylabel("bits a token")


def levels_figure(records: Iterable[RunRecord], path: str | os.PathLike) -> None:
    """Bits against the distance of FSQ level sets, coloured by the smallest level, each labelled; PNG.

    Reconstruction at the left and, where generators were run, sampling (the paper's Fig. 10) at the right; of several
    kinds of generators the masked one.

    Raises:
      NothingToDrawError: no FSQ run has a Frechet distance with protocol.
      ValueError: the records belong to autoencoders of several settings.
    """
    records = [r for r in records if r.levels]
    if not records:
        raise NothingToDrawError("no run has levels; nothing to draw.")
    stage1, stage2, left_out = stages(records)
    left_out += sum(len(kind) for kind in stage2[1:])
    panels = []
    for title, groups, kind in (("Reconstruction", stage1, "rfd"), ("Sampling", stage2[0] if stage2 else [], "sfd")):
        name = primary_distance(groups, kind)
        if name is not None:
            kept = same_protocol(groups, name)
            panels.append((title, kept, name))
            left_out += len(groups) - len(kept)
    if not panels:
        raise NothingToDrawError("no run has a Frechet distance with protocol; nothing to draw.")
    smallest = sorted({min(g.first.levels) for _, groups, _ in panels for g in groups})
    colours = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.85, len(smallest)))
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(7.0 if len(panels) == 1 else 11.0, 4.6), dpi=160)
        for ax, (title, groups, name) in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels, strict=True):
            for low, colour in zip(smallest, colours, strict=True):
                mine = [g for g in groups if min(g.first.levels) == low]
                x = [g.first.bits for g in mine]
                statistics = [g.statistic(name) for g in mine]
                deviations = [s.std or 0.0 for s in statistics]
                y = [s.mean for s in statistics]
                ax.errorbar(x, y, deviations, fmt="o", color=colour, capsize=2, elinewidth=0.8, label=f"{low}")
            ax.margins(x=0.14, y=0.12)
            low_x, high_x = ax.get_xlim()
            ax.set_xlim(low_x, high_x + 0.1 * (high_x - low_x))  # room for the label of the rightmost point
            label_points(ax, [(g.first.bits, g.statistic(name).mean, levels_text(g)) for g in groups])
            ax.set_xlabel("bits, $\\log_2$ of the codebook size")
            ax.set_ylabel(frechet_label(name).removeprefix("sampling ") + LOWER_IS_BETTER)
            ax.set_title("FSQ level sets" if len(panels) == 1 else title, loc="left", fontweight="bold")
        ax.legend(title="smallest\nlevel", loc="upper left", bbox_to_anchor=(1.0, 1.0))
        drawn = [g for _, groups, _ in panels for g in groups]
        measured = [m for _, groups, name in panels for m in measured_so(groups, name)]
        finish(figure, caption_of(drawn, measured, left_out), path)


def level_histogram_figure(records: Iterable[RunRecord], path: str | os.PathLike) -> None:
    """Share of tokens on each level, a row for each FSQ run (seeds summed) and a column for each dimension; PNG.

    The grey line is the even share. Tall outermost bars mean that the encoder drives the bounding function into
    saturation.

    Raises:
      NothingToDrawError: no record has level histograms.
      ValueError: the records are of several settings.
    """
    records = [r for r in records if r.level_histograms and r.stage1 is None]
    if not records:
        raise NothingToDrawError("no record has level histograms; nothing to draw.")
    groups, _, _ = stages(records)
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
            without = "\nno context" if g.first.context is False else ""
            row[0].set_ylabel(f"{levels_text(g)}{without}\ntokens, %")
        finish(figure, "Bars: share of tokens on each level, lowest first. Grey line: even use.", path)
