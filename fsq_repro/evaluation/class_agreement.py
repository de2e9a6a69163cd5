"""Whether samples look like the class that was asked for, beside real images and stage I's reconstructions of them."""

import numpy as np

from fsq_repro.data.sources import Source
from fsq_repro.data.tokens import TokenSource
from fsq_repro.inference.image_generator import ImageGenerator
from fsq_repro.metrics.class_agreement import PENALTY
from fsq_repro.metrics.feature_statistics import FeatureStatistics
from fsq_repro.metrics.scoring import Scorer
from fsq_repro.metrics.table import MetricKey
from fsq_repro.runtime.run_dir import Measured, Measurements

TRAINING_IMAGES = 50_000  # at most, of the classifier: their features are held in memory


def agreement_metrics(
    image_generator: ImageGenerator,
    scorer: Scorer,
    drawn: FeatureStatistics,
    labels_N: np.ndarray,
    train: Source,
    test: Source,
    test_tokens: TokenSource,
    of_samples: dict,
    of_images: dict,
) -> Measurements:
    """Shares of the samples, of the test images and of their reconstructions that go into the class of their label.

    Args:
      image_generator: decodes the test images' tokens.
      drawn, labels_N: the samples, their features kept by `scorer`, and the labels that were asked for.
      train: images that the classifier, a linear one on the scorer's features, is trained on.
      test, test_tokens: the test images, and the same as tokens.
      of_samples, of_images: what the protocols say of data and weights; of samples of the sampler too.
    """
    probe = scorer.class_probe(train, TRAINING_IMAGES)
    grid = image_generator.generator.grid
    reconstructed = image_generator.decode(test_tokens.tokens_NxVxS[:, 0].reshape(-1, grid, grid))
    real = scorer.reference_features(test, len(test))
    images = f"{min(len(train), TRAINING_IMAGES):,} images of {train.name}/train"
    classifier = f"logistic regression on {images}, penalty {PENALTY:g}"
    protocol = scorer.protocol | {"classifier": classifier}
    of_images = of_images | protocol | {"images": len(test), "split": "test"}
    measured = {
        "class_agreement": Measured(probe.agreement(drawn.features_NxD, labels_N), of_samples | protocol),
        "class_agreement_reconstructed": Measured(
            probe.agreement(scorer.features(reconstructed), test_tokens.labels_N), of_images
        ),
        "class_agreement_real": Measured(probe.agreement(real, test_tokens.labels_N), of_images),
    }
    return {MetricKey(metric, network=scorer.name): m for metric, m in measured.items()}
