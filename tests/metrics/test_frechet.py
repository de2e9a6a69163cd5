"""Frechet distance against closed forms, NumPy's moments and the published matrix-square-root formula."""

import numpy as np
import pytest
import scipy.linalg

from fsq_repro.metrics.frechet import Moments, Statistics, frechet_distance


def moments_of(*batches):
    moments = Moments()
    for batch in batches:
        moments.update(batch)
    return moments


def frechet_distance_adm(a, b):
    """The oracle: the ADM suite's matrix square root, of which the rounding's imaginary part is dropped."""
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance)
    assert np.abs(np.diagonal(root).imag).max() < 1e-3
    delta = a.mean - b.mean
    return delta @ delta + np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.trace(root.real)


def relu_features(seed, n, d, shift=0.0):
    rng = np.random.default_rng(seed)
    return np.maximum(rng.normal(size=(n, d)) @ np.random.default_rng(99).normal(size=(d, d)) + shift, 0.0)


def moments_with(mean, covariance, count=1000):
    """Moments of exactly this mean and covariance."""
    d = len(mean)
    x = np.random.default_rng(1).normal(size=(count, d))
    x -= x.mean(axis=0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    return moments_of(x @ np.linalg.cholesky(np.asarray(covariance)).T + np.asarray(mean))


def test_moments_equal_numpy_for_any_batching_and_a_large_mean():
    x = relu_features(0, 300, 6) + 1e6  # naive sums of squares lose all digits of the variance here
    moments = moments_of(x[:1], x[1:7], x[7:7], x[7:200], x[200:])
    assert moments.count == 300
    np.testing.assert_allclose(moments.mean, x.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(moments.covariance, np.cov(x - 1e6, rowvar=False), rtol=1e-8)
    assert moments.mean.dtype == moments.covariance.dtype == np.float64


def test_the_order_of_batches_does_not_matter():
    reference, x = moments_of(relu_features(7, 500, 8, shift=0.5)), relu_features(0, 400, 8) + 1e3
    for seed in range(3):
        rng = np.random.default_rng(seed)
        batches = np.split(x[rng.permutation(400)], np.sort(rng.choice(np.arange(1, 400), 15, replace=False)))
        expected = frechet_distance(Moments.of(x), reference)
        assert frechet_distance(moments_of(*batches), reference) == pytest.approx(expected, rel=1e-9)


def test_float32_features_are_summed_in_float64():
    x = relu_features(0, 500, 4).astype(np.float32)
    np.testing.assert_allclose(moments_of(*np.split(x, 100)).covariance, np.cov(x.astype(np.float64), rowvar=False))


@pytest.mark.parametrize("count", [129, 200, 1000])
def test_distance_of_a_set_to_itself_is_zero(count):
    """64 features, more than twice as many images."""
    many = moments_of(relu_features(0, count, 64))
    assert abs(frechet_distance(many, many)) < 1e-6


@pytest.mark.parametrize("count", [2, 20, 64, 65, 100, 128])
def test_distance_of_a_small_set_to_itself_is_zero_beside_its_trace(count):
    few = moments_of(relu_features(0, count, 64))  # singular covariance up to 64
    assert abs(frechet_distance(few, few)) < 1e-5 * np.trace(few.covariance)


def test_statistics_of_other_suites_stand_for_moments():
    """Means and covariances by NumPy, no count: what a published file holds."""
    a, b = relu_features(0, 300, 8), relu_features(1, 200, 8, shift=0.2)
    published = Statistics(None, a.mean(axis=0), np.cov(a, rowvar=False))
    expected = frechet_distance(moments_of(a), moments_of(b))
    for distance in (frechet_distance, frechet_distance_adm):
        assert distance(published, moments_of(b)) == pytest.approx(expected, rel=1e-9)
        assert distance(moments_of(b), published) == pytest.approx(expected, rel=1e-9)


def test_closed_form_of_gaussians_with_commuting_covariances():
    a = moments_with([1.0, -2.0, 0.5], np.diag([4.0, 1.0, 0.25]))
    b = moments_with([0.0, 0.0, 0.5], np.diag([1.0, 9.0, 0.25]))
    expected = (1 + 4) + (2 - 1) ** 2 + (1 - 3) ** 2 + 0  # |m1 - m2|^2 + sum of squared differences of deviations
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance_adm(a, b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.filterwarnings("ignore:Matrix is")  # scipy's, of singular products
@pytest.mark.parametrize(("n_a", "n_b"), [(400, 300), (40, 300), (30, 20)], ids=["full", "one singular", "singular"])
def test_the_distance_equals_the_published_formula(n_a, n_b):
    a, b = moments_of(relu_features(0, n_a, 48)), moments_of(relu_features(1, n_b, 48, shift=0.3))
    assert frechet_distance(a, b) == pytest.approx(frechet_distance_adm(a, b), rel=1e-6)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-12)


def test_saved_moments_give_the_same_distance_and_are_readable_by_other_suites(tmp_path):
    a, b = moments_of(relu_features(0, 100, 5)), moments_of(relu_features(1, 80, 5))
    a.save(tmp_path / "sub" / "a.npz")
    loaded = Moments.load(tmp_path / "sub" / "a.npz")
    assert loaded.count == 100
    assert frechet_distance(loaded, b) == pytest.approx(frechet_distance(a, b), rel=1e-12)
    more = relu_features(1, 80, 5)
    loaded.update(more)
    a.update(more)
    np.testing.assert_allclose(loaded.covariance, a.covariance, rtol=1e-12)
    with np.load(tmp_path / "sub" / "a.npz") as file:
        assert {"mu", "sigma"} <= set(file.files)
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["a.npz"]


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    moments_of(relu_features(0, 10, 2)).save(path)
    before = path.read_bytes()

    def broken(file, **arrays):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", broken)
    with pytest.raises(OSError, match="disk full"):
        moments_of(relu_features(1, 10, 2)).save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_refusals(tmp_path):
    one, many = moments_of(np.ones((1, 3))), moments_of(relu_features(0, 10, 3))
    with pytest.raises(ValueError, match="at least two images, these moments have seen 1"):
        frechet_distance(many, one)
    with pytest.raises(ValueError, match="at least two"):
        one.save(tmp_path / "one.npz")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="not finite"):
        many.update(np.array([[1.0, np.nan, 0.0]]))
    with pytest.raises(ValueError, match="widths differ: 3 and 5"):
        frechet_distance(many, moments_of(relu_features(0, 10, 5)))
