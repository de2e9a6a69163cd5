"""Evaluates a stage-II run directory: sampling Frechet distance, precision, recall, distances by class, compression."""

import dataclasses
import logging
import pathlib
from collections.abc import Iterable, Sequence

import jax
import numpy as np

from fsq_repro.data.images import to_uint8, to_unit_float
from fsq_repro.data.sources import Source
from fsq_repro.data.tokens import TokenSource
from fsq_repro.data.transforms import center_crop
from fsq_repro.errors import explained
from fsq_repro.factories import factory
from fsq_repro.factories import maskgit as maskgit_factory
from fsq_repro.inference.image_generator import ImageGenerator, load_image_generator
from fsq_repro.metrics import lossless_coder
from fsq_repro.metrics.class_distances import class_distances, moments_by_class
from fsq_repro.metrics.frechet import Moments, frechet_distance
from fsq_repro.metrics.inception_score import SPLIT_SIZE, InceptionScore
from fsq_repro.metrics.precision_recall import precision_recall
from fsq_repro.metrics.reference_statistics import ReferenceStatistics
from fsq_repro.metrics.scoring import POOL, SPATIAL, Scorer
from fsq_repro.metrics.usage import CodebookUsage
from fsq_repro.progress import track
from fsq_repro.runtime import run_dir
from fsq_repro.visualization.grids import class_grid, save_png
from fsq_repro.visualization.representation import iid_grids

log = logging.getLogger(__name__)

Figures = dict[str, dict]  # name -> {"value", "protocol"}

NEIGHBOURS = 3  # of precision and recall, as the ADM suite
SEED = 0  # of samples and soups
NUM_REAL, NUM_SAMPLES = 4, 8  # images of a class in the picture


def evaluate_run(
    path: pathlib.Path,
    *,
    stage1: str | None = None,
    weights: str = "ema",
    step: int | None = None,
    networks: Sequence[str] | None = None,
    inception: str | None = None,
) -> dict:
    """Measures the run and merges the figures into `record.json`.

    Samples are class-balanced: sample i has label i mod the number of classes. The main figures are those at the
    config's guidance weight; where the config lists others, all are also given as "NAME@guidance=WEIGHT".

    Args:
      path: the run directory.
      stage1: see `load_image_generator`.
      weights, step, networks, inception: as in `stage1_evaluation.evaluate_run`.

    Returns:
      The record.

    Raises:
      UserError: no run or checkpoint there, or its data are missing.
    """
    config = run_dir.RunDir(path).config
    sampler = load_image_generator(path, stage1=stage1, weights=weights, step=step)
    factory.choose_networks(config, networks, inception)
    with explained():
        train, validation = (maskgit_factory.build_source(config, split) for split in ("train", "validation"))
        scorers = factory.build_scorers(config, config.data.resolution)
        files = factory.build_reference_files(config, scorers)
        validation_tokens = maskgit_factory.build_tokens(config, sampler.tokenizer, validation)
    common = {
        "data": config.data.source,
        "resolution": config.data.resolution,
        "weights": weights,
        "checkpoint": sampler.step,
    }
    figures = compression_figures(sampler, validation_tokens, config.eval.coder_images, common)

    labels_N = np.arange(config.eval.samples) % config.data.num_classes
    default_weight = float(config.sampler.guidance_weight)
    default = weights == "ema" and sampler.step == config.steps
    suffix = "" if default else f"@{weights},{sampler.step}"
    for weight in dict.fromkeys((default_weight, *map(float, config.eval.guidance_weights))):
        log.info("%d samples at guidance weight %g", len(labels_N), weight)
        drawn, pictures = draw_samples(sampler, labels_N, weight, scorers, config.eval.picture_labels)
        protocol = common | sampler.generator.sampler_protocol()
        protocol |= {"guidance weight": weight, "samples": len(labels_N), "labels": "as many a class"}
        measured = {}
        for scorer in scorers:
            measured |= sampling_figures(
                scorer, drawn[scorer.name], train, config.eval.reference_images, files.get(scorer.name), protocol
            )
        if weight == default_weight:
            figures |= measured
            title = "samples" + (f", guidance {weight:g}" if weight else "")
            save_png(path / "samples" / f"classes{suffix}.png", class_picture(sampler, pictures, title, train))
            if config.eval.class_distances:
                train_tokens = maskgit_factory.build_tokens(config, sampler.tokenizer, train)
                for scorer in scorers:
                    features_NxD = drawn[scorer.name].features_NxD
                    distances = class_figures(scorer, sampler, features_NxD, labels_N, train, train_tokens)
                    figures |= {
                        name: {"value": value, "protocol": (common if "tokens" in extra else protocol) | extra}
                        for name, (value, extra) in distances.items()
                    }
        if config.eval.guidance_weights:
            figures |= {f"{name}@guidance={weight:g}": figure for name, figure in measured.items()}
    return run_dir.RunDir(path).update_record(figures={name + suffix: f for name, f in figures.items()})


@dataclasses.dataclass
class Drawn:
    """What one network made of all samples; of the other features than `pool` only their sums are kept.

    Attributes:
      parts: `pool` features of each batch.
      spatial, score: of Inception, else without an image.
    """

    parts: list[np.ndarray] = dataclasses.field(default_factory=list)
    spatial: Moments = dataclasses.field(default_factory=Moments)
    score: InceptionScore = dataclasses.field(default_factory=InceptionScore)

    def update(self, outputs: dict[str, np.ndarray]) -> None:
        self.parts.append(outputs[POOL])
        if SPATIAL in outputs:
            self.spatial.update(outputs[SPATIAL])
            self.score.update(outputs["logits"])

    @property
    def features_NxD(self) -> np.ndarray:
        return np.concatenate(self.parts)


def draw_samples(
    sampler: ImageGenerator, labels_N: np.ndarray, guidance: float, scorers: Iterable[Scorer], shown: Sequence[int]
) -> tuple[dict[str, Drawn], dict[int, np.ndarray]]:
    """Samples, decodes and scores batch by batch: 50,000 images of 256 px would take 10 GB.

    Returns:
      (by network what it made of the samples, by label shown some images uint8 (n, H, W, 3)).
    """
    drawn = {scorer.name: Drawn() for scorer in scorers}
    pictures: dict[int, list] = {label: [] for label in shown}
    batches = sampler.token_batches(labels_N, seed=SEED, guidance=guidance)
    total = -(-len(labels_N) // sampler.batch_size)
    labels = iter(labels_N.tolist())
    for tokens in track(batches, "drawing samples", total):
        images = sampler.decode(tokens)
        for scorer in scorers:
            drawn[scorer.name].update(scorer.outputs(images))
        for image, label in zip(images, labels, strict=False):
            if len(pictures.get(label, range(NUM_SAMPLES))) < NUM_SAMPLES:
                pictures[label].append(image)
    return drawn, {label: np.stack(images) for label, images in pictures.items()}


def sampling_figures(
    scorer: Scorer,
    drawn: Drawn,
    train: Source,
    num_references: int,
    file: ReferenceStatistics | None,
    protocol: dict,
) -> Figures:
    """Frechet distances to the training images' statistics and to those in a file, precision and recall.

    Of Inception also sFID ("spatialfd") and the Inception score. Precision and recall are against the file's images
    where it has some, as in the ADM suite, else against images of the training split.
    """
    features_NxD, moments = drawn.features_NxD, Moments()
    moments.update(features_NxD)
    protocol = protocol | scorer.protocol
    in_words = {"train": f"{train.name}/train", "file": pathlib.Path(file.path).name if file else ""}
    pairs = [(f"sfd_{scorer.name}_train", moments, scorer.reference_moments(train))]
    if drawn.spatial.count:
        reference = scorer.reference_moments(train, SPATIAL)
        pairs.append((f"spatialfd_{scorer.name}_train", drawn.spatial, reference))
    if file:
        pairs.append((f"sfd_{scorer.name}_file", moments, file.pool))
        if file.spatial and drawn.spatial.count:
            pairs.append((f"spatialfd_{scorer.name}_file", drawn.spatial, file.spatial))
    figures = {}
    for name, ours, reference in pairs:
        of_distance = {"reference": in_words[name.rpartition("_")[2]], "reference_count": reference.count}
        figures[name] = {"value": frechet_distance(ours, reference), "protocol": protocol | of_distance}
    if drawn.score.count:
        found = drawn.score.compute()["inception_score"]
        figures[f"inception_score_{scorer.name}"] = {"value": found, "protocol": protocol | {"splits of": SPLIT_SIZE}}

    against_file = file is not None and file.has_images
    chosen = scorer.image_features(file.path) if against_file else scorer.reference_features(train, num_references)
    pair = precision_recall(chosen, features_NxD, neighbours=NEIGHBOURS)
    of_manifolds = {"reference": in_words["file" if against_file else "train"], "reference_count": len(chosen)}
    of_manifolds |= {"neighbours": NEIGHBOURS}
    for name, value in zip(("precision", "recall"), pair, strict=True):
        figures[f"{name}_{scorer.name}"] = {"value": value, "protocol": protocol | of_manifolds}
    return figures


def class_figures(
    scorer: Scorer,
    sampler: ImageGenerator,
    features_NxD: np.ndarray,
    labels_N: np.ndarray,
    train: Source,
    train_tokens: TokenSource,
) -> dict[str, tuple[float, dict]]:
    """Distances by class of the samples and of two soups, whose tokens are drawn i.i.d. from code histograms.

    The stronger soup knows the class (its histogram is that of the class's training tokens), the weaker is the one of
    App. A.3 (one histogram for all), of which one set is held against every class.

    Returns:
      Figure -> (value, what its protocol says besides data and weights; with "tokens" where it is a soup's, for which
      there is no sampler).
    """
    everything = scorer.reference_features(train, len(train))
    references = moments_by_class(everything, np.asarray(train_tokens.labels_N))
    sampled = class_distances(moments_by_class(features_NxD, labels_N), references)

    model, grid = sampler.generator.model, sampler.generator.grid
    counts_CxK = np.zeros((model.num_classes, model.codebook_size), np.int64)
    np.add.at(counts_CxK, (train_tokens.labels_N[:, None], train_tokens.tokens_NxVxS[:, 0]), 1)
    rng = np.random.default_rng(SEED)

    def soup(counts_K: np.ndarray) -> Moments:
        tokens = iid_grids(counts_K, sampled.smallest_sample_count, (grid, grid), rng)
        return scorer.moments(sampler.decode(tokens))

    soups = {c: soup(counts_K) for c, counts_K in enumerate(counts_CxK)}
    marginal = soup(counts_CxK.sum(0))
    of_samples = scorer.protocol | {
        "reference": f"{train.name}/train by class",
        "samples a class": sampled.smallest_sample_count,
        "reference images a class": sampled.smallest_reference_count,
    }
    of_soup = of_samples | {"tokens": "i.i.d. from the class's code histogram, training split"}
    of_marginal = of_samples | {"tokens": "i.i.d. from the code histogram of the training split"}
    values = {
        "own": (sampled.own, of_samples),
        "other": (sampled.other, of_samples),
        "soup": (class_distances(soups, references).own, of_soup),
        "marginal_soup": (class_distances(dict.fromkeys(references, marginal), references).own, of_marginal),
    }
    return {f"class_fd_{name}_{scorer.name}": value for name, value in values.items()}


def compression_figures(sampler: ImageGenerator, tokens: TokenSource, coder_images: int, protocol: dict) -> Figures:
    """Bits a token of the validation split, and of a real stream of some of its images, decoded back."""
    generator, batch_size = sampler.generator, sampler.batch_size
    tokens_NxS, labels_N = np.asarray(tokens.tokens_NxVxS[:, 0]), np.asarray(tokens.labels_N)
    usage = CodebookUsage(generator.model.codebook_size)
    usage.update(tokens_NxS)
    cost = jax.jit(generator.token_bits)
    parts = []
    for start in range(0, len(tokens_NxS), batch_size):
        rows = np.arange(start, start + batch_size).clip(max=len(tokens_NxS) - 1)  # the last batch is filled up
        bits_BxS = np.asarray(cost(sampler.params, tokens_NxS[rows], labels_N[rows]), np.float64)
        parts.append(bits_BxS[: len(tokens_NxS) - start])
    bits_NxS = np.concatenate(parts)
    if not np.isfinite(bits_NxS).all():
        raise ValueError("a token's cost in bits is not finite; the weights of this checkpoint are broken")

    # Spread over the split, so that a split that is ordered by class gives all classes.
    some = np.unique(np.linspace(0, len(tokens_NxS) - 1, min(coder_images, len(tokens_NxS))).astype(int))
    program = jax.jit(generator.logits)
    logits_fn = lambda tokens, labels: np.asarray(program(sampler.params, tokens, labels))  # noqa: E731
    order = {"groups": generator.groups, "mask_id": generator.model.mask_id, "batch_size": batch_size}
    words = lossless_coder.encode(logits_fn, tokens_NxS[some], labels_N[some], **order)
    num_tokens = tokens_NxS.shape[1]
    decoded = lossless_coder.decode(logits_fn, words, labels_N[some], num_tokens=num_tokens, **order)
    if not np.array_equal(decoded, tokens_NxS[some]):
        raise ValueError("the coder's stream did not decode to the tokens that it was made from")

    of_split = protocol | {"split": "validation", "images": len(tokens_NxS)}
    schedule = generator.compression_protocol()
    of_coder = protocol | {"split": "validation", "images": len(some)} | schedule
    figures = {
        "compression_bits": {"value": float(bits_NxS.mean()), "protocol": of_split | schedule},
        "coder_bits": {"value": 32 * len(words) / (len(some) * num_tokens), "protocol": of_coder},
        "coder_expected_bits": {"value": float(bits_NxS[some].mean()), "protocol": of_coder},
    }
    return figures | {name: {"value": value, "protocol": of_split} for name, value in usage.compute().items()}


def class_picture(sampler: ImageGenerator, samples: dict[int, np.ndarray], title: str, train: Source) -> np.ndarray:
    """A row for each label: training images, what stage I makes of them, samples."""
    real: dict[int, list] = {label: [] for label in samples}
    # Items of a class are found by looking, from the start; data sets come shuffled or interleaved by class.
    for i in range(len(train)):
        item = train[i]
        mine = real.get(int(item["label"]))
        if mine is not None and len(mine) < NUM_REAL:
            mine.append(center_crop(item, sampler.tokenizer.resolution)["image"])
        if all(len(images) == NUM_REAL for images in real.values()):
            break
    images = [np.stack(real[label]) for label in samples]
    reconstructions = [to_uint8(np.asarray(sampler.tokenizer.reconstruct(to_unit_float(x))[0])) for x in images]
    groups = {"training images": images, "their reconstructions": reconstructions, title: list(samples.values())}
    return class_grid([str(train.class_names[label]) for label in samples], groups)
