"""What every quantizer promises, whichever it is."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.quantizers import (
    BSQ,
    FSP,
    FSQ,
    LFQ,
    QLAE,
    EmaVectorQuantizer,
    ResidualFSQ,
    VectorQuantizer,
    registry,
)
from fsq_repro.quantizers.base import usage_metrics
from fsq_repro.quantizers.fsq import bound
from fsq_repro.quantizers.normalization import unit_length

pytestmark = pytest.mark.usefixtures("strict_dtypes")

S_432 = 1 + 1 / jnp.array([[[3.0, 2.0, 1.0]]])  # the range of residual FSQ
# name -> (module, the differentiable function whose gradient the codes have)
QUANTIZERS = {
    "fsq": (FSQ((8, 5, 4)), lambda z: bound(z, (8, 5, 4)) / jnp.array([[[4.0, 2.0, 2.0]]])),
    "fsq_corrected": (
        FSQ((8, 5, 4), bound="corrected"),
        lambda z: bound(z, (8, 5, 4), "corrected") / jnp.array([[[4.0, 2.0, 2.0]]]),
    ),
    "fsq_symmetric": (FSQ((8, 5, 2), bound="symmetric"), jnp.tanh),
    "fsq_ifsq": (FSQ((9, 5, 3), bound="ifsq"), lambda z: jnp.tanh(0.8 * z)),
    "fsq_noise": (FSQ((8, 5, 2), bound="symmetric", noise=True), jnp.tanh),
    "lfq": (LFQ(6), lambda z: 6**0.5 * unit_length(z)),
    "bsq": (BSQ(6), lambda z: 6**-0.5 * unit_length(z)),
    "qlae": (QLAE((8, 5, 4)), lambda z: z),
    "residual_fsq": (ResidualFSQ((4, 3, 2)), lambda z: S_432 * jnp.tanh(z / S_432)),
    "fsp": (FSP((8, 5, 4)), lambda z: 3**0.5 * jnp.tanh(z)),
    "fsp_inverse": (FSP((8, 5, 4), "sigmoid", inverse=True), lambda z: z),
    "vq": (VectorQuantizer(64, 6), lambda z: z),
    "ema_vq": (EmaVectorQuantizer(64, 6), lambda z: jax.nn.standardize(z, axis=-1)),
}
HAS_LOSS = {"vq", "lfq", "bsq", "qlae", "fsp", "fsp_inverse"}
NO_CODES_IN_TRAINING = {"fsq_noise", "fsp", "fsp_inverse"}
NO_LEVELS = {"vq", "ema_vq", "residual_fsq"}
ABLATIONS = {"vq": "narrow", "fsq_symmetric": "symmetric", "fsq_ifsq": "ifsq", "fsq_noise": "symmetric_noise"}
DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16)


def apply(module, variables, z, train):
    rngs = {"quantizer": jax.random.key(2)}
    return module.apply(variables, z, train=train, mutable=["quantizer"], rngs=rngs)[0]


@functools.partial(jax.jit, static_argnums=0)
def evaluate(module, variables, z):
    """Outputs in evaluation, one for each of DTYPES, and the codes of the first one's indices."""
    outputs = [apply(module, variables, z.astype(dtype), False) for dtype in DTYPES]
    return outputs, module.apply(variables, outputs[0].indices, method="indices_to_codes")


@functools.partial(jax.jit, static_argnums=0)
def training(module, variables, z):
    """Output in training and the codes of its indices."""
    quantized = apply(module, variables, z, True)
    return quantized, module.apply(variables, quantized.indices, method="indices_to_codes")


@pytest.fixture(params=QUANTIZERS, scope="module")
def case(request):
    """Name, module, its smooth function, z of values that all dtypes hold exactly, variables."""
    module, smooth = QUANTIZERS[request.param]
    z = np.random.default_rng(0).normal(0, 1.5, (5, 7, module.num_channels)).astype(jnp.bfloat16).astype(np.float32)
    init = jax.jit(lambda key, z: module.init(key, z, train=True))
    return request.param, module, smooth, jnp.asarray(z), init(jax.random.key(1), z)


def test_shapes_and_dtypes(case):
    _, module, _, z, variables = case
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
    name, module, _, z, variables = case
    if train:
        quantized, codes = training(module, variables, z.astype(jnp.bfloat16))
        assert np.array_equal(quantized.codes, codes.astype(jnp.bfloat16)) == (name not in NO_CODES_IN_TRAINING)
    else:
        quantized = evaluate(module, variables, z)[0][1]
    for scalar in (quantized.loss, *quantized.metrics.values()):
        assert scalar.shape == () and scalar.dtype == jnp.float32
    assert (quantized.loss != 0) == (train and name in HAS_LOSS)


def test_forward_value_is_the_code_bitwise_jitted_or_not(case):
    name, module, _, z, variables = case
    eager = apply(module, variables, z, False)
    eager_codes = module.apply(variables, eager.indices, method="indices_to_codes")
    outputs, jitted_codes = evaluate(module, variables, z)
    assert eager_codes.dtype == jnp.float32
    np.testing.assert_array_equal(eager.codes, eager_codes)
    np.testing.assert_array_equal(outputs[0].codes, jitted_codes)
    np.testing.assert_array_equal(outputs[0].indices, eager.indices)
    # The codewords of ema_vq are computed, by a division and a norm that XLA may round differently when it fuses them.
    np.testing.assert_allclose(jitted_codes, eager_codes, rtol=1e-6 if name == "ema_vq" else 0)


def test_every_index_survives_the_round_trip(case):
    _, module, _, _, variables = case
    indices = jnp.arange(module.codebook_size, dtype=jnp.int32)[None]

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


def test_gradient_goes_straight_through(case):
    _, module, smooth, z, variables = case
    weights = jax.random.normal(jax.random.key(3), z.shape)
    got = jax.jit(jax.grad(lambda z: jnp.sum(weights * apply(module, variables, z, True).codes)))(z)
    want = jax.jit(jax.grad(lambda z: jnp.sum(weights * smooth(z))))(z)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)


def test_nan_is_not_rounded_to_a_valid_code(case):
    _, module, _, z, variables = case
    quantized = evaluate(module, variables, z.at[0, 0].set(jnp.nan))[0][0]
    codes = np.asarray(quantized.codes)
    assert np.isnan(codes[0, 0]).all() and np.isfinite(codes[1:]).all()
    assert np.min(quantized.indices) >= 0 and np.max(quantized.indices) < module.codebook_size


def test_gradients_are_finite_at_the_edges(case):
    """z = 0, a code, large values, and only two tokens, which are equal."""
    _, module, _, z, variables = case
    code = module.apply(variables, jnp.zeros((1, 1), jnp.int32), method="indices_to_codes")
    edges = jnp.concatenate([0 * code, code, 1e4 * z[:1, :1], -1e4 * z[:1, :1], z[:1, :1]])

    def objective(z):
        quantized = apply(module, variables, z, True)
        return jnp.sum(quantized.codes) + quantized.loss

    gradients = jax.jit(jax.vmap(jax.grad(objective)))(jnp.tile(edges, (1, 2, 1)))
    assert np.isfinite(gradients).all()


def test_wrong_inputs_are_refused(case):
    _, module, _, z, variables = case
    with pytest.raises(ValueError, match=r"z has shape \(5, 7, \d\)"):
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
    name, module, _, _, _ = case
    assert (module.levels is None) == (name in NO_LEVELS)
    if module.levels is not None:
        assert math.prod(module.levels) == module.codebook_size and len(module.levels) == module.num_channels
    assert module.ablation == ABLATIONS.get(name, "")


def test_every_quantizer_is_here():
    assert {type(module) for module, _ in QUANTIZERS.values()} == set(registry.QUANTIZERS.values())
