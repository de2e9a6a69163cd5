"""Whether a stage-II run follows its labels: Frechet distances by class, of its samples and of soups of codes."""

import numpy as np

from fsq_repro.data.sources import Source
from fsq_repro.data.tokens import TokenSource
from fsq_repro.inference.image_generator import ImageGenerator
from fsq_repro.metrics.class_distances import class_distances, moments_by_class
from fsq_repro.metrics.feature_statistics import FeatureStatistics
from fsq_repro.metrics.frechet import Moments
from fsq_repro.metrics.scoring import Scorer
from fsq_repro.metrics.table import MetricKey
from fsq_repro.runtime.run_dir import Measured, Measurements
from fsq_repro.visualization.representation import iid_grids

SEED = 0  # of soups


def class_metrics(
    image_generator: ImageGenerator,
    scorer: Scorer,
    drawn: FeatureStatistics,
    labels_N: np.ndarray,
    train: Source,
    train_tokens: TokenSource,
    of_samples: dict,
    of_soups: dict,
) -> Measurements:
    """Distances by class of the samples and of two soups, whose tokens are drawn i.i.d. from code histograms.

    The stronger soup knows the class (its histogram is that of the class's training tokens), the weaker is the one of
    App. A.3 (one histogram for all), of which one set is held against every class.

    Args:
      image_generator: decodes the soups.
      drawn, labels_N: the samples, their features kept by `scorer`.
      train: the reference images.
      train_tokens: the same images as tokens.
      of_samples, of_soups: what the protocols say of data and weights; of samples, which alone have one, of the
        sampler too.
    """
    references = moments_by_class(scorer.reference_features(train, len(train)), np.asarray(train_tokens.labels_N))
    samples = moments_by_class(drawn.features_NxD, labels_N)
    own, other = class_distances(samples, references)
    per_class = min(m.count for m in samples.values())

    model, grid = image_generator.generator.model, image_generator.generator.grid
    counts_CxK = np.zeros((model.num_classes, model.codebook_size), np.int64)
    np.add.at(counts_CxK, (train_tokens.labels_N[:, None], train_tokens.tokens_NxVxS[:, 0]), 1)
    rng = np.random.default_rng(SEED)

    def soup(counts_K: np.ndarray) -> Moments:
        tokens = iid_grids(counts_K, per_class, (grid, grid), rng)
        return Moments.of(scorer.features(image_generator.decode(tokens)))

    soups = {c: soup(counts_K) for c, counts_K in enumerate(counts_CxK)}
    marginal = soup(counts_CxK.sum(0))
    of_classes = scorer.protocol | {
        "reference": f"{train.name}/train by class",
        "samples a class": per_class,
        "reference images a class": min(m.count for m in references.values()),
    }
    of_samples, of_soups = of_samples | of_classes, of_soups | of_classes
    of_soup = of_soups | {"tokens": "i.i.d. from the class's code histogram, training split"}
    of_marginal = of_soups | {"tokens": "i.i.d. from the code histogram of the training split"}
    marginals = dict.fromkeys(references, marginal)
    measured = {
        "class_fd_own": Measured(own, of_samples),
        "class_fd_other": Measured(other, of_samples),
        "class_fd_soup": Measured(class_distances(soups, references)[0], of_soup),
        "class_fd_marginal_soup": Measured(class_distances(marginals, references)[0], of_marginal),
    }
    return {MetricKey(metric, network=scorer.name): m for metric, m in measured.items()}
