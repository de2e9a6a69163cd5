"""Residual FSQ: published values, equal cells, one gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.quantizers.residual_fsq import ResidualFSQ, bound
from tests.conftest import load_golden

pytestmark = pytest.mark.usefixtures("strict_dtypes")


@pytest.mark.parametrize("case", ["5x5x3_q3", "8x5x5x5_q2", "4x4_q4"])
def test_published_values(case):
    golden = {k.split("/")[1]: v for k, v in load_golden("quantizers_residual_fsq")[0].items() if k.startswith(case)}
    levels, stages = tuple(int(l) for l in golden["levels"]), len(golden["scales"])
    module = ResidualFSQ(levels, stages)

    def objective(z):
        quantized = module.apply({}, z, train=True)
        return jnp.sum(quantized.codes * golden["w"]), quantized

    grad_z, got = jax.jit(jax.grad(objective, has_aux=True))(golden["z"])
    K = np.prod(levels)
    of_stages = np.asarray(got.indices)[..., None] // K ** np.arange(stages) % K
    np.testing.assert_array_equal(of_stages, golden["indices"])
    np.testing.assert_allclose(got.codes, golden["codes"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(module.indices_to_codes(got.indices), golden["decoded"], rtol=1e-5, atol=1e-6)
    # One gradient for the sum; the published ones are of each stage that does not clip.
    s = golden["soft_clamp"]
    np.testing.assert_allclose(grad_z, golden["w"] * (1 - np.tanh(golden["z"] / s) ** 2), rtol=1e-4, atol=1e-6)
    times = golden["grad_z"] / grad_z
    np.testing.assert_allclose(times, np.rint(times), atol=1e-3)
    assert times.min() > -1e-3 and np.rint(times.max()) == stages


@pytest.mark.parametrize("stages", [1, 3])
def test_cells_are_equal_and_all_are_reached(stages):
    """L^stages evenly spaced values per channel: with a scale of (L - 1)^-stage, cells overlap and the error grows."""
    levels = (2, 3, 4, 5)
    module = ResidualFSQ(levels, stages)
    # Never on the border between two cells.
    z = jnp.asarray(np.tile(np.linspace(-12.003, 12.001, 6001)[:, None], 4).astype(np.float32))
    quantized = jax.jit(lambda z: module.apply({}, z, train=False))(z)
    error = np.abs(quantized.codes - bound(z, levels))
    for i, l in enumerate(levels):
        want = np.linspace(-1, 1, l**stages) * (1 + 1 / (l - 1)) * (1 - float(l) ** -stages)
        np.testing.assert_allclose(np.unique(np.round(quantized.codes[:, i], 5)), want, atol=1e-5)
        assert error[:, i].max() <= l ** (1.0 - stages) / (l - 1) + 1e-6


def test_the_first_digits_are_the_coarse_code():
    z = jax.random.normal(jax.random.key(0), (50, 2))
    coarse, fine = jax.jit(lambda z: [ResidualFSQ((5, 4), n).apply({}, z, train=False) for n in (1, 3)])(z)
    np.testing.assert_array_equal(fine.indices % 20, coarse.indices)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stage_levels": (8, 8, 8), "num_stages": 4}, r"num_stages is 4, but .* 512\^num_stages less than 2\^31"),
        ({"stage_levels": (8, 8), "num_stages": 0}, "num_stages is 0, but must be a positive integer"),
        ({"stage_levels": (8, 1)}, r"^stage_levels is \(8, 1\), but must be"),
    ],
)
def test_bad_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ResidualFSQ(**fields).apply({}, jnp.zeros((1, 2)), train=False)
