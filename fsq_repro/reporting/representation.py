"""What single codes mean (appendix A.3, Figs 8 and 9): code histograms, soups, constant codes, stitched images."""

import os
from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from fsq_repro.reporting.drawing import GREY, RC, styles, write_caption
from fsq_repro.reporting.groups import display_quantizer

STRIPS = {
    "soups": "tokens drawn from\nthe histogram",
    "constants": "one code\neverywhere",
    "tops": "A",
    "bottoms": "B",
    "latent_stitches": "A over B,\nstitched tokens",
    "pixel_stitches": "A over B,\nstitched pixels",
}  # rows of images below the histogram: key -> label
TILE, GAP, LABELS, BETWEEN, HISTOGRAM = 1.0, 0.06, 1.25, 0.75, 1.1  # inches
CAPTION = (
    "Top: share of each code among the tokens of the test split, the most frequent first, and the entropy; grey: "
    "an even share. "
    "Below: images decoded from tokens drawn one by one from that histogram; from grids of one code (its share above); "
    "from the upper rows of A's tokens over the lower rows of B's, and the same of their pixels."
)


def representation_figure(studies: Mapping[str, Mapping[str, np.ndarray]], path: str | os.PathLike) -> None:
    """Histogram, soups, constant codes and stitched images, a block of columns for each quantizer; PNG.

    `studies` are by the quantizer's name ("fsq", "vq", ...), at least one, else ValueError. counts_K: int64, tokens of
    each code; soups, constants (N, H, W, 3), tops, bottoms, latent_stitches, pixel_stitches (P, H, W, 3): uint8 images;
    constant_codes: N integers, the code of each constant image.
    """
    if not studies:
        raise ValueError("a representation figure needs at least one quantizer, got none.")
    looks = styles(studies)
    widths = [max(len(study[key]) for key in STRIPS) * (TILE + GAP) - GAP for study in studies.values()]
    width = LABELS + sum(widths) + BETWEEN * (len(widths) - 1) + 0.3
    top = 0.25 + HISTOGRAM  # inches from the upper edge to the histogram's axis
    height = top + 0.75 + len(STRIPS) * (TILE + GAP) + 0.75
    with matplotlib.rc_context(RC | {"axes.grid": False, "font.size": 8}):
        figure = Figure(figsize=(width, height), dpi=200)

        def axes_at(x: float, y: float, w: float, h: float):
            """Axes of w x h inches, x from the left edge and y from the upper one down to the axes' foot."""
            return figure.add_axes((x / width, 1 - y / height, w / width, h / height))

        shares = [100 * study["counts_K"] / study["counts_K"].sum() for study in studies.values()]
        limits = min(s[s > 0].min() for s in shares) / 1.5, max(s.max() for s in shares) * 1.5
        x = LABELS
        for (quantizer, study), share, w in zip(studies.items(), shares, widths, strict=True):
            _histogram(axes_at(x, top, w, HISTOGRAM), share, limits, quantizer, looks[quantizer][0])
            for row, (key, label) in enumerate(STRIPS.items()):
                y = top + 0.75 + (row + 1) * (TILE + GAP) - GAP + (0.0 if row == 0 else 0.12)
                for i, image in enumerate(study[key]):
                    ax = axes_at(x + i * (TILE + GAP), y, TILE, TILE)
                    ax.imshow(image, interpolation="nearest")
                    ax.set(xticks=[], yticks=[])
                    ax.spines[:].set_visible(False)
                    if key == "constants":
                        code = study["constant_codes"][i]
                        ax.set_title(f"{code:,}: {share[code]:.2g}%", fontsize=7, pad=2)
                    if i == 0 and x == LABELS:
                        ax.set_ylabel(label, rotation=0, ha="right", va="center", labelpad=6)
            x += w + BETWEEN
        write_caption(figure, CAPTION)
        FigureCanvasAgg(figure).print_png(path)


def _histogram(ax, share_K: np.ndarray, limits: tuple[float, float], quantizer: str, colour: str) -> None:
    """Percent of the tokens over the rank of the code, both logarithmic: readable for 240 codes and for 64,000."""
    share = np.sort(share_K[share_K > 0])[::-1]
    ax.stairs(share, np.arange(len(share) + 1) + 0.5, fill=True, color=colour, baseline=limits[0])
    ax.axhline(100 / len(share_K), color=GREY, linewidth=0.8)
    ax.set(xscale="log", yscale="log", xlim=(0.5, len(share_K) + 0.5), ylim=limits)
    ax.set(xlabel="rank of the code", ylabel="tokens, %")
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
    ax.minorticks_off()
    entropy = float(-(share / 100 * np.log2(share / 100)).sum())
    title = f"{display_quantizer(quantizer)}: {len(share):,} of {len(share_K):,} codes, {entropy:.2f} bits"
    ax.set_title(title, loc="left", fontweight="bold", fontsize=8)
