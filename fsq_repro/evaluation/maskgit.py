"""Evaluates a stage-II run directory: sampling Frechet distance, precision, recall, distances by class, compression."""

import dataclasses
import logging
from collections.abc import Sequence

import numpy as np

from fsq_repro.data.choice import SEED
from fsq_repro.data.images import to_uint8, to_unit_float
from fsq_repro.data.sources import Source
from fsq_repro.data.transforms import center_crop
from fsq_repro.errors import explained
from fsq_repro.evaluation.class_agreement import agreement_metrics
from fsq_repro.evaluation.class_metrics import class_metrics
from fsq_repro.evaluation.compression import compression_metrics
from fsq_repro.evaluation.evaluated import evaluated
from fsq_repro.evaluation.sampling import draw_samples, sampling_metrics
from fsq_repro.factories import maskgit as maskgit_factory
from fsq_repro.factories import scorers as scorer_factory
from fsq_repro.inference.image_generator import ImageGenerator, load_image_generator
from fsq_repro.runtime.run_dir import RunDir
from fsq_repro.visualization.grids import class_grid, save_png

log = logging.getLogger(__name__)

NUM_REAL = 4  # training images of a class in the picture


def evaluate_run(
    run: RunDir,
    *,
    stage1: str | None = None,
    weights: str | None = None,
    step: int | None = None,
    networks: Sequence[str] | None = None,
    inception: str | None = None,
) -> dict:
    """Measures the run and merges the metrics into `record.json`.

    Samples are class-balanced: sample i has label i mod the number of classes. The main metrics are those at the
    config's guidance weight; where the config lists others, all are also given with their weight in the key.

    `stage1` is as of `load_image_generator`; the rest is as of `evaluation.autoencoder.evaluate_run`.
    """
    weights = weights or "ema"
    image_generator = load_image_generator(run, stage1=stage1, weights=weights, step=step)
    config = scorer_factory.choose_networks(run.config, networks, inception)
    with explained():
        train, test = (maskgit_factory.build_source(config, split) for split in ("train", "test"))
        scorers = scorer_factory.build_scorers(config, config.data.resolution)
        files = scorer_factory.build_reference_files(config, scorers)
        test_tokens = maskgit_factory.build_tokens(config, image_generator.tokenizer, test, processes=1)
    common = {"data": config.data.source, "resolution": config.data.resolution}
    common |= {"weights": weights, "checkpoint": image_generator.step}
    measured = compression_metrics(image_generator, test_tokens, config.eval.coder_images, common)

    main = weights == "ema" and image_generator.step == config.steps
    suffix = "" if main else f"@{weights},{image_generator.step}"
    labels_N = np.arange(config.eval.samples) % config.data.num_classes
    main_guidance = float(config.sampler.guidance_weight)
    for guidance in dict.fromkeys((main_guidance, *map(float, config.eval.guidance_weights))):
        log.info("%d samples at guidance weight %g", len(labels_N), guidance)
        drawn, pictures = draw_samples(image_generator, labels_N, guidance, scorers, config.eval.picture_labels)
        protocol = common | image_generator.generator.sampler_protocol()
        protocol |= {"guidance weight": guidance, "samples": len(labels_N), "labels": "as many a class"}
        of_samples = {}
        for scorer in scorers:
            file, num_references = files.get(scorer.name), config.eval.reference_images
            of_samples |= sampling_metrics(scorer, drawn[scorer.name], train, num_references, file, protocol)
        if guidance == main_guidance:
            measured |= of_samples
            title = "samples" + (f", guidance {guidance:g}" if guidance else "")
            save_png(run.samples / f"classes{suffix}.png", class_picture(image_generator, pictures, title, train))
            if config.eval.class_agreement:
                scorer = scorers[0]
                measured |= agreement_metrics(
                    image_generator, scorer, drawn[scorer.name], labels_N, train, test, test_tokens, protocol, common
                )
            if config.eval.class_distances:
                train_tokens = maskgit_factory.build_tokens(config, image_generator.tokenizer, train, processes=1)
                for scorer in scorers:
                    measured |= class_metrics(
                        image_generator, scorer, drawn[scorer.name], labels_N, train, train_tokens, protocol, common
                    )
        if config.eval.guidance_weights:
            measured |= {dataclasses.replace(key, guidance=guidance): m for key, m in of_samples.items()}
    if not main:
        of_checkpoint = {"weights": weights, "step": image_generator.step}
        measured = {dataclasses.replace(key, **of_checkpoint): m for key, m in measured.items()}
    facts = evaluated(run, config, (train, test), image_generator.step) if main else {}
    return run.update_record(measured, **facts)


def class_picture(
    image_generator: ImageGenerator, samples: dict[int, np.ndarray], title: str, train: Source
) -> np.ndarray:
    """A row for each label: training images, what stage I makes of them, samples."""
    real: dict[int, list] = {label: [] for label in samples}
    # Items of a class are found by looking; in an order of their own, since those of a class may lie together.
    for i in np.random.default_rng(SEED).permutation(len(train)).tolist():
        item = train[i]
        mine = real.get(int(item["label"]))
        if mine is not None and len(mine) < NUM_REAL:
            mine.append(center_crop(item, image_generator.tokenizer.resolution)["image"])
        if all(len(images) == NUM_REAL for images in real.values()):
            break
    images = [np.stack(real[label]) for label in samples]
    reconstructions = [to_uint8(np.asarray(image_generator.tokenizer.reconstruct(to_unit_float(x))[0])) for x in images]
    groups = {"training images": images, "their reconstructions": reconstructions, title: list(samples.values())}
    return class_grid([str(train.class_names[label]) for label in samples], groups)
