"""Table 2 as a figure: one panel per task, one column per model."""

from collections.abc import Iterable

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from fsq_repro.metrics.table import BASELINES
from fsq_repro.reporting.drawing import GREY, RC, STYLES, NothingToDrawError, PathLike, axis_label, caption_of, finish
from fsq_repro.reporting.groups import titled
from fsq_repro.reporting.records import TASKS, RunRecord
from fsq_repro.reporting.uvim import TITLES
from fsq_repro.reporting.uvim_models import Comparison, baselines, comparisons, same_measurement

COLOURS = {"fsq": STYLES["fsq"][0], "ema_vq": STYLES["vq"][0], "ema_vq_no_splitting": STYLES["vq_no_entropy"][0]}
BLACK = "#000000"
LINE_STYLES = ("--", ":", "-.")  # of a panel's baselines


def uvim_figure(records: Iterable[RunRecord], path: PathLike) -> None:
    """A panel per task: each model's metric in stage II (filled; bars: deviation over seeds) and in stage I, the oracle
    (hollow), with the baselines as grey lines; PNG.

    Of each task the setting with most models is drawn, and of it what agrees with the first model on the protocol; the
    caption counts the runs left out. Published scores are of other data and are not drawn. NothingToDrawError if no run
    has a task's metric with its protocol.
    """
    records = [r for r in records if r.task]
    compared = list(comparisons(records))
    panels = []
    for task in TASKS:
        mine = [(c, points) for c in compared if c.task == task and (points := _points(c))]
        panels += [max(mine, key=lambda item: len(item[1]))] if mine else []
    if not panels:
        raise NothingToDrawError("no run has the metric of its task with protocol; nothing to draw.")
    with matplotlib.rc_context(RC | {"axes.grid.axis": "y"}):
        figure = Figure(figsize=(1.2 + 3.0 * len(panels), 4.6), dpi=160)
        for ax, (c, points) in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels, strict=True):
            _panel(ax, c, points)
        faces = {"stage II, predicted from the image": BLACK, "stage I, true labels": "white"}
        point = {"color": BLACK, "marker": "o", "linestyle": ""}
        handles = [Line2D([], [], markerfacecolor=face, label=label, **point) for label, face in faces.items()]
        figure.legend(handles=handles, loc="upper center", ncols=2, fontsize=8)
        drawn = [g for _, points in panels for _, groups in points for g in groups]
        shown = {r.path for g in drawn for r in g.records}
        measured = [(titled(c.metric), points[0][1][0].protocol(c.metric)) for c, points in panels]
        finish(figure, caption_of(drawn, measured, len({r.path for r in records} - shown)), path, top=0.93)


def _points(c: Comparison) -> list[tuple]:
    """(model, its groups that have the metric, stage II first), measured like the first of all."""
    points, first = [], None
    for m in c.models:
        groups = [g for g in m.groups if g.values(c.metric)]
        first = first or (groups[0].protocol(c.metric) if groups else None)
        groups = [g for g in groups if same_measurement(first, g.protocol(c.metric))]
        if groups:
            points.append((m, groups))
    return points


def _panel(ax, c: Comparison, points: list[tuple]) -> None:
    scale = c.metric.declared.scale
    for x, (m, groups) in enumerate(points):
        colour = COLOURS.get(m.first.quantizer, BLACK)
        for g in groups:
            s = g.statistic(c.metric)
            bar = scale * s.std if s.std else None
            face = "white" if g is m.stage1 else colour
            ax.errorbar(x, scale * s.mean, bar, marker="o", markersize=6, color=colour, markerfacecolor=face, capsize=3)
    first = points[0][1][0].protocol(c.metric)
    lines = [(k, g) for k, g in baselines(c.records, c.metric) if same_measurement(first, g.protocol(k))]
    for (key, g), style in zip(lines, LINE_STYLES, strict=False):
        y = scale * g.statistic(key).mean
        ax.axhline(y, color=GREY, linewidth=0.9, linestyle=style, zorder=1, label=BASELINES[key.baseline])
    if lines:
        ax.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    ax.set_xticks(range(len(points)), [m.variant.replace(", ", ",\n") for m, _ in points], fontsize=7)
    ax.set_xlim(-0.6, len(points) - 0.4)
    ax.set_ylim(0, 1.06 * ax.get_ylim()[1])
    ax.yaxis.set_major_locator(MaxNLocator(6))
    ax.set_ylabel(axis_label(c.metric))
    ax.set_title(TITLES[c.task], loc="left", fontweight="bold", fontsize=9)
