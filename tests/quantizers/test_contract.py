"""What every quantizer promises, whichever it is."""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from fsq_repro.quantizers import (
    BSQ,
    FSP,
    FSQ,
    LFQ,
    QLAE,
    AlternatedVectorQuantizer,
    DiVeQ,
    EmaRestartQuantizer,
    EmaVectorQuantizer,
    IndexBackpropagationQuantizer,
    L2VectorQuantizer,
    ProductQuantizer,
    ResidualFSQ,
    SimVectorQuantizer,
    VectorQuantizer,
    registry,
)
from fsq_repro.quantizers.base import usage_metrics
from fsq_repro.quantizers.fsq import bound
from fsq_repro.quantizers.normalization import unit_length

pytestmark = pytest.mark.usefixtures("strict_dtypes")

SHAPE = (8, 5)  # tokens of a batch; four devices divide it
DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16)
Smooth = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Row:
    """A quantizer, and what it does not share with all others.

    Attributes:
      module: at a small size.
      large: fields that make its codebook one of 2^14 codes.
      refused: settings that do not exist, as (field, value); the message starts with both.
      smooth: (z, codes, entries) -> the differentiable function of z whose gradient the codes have in training, given
        the codes of that call and what `indices_to_codes` has for its indices; equal to `smooth_atol`.
      has_loss: whether the loss in training is other than 0.
      training_codes: the state whose codebook holds the codes of a call in training, "before" or "after" its update;
        "none" where noise leads away from them, "some" where it does so for some of them.
      levels: of a quantizer of scalars; then channel 0 is the fastest digit of an index.
      ablation: of the module.
      state: names in the collection `quantizer`.
      learned: whether there are parameters that the loss or the decoder trains.
      computed: whether XLA may round the codebook differently from one program to another.
    """

    module: nn.Module
    large: dict[str, Any]
    refused: tuple[tuple[str, Any], ...]
    smooth: Smooth = lambda z, codes, entries: z
    smooth_atol: float = 1e-7
    has_loss: bool = False
    training_codes: str = "before"
    levels: tuple[int, ...] | None = None
    ablation: str = ""
    state: tuple[str, ...] = ()
    learned: bool = False
    computed: bool = False


def fsq(variant: str) -> Row:
    levels, half_width = (8, 5, 4), jnp.array([[[4.0, 2.0, 2.0]]])
    return Row(
        FSQ(levels, bound=variant),
        large={"levels": (8, 8, 8, 8, 4)},
        refused=(("levels", (8, 2, 4)), ("levels", ()), ("bound", "tanh")),
        smooth=lambda z, codes, entries: bound(z, levels, variant) / half_width,
        levels=levels,
    )


def scalar(module, smooth, **rest):
    """Row of a quantizer of scalars of 8, 5 and 4 levels, unless told otherwise; `smooth` of z alone."""
    given = {"large": {"levels": (8, 8, 8, 8, 4)}, "levels": (8, 5, 4), "refused": (("levels", (8, 1, 4)),)} | rest
    return Row(module, smooth=lambda z, codes, entries: smooth(z), **given)


def bits(module, length, **rest):
    """Row of a quantizer of 6 bits; its codes have the gradient of z brought to this length."""
    fields = {"levels": (2,) * 6, "large": {"num_bits": 14}, "has_loss": True}
    refused = (("num_bits", 31), ("entropy_group", 4), ("entropy_ratio", -1.0), *rest.pop("refused"))
    return scalar(module, lambda z: length * unit_length(z), refused=refused, **fields, **rest)


S_432 = 1 + 1 / jnp.array([[[3.0, 2.0, 1.0]]])  # the range of residual FSQ

SIZES = (("codebook_size", 0), ("codebook_size", 2**31), ("embedding_dim", 2.0))  # that no codebook has


def learned(module, **rest):
    """Row of a quantizer with a codebook of so many codes of so many channels."""
    given = {"large": {"codebook_size": 2**14}, "refused": SIZES} | rest
    return Row(module, **given)


def turned(z, codes, entries):
    """The rotation and scaling that takes each z to its code, held fixed, by a reflection at z + code and one at z."""
    u, v = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in jax.lax.stop_gradient((z, entries)))
    r = (u + v) / jnp.linalg.norm(u + v, axis=-1, keepdims=True)
    z_norm, norm = (jnp.linalg.norm(x, axis=-1, keepdims=True) for x in jax.lax.stop_gradient((z, entries)))
    out = z - 2 * jnp.sum(z * r, -1, keepdims=True) * r + 2 * jnp.sum(z * u, -1, keepdims=True) * v
    return norm / z_norm * out


def soft_choice(z, codes, entries):
    """A softmax over all inner products in place of the choice."""
    codebook = make_case("ibq")[3]["params"]["codebook"]
    return jax.nn.softmax(z @ codebook.T) @ codebook


def along_the_step(z, codes, entries):
    """A step of the length of z's distance from its code, in the direction in which the call went."""
    direction = (codes - z) / jnp.linalg.norm(codes - z, axis=-1, keepdims=True)
    return z + jnp.linalg.norm(entries - z, axis=-1, keepdims=True) * jax.lax.stop_gradient(direction)


QUANTIZERS = {
    "fsq": fsq("paper"),
    "fsq_corrected": fsq("corrected"),
    "fsq_symmetric": scalar(FSQ((8, 5, 2), bound="symmetric"), jnp.tanh, levels=(8, 5, 2), ablation="symmetric"),
    "fsq_ifsq": scalar(
        FSQ((9, 5, 3), bound="ifsq"),
        lambda z: jnp.tanh(0.8 * z),
        levels=(9, 5, 3),
        large={"levels": (9, 9, 9, 9, 5)},
        refused=(("levels", (9, 4, 3)), ("noise", True)),
        ablation="ifsq",
    ),
    "fsq_noise": scalar(
        FSQ((8, 5, 2), bound="symmetric", noise=True),
        jnp.tanh,
        levels=(8, 5, 2),
        training_codes="some",
        ablation="symmetric_noise",
    ),
    "lfq": bits(LFQ(6), 6**0.5, refused=(("entropy_temperature", 0.0),)),
    "bsq": bits(BSQ(6), 6**-0.5, refused=(("inverse_temperature", 0.0), ("gradient", "none"))),
    "qlae": scalar(
        QLAE((8, 5, 4)),
        lambda z: z,
        refused=(("levels", (8, 1, 4)), ("codebook_cost", -1.0)),
        has_loss=True,
        learned=True,
    ),
    "residual_fsq": scalar(
        ResidualFSQ((4, 3, 2)),
        lambda z: S_432 * jnp.tanh(z / S_432),
        levels=None,
        large={"stage_levels": (8, 8, 2)},
        refused=(("stage_levels", (8, 1, 4)), ("num_stages", 0)),
    ),
    "fsp": scalar(
        FSP((8, 5, 4)),
        lambda z: 3**0.5 * jnp.tanh(z),
        refused=(("levels", (8, 1, 4)), ("distribution", "none"), ("quantize_rate", 2.0)),
        has_loss=True,
        training_codes="none",
    ),
    "fsp_inverse": scalar(FSP((8, 5, 4), "sigmoid", inverse=True), lambda z: z, has_loss=True, training_codes="none"),
    "vq": learned(
        VectorQuantizer(64, 6),
        refused=(*SIZES, ("commitment_cost", -1.0), ("entropy_temperature", 0.0), ("gradient", "none")),
        has_loss=True,
        ablation="narrow",
        learned=True,
    ),
    "vq_rotation": learned(
        VectorQuantizer(64, 6, gradient="rotation"),
        smooth=turned,
        smooth_atol=2e-6,
        has_loss=True,
        ablation="narrow_rotation",
        learned=True,
    ),
    "l2_vq": learned(
        L2VectorQuantizer(64, 6),
        smooth=lambda z, codes, entries: z / jnp.linalg.norm(z, axis=-1, keepdims=True),
        has_loss=True,
        learned=True,
        computed=True,
    ),
    "vq_affine_sync": learned(
        VectorQuantizer(64, 6, affine_lr=10.0, sync_nu=0.2, entropy_ratio=0.0),
        refused=(*SIZES, ("affine_lr", -1.0), ("sync_nu", float("nan"))),
        has_loss=True,
        ablation="narrow_no_entropy_affine_sync",
        learned=True,
        computed=True,
    ),
    "simvq": learned(
        SimVectorQuantizer(64, 6),
        refused=(*SIZES, ("codebook_cost", -1.0), ("gradient", "none")),
        has_loss=True,
        state=("frozen_codebook",),
        learned=True,
        computed=True,
    ),
    "ibq": learned(
        IndexBackpropagationQuantizer(64, 6),
        refused=(*SIZES, ("propagated_cost", -1.0), ("entropy_temperature", 0.0)),
        smooth=soft_choice,
        smooth_atol=1e-5,
        has_loss=True,
        learned=True,
    ),
    "diveq": learned(
        DiVeQ(64, 6, restart_every=3),
        refused=(*SIZES, ("noise", -1.0), ("restart_every", 2.0)),
        smooth=along_the_step,
        smooth_atol=1e-5,
        training_codes="none",
        state=("offset", "steps", "uses"),
        learned=True,
        computed=True,
    ),
    "alternated_vq": learned(
        AlternatedVectorQuantizer(64, 6, codebook_lr=20.0, commitment_cost=0.25),
        refused=(*SIZES, ("codebook_lr", -1.0), ("gradient", "none")),
        has_loss=True,
        training_codes="after",
        state=("codebook",),
        computed=True,
    ),
    "product": Row(
        ProductQuantizer(VectorQuantizer(16, 3), groups=2),
        large={"quantizer": VectorQuantizer(2**14, 6), "groups": 2},
        refused=(("groups", 0), ("groups", 8)),
        has_loss=True,
        ablation="narrow",
        learned=True,
    ),
    "product_ema_restart": Row(
        ProductQuantizer(EmaRestartQuantizer(8, 3, min_count=0.5), groups=2),
        large={"quantizer": EmaRestartQuantizer(2**14, 6)},
        refused=(("groups", 2.0),),
        has_loss=True,
        state=("parts_0", "parts_1"),
    ),
    "ema_restart": learned(
        EmaRestartQuantizer(32, 6, min_count=0.5),
        refused=(
            *SIZES,
            ("momentum", 1.0),
            ("min_count", -0.1),
            ("smoothing", -1.0),
            ("kmeans_rounds", -1),
            ("gradient", "none"),
        ),
        has_loss=True,
        state=("codebook", "counts", "sums"),
    ),
    "ema_restart_kmeans": learned(
        EmaRestartQuantizer(32, 6, min_count=0.5, reset=True, smoothing=1e-5, kmeans_rounds=3, gradient="rotation"),
        smooth=turned,
        smooth_atol=2e-6,
        has_loss=True,
        state=("codebook", "counts", "sums"),
        ablation="reset_smoothed_kmeans_rotation",
    ),
    "ema_vq": learned(
        EmaVectorQuantizer(64, 6),
        refused=(*SIZES, ("momentum", 1.0), ("min_count", -0.1), ("gradient", "none")),
        smooth=lambda z, codes, entries: jax.nn.standardize(z, axis=-1),
        state=("counts", "dictionary"),
        computed=True,
    ),
}


def apply(module, variables, z, train, **options):
    return module.apply(variables, z, train=train, rngs={"quantizer": jax.random.key(2)}, **options)


@functools.partial(jax.jit, static_argnums=0)
def step(module, variables, z, weights, loss_weight):
    """A training step: (`Quantized`, state after, gradients for parameters and z of sum(codes weights) + loss)."""

    def objective(params, z):
        quantized, updated = apply(module, variables | {"params": params}, z, True, mutable=["quantizer"])
        return jnp.sum(quantized.codes * weights) + loss_weight * quantized.loss, (quantized, updated)

    gradients, (quantized, updated) = jax.grad(objective, (0, 1), has_aux=True)(variables.get("params", {}), z)
    return quantized, updated.get("quantizer", {}), gradients


@functools.partial(jax.jit, static_argnums=0)
def evaluate(module, variables, z):
    """Outputs in evaluation, one for each of DTYPES, and the codes of the first one's indices."""
    outputs = [apply(module, variables, z.astype(dtype), False) for dtype in DTYPES]
    return outputs, module.apply(variables, outputs[0].indices, method="indices_to_codes")


@pytest.fixture(params=QUANTIZERS, scope="module")
def case(request):
    """Row, its module, z of values that all dtypes hold exactly, variables after a training step has set the state."""
    return make_case(request.param)


@functools.cache
def make_case(name):
    module = QUANTIZERS[name].module
    z = np.random.default_rng(0).normal(0, 1.5, (*SHAPE, module.num_channels)).astype(jnp.bfloat16).astype(np.float32)
    init = jax.jit(lambda key, z: module.init(key, z, train=True))
    variables, z = init(jax.random.key(1), z), jnp.asarray(z)
    state = step(module, variables, 0.9 * z, weights_like(z), 0.0)[1]
    return QUANTIZERS[name], module, z, variables | ({"quantizer": state} if state else {})


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


def weights_like(z):
    return jax.random.normal(jax.random.key(3), z.shape)


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
