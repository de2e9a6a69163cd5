"""The classifier of class agreement, against its own optimality conditions."""

import numpy as np
import pytest
import scipy.special

from fsq_repro.metrics.class_agreement import PENALTY, ClassProbe


def blobs(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three overlapping classes of unequal sizes; features of unequal scales, one of them constant."""
    rng = np.random.default_rng(seed)
    labels_N = rng.choice(3, 600, p=[0.5, 0.3, 0.2])
    centres = np.array([[0.0, 0, 0], [2, 1, 0], [-1, 2, 1]])
    x = centres[labels_N] + rng.normal(size=(600, 3))
    return np.concatenate([x * [1, 100, 0.01] + [0, 500, 3], np.full((600, 1), 7.0)], axis=1), labels_N


def test_the_gradient_vanishes_at_what_is_found():
    features_NxD, labels_N = blobs()
    probe = ClassProbe.fit(features_NxD.astype(np.float32), labels_N)
    std_D = features_NxD.std(axis=0)
    std_D[-1] = 1
    error_NxC = scipy.special.softmax(features_NxD @ probe.weights_DxC + probe.bias_C, axis=1) - np.eye(3)[labels_N]
    x_NxD = (features_NxD - features_NxD.mean(axis=0)) / std_D
    gradient_DxC = x_NxD.T @ error_NxC / len(x_NxD) + PENALTY * probe.weights_DxC * std_D[:, None]
    assert np.abs(gradient_DxC).max() < 1e-4 and np.abs(error_NxC.mean(axis=0)).max() < 1e-4


def test_agreement_is_that_of_new_points_and_not_of_other_labels():
    probe = ClassProbe.fit(*blobs())
    features_NxD, labels_N = blobs(seed=1)
    found = probe.agreement(features_NxD, labels_N)
    assert 0.7 < found < 0.9
    assert probe.agreement(features_NxD, (labels_N + 1) % 3) < 0.2
    halves = [probe.agreement(features_NxD[rows], labels_N[rows]) for rows in (slice(300), slice(300, None))]
    assert found == pytest.approx(np.mean(halves))


def test_scale_and_place_of_features_do_not_matter():
    features_NxD, labels_N = blobs()
    moved = features_NxD * [3, 0.2, 50, 1] - [4, 5, 6, 7]
    a, b = ClassProbe.fit(features_NxD, labels_N), ClassProbe.fit(moved, labels_N)
    np.testing.assert_allclose(
        features_NxD @ a.weights_DxC + a.bias_C, moved @ b.weights_DxC + b.bias_C, rtol=0, atol=2e-2
    )


def test_a_heavier_penalty_makes_smaller_weights():
    light, heavy = (ClassProbe.fit(*blobs(), penalty=p) for p in (1e-3, 1.0))
    assert np.square(heavy.weights_DxC).sum() < 0.3 * np.square(light.weights_DxC).sum()


def test_it_survives_its_file(tmp_path):
    probe = ClassProbe.fit(*blobs())
    probe.save(tmp_path / "probe.npz")
    loaded = ClassProbe.load(tmp_path / "probe.npz")
    np.testing.assert_array_equal(loaded.weights_DxC, probe.weights_DxC)
    np.testing.assert_array_equal(loaded.bias_C, probe.bias_C)


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="all have one label"):
        ClassProbe.fit(np.ones((4, 2)), np.ones(4, int))
