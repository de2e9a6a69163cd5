"""What the figures share: which runs are drawn, styles, curves, labels, captions."""

import itertools
import os
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fsq_repro.metrics.table import MetricKey
from fsq_repro.reporting.groups import Group, commonest, group_runs, keys_of, protocol_text, split_by_setting, titled
from fsq_repro.reporting.records import GENERATORS, RunRecord

# Okabe and Ito's colours, told apart by colour-blind readers too: (colour, marker, line style, marker face).
STYLES = {
    "fsq": ("#0072B2", "o", "-", "#0072B2"),
    "vq": ("#E69F00", "s", "-", "#E69F00"),
    "vq_no_entropy": ("#D55E00", "D", ":", "white"),
    "vq_narrow": ("#009E73", "^", "-", "#009E73"),
    "vq_narrow_no_entropy": ("#CC79A7", "v", "-", "#CC79A7"),
}
SPARE_STYLES = (("#56B4E9", "X", "--", "#56B4E9"), ("#8B5A2B", "<", "--", "#8B5A2B"), ("#000000", "P", "--", "#000000"))
GREY = "#8a8a8a"
RC = {"font.size": 9, "legend.frameon": False, "axes.spines.top": False, "axes.spines.right": False}
RC |= {"axes.grid": True, "axes.axisbelow": True, "grid.color": "#e6e6e6"}

PathLike = str | os.PathLike


class NothingToDrawError(ValueError):
    """No record has what the figure shows."""


def stages(records: Iterable[RunRecord]) -> tuple[list[Group], list[list[Group]], int]:
    """Groups of the autoencoders; of the generators, those of each kind with most runs; how many groups are neither.
    ValueError if the records belong to autoencoders of no or of several settings."""
    records = list(records)
    settings = split_by_setting(records, of_stage1=True)
    if len(settings) != 1:
        names = "; ".join(map(str, settings)) or "none"
        raise ValueError(f"a figure is drawn from fitting runs of one setting, got: {names}.")
    stage2, left_out = [], 0
    for kind in GENERATORS:
        by_setting = split_by_setting(r for r in records if r.generator == kind)
        groups = sorted(map(group_runs, by_setting.values()), key=len, reverse=True)
        stage2 += groups[:1]
        left_out += sum(map(len, groups[1:]))
    return group_runs(r for r in records if r.stage1 is None), stage2, left_out


def primary_distance(groups: Sequence[Group], metric: str) -> MetricKey | None:
    """The most trusted distance that any group has with its protocol; None if there is none."""
    return next((k for k in keys_of((g.first for g in groups), metric) if any(g.values(k) for g in groups)), None)


def same_protocol(groups: Sequence[Group], key: MetricKey) -> list[Group]:
    """Groups measured under the commonest protocol of a metric."""
    return commonest(groups, lambda g: g.protocol(key))


def styles(lines: Iterable[str]) -> dict[str, tuple]:
    """A style for each `Group.line` present: the paper's two quantizers first."""
    present, spare = set(lines), itertools.cycle(SPARE_STYLES)
    return {q: STYLES.get(q) or next(spare) for q in [*STYLES, *sorted(present - set(STYLES))] if q in present}


def style_of(g: Group, look: dict[str, tuple]) -> dict[str, Any]:
    """The style of a group's line, hollow and dashed for an autoregressive generator."""
    colour, marker, line, face = look[g.line]
    if g.first.generator == "autoregressive":
        marker, line, face = "^", "--", "white"
    return {"color": colour, "marker": marker, "linestyle": line, "markerfacecolor": face, "markersize": 5}


def lines(axes, groups: Sequence[Group], key: MetricKey, look: dict[str, tuple]) -> None:
    """A line over the bits of the codebook for each quantizer and kind of generator, with bars of several seeds."""
    scale = key.declared.scale
    for name, generator in itertools.product(look, (None, *GENERATORS)):
        mine = [g for g in groups if (g.line, g.first.generator) == (name, generator)]
        if not mine:
            continue
        mine.sort(key=lambda g: g.first.bits)
        statistics = [g.statistic(key) for g in mine]
        x, y = [g.first.bits for g in mine], [scale * s.mean for s in statistics]
        deviation = [scale * (s.std or 0.0) for s in statistics]
        label = mine[0].quantizer + (", autoregressive" if generator == "autoregressive" else "")
        bars = deviation if any(deviation) else None
        axes.errorbar(x, y, bars, capsize=2, elinewidth=0.8, label=label, **style_of(mine[0], look))


def axis_label(key: MetricKey) -> str:
    """`PSNR (dB), higher is better`; sampling distances are called so by their panel."""
    better = key.declared.better
    return titled(key).removeprefix("sampling ") + (f", {better} is better" if better else "")


def label_points(axes, points: Sequence[tuple[float, float, str]]) -> None:
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
        arrow = {"arrowstyle": "-", "color": GREY, "linewidth": 0.4, "shrinkB": 2}
        axes.annotate(text, (x, y), (x + 0.02 * (right - left), at), fontsize=7, va="center", arrowprops=arrow)


def measured_so(groups: Iterable[Group], key: MetricKey | None) -> list[tuple[str, dict[str, Any]]]:
    """(label, protocol) of a metric for each kind of model, for `caption_of`; nothing of no groups."""
    protocols = {g.first.generator: g.protocol(key) for g in groups}
    return [(f"{titled(key)}, {kind}" if kind else titled(key), protocol) for kind, protocol in protocols.items()]


def caption_of(drawn: Sequence[Group], measured: Iterable[tuple[str, dict[str, Any]]], left_out: int) -> str:
    """Settings, seeds per point, and protocols; a protocol after the first is given by what the first does not say."""
    settings = dict.fromkeys(str(g.first.setting) for g in drawn)
    seeds = sorted({len(g.records) for g in drawn})
    number = "1 seed" if seeds == [1] else f"{'-'.join(map(str, seeds))} seeds"
    bars = "" if seeds == [1] else ", bars: standard deviation"
    parts = [f"{'; '.join(settings)}; {number} per point{bars}."]
    first: dict[str, Any] = {}
    for label, protocol in measured:
        rest = {k: v for k, v in protocol.items() if k not in first or first[k] != v}
        text = protocol_text(rest) + (", otherwise as the first" if first and rest else "") or "as the first"
        parts.append(f"{label}: {text}.")
        first = first or protocol
    return " ".join(parts) + (f" Left out: {left_out} run(s) measured otherwise." if left_out else "")


def write_caption(figure: Figure, caption: str) -> float:
    """Writes the caption at the lower edge and returns the share of the figure's height that it takes."""
    lines = textwrap.wrap(caption, width=int(figure.get_figwidth() * 20))
    figure.text(0.012, 0.05 / figure.get_figheight(), "\n".join(lines), fontsize=6.5, color="#555555", va="bottom")
    return (0.13 * len(lines) + 0.05) / figure.get_figheight()


def finish(figure: Figure, caption: str, path: PathLike, top: float = 1.0) -> None:
    """Lays out below `top`, writes the caption under the panels and saves."""
    bottom = write_caption(figure, caption)
    figure.tight_layout(rect=(0, bottom, 1, top))
    FigureCanvasAgg(figure).print_png(path)
