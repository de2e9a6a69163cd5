"""Fig. 10: FSQ level sets at one codebook size."""

import itertools
from collections.abc import Iterable, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from fsq_repro.metrics.table import MetricKey
from fsq_repro.reporting import claims, drawing, markdown, paper, tradeoff
from fsq_repro.reporting.groups import Group
from fsq_repro.reporting.records import RunRecord

DIMENSIONS = markdown.Column("dimensions", lambda g: str(len(g.first.levels)))
SMALLEST = markdown.Column("smallest level", lambda g: str(min(g.first.levels)))
LEAD = (markdown.TARGET, markdown.LEVELS, DIMENSIONS, SMALLEST, markdown.CODEBOOK, markdown.BITS)
METRICS = ("psnr", "ssim", "usage", "entropy_bits", "tokens")
RULE = markdown.Column("paper", lambda g: f"{'breaks' if min(g.first.levels) < 5 else 'keeps'} the rule of 5 levels")
CLAIM = "{title}: levels of 5 and more beat sets with a smaller level at the same codebook size"
PANELS = (("Reconstruction", "reconstruction_fd"), ("Sampling", "sampling_fd"))


def _best_many_and_few(groups: Sequence[Group], key: MetricKey) -> claims.Pairs:
    """At each codebook size the best set of 5 levels and more, and the best with a smaller level."""
    fsq = [g for g in groups if g.first.levels]
    keeping, breaking = ([g for g in fsq if (min(g.first.levels) >= 5) == keeps] for keeps in (True, False))
    for many, few in itertools.product(claims.best_by_size(keeping, key), claims.best_by_size(breaking, key)):
        if many.first.target_bits == few.first.target_bits and claims.alike(many, few, key):
            yield claims.side(many, key, many.levels_text), claims.side(few, key, few.levels_text)


LEVEL_SETS = markdown.Section(
    "Level sets at one codebook size",
    lambda r: bool(r.levels) and r.stage1 is None,
    lambda groups: tradeoff.autoencoder_table(groups, LEAD, METRICS, RULE),
    [claims.Claim(CLAIM, "Fig. 10, there sampling FID", "reconstruction_fd", _best_many_and_few, better_by=0)],
    note=f"The paper's rule ({paper.LEVELS_SOURCE}): {paper.LEVELS_RULE}\n",
)
GENERATORS_BY_LEVEL_SET = markdown.Section(
    "Sampling and compression by level set",
    lambda r: bool(r.levels) and r.stage1 is not None,
    tradeoff.generator_tables,
    [claims.Claim(CLAIM, "Fig. 10", "sampling_fd", _best_many_and_few, better_by=0)],
    tradeoff.sanity_checks,
)


def levels_figure(records: Iterable[RunRecord], path: drawing.PathLike) -> None:
    """Bits against the distance of FSQ level sets, coloured by the smallest level, each labelled; PNG.

    Reconstruction at the left and, where generators were run, sampling (the paper's Fig. 10) at the right; of several
    kinds of generators the masked one. NothingToDrawError if no FSQ run has a Frechet distance with protocol,
    ValueError for autoencoders of several settings.
    """
    records = [r for r in records if r.levels]
    if not records:
        raise drawing.NothingToDrawError("no run has levels; nothing to draw.")
    stage1, stage2, left_out = drawing.stages(records)
    left_out += sum(map(len, stage2[1:]))
    panels = []
    for (title, metric), groups in zip(PANELS, (stage1, stage2[0] if stage2 else []), strict=True):
        key = drawing.primary_distance(groups, metric)
        if key is not None:
            kept = drawing.same_protocol(groups, key)
            panels.append((title, kept, key))
            left_out += len(groups) - len(kept)
    if not panels:
        raise drawing.NothingToDrawError("no run has a Frechet distance with protocol; nothing to draw.")
    smallest = sorted({min(g.first.levels) for _, groups, _ in panels for g in groups})
    colours = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.85, len(smallest)))
    with matplotlib.rc_context(drawing.RC):
        figure = Figure(figsize=(7.0 if len(panels) == 1 else 11.0, 4.6), dpi=160)
        for ax, (title, groups, key) in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels, strict=True):
            for low, colour in zip(smallest, colours, strict=True):
                points = [(g.first.bits, g.statistic(key)) for g in groups if min(g.first.levels) == low]
                x, y, bars = [x for x, _ in points], [s.mean for _, s in points], [s.std or 0.0 for _, s in points]
                ax.errorbar(x, y, bars, fmt="o", color=colour, capsize=2, elinewidth=0.8, label=f"{low}")
            ax.margins(x=0.14, y=0.12)
            low_x, high_x = ax.get_xlim()
            ax.set_xlim(low_x, high_x + 0.1 * (high_x - low_x))  # room for the label of the rightmost point
            drawing.label_points(ax, [(g.first.bits, g.statistic(key).mean, g.levels_text) for g in groups])
            ax.set_xlabel("bits, $\\log_2$ of the codebook size")
            ax.set_ylabel(drawing.axis_label(key))
            ax.set_title("FSQ level sets" if len(panels) == 1 else title, loc="left", fontweight="bold")
        ax.legend(title="smallest\nlevel", loc="upper left", bbox_to_anchor=(1.0, 1.0))
        drawn = [g for _, groups, _ in panels for g in groups]
        measured = [m for _, groups, key in panels for m in drawing.measured_so(groups, key)]
        drawing.finish(figure, drawing.caption_of(drawn, measured, left_out), path)
