"""The gradient options of the codebook quantizers against the published rotation trick and its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.quantizers.gradients import pass_gradient, rotate
from tests.conftest import load_cases

pytestmark = pytest.mark.usefixtures("strict_dtypes")

GOLDEN = load_cases("quantizers_rotation")


@jax.jit
def value_and_gradients(z, q, w):
    return rotate(z, q), jax.grad(lambda z, q: jnp.sum(rotate(z, q) * w), (0, 1))(z, q)


@pytest.mark.parametrize("case", ["lucidrains", "official"])
def test_published_values_and_gradients(case):
    want = GOLDEN[case]
    codes, (dz, dq) = value_and_gradients(GOLDEN[""]["z"], want["nearest"], GOLDEN[""]["w"])
    np.testing.assert_array_equal(codes, want["nearest"])  # the published values are off by rounding, and by 1e-6
    np.testing.assert_allclose(codes, want["codes"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dz, want["grad_z"], rtol=1e-5, atol=1e-5)
    assert not np.any(dq)


def test_published_edges():
    """Parallel twice, orthogonal, almost antiparallel (ill-conditioned in float32), tiny, generic."""
    want = GOLDEN["edges"]
    _, (dz, _) = value_and_gradients(want["z"], want["nearest"], want["w"])
    generic = np.arange(len(dz)) != 3
    np.testing.assert_allclose(dz[generic], want["grad_z"][generic], rtol=1e-5, atol=5e-5)
    np.testing.assert_allclose(dz[3], want["grad_z"][3], rtol=1e-3, atol=1e-3)


def test_derivative_is_a_rotation_times_the_ratio_of_norms():
    z, q = (jax.random.normal(jax.random.key(i), (4,)) for i in range(2))
    jacobian = np.asarray(jax.jit(jax.jacobian(rotate))(z, q), np.float64)
    scale = np.linalg.norm(q) / np.linalg.norm(z)
    np.testing.assert_allclose(jacobian.T @ jacobian, scale**2 * np.eye(4), atol=1e-5)
    np.testing.assert_allclose(np.linalg.det(jacobian), scale**4, rtol=1e-5)
    np.testing.assert_allclose(jacobian @ z, q, atol=1e-5)


def test_where_there_is_no_rotation():
    z = jnp.array([[1.0, 2.0], [0.0, 0.0], [1e-9, 0.0], [1.0, 2.0], [np.nan, 1.0]])
    q = jnp.array([[-2.0, -4.0], [3.0, 0.0], [3.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    w = jnp.ones_like(z) * jnp.array([[1.0, -3.0]])
    codes, (dz, _) = value_and_gradients(z, q, w)
    u = np.array([1.0, 2.0]) / 5**0.5
    np.testing.assert_allclose(dz[0], 2 * (w[0] - 2 * (w[0] @ u) * u), rtol=1e-5)  # opposite: scaled and reflected
    np.testing.assert_array_equal(dz[1:4], w[1:4])  # too short for a direction: straight through
    np.testing.assert_array_equal(codes[:4], q[:4])
    assert np.isnan(codes[4, 0]) and codes[4, 1] == 1


def test_one_channel_passes_straight_through():
    z, q = jnp.array([[2.0], [-1.0]]), jnp.array([[-1.0], [3.0]])
    dz = jax.grad(lambda z: jnp.sum(pass_gradient(z, q, "rotation")))(z)
    np.testing.assert_array_equal(dz, np.ones((2, 1)))
