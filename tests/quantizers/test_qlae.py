"""QLAE: the published values, losses and gradients, and that values are learned and decoded as they are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.quantizers.qlae import QLAE, nearest_digits
from tests.conftest import load_golden

pytestmark = pytest.mark.usefixtures("strict_dtypes")


@pytest.fixture(scope="module")
def golden():
    return load_golden("quantizers_qlae")[0]


@functools.partial(jax.jit, static_argnums=0)
def run(module, values, z, w):
    """Gradients of sum(codes w) + loss for values and z, and the output."""

    def objective(values, z):
        quantized = module.apply({"params": {"values": values}}, z, train=True)
        return jnp.sum(quantized.codes * w) + quantized.loss, quantized

    return jax.grad(objective, (0, 1), has_aux=True)(values, z)


@pytest.mark.parametrize("case", ["dsprites", "default", "unequal"])
def test_published_values(golden, case):
    levels = tuple(int(l) for l in golden["levels"])
    module = QLAE(levels, *(float(golden[f"{case}/lambda_{k}"]) for k in ("quantization", "commitment")))
    (grad_values, grad_z), got = run(module, golden["values"], golden["z"], golden["w"])
    digits = np.asarray(got.indices)[..., None] // np.cumprod((1, *levels[:-1])) % np.array(levels)
    np.testing.assert_array_equal(digits, golden[f"{case}/digits"])
    np.testing.assert_array_equal(got.codes, golden[f"{case}/codes"])
    np.testing.assert_allclose(got.loss, golden[f"{case}/loss"], rtol=1e-5)
    np.testing.assert_allclose(grad_values, golden[f"{case}/grad_values"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(grad_z, golden[f"{case}/grad_z"], rtol=1e-5, atol=1e-7)


def test_first_values_are_the_published_ones(golden):
    module = QLAE(tuple(int(l) for l in golden["levels"]))
    init = jax.jit(lambda z: module.init(jax.random.key(0), z, train=False))
    values = init(golden["z"])["params"]["values"]
    np.testing.assert_allclose(values, golden["init_values"], atol=1e-7)


def test_values_learn_by_their_own_tokens():
    """With equal weights too, where the gradients of a port cancel."""
    module, values = QLAE((3, 2), 0.5, 0.5), jnp.array([-1.0, 0.0, 1.0, -0.5, 0.5])
    z = jax.random.normal(jax.random.key(0), (40, 2))
    (grad_values, _), quantized = run(module, values, z, jnp.zeros_like(z))
    digits = np.stack([quantized.indices % 3, 3 + quantized.indices // 3], axis=1)
    error = np.asarray(quantized.codes - z)
    want = [2 * 0.5 * error[digits == k].sum() / z.size for k in range(5)]
    assert np.abs(want).min() > 1e-3
    np.testing.assert_allclose(grad_values, want, rtol=1e-4)


def test_moved_values_survive_the_round_trip():
    """Decoded on the initial grid, they would be off by up to a cell."""
    values = jnp.array([3.0, -1.0, 0.0, 0.01, 0.0])

    @jax.jit
    def round_trip(values):
        module = QLAE((3, 2)).bind({"params": {"values": values}})
        codes = module.indices_to_codes(jnp.arange(6))
        return codes, module.codes_to_indices(codes), module(codes, train=False)

    codes, indices, quantized = round_trip(values)
    np.testing.assert_array_equal(codes[:, 0], [3, -1, 0] * 2)
    np.testing.assert_array_equal(indices, np.arange(6))
    np.testing.assert_array_equal(quantized.codes, codes)


def test_of_equally_near_values_the_first_is_taken():
    digits = jax.jit(nearest_digits, static_argnums=2)(jnp.zeros(2), jnp.array([1.0, -1, -1, 1]), (2, 2))
    np.testing.assert_array_equal(digits, [0, 0])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"levels": (5, 1)}, r"levels is \(5, 1\), but must be one or more integers in 2..1000"),
        ({"levels": (5, 4), "codebook_cost": -1.0}, "codebook_cost is -1.0, but must be a finite"),
    ],
)
def test_bad_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        QLAE(**fields).init(jax.random.key(0), jnp.zeros((1, 2)), train=False)
