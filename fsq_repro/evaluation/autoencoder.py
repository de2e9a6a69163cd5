"""Evaluates a stage-I run directory: reconstruction FD, PSNR, SSIM and codebook usage on the test split."""

import dataclasses
import pathlib
from collections.abc import Sequence

from fsq_repro.errors import explained
from fsq_repro.evaluation.evaluated import evaluated
from fsq_repro.factories import autoencoder as autoencoder_factory
from fsq_repro.factories import common
from fsq_repro.factories import scorers as scorer_factory
from fsq_repro.inference.tokenizer import load_tokenizer
from fsq_repro.metrics.frechet import frechet_distance
from fsq_repro.metrics.reconstruction import evaluate_reconstructions
from fsq_repro.metrics.table import MetricKey
from fsq_repro.runtime.run_dir import Measured, RunDir
from fsq_repro.visualization.grids import reconstruction_grid, save_png


def evaluate_run(
    run: RunDir,
    *,
    stage1: str | None = None,
    weights: str | None = None,
    step: int | None = None,
    networks: Sequence[str] | None = None,
    inception: str | None = None,
) -> dict:
    """Measures the run on its test split and merges the metrics into `record.json`.

    Args:
      stage1: of no use here, for the other kinds of runs.
      weights: "ema" (the default) or "raw".
      step: a checkpoint's step; the last by default. Metrics of other weights than the last checkpoint's EMA say so in
        their keys, so that tables keep to one protocol.
      networks: feature networks; the config's `eval.networks` by default, and never the network of the training loss.
      inception: path of Inception's weights; the config's `eval.inception` by default.

    Returns the record. Raises UserError where there is no run or checkpoint, or its data are missing.
    """
    weights = weights or "ema"
    tokenizer = load_tokenizer(run, weights=weights, step=step)
    config = scorer_factory.choose_networks(run.config, networks, inception)
    with explained():
        autoencoder_factory.check_networks(config)
        sources = {split: common.build_source(config, split) for split in ("train", "test")}
        scorers = scorer_factory.build_scorers(config, config.data.resolution)
        files = scorer_factory.build_reference_files(config, scorers)
        batches = common.build_eval_batches(config, sources["test"])

    result = evaluate_reconstructions(
        tokenizer.reconstruct,
        {scorer.name: scorer.features for scorer in scorers},
        batches,
        expected_count=len(sources["test"]),
        codebook_size=tokenizer.codebook_size,
        levels=tokenizer.levels,
    )
    protocol = {"data": config.data.source, "resolution": config.data.resolution, "split": "test"}
    protocol |= {"samples": len(sources["test"]), "weights": weights, "checkpoint": tokenizer.step}
    measured = {MetricKey(name): Measured(value, protocol) for name, value in result.values.items()}
    for scorer in scorers:
        references = {split: scorer.reference_moments(source) for split, source in sources.items()}
        words = {split: f"{config.data.source}/{split}" for split in sources}
        if scorer.name in files:
            references["file"], words["file"] = files[scorer.name].pool, pathlib.Path(files[scorer.name].path).name
        for name, reference in references.items():
            of_distance = scorer.protocol | {"reference": words[name], "reference_count": reference.count}
            distance = frechet_distance(result.statistics[scorer.name].pool, reference)
            key = MetricKey("reconstruction_fd", network=scorer.name, reference=name)
            measured[key] = Measured(distance, protocol | of_distance)

    picture = reconstruction_grid(result.originals, result.reconstructions)
    if weights == "ema" and tokenizer.step == config.steps:
        save_png(run.samples / "evaluation.png", picture)
        of_run = evaluated(run, config, sources.values(), tokenizer.step, weights=tokenizer.fingerprint)
        return run.update_record(measured, tokens_sha256=result.tokens_sha256, **result.level_facts, **of_run)
    save_png(run.samples / f"evaluation@{weights},{tokenizer.step}.png", picture)
    of_checkpoint = {"weights": weights, "step": tokenizer.step}
    return run.update_record({dataclasses.replace(key, **of_checkpoint): m for key, m in measured.items()})
