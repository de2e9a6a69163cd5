"""Evaluates a stage-II run directory: sampling Frechet distance, precision, recall, distances by class, compression."""

import logging
import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np
import tqdm

from fsq_repro.data.cache import cache_dir
from fsq_repro.data.sources import Source
from fsq_repro.data.tokens import TokenSource
from fsq_repro.data.transforms import center_crop
from fsq_repro.evaluation import lossless_coder
from fsq_repro.evaluation.class_distances import class_distances, moments_by_class
from fsq_repro.evaluation.frechet import Moments, frechet_distance
from fsq_repro.evaluation.images import to_uint8, to_unit_float
from fsq_repro.evaluation.pictures import class_grid, save_png
from fsq_repro.evaluation.precision_recall import precision_recall
from fsq_repro.evaluation.representation import iid_grids
from fsq_repro.evaluation.usage import CodebookUsage
from fsq_repro.files import atomic_path
from fsq_repro.models.feature_networks import FeatureNetwork, load_feature_network
from fsq_repro.runtime import run_dir
from fsq_repro.runtime.errors import explained
from fsq_repro.trainers import factory, stage2_factory
from fsq_repro.trainers.sampler import Sampler, load_sampler
from fsq_repro.trainers.stage1_evaluation import cached_reference, feature_function

log = logging.getLogger(__name__)

NEIGHBOURS = 3  # of precision and recall, as the ADM suite
SEED = 0  # of samples and soups
PICTURE_COLUMNS = (4, 8)  # training images and samples of a class in the picture


def evaluate_run(
    path: pathlib.Path,
    *,
    stage1: str | None = None,
    weights: str = "ema",
    step: int | None = None,
    networks: Sequence[str] | None = None,
) -> dict:
    """Measures the run and merges the figures into `record.json`.

    Samples are class-balanced: sample i has label i mod the number of classes.

    Args:
      path: the run directory.
      stage1: see `load_sampler`.
      weights, step, networks: as in `stage1_evaluation.evaluate_run`.

    Returns:
      The record.

    Raises:
      UserError: no run or checkpoint there, or its data are missing.
    """
    config = run_dir.load_config(path)
    sampler = load_sampler(path, stage1=stage1, weights=weights, step=step)
    if networks is not None:
        config.eval.networks = tuple(networks)
    with explained():
        sources = {split: stage2_factory.build_source(config, split) for split in ("train", "validation")}
        loaded = [load_feature_network(name) for name in config.eval.networks]
        tokens = {split: stage2_factory.build_tokens(config, sampler.tokenizer, sources[split]) for split in sources}
    common = {
        "data": config.data.source,
        "resolution": config.data.resolution,
        "weights": weights,
        "checkpoint": sampler.step,
    }
    figures = compression_figures(sampler, tokens["validation"], config.eval.coder_images, common)

    labels_N = np.arange(config.eval.samples) % config.data.num_classes
    default_weight = float(config.sampler.guidance_weight)
    for weight in dict.fromkeys((default_weight, *map(float, config.eval.guidance_weights))):
        log.info("%d samples at guidance weight %g", len(labels_N), weight)
        images = sampler.images(labels_N, seed=SEED, guidance=weight, progress=progress(f"guidance {weight:g}"))
        protocol = common | sampler.generator.sampler_protocol()
        protocol |= {"guidance weight": weight, "samples": len(labels_N), "labels": "as many a class"}
        measured = {}
        for network in loaded:
            features = extract(network, images)
            measured |= sampling_figures(config, network, features, sources["train"], protocol)
            if config.eval.class_distances and weight == default_weight:
                figures |= class_figures(
                    config,
                    network,
                    sampler,
                    features,
                    labels_N,
                    sources["train"],
                    tokens["train"],
                    common,
                    protocol,
                )
        if weight == default_weight:
            figures |= measured
            picture_images = images
        if config.eval.guidance_weights:
            figures |= {f"{name}@guidance={weight:g}": figure for name, figure in measured.items()}

    default = weights == "ema" and sampler.step == config.steps
    suffix = "" if default else f"@{weights},{sampler.step}"
    picture = class_picture(config, sampler, picture_images, labels_N, sources["train"], default_weight)
    save_png(path / "samples" / f"classes{suffix}.png", picture)
    return run_dir.update_record(path, figures={name + suffix: f for name, f in figures.items()})


def progress(title: str) -> Callable:
    return lambda items: tqdm.tqdm(items, desc=title, disable=None, leave=False)  # silent where no one is watching


def compression_figures(sampler: Sampler, tokens: TokenSource, coder_images: int, protocol: dict) -> dict[str, dict]:
    """Bits a token of the validation split, and of a real stream of some of its images, decoded back."""
    generator, batch_size = sampler.generator, sampler.batch_size
    cost = jax.jit(lambda params, t, y: generator.token_bits(params, t, y))
    tokens_NxS, labels_N = np.asarray(tokens.tokens_NxVxS[:, 0]), np.asarray(tokens.labels_N)
    usage = CodebookUsage(generator.model.codebook_size)
    usage.update(tokens_NxS)
    bits_NxS = np.concatenate(
        [
            np.asarray(cost(sampler.params, t[0], t[1]), np.float64)[: t[2]]
            for t in _padded(tokens_NxS, labels_N, batch_size)
        ]
    )
    if not np.isfinite(bits_NxS).all():
        raise ValueError("a token's cost in bits is not finite; the weights of this checkpoint are broken")

    # Spread over the split, so that a split that is ordered by class gives all classes.
    some = np.unique(np.linspace(0, len(tokens_NxS) - 1, min(coder_images, len(tokens_NxS))).astype(int))
    program = jax.jit(lambda params, t, y: generator.logits(params, t, y))
    logits_fn = lambda t, y: np.asarray(program(sampler.params, t, y))  # noqa: E731
    order = {"groups": generator.groups, "mask_id": generator.model.mask_id, "batch_size": batch_size}
    words = lossless_coder.encode(logits_fn, tokens_NxS[some], labels_N[some], **order)
    num_tokens = tokens_NxS.shape[1]
    decoded = lossless_coder.decode(logits_fn, words, labels_N[some], num_tokens=num_tokens, **order)
    if not np.array_equal(decoded, tokens_NxS[some]):
        raise ValueError("the coder's stream did not decode to the tokens that it was made from")

    validation = protocol | {"split": "validation", "images": len(tokens_NxS)}
    schedule = generator.compression_protocol()
    coder = protocol | {"split": "validation", "images": len(some)} | schedule
    figures = {
        "compression_bits": {"value": float(bits_NxS.mean()), "protocol": validation | schedule},
        "coder_bits": {"value": 32 * len(words) / (len(some) * num_tokens), "protocol": coder},
        "coder_expected_bits": {"value": float(bits_NxS[some].mean()), "protocol": coder},
    }
    return figures | {name: {"value": v, "protocol": validation} for name, v in usage.compute().items()}


def sampling_figures(
    config, network: FeatureNetwork, features_NxD: np.ndarray, train: Source, protocol: dict
) -> dict[str, dict]:
    """Frechet distance to the training images' statistics, precision and recall against some of them."""
    moments = Moments()
    moments.update(features_NxD)
    functions = {network.name: feature_function(network)}
    resolution = config.data.resolution
    reference = cached_reference(
        network, functions, train, resolution, lambda: factory.build_eval_batches(config, train)
    )
    chosen = cached_features(network, train, config, config.eval.reference_images)
    precision, recall = precision_recall(chosen, features_NxD, neighbours=NEIGHBOURS)
    protocol = protocol | network_protocol(network)
    distance = protocol | {"reference": f"{train.name}/train", "reference_count": reference.count}
    manifolds = protocol | {
        "reference": f"{train.name}/train",
        "reference_count": len(chosen),
        "neighbours": NEIGHBOURS,
    }
    return {
        f"sfd_{network.name}_train": {"value": frechet_distance(moments, reference), "protocol": distance},
        f"precision_{network.name}": {"value": precision, "protocol": manifolds},
        f"recall_{network.name}": {"value": recall, "protocol": manifolds},
    }


def class_figures(
    config,
    network: FeatureNetwork,
    sampler: Sampler,
    features_NxD: np.ndarray,
    labels_N: np.ndarray,
    train: Source,
    train_tokens: TokenSource,
    common: dict,
    protocol: dict,
) -> dict[str, dict]:
    """Distances by class of the samples and of two soups, whose tokens are drawn i.i.d. from code histograms.

    The stronger soup knows the class (its histogram is that of the class's training tokens), the weaker is the one of
    App. A.3 (one histogram for all), of which one set is held against every class.
    """
    references = moments_by_class(
        cached_features(network, train, config, len(train)), np.asarray(train_tokens.labels_N)
    )
    sampled = class_distances(moments_by_class(features_NxD, labels_N), references)

    rng = np.random.default_rng(SEED)
    grid = (sampler.generator.grid, sampler.generator.grid)
    counts_CxK = np.zeros((config.data.num_classes, sampler.generator.model.codebook_size), np.int64)
    np.add.at(counts_CxK, (train_tokens.labels_N[:, None], train_tokens.tokens_NxVxS[:, 0]), 1)

    def soup_moments(counts_K: np.ndarray) -> Moments:
        images = sampler.decode_all(iid_grids(counts_K, sampled.smallest_sample_count, grid, rng))
        moments = Moments()
        moments.update(extract(network, images))
        return moments

    soups = {c: soup_moments(counts_K) for c, counts_K in enumerate(counts_CxK)}
    marginal = soup_moments(counts_CxK.sum(0))

    by_class = network_protocol(network) | {
        "reference": f"{train.name}/train by class",
        "samples a class": sampled.smallest_sample_count,
        "reference images a class": sampled.smallest_reference_count,
    }
    of_samples = protocol | by_class
    of_soup = common | {"tokens": "i.i.d. from the class's code histogram, training split"} | by_class
    of_marginal = common | {"tokens": "i.i.d. from the code histogram of the training split"} | by_class
    values = {
        "own": (sampled.own, of_samples),
        "other": (sampled.other, of_samples),
        "soup": (class_distances(soups, references).own, of_soup),
        "marginal_soup": (class_distances(dict.fromkeys(references, marginal), references).own, of_marginal),
    }
    return {f"class_fd_{k}_{network.name}": {"value": v, "protocol": p} for k, (v, p) in values.items()}


def network_protocol(network: FeatureNetwork) -> dict:
    return {
        "feature_network": network.name,
        "feature_file_sha256": network.file_hash,
        "resize": network.resize,
    }


def extract(network: FeatureNetwork, images_NxHxWx3: np.ndarray, batch_size: int = 128) -> np.ndarray:
    """Features float32 (N, D) of uint8 images."""
    function = feature_function(network)
    features = []
    for start in range(0, len(images_NxHxWx3), batch_size):
        part = images_NxHxWx3[start : start + batch_size]
        padding = [(0, batch_size - len(part)), (0, 0), (0, 0), (0, 0)]
        features.append(function(to_unit_float(np.pad(part, padding)))[: len(part)])
    return np.concatenate(features)


def cached_features(network: FeatureNetwork, source: Source, config, count: int) -> np.ndarray:
    """Features of `count` images spread evenly over a source; made once for a source, resolution and network."""
    count = min(count, len(source))
    name = f"{network.name}-{network.file_hash[:12]}-{source.fingerprint}-{source.split}-{config.data.resolution}"
    file = cache_dir() / "reference_features" / f"{name}-{count}.npy"
    if file.exists():
        return np.load(file)
    log.info("features of %d images of %s/%s by %s", count, source.name, source.split, network.name)
    chosen = [i * len(source) // count for i in range(count)]
    images = _Chosen(source, chosen)
    function = feature_function(network)
    batches = factory.build_eval_batches(config, images)
    features = np.concatenate([function(to_unit_float(to_uint8(batch["image"])))[batch["mask"]] for batch in batches])
    with atomic_path(file) as temporary, open(temporary, "wb") as f:
        np.save(f, features)
    return features


class _Chosen:
    """Some items of a source."""

    def __init__(self, source: Source, indices: Sequence[int]):
        self.name = source.name
        self._source, self._indices = source, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return self._source[self._indices[index]]


def class_picture(config, sampler: Sampler, images, labels_N, train: Source, guidance: float) -> np.ndarray:
    """A row for each of `eval.picture_labels`: training images, what stage I makes of them, samples."""
    num_real, num_samples = PICTURE_COLUMNS
    shown = config.eval.picture_labels
    names = [str(train.class_names[c]) for c in shown]
    real = {c: [] for c in shown}
    # Items of a class are found by looking, from the start; data sets come shuffled or interleaved by class.
    for i in range(len(train)):
        item = train[i]
        mine = real.get(int(item["label"]))
        if mine is not None and len(mine) < num_real:
            mine.append(item)
        if all(len(items) == num_real for items in real.values()):
            break
    real = np.stack([[center_crop(item, config.data.resolution)["image"] for item in real[c]] for c in shown])
    reconstructions, _ = sampler.tokenizer.reconstruct(to_unit_float(real.reshape(-1, *real.shape[2:])))
    groups = {
        "training images": real,
        "their reconstructions": to_uint8(np.asarray(reconstructions)).reshape(real.shape),
        "samples" + (f", guidance {guidance:g}" if guidance else ""): [
            images[labels_N == c][:num_samples] for c in shown
        ],
    }
    return class_grid(names, groups)


def _padded(tokens_NxS: np.ndarray, labels_N: np.ndarray, batch_size: int):
    """Batches (tokens, labels, number of real rows) of one shape; the last is filled up with its first rows."""
    for start in range(0, len(tokens_NxS), batch_size):
        rows = np.arange(start, start + batch_size)
        wanted = np.where(rows < len(tokens_NxS), rows, start)
        yield tokens_NxS[wanted], labels_N[wanted], int((rows < len(tokens_NxS)).sum())
