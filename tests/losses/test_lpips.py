"""LPIPS against float64 NumPy, and the properties of a distance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.losses.lpips import _unit_channels, lpips_distance
from fsq_repro.models.pretrained import load_lpips_weights
from tests.models import numpy_networks


@pytest.fixture(scope="module", params=["alexnet", "vgg16"])
def network(request):
    return request.param, load_lpips_weights(request.param), jax.jit(lpips_distance, static_argnames="network")


def smooth_images(count, seed, side=32):
    """Random images with structure at several scales."""
    rng = np.random.default_rng(seed)
    layers = [rng.random((count, n, n, 3)).repeat(side // n, 1).repeat(side // n, 2) for n in (2, 4, 8)]
    return np.mean(layers, axis=0).astype(np.float32)


def oracle(name, params, x, y):
    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
    distance = 0
    maps = [numpy_networks.taps(name, params["convolutions"], (2.0 * image - 1 - shift) / scale) for image in (x, y)]
    for head, *pair in zip(params["heads"], *maps, strict=True):
        f, g = (m / (np.sqrt((m**2).sum(-1, keepdims=True)) + 1e-10) for m in pair)
        distance = distance + ((f - g) ** 2 * np.asarray(head, np.float64)).sum(-1).mean((1, 2))
    return distance


def test_distance_equals_a_float64_oracle(network, strict_dtypes):
    name, params, distance = network
    x, y = smooth_images(2, 0), smooth_images(2, 1)
    np.testing.assert_allclose(distance(params, x, y, network=name), oracle(name, params, x, y), rtol=1e-4)


def test_distance_is_zero_for_equals_symmetric_and_grows_with_noise(network, strict_dtypes):
    name, params, distance = network
    x, y = smooth_images(2, 0), smooth_images(2, 1)
    np.testing.assert_allclose(distance(params, x, x, network=name), 0, atol=1e-12)  # 0 but for fused rounding
    forth, back = distance(params, x, y, network=name), distance(params, y, x, network=name)
    np.testing.assert_allclose(forth, back, rtol=1e-4)
    noise = np.random.default_rng(2).standard_normal(x.shape).astype(np.float32)
    growing = [distance(params, x, x + amount * noise, network=name) for amount in (0.01, 0.03, 0.1, 0.3)]
    assert np.all(np.diff(growing, axis=0) > 0) and np.all(growing[0] > 0)


def test_positions_without_any_signal_stay_zero_with_a_finite_gradient():
    f = jnp.zeros((1, 2, 2, 4)).at[0, 0, 0].set(jnp.array([3.0, 0.0, 4.0, 0.0]))
    unit, pullback = jax.vjp(_unit_channels, f)
    np.testing.assert_allclose(unit[0, 0, 0], [0.6, 0.0, 0.8, 0.0], rtol=1e-6)
    np.testing.assert_array_equal(unit[0, 1], 0)
    assert np.all(np.isfinite(pullback(jnp.zeros_like(f).at[..., 0].set(1.0))[0]))
