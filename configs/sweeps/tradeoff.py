"""The trade-off study: FSQ against VQ at matched codebook sizes (Fig. 3 of arXiv 2309.15505).

    python scripts/sweep.py --sweep=configs/sweeps/tradeoff.py:scale=cpu --workdir=runs/tradeoff [--seeds=3]
    python scripts/sweep.py --sweep=configs/sweeps/tradeoff.py:scale=cpu,stages=both --workdir=runs/tradeoff
    python scripts/report.py --runs=runs/tradeoff --out=results/tradeoff

stages=1: autoencoders (panels a and c). stages=both: then a masked transformer on each, and at one size an
autoregressive one (panels b and d); autoencoders that are already there are taken as they are.

scale=paper: 2^4 to 2^16 codes at ImageNet 128, 500k + 1M steps a point. scale=cifar10: 2^4 to 2^14 codes on CIFAR-10,
with a VQ of narrow codes beside the paper's; to be run with --seeds=3. scale=cpu: nine points on embedded photographs,
and transformers on two of them, in a quarter of an hour per stage on two cores. scale=smoke: one small point of each
kind, every loss on.
"""

from fsq_repro.runtime.arguments import parse_arg
from fsq_repro.sweeps.sweep import Run

STAGE1 = "configs/tradeoff_autoencoder.py"
STAGE2 = "configs/tradeoff_maskgit.py"
PAPER_BITS = (4, 6, 8, 9, 10, 11, 12, 14, 16)
POINTS = {
    # A.4.1: VQ with the entropy term of weight 0.1. Without it at 2^10: how much the term does, in stage I.
    "paper": [(q, b) for b in PAPER_BITS for q in ("fsq", "vq")] + [("vq_no_entropy", 10)],
    # VQ's rank depends on the width of its codes: the paper's and a narrow one.
    "cifar10": [(q, b) for b in (4, 6, 8, 9, 10, 11, 12, 14) for q in ("fsq", "vq_narrow")]
    + [("vq", b) for b in (6, 8, 10, 12)],
    "cpu": [(q, b) for b in (6, 8, 10, 12) for q in ("fsq", "vq_narrow")] + [("vq", 10)],
    "smoke": [("fsq", 8), ("vq", 8)],
}
MASKED = {scale: [(q, b) for q, b in points if q != "vq_no_entropy"] for scale, points in POINTS.items()} | {
    "cifar10": [(q, b) for b in (6, 8, 10, 12, 14) for q in ("fsq", "vq_narrow")] + [("vq", 10)],
    "cpu": [("fsq", 10), ("vq_narrow", 10)],
}
AUTOREGRESSIVE = {
    "paper": [("fsq", 10), ("vq", 10)],
    "cifar10": [("fsq", 10), ("vq_narrow", 10)],
    "cpu": [],
    "smoke": [("fsq", 8)],
}


def one_seed(scale: str, quantizer: str, bits: int) -> bool:
    """Whether stage II of a point is trained with seed 0 alone, to save time."""
    return scale == "cifar10" and (quantizer == "vq" or bits not in (10, 12))


def get_runs(arg: str = "") -> list[Run]:
    a = parse_arg(arg, scale=tuple(POINTS), stages=("1", "both"))
    runs = [Run(f"{q}_{b}", STAGE1, f"quantizer={q},bits={b},scale={a.scale}") for q, b in POINTS[a.scale]]
    if a.stages == "both":
        points = [("masked", "maskgit", q, b) for q, b in MASKED[a.scale]]
        points += [("autoregressive", "ar", q, b) for q, b in AUTOREGRESSIVE[a.scale]]
        runs += [
            Run(
                f"{q}_{b}_{short}",
                STAGE2,
                f"quantizer={q},bits={b},generator={generator},scale={a.scale}",
                inputs={"stage1": f"{q}_{b}"},
                one_seed=one_seed(a.scale, q, b),
            )
            for generator, short, q, b in points
        ]
    return runs
