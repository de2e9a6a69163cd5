"""Fig. 4: the weight of classifier-free guidance. Table and figure of what was measured, beside the published table."""

import itertools
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from fsq_repro.reporting import paper
from fsq_repro.reporting.drawing import (
    LOWER_IS_BETTER,
    RC,
    NothingToDrawError,
    caption_of,
    finish,
    primary_distance,
    stages,
    style_of,
    styles,
)
from fsq_repro.reporting.groups import (
    Group,
    display_quantizer,
    frechet_label,
    frechet_names,
    group_runs,
    network_of,
    protocol_text,
    split_by_setting,
)
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
from fsq_repro.reporting.records import RunRecord
from fsq_repro.reporting.tables_stage2 import LEAD, lead_cells

GUIDANCE_WEIGHT = "guidance weight"  # the field of a protocol
LABEL_OFFSETS = (("left", (5, 4)), ("right", (-5, -9)), ("center", (0, 7)), ("center", (0, -12)))  # a curve each


def guidance_table(records: Iterable[RunRecord]) -> str:
    """The table of Fig. 4 beside each run's best guidance weight, and all weights, Markdown; generators only."""
    parts = ["## Guidance\n"]
    for setting, runs in split_by_setting(r for r in records if r.stage1).items():
        groups = group_runs(runs)
        names = frechet_names(runs, "sfd")
        parts.append(f"{setting_line(setting, runs)}\n")
        if not any(guidance_curve(g, n) for g in groups for n in names):
            parts.append("No run has a sampling distance with a protocol that states its guidance weight.\n")
            continue
        parts += ["Best guidance weight by sampling distance, beside the paper's:\n", f"{_best(groups, names)}\n"]
        parts += ["Every guidance weight:\n", f"{_every_weight(groups, names)}\n"]
    return "\n".join(parts)


def guidance_figure(records: Iterable[RunRecord], path: str | os.PathLike) -> None:
    """Fig. 4, bottom: precision against recall (left) and sampling distance over the guidance weight (right); PNG.

    One line a quantizer, codebook size and kind of generator; the points of the left panel are labelled by their
    weight. Lines are drawn of the commonest protocol of each kind of generator. The paper's numbers are of other data
    and of another feature network, so that they are not drawn.

    Raises:
      NothingToDrawError: no run has a sampling distance whose protocol states its guidance weight.
      ValueError: the records belong to autoencoders of several settings.
    """
    _, stage2, left_out = stages(records)
    groups = [g for kind in stage2 for g in kind]
    name = primary_distance(groups, "sfd")
    curves = [(g, c) for g in groups if (c := guidance_curve(g, name))] if name else []
    if not curves:
        raise NothingToDrawError(
            "no run has a sampling distance whose protocol states its guidance weight; nothing to draw."
        )
    curves = _same_protocol(curves)
    look = styles(g.first.quantizer for g, _ in curves)
    network = network_of(name)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(9.0, 4.4), dpi=160)
        left, right = figure.subplots(1, 2)
        for (g, curve), (side, offset) in zip(curves, itertools.cycle(LABEL_OFFSETS), strict=False):
            colour, marker, line, face = style_of(g, look)
            style = {"color": colour, "marker": marker, "linestyle": line, "markerfacecolor": face, "markersize": 5}
            label = f"{display_quantizer(g.first.quantizer)}, {g.first.codebook_size:,} codes, {g.first.generator}"
            distances = [g.statistic(full) for full in curve.values()]
            bars = [s.std or 0.0 for s in distances]
            bars = bars if any(bars) else None
            right.errorbar(list(curve), [s.mean for s in distances], bars, capsize=2, label=label, **style)
            recall, precision = (guidance_curve(g, f"{kind}_{network}") for kind in ("recall", "precision"))
            weights = [w for w in recall if w in precision]
            x = [g.statistic(recall[w]).mean for w in weights]
            y = [g.statistic(precision[w]).mean for w in weights]
            left.plot(x, y, **style)
            for weight, *at in zip(weights, x, y, strict=True):
                left.annotate(f"{weight:g}", at, offset, textcoords="offset points", ha=side, fontsize=7, color=colour)
        left.margins(0.08)
        left.set(xlabel=f"recall-{network}", ylabel=f"precision-{network}")
        left.set_title("Precision and recall, guidance weight at each point", loc="left", fontweight="bold", fontsize=9)
        right.set(
            xlabel="guidance weight $\\alpha$", ylabel=frechet_label(name).removeprefix("sampling ") + LOWER_IS_BETTER
        )
        right.set_title("Sampling", loc="left", fontweight="bold", fontsize=9)
        handles, labels = right.get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper center", ncols=min(3, len(labels)), fontsize=8)
        protocols = {g.first.generator: without_guidance(g.protocol(next(iter(c.values())))) for g, c in curves}
        measured = [(f"{frechet_label(name)}, {kind}", protocol) for kind, protocol in protocols.items()]
        caption = caption_of([g for g, _ in curves], measured, left_out + len(groups) - len(curves))
        finish(figure, caption, path, top=1 - (0.06 + 0.19 * -(-len(labels) // 3)) / figure.get_figheight())


def _same_protocol(curves: Sequence[tuple[Group, dict[float, str]]]) -> list[tuple[Group, dict[float, str]]]:
    """Of each kind of generator the curves measured in the commonest way."""
    by_protocol: dict[str, dict[str, list]] = {}
    for g, curve in curves:
        text = protocol_text(without_guidance(g.protocol(next(iter(curve.values())))))
        by_protocol.setdefault(g.first.generator, {}).setdefault(text, []).append((g, curve))
    return [item for kinds in by_protocol.values() for item in max(kinds.values(), key=len)]


def guidance_weight(protocol: dict[str, Any]) -> float | None:
    """The weight of classifier-free guidance that a figure of samples was measured at; None if it does not say."""
    return float(protocol[GUIDANCE_WEIGHT]) if GUIDANCE_WEIGHT in protocol else None


def guidance_curve(g: Group, name: str) -> dict[float, str]:
    """Guidance weight -> name of the figure measured at it (NAME itself or NAME@guidance=WEIGHT), by rising weight.

    Only points measured in the commonest way, the weight apart, are on the curve.
    """
    ways: dict[str, dict[float, str]] = {}
    for full in sorted(g.first.figures, key=len, reverse=True):  # NAME last: it wins at its weight
        at = re.fullmatch(rf"{re.escape(name)}(@guidance=[0-9.eE+-]+)?", full)
        if at and g.statistic(full) is not None:
            protocol = g.protocol(full)
            weight = float(at[1].partition("=")[2]) if at[1] else guidance_weight(protocol)
            if weight is not None:
                ways.setdefault(protocol_text(without_guidance(protocol)), {})[weight] = full
    return dict(sorted(max(ways.values(), key=len, default={}).items()))


def without_guidance(protocol: dict[str, Any]) -> dict[str, Any]:
    """A protocol but for its guidance weight: what the points of one curve share."""
    return {k: v for k, v in protocol.items() if k != GUIDANCE_WEIGHT}


def _best(groups: Sequence[Group], names: Sequence[str]) -> str:
    """Rows of the paper with our runs of the same quantizer and size beside them, then our other runs."""
    columns = _with_precision(names)
    header = ["model", "source", "guidance (paper)", "FID (paper)", "precision (paper)", "recall (paper)"]
    header += ["usage (paper)", "measured: run", "codebook", "best guidance weight"]
    header += [*(title_and_format(n)[0] for n in columns), "usage", "runs"]

    def ours(g: Group) -> list[Cell]:
        curve = next((c for n in names if (c := guidance_curve(g, n))), {})
        lead = [
            Cell(f"{display_quantizer(g.first.quantizer)}, {g.first.generator}"),
            Cell(f"{g.first.codebook_size:,}"),
        ]
        if not curve:
            return [*lead, *[Cell(MISSING)] * (1 + len(columns)), figure_cell(g, "usage"), seeds_cell(g)]
        weight = min(curve, key=lambda w: g.statistic(curve[w]).mean)
        return [*lead, Cell(f"{weight:g}"), *_guided(g, columns, weight), figure_cell(g, "usage"), seeds_cell(g)]

    rows, placed = [], []
    for row in paper.FIG4:
        theirs = [
            Cell(row.model),
            Cell(row.source),
            Cell(MISSING if row.guidance_weight is None else f"{row.guidance_weight:g}"),
            Cell(f"{row.fid:g}"),
            Cell(f"{row.precision:.3f}"),
            Cell(f"{row.recall:.3f}"),
            Cell(MISSING if row.usage is None else f"{row.usage:.0%}"),
        ]
        twins = [
            g
            for g in groups
            if (g.first.quantizer, g.first.target_bits, g.first.generator) == (row.quantizer, paper.FIG4_BITS, "masked")
        ]
        placed += twins
        rows += [[*theirs, *ours(g)] for g in twins] or [[*theirs, *[Cell(MISSING)] * (len(header) - len(theirs))]]
    rows += [[*[Cell(MISSING)] * 7, *ours(g)] for g in groups if g not in placed]
    notes = ["Distances of other networks than Inception and of other data are not comparable with the paper's."]
    return footnoted_table(header, rows, several_seeds(groups), [*notes, paper.FIG4_PROTOCOL])


def _every_weight(groups: Sequence[Group], names: Sequence[str]) -> str:
    columns = _with_precision(names)
    rows = []
    for g in groups:
        for weight in sorted({w for n in names for w in guidance_curve(g, n)}):
            rows.append([*lead_cells(g), Cell(f"{weight:g}"), *_guided(g, columns, weight), seeds_cell(g)])
    header = [*LEAD, "guidance weight", *(title_and_format(n)[0] for n in columns), "runs"]
    return footnoted_table(header, rows, several_seeds(groups))


def _guided(g: Group, names: Sequence[str], weight: float) -> list[Cell]:
    """Figures at one guidance weight; it has its own column, so that the protocols need not name it."""
    cells = []
    for name in names:
        full = guidance_curve(g, name).get(weight)
        cell = figure_cell(g, full) if full else Cell(MISSING)
        cells.append(Cell(cell.text, without_guidance(cell.protocol) if cell.protocol else None))
    return cells


def _with_precision(names: Sequence[str]) -> list[str]:
    return [n for d in names for n in (d, f"precision_{network_of(d)}", f"recall_{network_of(d)}")]
