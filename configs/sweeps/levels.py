"""Levels and dimensions at one codebook size (Fig. 10 of arXiv 2309.15505: levels under 5 are worse).

    python scripts/sweep.py --sweep=configs/sweeps/levels.py:bits=10,scale=cpu --workdir=runs/levels_10
    python scripts/report.py --runs=runs/levels_10 --out=results/levels_10

The paper does not list its level sets; these are the factorisations nearest to the size, from few dimensions with many
levels to many with 3 (`fsq_repro.quantizers.level_sets`). Argument: bits=8|9|10|11|12|14|16, stages=1|both (Fig. 10 is
of sampling, with stage II), scale=paper|cpu|smoke.
"""

from fsq_repro.quantizers import level_sets
from fsq_repro.runtime.arguments import parse_arg
from fsq_repro.sweeps.sweep import Run

STAGE1 = "configs/tradeoff_autoencoder.py"
STAGE2 = "configs/tradeoff_maskgit.py"


def get_runs(arg: str = "") -> list[Run]:
    a = parse_arg(arg, bits=(10, 8, 9, 11, 12, 14, 16), stages=("1", "both"), scale=("paper", "cpu", "smoke"))
    config_arg = f"quantizer=fsq,bits={a.bits},scale={a.scale}"
    names = {"fsq_" + "x".join(map(str, levels)): {"quantizer.levels": str(levels)} for levels in level_sets(a.bits)}
    runs = [Run(name, STAGE1, config_arg, levels) for name, levels in names.items()]
    if a.stages == "both":
        runs += [
            Run(f"{name}_maskgit", STAGE2, config_arg, levels, inputs={"stage1": name})
            for name, levels in names.items()
        ]
    return runs
