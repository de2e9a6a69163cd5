"""UViM's vector quantizer: the published step, splitting against NumPy, and the same numbers on any device count."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from fsq_repro.quantizers.ema_vq import EmaVectorQuantizer, split_codes
from tests.conftest import load_golden

pytestmark = pytest.mark.usefixtures("strict_dtypes")


MODULE = EmaVectorQuantizer(8, 4, commitment_cost=0.25)


@functools.partial(jax.jit, static_argnums=0)
def step(module, state, z, key=0):
    """One training step: (Quantized, new state)."""
    quantized, updated = module.apply(
        {"quantizer": state}, z, train=True, mutable=["quantizer"], rngs={"quantizer": jax.random.key(key)}
    )
    return quantized, updated["quantizer"]


@pytest.mark.parametrize("standardize", [True, False])
def test_published_step(standardize):
    """`bottleneck` is standardised already, and standardising twice changes it by the variance's epsilon alone."""
    arrays, _ = load_golden("uvim_stage1")
    state = {"dictionary": jnp.asarray(arrays["dictionary_sums"]), "counts": jnp.asarray(arrays["counts"])}
    quantized, after = step(
        EmaVectorQuantizer(16, 32, standardize=standardize), state, jnp.asarray(arrays["bottleneck"])
    )
    np.testing.assert_array_equal(quantized.indices, arrays["code"])
    np.testing.assert_allclose(quantized.codes, arrays["quantized"], atol=1e-6)
    np.testing.assert_allclose(after["counts"], arrays["counts_after_step"], rtol=1e-6)
    tolerance = 1e-4 if standardize else 1e-6
    np.testing.assert_allclose(
        after["dictionary"], arrays["dictionary_sums_after_step"], rtol=tolerance, atol=tolerance
    )
    assert quantized.metrics["splits"] == 0


def test_one_and_four_devices_give_the_same_state():
    module = EmaVectorQuantizer(32, 8, momentum=0.9, splitting=False)
    z = jax.random.normal(jax.random.key(0), (64, 4, 4, 8))
    state = {"dictionary": jax.random.normal(jax.random.key(1), (32, 8)), "counts": jnp.ones(32)}
    results = []
    for devices in (1, 4):
        mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
        batch = jax.device_put(z, NamedSharding(mesh, P("data")))
        replicated = jax.device_put(state, NamedSharding(mesh, P()))
        results.append(step(module, replicated, batch))
    (quantized_1, state_1), (quantized_4, state_4) = results
    np.testing.assert_array_equal(quantized_1.indices, quantized_4.indices)
    np.testing.assert_array_equal(state_1["counts"], state_4["counts"])
    scale = np.abs(state_1["dictionary"]).max()
    np.testing.assert_allclose(state_4["dictionary"], state_1["dictionary"], rtol=1e-6, atol=1e-6 * scale)
    np.testing.assert_allclose(state_1["counts"].sum(), 0.9 * 32 + 64 * 16, rtol=1e-6)


def oracle_split(key, sums, counts, min_count, perturbation):
    """Linde-Buzo-Gray splitting in NumPy, with the module's random factors."""
    sums, counts, splits = np.array(sums), np.array(counts), 0
    while (counts < min_count).any() and counts.max() >= 2 * min_count:
        key, noise_key = jax.random.split(key)
        noise = jax.random.uniform(noise_key, sums.shape[1:], jnp.float32, 1 - perturbation, 1 + perturbation)
        most, least = counts.argmax(), counts.argmin()
        sums[least] = sums[most] * np.asarray(noise) / 2
        sums[most] /= 2
        counts[least] = counts[most] = counts[most] / 2
        splits += 1
    return sums, counts, splits


def test_splitting_equals_numpy():
    rng = np.random.default_rng(0)
    sums = rng.normal(size=(12, 5)).astype(np.float32)
    counts = np.array([3, 0.01, 7, 0.2, 0.0, 50, 1, 0.09, 2, 0.1, 4, 0.05], np.float32)
    got = jax.jit(split_codes)(jax.random.key(3), sums, counts, 0.1, 0.001)
    want = oracle_split(jax.random.key(3), sums, counts, 0.1, 0.001)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-6)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-6)
    assert got[2] == want[2] == 4 and got[1].min() >= 0.1
    # 50 -> 25, 25 -> 12.5 ...: the most used code is looked for anew in every round
    assert sorted(np.asarray(got[1]).tolist())[-1] == 12.5


def test_splitting_ends_when_no_code_can_spare_tokens():
    split = jax.jit(lambda counts: split_codes(jax.random.key(0), jnp.ones((4, 2)), counts, 0.125, 0.001))
    counts = jnp.array([0.15, 0.05, 0.24, 0.0])
    _, after, splits = split(counts)
    assert splits == 0
    np.testing.assert_array_equal(after, counts)
    _, after, splits = split(counts.at[2].set(0.25))  # just enough for two, once
    assert splits == 1
    np.testing.assert_allclose(after, [0.15, 0.05, 0.125, 0.125], rtol=1e-6)


def test_a_revived_code_survives_the_next_step():
    dictionary = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    state = {"dictionary": dictionary, "counts": np.array([40, 1, 0.1, 1, 1, 1, 1, 1], np.float32)}
    # Tokens that no one but code 5 is nearest to, so that 2 goes unused in both steps.
    z = jnp.asarray(np.tile(np.asarray(jax.nn.standardize(dictionary[5:6])), (32, 1)))
    quantized, state = step(MODULE, state, z)
    assert quantized.metrics["splits"] == 1 and 2 not in quantized.indices
    revived = np.asarray(MODULE.apply({"quantizer": state}, method="codewords"))[2]
    original = dictionary[0] / np.linalg.norm(dictionary[0])
    np.testing.assert_allclose(revived, original, atol=1e-3)
    assert not np.array_equal(revived, original)
    counts = state["counts"]
    quantized, state = step(MODULE, state, z, key=1)
    assert quantized.metrics["splits"] == 0 and 2 not in quantized.indices
    assert state["counts"][2] == np.float32(0.995) * counts[2] > 19
    np.testing.assert_allclose(MODULE.apply({"quantizer": state}, method="codewords")[2], revived, rtol=1e-5)


@pytest.mark.parametrize("splitting", [False, True])
def test_with_momentum_0_codewords_are_those_of_the_last_batch_and_finite(splitting):
    module = EmaVectorQuantizer(8, 4, momentum=0.0, splitting=splitting)
    z = jax.random.normal(jax.random.key(0), (3, 4))  # fewer tokens than codes: some go unused
    keys = {"params": jax.random.key(1), "quantizer": jax.random.key(2)}
    variables = module.init(keys, z, train=False)
    before = module.apply(variables, method="codewords")
    for _ in range(3):
        quantized, variables = module.apply(
            variables, z, train=True, mutable=["quantizer"], rngs={"quantizer": jax.random.key(3)}
        )
        codebook = np.asarray(module.apply(variables, method="codewords"))
        assert np.isfinite(codebook).all() and np.isfinite(quantized.codes).all()
    if not splitting:
        used = np.unique(quantized.indices)
        unused = np.setdiff1d(np.arange(8), used)
        np.testing.assert_allclose(codebook[unused], before[unused], rtol=1e-5)


def test_without_splitting_an_unused_code_keeps_its_direction():
    """Decayed for ever, count and sum would underflow to 0 / 0, and NaN is nearest to every token."""
    module = EmaVectorQuantizer(3, 4, momentum=0.5, splitting=False, standardize=False)
    dictionary = jnp.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 3, 4]])
    z = jnp.array([[2.0, 0, 0, 0], [0, 2, 0, 0]])
    state = {"dictionary": dictionary, "counts": jnp.ones(3)}
    state, _ = jax.lax.scan(lambda state, _: (step(module, state, z)[1], None), state, length=300)
    codebook = module.apply({"quantizer": state}, method="codewords")
    np.testing.assert_allclose(codebook[2], [0, 0, 0.6, 0.8], rtol=1e-5)
    np.testing.assert_allclose(state["counts"][:2], [2, 2], rtol=1e-5)


@pytest.fixture
def batch_and_state():
    z = jnp.asarray(np.random.default_rng(1).normal(size=(32, 4)).astype(np.float32))
    # Initialising is no step, even in training mode.
    state = jax.jit(lambda z: MODULE.init(jax.random.key(1), z, train=True))(z)["quantizer"]
    return z, state


def test_state_changes_only_where_it_should(batch_and_state):
    z, state = batch_and_state
    np.testing.assert_array_equal(state["counts"], np.ones(8))
    np.testing.assert_allclose(np.std(state["dictionary"]), 8**-0.5, rtol=0.3)
    evaluate = jax.jit(lambda s, z: MODULE.apply({"quantizer": s}, z, train=False, mutable=["quantizer"]))
    np.testing.assert_array_equal(evaluate(state, z)[1]["quantizer"]["dictionary"], state["dictionary"])
    # Where the collection is not mutable there is no update, and no rng is needed.
    frozen = jax.jit(lambda s, z: MODULE.apply({"quantizer": s}, z, train=True))(state, z)
    np.testing.assert_array_equal(frozen.indices, step(MODULE, state, z)[0].indices)
    norms = np.linalg.norm(MODULE.apply({"quantizer": state}, method="codewords"), axis=1)
    np.testing.assert_allclose(norms, 1, rtol=1e-6)


def test_commitment_loss_and_batch_ratios(batch_and_state):
    z, state = batch_and_state
    quantized, _ = step(MODULE, state, z)
    error = np.asarray(jax.nn.standardize(z)) - np.asarray(quantized.codes)
    np.testing.assert_allclose(quantized.loss, 0.25 * np.mean(error**2), rtol=1e-5)
    grad = jax.jit(jax.grad(lambda z: MODULE.apply({"quantizer": state}, z, train=True).loss))(z)
    want = jax.vjp(jax.nn.standardize, z)[1](jnp.asarray(0.25 * 2 * error / z.size))[0]
    np.testing.assert_allclose(grad, want, rtol=1e-4, atol=1e-6)
    counts = np.bincount(quantized.indices, minlength=8)
    np.testing.assert_allclose(quantized.metrics["zeros_ratio"], (counts == 0).mean())
    np.testing.assert_allclose(quantized.metrics["max_ratio"], counts.max() / 32)


@pytest.mark.parametrize(("field", "value"), [("momentum", 1.0), ("momentum", -0.1), ("min_count", float("nan"))])
def test_bad_fields_are_refused(field, value):
    module = EmaVectorQuantizer(**{"codebook_size": 16, "embedding_dim": 4} | {field: value})
    with pytest.raises(ValueError, match=f"{field} is {value}, but must be at least 0"):
        module.init(jax.random.key(0), jnp.zeros((1, 4)), train=False)
