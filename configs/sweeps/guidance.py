"""Classifier-free guidance: precision, recall and sampling FID over the guidance weight (Fig. 4 of arXiv 2309.15505).

    python scripts/sweep.py --sweep=configs/sweeps/guidance.py:scale=paper --workdir=runs/guidance
    python scripts/report.py --runs=runs/guidance --out=results/guidance

Both stages of MaskGIT on ImageNet 256 (scale=cpu: on the embedded photographs) with FSQ [8,5,5,5] and VQ-1024; every
stage-II run is evaluated at the weights of `eval.guidance_weights`. Argument: scale=paper|cpu|smoke.
"""

from fsq_repro.runtime.arguments import parse_arg
from fsq_repro.sweeps.sweep import Run

STAGE1 = "configs/imagenet256_autoencoder.py"
STAGE2 = "configs/imagenet256_maskgit.py"


def get_runs(arg: str = "") -> list[Run]:
    scale = parse_arg(arg, scale=("paper", "cpu", "smoke")).scale
    runs = [Run(f"{q}_10", STAGE1, f"quantizer={q},bits=10,scale={scale}") for q in ("fsq", "vq")]
    return runs + [
        Run(f"{q}_10_maskgit", STAGE2, f"quantizer={q},bits=10,scale={scale}", inputs={"stage1": f"{q}_10"})
        for q in ("fsq", "vq")
    ]
