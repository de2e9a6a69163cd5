"""The trials behind scale=cifar10: the recipe of all autoencoders, found with FSQ, and VQ's own settings.

    python scripts/sweep.py --sweep=configs/sweeps/search.py --workdir=runs/search --parallel=2
    python scripts/sweep.py --sweep=configs/sweeps/search.py:part=seeds --seeds=3 --workdir=runs/search --parallel=2
    python scripts/report.py --runs=runs/search --out=results/search

Trials at 2^10 codes see half of the study's images, seed 0, and are judged by the squared error of the last check on
the validation images; the test images are never looked at. 18 trials chose the recipe with FSQ. Of VQ, 8 trials at
batches of 64 came first, then 18 with the recipe found; its learning rate is searched again. The best are tried at
2^14 too. part=seeds: how much the learning rate and its warm-up, 100 steps until then, decide how far seeds are apart.
"""

from fsq_repro.runtime.arguments import parse_arg
from fsq_repro.sweeps.sweep import Run

CONFIG = "configs/tradeoff_autoencoder.py"
IMAGES = 80_000  # of a trial, whatever the size of its batches
# (batch size, beta2, learning rate)
RECIPES = [(batch, beta2, rate) for batch in (32, 64) for beta2 in (0.95, 0.99) for rate in (2e-3, 4e-3, 6e-3, 1e-2)]
RECIPES += [(32, 0.95, rate) for rate in (1.5e-2, 2e-2)]  # the best rate of the first 16 was the highest
FOUND = (32, 0.95)  # batch size, beta2
# (width, entropy ratio, temperature, learning rate)
VQ_FIRST = [
    (4, 0.0, 0.01, 4e-3),
    (4, 0.02, 0.1, 2e-3),
    (4, 0.1, 0.01, 4e-3),
    (4, 0.1, 1.0, 6e-3),
    (8, 0.0, 0.01, 2e-3),
    (8, 0.0, 0.01, 4e-3),
    (8, 0.02, 0.1, 4e-3),
    (8, 0.1, 1.0, 4e-3),
]
VQ = [(width, 0.0, 0.01, rate) for width in (4, 8, 16) for rate in (2e-3, 4e-3, 6e-3, 1e-2)]
VQ += [(width, ratio, 1.0, 4e-3) for width in (4, 8) for ratio in (0.001, 0.01)]
# Of width 4 the lowest rate was the best; of width 8 a small entropy term kept all codes in use.
VQ += [(4, 0.0, 0.01, 1e-3), (8, 0.001, 1.0, 6e-3)]
# The best at 2^10 again at 2^14.
FSQ_AT_14 = [(*FOUND, rate) for rate in (6e-3, 1e-2)]
VQ_AT_14 = [(4, 0.0, 0.01, 2e-3), (8, 0.0, 0.01, 6e-3), (8, 0.001, 1.0, 4e-3)]

# (quantizer, learning rate, warm-up steps), with three seeds each
SEEDS = [("fsq", rate, warm_up) for rate in (4e-3, 1e-2) for warm_up in (100, 500)]
SEEDS += [("vq_narrow", 4e-3, warm_up) for warm_up in (100, 500)]


def get_runs(arg: str = "") -> list[Run]:
    a = parse_arg(arg, part=("one_seed", "seeds"))
    if a.part == "seeds":
        return [
            Run(
                f"{quantizer}_10_{rate:g}_warm_up_{warm_up}",
                CONFIG,
                f"quantizer={quantizer},bits=10,scale=cifar10",
                recipe(*FOUND, rate, warm_up),
                evaluate=False,
            )
            for quantizer, rate, warm_up in SEEDS
        ]
    trials = [("fsq", 10, recipe(*values)) for values in RECIPES]
    trials += [("fsq", 14, recipe(*values)) for values in FSQ_AT_14]
    trials += [("vq_narrow", 10, vq_settings(64, 0.99, *values)) for values in VQ_FIRST]
    trials += [("vq_narrow", 10, vq_settings(*FOUND, *values)) for values in VQ]
    trials += [("vq_narrow", 14, vq_settings(*FOUND, *values)) for values in VQ_AT_14]
    names = [f"{q}_{bits}" for q, bits, _ in trials]
    return [
        Run(
            f"{name}_{names[:i].count(name):02d}",
            CONFIG,
            f"quantizer={q},bits={bits},scale=cifar10",
            overrides,
            evaluate=False,
        )
        for i, (name, (q, bits, overrides)) in enumerate(zip(names, trials, strict=True))
    ]


def recipe(batch_size: int, beta2: float, learning_rate: float, warm_up: int = 100) -> dict[str, str]:
    steps = str(IMAGES // batch_size)
    return {
        "steps": steps,
        "eval_every": steps,
        "checkpoint_every": steps,
        "batch_size": str(batch_size),
        "optimizer.learning_rate": str(learning_rate),
        "optimizer.beta2": str(beta2),
        "optimizer.warmup_steps": str(warm_up),
    }


def vq_settings(
    batch_size: int, beta2: float, width: int, entropy_ratio: float, temperature: float, learning_rate: float
) -> dict[str, str]:
    return recipe(batch_size, beta2, learning_rate) | {
        "quantizer.embedding_dim": str(width),
        "quantizer.entropy_ratio": str(entropy_ratio),
        "quantizer.entropy_temperature": str(temperature),
    }
