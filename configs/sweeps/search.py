"""The trials behind scale=cifar10: the recipe of all autoencoders, found with FSQ, and VQ's own settings.

    python scripts/sweep.py --sweep=configs/sweeps/search.py --workdir=runs/search --parallel=2
    python scripts/report.py --runs=runs/search --out=results/cifar10

16 trials each at 2^10 codes with half the steps of the study, seed 0, judged by the squared error of the last check
on the validation images; the test images are never looked at. FSQ's two winners and VQ's three are tried again at 2^14.
Every trial is listed in the report.
"""

from fsq_repro.runtime.arguments import parse_arg
from fsq_repro.sweeps.sweep import Run

CONFIG = "configs/tradeoff_autoencoder.py"
STEPS = 1250
# (learning rate, beta2, batch size); a trial sees the same number of images whatever the size of its batches
RECIPES = [(rate, beta2, batch) for batch in (32, 64) for beta2 in (0.95, 0.99) for rate in (2e-3, 4e-3, 6e-3, 1e-2)]
# (width, entropy ratio, temperature, learning rate): each width four times, with and without the entropy term
VQ_SETTINGS = [
    (4, 0.0, 0.01, 4e-3),
    (4, 0.02, 0.1, 2e-3),
    (4, 0.1, 0.01, 4e-3),
    (4, 0.1, 1.0, 6e-3),
    (8, 0.0, 0.01, 2e-3),
    (8, 0.0, 0.01, 4e-3),
    (8, 0.02, 0.1, 4e-3),
    (8, 0.1, 1.0, 4e-3),
    (16, 0.0, 0.01, 4e-3),
    (16, 0.02, 0.01, 6e-3),
    (16, 0.02, 0.1, 4e-3),
    (16, 0.1, 1.0, 2e-3),
    (32, 0.0, 0.01, 6e-3),
    (32, 0.02, 1.0, 4e-3),
    (32, 0.1, 0.1, 2e-3),
    (32, 0.1, 1.0, 4e-3),
]


def get_runs(arg: str = "") -> list[Run]:
    a = parse_arg(arg, quantizer=("both", "fsq", "vq"))
    trials = []
    if a.quantizer != "vq":
        trials += [("fsq", i, recipe(*values)) for i, values in enumerate(RECIPES)]
    if a.quantizer != "fsq":
        trials += [("vq_narrow", i, vq_settings(*values)) for i, values in enumerate(VQ_SETTINGS)]
    return [
        Run(f"{q}_10_{i:02d}", CONFIG, f"quantizer={q},bits=10,scale=cifar10", overrides, evaluate=False)
        for q, i, overrides in trials
    ]


def recipe(learning_rate: float, beta2: float, batch_size: int) -> dict[str, str]:
    return steps(STEPS * 64 // batch_size) | {
        "batch_size": str(batch_size),
        "optimizer.learning_rate": str(learning_rate),
        "optimizer.beta2": str(beta2),
    }


def vq_settings(width: int, entropy_ratio: float, temperature: float, learning_rate: float) -> dict[str, str]:
    return steps(STEPS) | {
        "optimizer.learning_rate": str(learning_rate),
        "quantizer.embedding_dim": str(width),
        "quantizer.entropy_ratio": str(entropy_ratio),
        "quantizer.entropy_temperature": str(temperature),
    }


def steps(number: int) -> dict[str, str]:
    return {"steps": str(number), "eval_every": str(number), "checkpoint_every": str(number)}
