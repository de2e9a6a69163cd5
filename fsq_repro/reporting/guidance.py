"""Fig. 4: the weight of classifier-free guidance. Table and figure of what was measured, beside the published table."""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from fsq_repro.metrics.table import MetricKey
from fsq_repro.reporting import drawing, paper
from fsq_repro.reporting.groups import Group, commonest, keys_of, protocol_text, titled
from fsq_repro.reporting.markdown import MISSING, Cell, Section, footnoted_table, metric_cell, seeds_text
from fsq_repro.reporting.records import GENERATORS, RunRecord
from fsq_repro.reporting.tradeoff import LEAD

GUIDANCE_WEIGHT = "guidance weight"  # the field of a protocol
USAGE = MetricKey("usage")
LABEL_OFFSETS = (("left", (5, 4)), ("right", (-5, -9)), ("center", (0, 7)), ("center", (0, -12)))  # a curve each
PAPER_COLUMNS = ("model", "source", *(f"{x} (paper)" for x in ("guidance", "FID", "precision", "recall", "usage")))
NOT_COMPARABLE = "Distances of other networks than Inception and of other data are not comparable with the paper's."


def guidance_figure(records: Iterable[RunRecord], path: drawing.PathLike) -> None:
    """Fig. 4, bottom: precision against recall (left) and sampling distance over the guidance weight (right); PNG.

    One line for each quantizer, codebook size and kind of generator; the points of the left panel are labelled by
    their weight. Lines are drawn of the commonest protocol of each kind of generator. The paper's numbers are of other
    data and of another feature network, so that they are not drawn. NothingToDrawError if no run has a sampling
    distance whose protocol states its guidance weight, ValueError for autoencoders of several settings.
    """
    _, stage2, left_out = drawing.stages(records)
    groups = [g for kind in stage2 for g in kind]
    distance = drawing.primary_distance(groups, "sampling_fd")
    curves = [(g, c) for g in groups if (c := guidance_curve(g, distance))] if distance else []
    if not curves:
        raise drawing.NothingToDrawError("no sampling distance's protocol states its guidance weight; nothing to draw.")
    curves = [
        item
        for kind in GENERATORS
        for item in commonest([c for c in curves if c[0].first.generator == kind], lambda c: _curve_protocol(*c))
    ]
    look = drawing.styles(g.line for g, _ in curves)
    axes_keys = [MetricKey(name, network=distance.network) for name in ("recall", "precision")]
    with matplotlib.rc_context(drawing.RC):
        figure = Figure(figsize=(9.0, 4.4), dpi=160)
        left, right = figure.subplots(1, 2)
        for (g, curve), (align, offset) in zip(curves, itertools.cycle(LABEL_OFFSETS), strict=False):
            style = drawing.style_of(g, look)
            label = f"{g.quantizer}, {g.first.codebook_size:,} codes, {g.first.generator}"
            distances = [g.statistic(key) for key in curve.values()]
            means, bars = [s.mean for s in distances], [s.std or 0.0 for s in distances]
            right.errorbar(list(curve), means, bars if any(bars) else None, capsize=2, label=label, **style)
            recall, precision = (guidance_curve(g, key) for key in axes_keys)
            weights = [w for w in recall if w in precision]
            x, y = ([g.statistic(c[w]).mean for w in weights] for c in (recall, precision))
            left.plot(x, y, **style)
            text = {"textcoords": "offset points", "ha": align, "fontsize": 7, "color": style["color"]}
            for weight, *at in zip(weights, x, y, strict=True):
                left.annotate(f"{weight:g}", at, offset, **text)
        left.margins(0.08)
        left.set(xlabel=axes_keys[0].title, ylabel=axes_keys[1].title)
        left.set_title("Precision and recall, guidance weight at each point", loc="left", fontweight="bold", fontsize=9)
        right.set(xlabel="guidance weight $\\alpha$", ylabel=drawing.axis_label(distance))
        right.set_title("Sampling", loc="left", fontweight="bold", fontsize=9)
        handles, labels = right.get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper center", ncols=min(3, len(labels)), fontsize=8)
        protocols = {g.first.generator: _curve_protocol(g, c) for g, c in curves}
        measured = [(f"{titled(distance)}, {kind}", protocol) for kind, protocol in protocols.items()]
        caption = drawing.caption_of([g for g, _ in curves], measured, left_out + len(groups) - len(curves))
        drawing.finish(figure, caption, path, top=1 - (0.06 + 0.19 * -(-len(labels) // 3)) / figure.get_figheight())


def guidance_curve(g: Group, key: MetricKey) -> dict[float, MetricKey]:
    """Guidance weight -> key of what was measured at it, by rising weight.

    Only points measured in the commonest way, the weight apart, are on the curve; at its weight the run's own metric
    is the point.
    """
    ways: dict[str, dict[float, MetricKey]] = {}
    points = [k for k in g.first.metrics if dataclasses.replace(k, guidance=None) == key and g.values(k)]
    for point in sorted(points, key=lambda k: k.is_main):
        protocol = g.protocol(point)
        weight = protocol.get(GUIDANCE_WEIGHT) if point.is_main else point.guidance
        if weight is not None:
            ways.setdefault(protocol_text(without_guidance(protocol)), {})[float(weight)] = point
    return dict(sorted(max(ways.values(), key=len, default={}).items()))


def without_guidance(protocol: dict[str, Any]) -> dict[str, Any]:
    """A protocol but for its guidance weight: what the points of one curve share."""
    return {k: v for k, v in protocol.items() if k != GUIDANCE_WEIGHT}


def _curve_protocol(g: Group, curve: dict[float, MetricKey]) -> dict[str, Any]:
    return without_guidance(g.protocol(next(iter(curve.values()))))


def _tables(groups: Sequence[Group]) -> str:
    """Fig. 4's table beside each run's best guidance weight, and all weights."""
    distances = keys_of((g.first for g in groups), "sampling_fd")
    if not any(guidance_curve(g, k) for g in groups for k in distances):
        return "No run has a sampling distance with a protocol that states its guidance weight."
    best = f"Best guidance weight by sampling distance, beside the paper's:\n\n{_best(groups, distances)}"
    return f"{best}\n\nEvery guidance weight:\n\n{_every_weight(groups, distances)}"


def _best(groups: Sequence[Group], distances: Sequence[MetricKey]) -> str:
    """Rows of the paper with our runs of the same quantizer and size beside them, then our other runs."""
    columns = _with_precision(distances)
    ours = ["measured: run", "codebook", "best guidance weight", *map(titled, columns), "usage", "runs"]

    def our_cells(g: Group) -> list[Cell | str]:
        curve = next((c for k in distances if (c := guidance_curve(g, k))), {})
        weight = min(curve, key=lambda w: g.statistic(curve[w]).mean) if curve else None
        guided = _guided(g, columns, weight) if curve else [MISSING] * len(columns)
        lead = [f"{g.quantizer}, {g.first.generator}", f"{g.first.codebook_size:,}", _dash_or("{:g}", weight)]
        return [*lead, *guided, metric_cell(g, USAGE), seeds_text(g)]

    rows, placed = [], []
    for row in paper.FIG4:
        scores = [f"{row.fid:g}", f"{row.precision:.3f}", f"{row.recall:.3f}", _dash_or("{:.0%}", row.usage)]
        cells = [row.model, row.source, _dash_or("{:g}", row.guidance_weight), *scores]
        model = (row.quantizer, paper.FIG4_BITS, "masked")
        twins = [g for g in groups if (g.first.quantizer, g.first.target_bits, g.first.generator) == model]
        placed += twins
        rows += [[*cells, *our_cells(g)] for g in twins] or [[*cells, *[MISSING] * len(ours)]]
    rows += [[*[MISSING] * len(PAPER_COLUMNS), *our_cells(g)] for g in groups if g not in placed]
    return footnoted_table([*PAPER_COLUMNS, *ours], rows, groups, [NOT_COMPARABLE, paper.FIG4_PROTOCOL])


def _every_weight(groups: Sequence[Group], distances: Sequence[MetricKey]) -> str:
    columns = _with_precision(distances)
    rows = [
        [*(column.cell(g) for column in LEAD), f"{weight:g}", *_guided(g, columns, weight), seeds_text(g)]
        for g in groups
        for weight in sorted({w for k in distances for w in guidance_curve(g, k)})
    ]
    header = [*(column.title for column in LEAD), "guidance weight", *map(titled, columns), "runs"]
    return footnoted_table(header, rows, groups)


def _guided(g: Group, keys: Sequence[MetricKey], weight: float) -> list[Cell]:
    """Metrics at one guidance weight; it has its own column, so that the protocols need not name it."""
    cells = []
    for key in keys:
        point = guidance_curve(g, key).get(weight)
        cell = metric_cell(g if point else None, point)
        cells.append(Cell(cell.text, without_guidance(cell.protocol) if cell.protocol else None))
    return cells


def _with_precision(distances: Sequence[MetricKey]) -> list[MetricKey]:
    return [k for d in distances for k in (d, *(MetricKey(n, network=d.network) for n in ("precision", "recall")))]


def _dash_or(form: str, value: float | None) -> str:
    return MISSING if value is None else form.format(value)


GUIDANCE = Section("Guidance", lambda r: r.stage1 is not None, _tables)
