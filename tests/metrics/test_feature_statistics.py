"""The accumulator of feature statistics: the same for any batches as its parts on everything at once."""

import numpy as np
import pytest

from fsq_repro.metrics.feature_statistics import FeatureStatistics
from fsq_repro.metrics.inception_score import InceptionScore


def outputs(n=23):
    rng = np.random.default_rng(0)
    return {
        name: rng.normal(size=(n, d)).astype(np.float32) for name, d in (("pool", 5), ("spatial", 3), ("logits", 4))
    }


@pytest.mark.parametrize("batch_size", [1, 8, 23])
def test_any_batches_give_the_statistics_of_everything(batch_size):
    x, statistics = outputs(), FeatureStatistics(keep_features=True)
    for start in range(0, 23, batch_size):
        statistics.update({name: values[start : start + batch_size] for name, values in x.items()})
    for moments, features in ((statistics.pool, x["pool"]), (statistics.spatial, x["spatial"])):
        assert moments.count == 23
        np.testing.assert_allclose(moments.mean, features.mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(moments.covariance, np.cov(features, rowvar=False), rtol=1e-5)
    score = InceptionScore()
    score.update(x["logits"])
    assert statistics.score.compute() == pytest.approx(score.compute(), rel=1e-12)
    np.testing.assert_array_equal(statistics.features_NxD, x["pool"])


def test_kinds_of_outputs_are_independent():
    x, statistics = outputs(), FeatureStatistics()
    statistics.update({"pool": x["pool"]})
    assert statistics.pool.count == 23 and statistics.spatial is None and statistics.score is None
    statistics.update({"spatial": x["spatial"][:7]})
    assert (statistics.pool.count, statistics.spatial.count) == (23, 7) and statistics.score is None
