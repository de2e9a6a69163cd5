"""Evaluates a stage-I run directory: reconstruction FD, PSNR, SSIM and codebook usage on the validation split."""

import logging
import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from fsq_repro.data.cache import cache_dir
from fsq_repro.data.sources import Source
from fsq_repro.evaluation.frechet import Moments, frechet_distance
from fsq_repro.evaluation.pictures import reconstruction_grid, save_png
from fsq_repro.evaluation.reconstruction import evaluate_reconstructions, reference_moments
from fsq_repro.models.feature_networks import FeatureNetwork, load_feature_network
from fsq_repro.runtime import run_dir
from fsq_repro.runtime.errors import explained
from fsq_repro.trainers import factory
from fsq_repro.trainers.tokenizer import load_tokenizer

log = logging.getLogger(__name__)

REFERENCES = ("train", "validation")


def evaluate_run(
    path: pathlib.Path,
    *,
    weights: str = "ema",
    step: int | None = None,
    networks: Sequence[str] | None = None,
) -> dict:
    """Measures the run on its validation split and merges the figures into `record.json`.

    Args:
      path: the run directory.
      weights: "ema" or "raw".
      step: a checkpoint's step; the last by default. Figures of other weights than the last checkpoint's EMA get
        "@WEIGHTS,STEP" behind their name, so that tables keep to one protocol.
      networks: feature networks; the config's `eval.networks` by default, and never the network of the training loss.

    Returns:
      The record.

    Raises:
      UserError: no run or checkpoint there, or its data are missing.
    """
    config = run_dir.load_config(path)
    tokenizer = load_tokenizer(path, weights=weights, step=step)
    if networks is not None:
        config.eval.networks = tuple(networks)
    with explained():
        factory.check_networks(config)
        sources = {split: factory.build_source(config, split) for split in REFERENCES}
        loaded = [load_feature_network(name) for name in config.eval.networks]
    features = {network.name: feature_function(network) for network in loaded}

    def batches(split: str):
        return factory.build_eval_batches(config, sources[split])

    result = evaluate_reconstructions(
        tokenizer.reconstruct,
        features,
        batches("validation"),
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
    for network in loaded:
        for split in REFERENCES:
            reference = cached_reference(
                network, features, sources[split], config.data.resolution, lambda s=split: batches(s)
            )
            figures[f"rfd_{network.name}_{split}"] = {
                "value": frechet_distance(result.moments[network.name], reference),
                "protocol": protocol
                | {
                    "feature_network": network.name,
                    "feature_file_sha256": network.file_hash,
                    "resize": network.resize,
                    "reference": f"{config.data.source}/{split}",
                    "reference_count": reference.count,
                },
            }

    default = weights == "ema" and tokenizer.step == config.steps
    suffix = "" if default else f"@{weights},{tokenizer.step}"
    facts = {"level_histograms": result.level_histograms, "saturation": result.saturation} if default else {}
    save_png(
        path / "samples" / f"evaluation{suffix}.png", reconstruction_grid(result.originals, result.reconstructions)
    )
    return run_dir.update_record(path, figures={name + suffix: f for name, f in figures.items()}, **facts)


def feature_function(network: FeatureNetwork) -> Callable[[np.ndarray], np.ndarray]:
    """The network as a function of numpy images (B, H, W, 3) in [0, 1] -> features (B, D)."""
    apply = jax.jit(network.apply)
    params = jax.device_put(network.params)
    return lambda images: np.asarray(apply(params, images))


def cached_reference(
    network: FeatureNetwork, features: dict, source: Source, resolution: int, batches: Callable
) -> Moments:
    """Moments of a split's own images; made once for a source, resolution and network."""
    name = f"{network.name}-{network.file_hash[:12]}-{source.fingerprint}-{source.split}-{resolution}.npz"
    file = cache_dir() / "reference_moments" / name
    if file.exists():
        return Moments.load(file)
    log.info("features of %d images of %s/%s by %s", len(source), source.name, source.split, network.name)
    only = {network.name: features[network.name]}
    moments = reference_moments(only, batches(), expected_count=len(source))[network.name]
    moments.save(file)
    return moments
