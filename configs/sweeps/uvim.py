"""UViM: depth, colourisation and panoptic segmentation with FSQ and VQ (Table 2 of arXiv 2309.15505).

    python scripts/sweep.py --sweep=configs/sweeps/uvim.py:scale=cpu --workdir=runs/uvim [--seeds=3]
    python scripts/report.py --runs=runs/uvim --out=results/uvim

Both stages of each row, and the paper's ablations: VQ without splitting (depth), stage I without the image as context
(panoptic). Stage I is trained once, stage II with every seed, as the paper has it. Argument: scale=paper|cpu|smoke;
smoke takes one quantizer a task.
"""

from fsq_repro.runtime.arguments import parse_arg
from fsq_repro.sweeps.sweep import Run

ROWS = [  # task, name, argument
    ("depth", "fsq", "quantizer=fsq"),
    ("depth", "vq", "quantizer=vq"),
    ("depth", "vq_nosplit", "quantizer=vq_nosplit"),
    ("panoptic", "fsq", "quantizer=fsq"),
    ("panoptic", "vq", "quantizer=vq"),
    ("panoptic", "fsq_nocontext", "quantizer=fsq,context=false"),
    ("panoptic", "vq_nocontext", "quantizer=vq,context=false"),
    ("colorization", "fsq", "quantizer=fsq"),
    ("colorization", "vq", "quantizer=vq"),
]
SMOKE = [("depth", "vq"), ("panoptic", "fsq_nocontext"), ("colorization", "fsq")]


def get_runs(arg: str = "") -> list[Run]:
    scale = parse_arg(arg, scale=("paper", "cpu", "smoke")).scale
    rows = [row for row in ROWS if scale != "smoke" or row[:2] in SMOKE]
    # All of stage I first: a run that waits for another one keeps a worker of a parallel sweep busy.
    stage1 = [
        Run(f"{task}_{name}_stage1", f"configs/uvim_{task}.py", f"stage=1,{argument},scale={scale}", one_seed=True)
        for task, name, argument in rows
    ]
    return stage1 + [
        Run(
            f"{task}_{name}",
            f"configs/uvim_{task}.py",
            f"stage=2,{argument},scale={scale}",
            inputs={"stage1": f"{task}_{name}_stage1"},
        )
        for task, name, argument in rows
    ]
