"""What every quantizer promises, whichever it is."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from fsq_repro.quantizers import registry
from fsq_repro.quantizers.base import usage_metrics
from tests.quantizers.rows import QUANTIZERS, apply, make_case, step, weights_like

pytestmark = pytest.mark.usefixtures("strict_dtypes")

DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16)


@functools.partial(jax.jit, static_argnums=0)
def evaluate(module, variables, z):
    """Outputs in evaluation, one for each of DTYPES, and the codes of the first one's indices."""
    outputs = [apply(module, variables, z.astype(dtype), False) for dtype in DTYPES]
    return outputs, module.apply(variables, outputs[0].indices, method="indices_to_codes")


@pytest.fixture(params=QUANTIZERS, scope="module")
def case(request):
    """Row, its module, z of values that all dtypes hold exactly, variables after a training step has set the state."""
    return make_case(request.param)


def test_shapes_and_dtypes(case):
    _, module, z, variables = case
    outputs, _ = evaluate(module, variables, z)
    for dtype, quantized in zip(DTYPES, outputs, strict=True):
        assert quantized.codes.shape == z.shape and quantized.codes.dtype == dtype
        assert quantized.indices.shape == z.shape[:-1] and quantized.indices.dtype == jnp.int32
        assert np.min(quantized.indices) >= 0 and np.max(quantized.indices) < module.codebook_size
        # Low precision changes what comes in and goes out, not what happens inside.
        np.testing.assert_array_equal(quantized.indices, outputs[0].indices)
        np.testing.assert_array_equal(quantized.codes, np.asarray(outputs[0].codes).astype(dtype))


@pytest.mark.parametrize("train", [True, False])
def test_loss_and_metrics_are_float32_scalars(case, train):
    row, module, z, variables = case
    if train:
        quantized = jax.eval_shape(lambda z: apply(module, variables, z, True), z.astype(jnp.bfloat16))
        loss = step(module, variables, z, weights_like(z), 0.0)[0].loss
    else:
        quantized = evaluate(module, variables, z)[0][1]
        loss = quantized.loss
    for scalar in (quantized.loss, *quantized.metrics.values()):
        assert scalar.shape == () and scalar.dtype == jnp.float32
    assert (loss != 0) == (train and row.has_loss)


def test_forward_value_is_the_code_bitwise_jitted_or_not(case):
    row, module, z, variables = case
    eager = apply(module, variables, z, False)
    eager_codes = module.apply(variables, eager.indices, method="indices_to_codes")
    outputs, jitted_codes = evaluate(module, variables, z)
    assert eager_codes.dtype == jnp.float32
    np.testing.assert_array_equal(eager.codes, eager_codes)
    np.testing.assert_array_equal(outputs[0].codes, jitted_codes)
    np.testing.assert_array_equal(outputs[0].indices, eager.indices)
    # The codewords of ema_vq are computed, by a division and a norm that XLA may round differently when it fuses them.
    np.testing.assert_allclose(jitted_codes, eager_codes, rtol=1e-6 if row.computed else 0)


def test_every_index_survives_the_round_trip(case):
    _, module, _, variables = case
    indices = jnp.arange(module.codebook_size, dtype=jnp.int32).reshape(1, -1)

    @jax.jit
    def round_trips(variables, indices):
        codes = module.apply(variables, indices, method="indices_to_codes")
        low = [codes.astype(dtype) for dtype in DTYPES]
        return codes, [module.apply(variables, c, method="codes_to_indices") for c in low]

    codes, backs = round_trips(variables, indices)
    assert codes.shape == (*indices.shape, module.num_channels)
    for back in backs:
        assert back.dtype == jnp.int32
        np.testing.assert_array_equal(back, indices)


def test_codes_in_training_are_those_of_the_stated_state(case):
    row, module, z, variables = case
    quantized, state, _ = step(module, variables, z, weights_like(z), 0.0)
    for name, held in (("before", variables), ("after", variables | {"quantizer": state})):
        entries = jax.jit(lambda v, i: module.apply(v, i, method="indices_to_codes"))(held, quantized.indices)
        if row.training_codes == name:
            np.testing.assert_allclose(quantized.codes, entries, rtol=1e-6 if row.computed else 0)
        elif row.training_codes == "none":
            assert np.all(np.any(quantized.codes != entries, axis=-1))
        elif row.training_codes == "some":
            assert 0 < np.mean(quantized.codes != entries) < 1


def test_gradient_of_the_codes(case):
    row, module, z, variables = case
    quantized, _, (_, got) = step(module, variables, z, weights_like(z), 0.0)
    entries = module.apply(variables, quantized.indices, method="indices_to_codes")
    smooth = jax.jit(jax.grad(lambda z, *rest: jnp.sum(weights_like(z) * row.smooth(z, *rest))))
    np.testing.assert_allclose(got, smooth(z, quantized.codes, entries), rtol=1e-6, atol=row.smooth_atol)


def test_state_changes_in_training_alone(case):
    row, module, z, variables = case
    assert sorted(variables.get("quantizer", {})) == sorted(row.state)
    assert ("params" in variables) == row.learned
    quantized, state = jax.jit(lambda v, z: apply(module, v, z, False, mutable=["quantizer"]))(variables, z)
    jax.tree.map(np.testing.assert_array_equal, state.get("quantizer", {}), variables.get("quantizer", {}))
    # In training without a state that may change: no error, and the same codes.
    frozen = jax.jit(lambda v, z: apply(module, v, z, True))(variables, z)
    trained = step(module, variables, z, weights_like(z), 0.0)[0]
    np.testing.assert_array_equal(frozen.indices, trained.indices)
    np.testing.assert_allclose(frozen.codes, trained.codes, rtol=1e-6 if row.computed else 0)
    np.testing.assert_allclose(frozen.loss, trained.loss, rtol=1e-6)


def test_gradients_are_finite_at_the_edges(case):
    _, module, z, variables = case
    codes = module.apply(variables, jnp.arange(z[..., 0].size) % module.codebook_size, method="indices_to_codes")
    edges = {
        "zero": jnp.zeros_like(z),
        "a code": codes.reshape(z.shape),
        "far": 1e4 * z / jnp.linalg.norm(z, axis=-1, keepdims=True),
        "all equal": jnp.broadcast_to(z[:1, :1], z.shape),
        "one token": z[0, 0],
    }
    for edge, z in edges.items():
        quantized, state, gradients = step(module, variables, z, weights_like(z), 1.0)
        for leaf in jax.tree.leaves((quantized, state, gradients)):
            assert np.isfinite(leaf).all(), edge


def test_one_and_four_devices_give_the_same(case):
    _, module, z, variables = case
    results = []
    for devices in (1, 4):
        mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
        split, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
        batch, weights = jax.device_put((z, weights_like(z)), split)
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # as the training step does
            results.append(step(module, jax.device_put(variables, whole), batch, weights, 1.0))
    one, four = map(jax.tree.leaves, results)
    np.testing.assert_array_equal(results[0][0].indices, results[1][0].indices)
    for a, b in zip(one, four, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * np.abs(a).max())


def test_nothing_of_size_tokens_by_codebook_is_held(case):
    """Of a training step with 2^14 tokens and as many codes the full table would be 1 GiB. Compiled only, never run."""
    row, module, z, _ = case
    module = module.clone(**row.large)
    assert module.codebook_size >= 2**14
    batch = jax.ShapeDtypeStruct((2**14, module.num_channels), jnp.float32)
    variables = jax.eval_shape(lambda z: module.init(jax.random.key(1), z, train=True), batch)
    compiled = step.lower(module, variables, batch, batch, 1.0).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2**26


def test_impossible_settings_are_refused(case):
    row, module, z, _ = case
    for field, value in row.refused:
        with pytest.raises(ValueError, match=rf"^{field} is {re.escape(repr(value))}"):
            module.clone(**{field: value}).init(jax.random.key(0), z, train=False)


def test_nan_is_not_rounded_to_a_valid_code(case):
    _, module, z, variables = case
    quantized = evaluate(module, variables, z.at[0, 0].set(jnp.nan))[0][0]
    codes = np.asarray(quantized.codes)
    assert np.isnan(codes[0, 0]).all() and np.isfinite(codes[1:]).all()
    assert np.min(quantized.indices) >= 0 and np.max(quantized.indices) < module.codebook_size


def test_wrong_inputs_are_refused(case):
    _, module, z, variables = case
    with pytest.raises(ValueError, match=r"z has shape \(8, 5, \d+\)"):
        module.apply(variables, z[..., 1:], train=False)
    with pytest.raises(ValueError, match="z has dtype int32"):
        module.apply(variables, z.astype(jnp.int32), train=False)
    with pytest.raises(ValueError, match="indices has dtype float32"):
        module.apply(variables, z, method="indices_to_codes")


@pytest.mark.parametrize("shape", [(6, 11), (1,), (512,)])
@pytest.mark.parametrize("codebook_size", [1, 50, 264, 265, 2**31 - 1])  # 66 tokens: counts a code up to 264
def test_usage_metrics_equal_a_histogram(shape, codebook_size):
    indices = np.random.default_rng(0).integers(0, codebook_size, shape).astype(np.int32)
    indices[..., : shape[-1] // 2] %= 7  # some often
    _, counts = np.unique(indices, return_counts=True)
    p = counts / indices.size
    metrics = jax.jit(usage_metrics, static_argnums=1)(jnp.asarray(indices), codebook_size)
    np.testing.assert_allclose(metrics["usage"], len(counts) / codebook_size, rtol=1e-6)
    np.testing.assert_allclose(metrics["perplexity"], np.exp(-(p * np.log(p)).sum()), rtol=1e-5)


def test_usage_metrics_take_memory_for_the_tokens_only():
    compiled = jax.jit(usage_metrics, static_argnums=1).lower(jax.ShapeDtypeStruct((256,), jnp.int32), 2**30).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2**16


def test_levels_say_whether_channels_are_scalar(case):
    row, module, _, variables = case
    assert module.levels == row.levels and module.ablation == row.ablation
    if row.levels:  # the first channel is the fastest digit
        codes = module.apply(variables, jnp.arange(row.levels[0]), method="indices_to_codes")
        assert len(np.unique(codes[:, 0])) == row.levels[0] and np.ptp(codes[:, 1:], axis=0).max() == 0


def test_every_quantizer_is_here():
    assert {type(row.module) for row in QUANTIZERS.values()} == set(registry.QUANTIZERS.values())
