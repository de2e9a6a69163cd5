"""Evaluates a stage-I run directory: reconstruction FD, PSNR, SSIM and codebook usage on the validation split."""

import pathlib
from collections.abc import Sequence

from fsq_repro.errors import explained
from fsq_repro.factories import autoencoder as autoencoder_factory
from fsq_repro.factories import common
from fsq_repro.factories import scorers as scorer_factory
from fsq_repro.inference.tokenizer import load_tokenizer
from fsq_repro.metrics.frechet import frechet_distance
from fsq_repro.metrics.reconstruction import evaluate_reconstructions
from fsq_repro.runtime import run_dir
from fsq_repro.visualization.grids import reconstruction_grid, save_png

REFERENCES = ("train", "validation")


def evaluate_run(
    path: pathlib.Path,
    *,
    weights: str = "ema",
    step: int | None = None,
    networks: Sequence[str] | None = None,
    inception: str | None = None,
) -> dict:
    """Measures the run on its validation split and merges the figures into `record.json`.

    Args:
      path: the run directory.
      weights: "ema" or "raw".
      step: a checkpoint's step; the last by default. Figures of other weights than the last checkpoint's EMA get
        "@WEIGHTS,STEP" behind their name, so that tables keep to one protocol.
      networks: feature networks; the config's `eval.networks` by default, and never the network of the training loss.
      inception: path of Inception's weights; the config's `eval.inception` by default.

    Returns:
      The record.

    Raises:
      UserError: no run or checkpoint there, or its data are missing.
    """
    config = run_dir.RunDir(path).config
    tokenizer = load_tokenizer(path, weights=weights, step=step)
    config = scorer_factory.choose_networks(config, networks, inception)
    with explained():
        autoencoder_factory.check_networks(config)
        sources = {split: common.build_source(config, split) for split in REFERENCES}
        scorers = scorer_factory.build_scorers(config, config.data.resolution)
        files = scorer_factory.build_reference_files(config, scorers)
        batches = common.build_eval_batches(config, sources["validation"])

    result = evaluate_reconstructions(
        tokenizer.reconstruct,
        {scorer.name: scorer.features for scorer in scorers},
        batches,
        expected_count=len(sources["validation"]),
        codebook_size=tokenizer.codebook_size,
        levels=tokenizer.levels,
    )
    protocol = {
        "data": config.data.source,
        "resolution": config.data.resolution,
        "split": "validation",
        "samples": len(sources["validation"]),
        "weights": weights,
        "checkpoint": tokenizer.step,
    }
    figures = {name: {"value": value, "protocol": protocol} for name, value in result.figures.items()}
    for scorer in scorers:
        references = {split: scorer.reference_moments(source) for split, source in sources.items()}
        words = {split: f"{config.data.source}/{split}" for split in sources}
        if scorer.name in files:
            references["file"], words["file"] = files[scorer.name].pool, pathlib.Path(files[scorer.name].path).name
        for name, reference in references.items():
            figures[f"rfd_{scorer.name}_{name}"] = {
                "value": frechet_distance(result.moments[scorer.name], reference),
                "protocol": protocol | scorer.protocol | {"reference": words[name], "reference_count": reference.count},
            }

    default = weights == "ema" and tokenizer.step == config.steps
    suffix = "" if default else f"@{weights},{tokenizer.step}"
    facts = {"level_histograms": result.level_histograms, "saturation": result.saturation} if default else {}
    save_png(
        path / "samples" / f"evaluation{suffix}.png", reconstruction_grid(result.originals, result.reconstructions)
    )
    return run_dir.RunDir(path).update_record(figures={name + suffix: f for name, f in figures.items()}, **facts)
