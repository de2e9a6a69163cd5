"""Fig. 3 as a figure."""

from collections.abc import Iterable, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator

from fsq_repro.metrics.table import MetricKey
from fsq_repro.reporting import drawing
from fsq_repro.reporting.groups import Group
from fsq_repro.reporting.records import RunRecord

USAGE, UNIFORM, COST, ENTROPY = map(MetricKey, ("usage", "uniform_usage", "compression_bits", "entropy_bits"))
ENTROPY_STYLE = {"linewidth": 0.9, "linestyle": ":", "marker": ".", "markersize": 3}


def tradeoff_figure(records: Iterable[RunRecord], path: drawing.PathLike) -> None:
    """Codebook size against (a) reconstruction distance, (b) sampling distance, (c) usage, (d) compression cost; PNG.

    The panels and their letters are those of Fig. 3; panels that no run was measured for are left out. One line for
    each quantizer and kind of generator (autoregressive ones hollow and dashed). Points are means over seeds, bars
    their sample standard deviation. Grey: in (c) the usage that a uniform source would show for as many tokens, in (d)
    its cost, log2 of the codebook size; thin dots in (d): the marginal entropy of the tokens.

    Of each kind of generator the setting with most runs is drawn; the caption counts what is left out.
    NothingToDrawError if nothing has been measured (of an autoencoder both a Frechet distance and usage are needed),
    ValueError for autoencoders of several settings.
    """
    stage1, stage2, left_out = drawing.stages(records)
    generators = [g for kind in stage2 for g in kind]
    rfd = drawing.primary_distance(stage1, "reconstruction_fd")
    sfd = drawing.primary_distance(generators, "sampling_fd")
    counted = [g for g in stage1 if g.values(USAGE)]
    used = drawing.same_protocol(drawing.same_protocol(counted, rfd), USAGE) if rfd else []
    sampled = [g for kind in stage2 for g in drawing.same_protocol(kind, sfd)] if sfd else []
    coded = [g for kind in stage2 for g in drawing.same_protocol(kind, COST)]
    drawn = [*used, *sampled, *coded]
    if not drawn:
        raise drawing.NothingToDrawError("no Frechet distance with protocol, and usage, or a cost; nothing to draw.")
    left_out += len({id(g) for g in [*stage1, *generators]} - {id(g) for g in drawn})
    panels = (
        ("(a) Reconstruction", used, rfd),
        ("(b) Sampling", sampled, sfd),
        ("(c) Usage", used, USAGE),
        ("(d) Compression cost", coded, COST),
    )
    panels = [(title, groups, key) for title, groups, key in panels if groups]
    labels = {USAGE: "codebook usage, %", COST: COST.declared.unit}  # shorter than the metric's title
    sizes = [g.first.bits for g in drawn]
    look = drawing.styles(g.line for g in drawn)
    with matplotlib.rc_context(drawing.RC):
        rows = max(1, len(panels) // 2)
        figure = Figure(figsize=(9.0, 0.7 + 3.4 * rows), dpi=160)
        axes = list(figure.subplots(rows, len(panels) // rows, squeeze=False).flat)
        for ax, (title, groups, key) in zip(axes, panels, strict=True):
            drawing.lines(ax, groups, key, look)
            ax.set(xlabel="codebook size", ylabel=labels.get(key) or drawing.axis_label(key))
            if key == USAGE:
                _uniform_source(ax, groups)
            if key == COST:
                _uniform_cost_and_entropy(ax, groups, look)
            ax.set_title(title, loc="left", fontweight="bold")
            ax.xaxis.set_major_locator(MultipleLocator(2))
            ax.xaxis.set_major_formatter(FuncFormatter(lambda bits, _: f"$2^{{{bits:g}}}$"))
            ax.set_xlim(min(sizes) - 0.5, max(sizes) + 0.5)  # the same in all panels
        handles = {label: h for ax in axes for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        figure.legend(handles.values(), handles, loc="upper center", ncols=min(4, len(handles)), fontsize=8)
        measured = [m for _, groups, key in panels if key != USAGE for m in drawing.measured_so(groups, key)]
        caption = drawing.caption_of(drawn, measured, left_out)
        drawing.finish(figure, caption, path, top=1 - (0.06 + 0.19 * -(-len(handles) // 4)) / figure.get_figheight())


def _uniform_source(ax, groups: Sequence[Group]) -> None:
    uniform = sorted((g.first.bits, g.statistic(UNIFORM).mean) for g in groups if g.values(UNIFORM))
    if uniform:
        x, y = np.array(uniform).T
        ax.plot(x, 100 * y, color=drawing.GREY, linewidth=0.8, zorder=1, label="uniform source, as many tokens")
    ax.set_ylim(0, 105)


def _uniform_cost_and_entropy(ax, groups: Sequence[Group], look: dict[str, tuple]) -> None:
    bits = [g.first.bits for g in groups]
    ends = (min(bits) - 0.3, max(bits) + 0.3)
    ax.plot(ends, ends, color=drawing.GREY, linewidth=0.8, zorder=1)
    middle = sum(ends) / 2
    ax.annotate("uniform, $\\log_2|C|$", (middle,) * 2, (-8, 4), textcoords="offset points", ha="right", fontsize=8)
    for line, (colour, *_) in look.items():
        # Autoencoders' tokens: the same for both kinds of generators.
        mine = [g for g in groups if g.line == line and g.values(ENTROPY)]
        if entropy := {g.first.bits: g.statistic(ENTROPY).mean for g in mine}:
            x, y = np.array(sorted(entropy.items())).T
            ax.plot(x, y, color=colour, zorder=1, **ENTROPY_STYLE)
    ax.plot([], [], color=drawing.GREY, label="marginal entropy of the tokens", **ENTROPY_STYLE)
