"""The trade-off study: FSQ against VQ at matched codebook sizes (Fig. 3 of arXiv 2309.15505; now panels a and c).

    python scripts/sweep.py --sweep=configs/sweeps/tradeoff.py:scale=cpu --workdir=runs/tradeoff [--seeds=3]
    python scripts/report.py --runs=runs/tradeoff --out=results/tradeoff

scale=paper: 2^4 to 2^16 codes at ImageNet 128, 500k steps a point. scale=cpu: seven points on embedded photographs in
under an hour on two cores. scale=smoke: one small point of each kind, every loss on.
"""

from fsq_repro.runtime.arguments import parse_arg
from fsq_repro.runtime.sweep import Run

CONFIG = "configs/tradeoff_autoencoder.py"
PAPER_BITS = (4, 6, 8, 9, 10, 11, 12, 14, 16)
POINTS = {
    # A.4.1: VQ with the entropy term of weight 0.1. Without it at 2^10: how much the term does.
    "paper": [(q, b) for b in PAPER_BITS for q in ("fsq", "vq")] + [("vq_no_entropy", 10)],
    "cpu": [(q, b) for b in (8, 10, 12) for q in ("fsq", "vq")] + [("vq_no_entropy", 10)],
    "smoke": [("fsq", 8), ("vq", 8)],
}


def get_runs(arg: str = "") -> list[Run]:
    scale = parse_arg(arg, scale=tuple(POINTS)).scale
    return [Run(f"{q}_{b}", CONFIG, f"quantizer={q},bits={b},scale={scale}") for q, b in POINTS[scale]]
