"""Samples of a stage-II run against the data: Frechet distances, Inception score, precision and recall."""

import pathlib
from collections.abc import Sequence

import numpy as np

from fsq_repro.data.choice import CHOICE
from fsq_repro.data.sources import Source
from fsq_repro.inference.image_generator import ImageGenerator
from fsq_repro.metrics.feature_statistics import POOL, SPATIAL, FeatureStatistics
from fsq_repro.metrics.frechet import frechet_distance
from fsq_repro.metrics.inception_score import SPLIT_SIZE
from fsq_repro.metrics.precision_recall import precision_recall
from fsq_repro.metrics.reference_statistics import ReferenceStatistics
from fsq_repro.metrics.scoring import Scorer
from fsq_repro.metrics.table import MetricKey
from fsq_repro.progress import track
from fsq_repro.runtime.run_dir import Measured, Measurements

NEIGHBOURS = 3  # of precision and recall, as the ADM suite
SEED = 0
NUM_SAMPLES = 8  # images of a class in the picture


def draw_samples(
    image_generator: ImageGenerator,
    labels_N: np.ndarray,
    guidance: float,
    scorers: Sequence[Scorer],
    shown: Sequence[int],
) -> tuple[dict[str, FeatureStatistics], dict[int, np.ndarray]]:
    """Samples, decodes and scores batch by batch: 50,000 images of 256 px would take 10 GB.

    Returns:
      (by network the statistics and features of the samples, by label shown some images uint8 (n, H, W, 3)).
    """
    statistics = {scorer.name: FeatureStatistics(keep_features=True) for scorer in scorers}
    pools: dict[str, list[np.ndarray]] = {scorer.name: [] for scorer in scorers}
    pictures: dict[int, list] = {label: [] for label in shown}
    batches = image_generator.token_batches(labels_N, seed=SEED, guidance=guidance)
    total = -(-len(labels_N) // image_generator.batch_size)
    labels = iter(labels_N.tolist())
    for tokens in track(batches, "drawing samples", total):
        images = image_generator.decode(tokens)
        for scorer in scorers:
            outputs = scorer.outputs(images)
            pools[scorer.name].append(outputs.pop(POOL))
            statistics[scorer.name].update(outputs)
        for image, label in zip(images, labels, strict=False):
            if len(pictures.get(label, range(NUM_SAMPLES))) < NUM_SAMPLES:
                pictures[label].append(image)
    for name, parts in pools.items():  # kept anyway: in one sum, the distance does not depend on the batch size
        statistics[name].update({POOL: np.concatenate(parts)})
    return statistics, {label: np.stack(images) for label, images in pictures.items()}


def sampling_metrics(
    scorer: Scorer,
    drawn: FeatureStatistics,
    train: Source,
    num_references: int,
    file: ReferenceStatistics | None,
    protocol: dict,
) -> Measurements:
    """Frechet distances to the training images' statistics and to those in a file, precision and recall.

    Of Inception also sFID (`spatial_fd`) and the Inception score. Precision and recall are against the file's images
    where it has some, as in the ADM suite, else against images of the training split.
    """
    protocol = protocol | scorer.protocol
    in_words = {"train": f"{train.name}/train", "file": pathlib.Path(file.path).name if file else ""}
    pairs = {("sampling_fd", "train"): (drawn.pool, scorer.reference_moments(train))}
    if drawn.spatial:
        pairs["spatial_fd", "train"] = drawn.spatial, scorer.reference_moments(train, SPATIAL)
    if file:
        pairs["sampling_fd", "file"] = drawn.pool, file.pool
        if file.spatial and drawn.spatial:
            pairs["spatial_fd", "file"] = drawn.spatial, file.spatial
    measured = {}
    for (metric, name), (ours, reference) in pairs.items():
        of_distance = {"reference": in_words[name], "reference_count": reference.count}
        key = MetricKey(metric, network=scorer.name, reference=name)
        measured[key] = Measured(frechet_distance(ours, reference), protocol | of_distance)
    if drawn.score:
        score = drawn.score.compute()["inception_score"]
        key = MetricKey("inception_score", network=scorer.name)
        measured[key] = Measured(score, protocol | {"splits of": SPLIT_SIZE})

    against_file = file is not None and file.has_images
    chosen = scorer.image_features(file.path) if against_file else scorer.reference_features(train, num_references)
    pair = precision_recall(chosen, drawn.features_NxD, neighbours=NEIGHBOURS)
    of_manifolds = {"reference": in_words["file" if against_file else "train"], "reference_count": len(chosen)}
    of_manifolds |= {"neighbours": NEIGHBOURS} | ({} if against_file else {"reference_chosen": CHOICE})
    for metric, value in zip(("precision", "recall"), pair, strict=True):
        measured[MetricKey(metric, network=scorer.name)] = Measured(value, protocol | of_manifolds)
    return measured
