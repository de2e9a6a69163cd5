"""UViM's stage II against the published module; its causality, its cache, and how the sampler drives it."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from fsq_repro.models.code_predictor import START, CodePredictor
from fsq_repro.sampling.autoregressive_decoding import autoregressive_decode
from fsq_repro.sampling.parallel_decoding import sample_keys
from tests.conftest import ROOT, load_golden

B, S, K, LAYERS, D = 3, 4, 16, 2, 32  # the golden file's network: 32 px, patch 8
SIZES = {"image_size": 32, "patch_size": 8, "width": D, "num_layers": LAYERS, "num_heads": 4, "mlp_width": 64}
Tiny = functools.partial(CodePredictor, K, S, **SIZES)


def abstract_params(model):
    images = jnp.zeros((1, model.image_size, model.image_size, 3))
    codes = jnp.zeros((1, model.num_codes), jnp.int32)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images, codes))
    assert set(variables) == {"params"}
    return variables["params"]


@pytest.fixture(scope="module")
def golden():
    """Images (B, 32, 32, 3), codes (B, S), the published logits, and the weights."""
    arrays, weights = load_golden("uvim_stage2")
    # The published trainer adds 1 to the codes before it calls the model, ours does it inside.
    return arrays["image"], arrays["codes"] - 1, arrays["logits"], {"params": unflatten_dict(weights, sep="/")}


@functools.cache
def compiled(model, method="__call__"):
    """The model's method, compiled once for all tests (op by op takes several times as long)."""
    return jax.jit(functools.partial(model.apply, method=method))


def test_logits_equal_the_published_ones(golden):
    images, codes, published, variables = golden
    logits = compiled(Tiny())(variables, images, codes)
    assert (logits.shape, logits.dtype) == ((B, S, K + 1), jnp.float32)
    np.testing.assert_allclose(logits, published, rtol=1e-4, atol=1e-5)


def test_initial_embeddings_have_the_deviations_asked_for():
    images, codes = jnp.zeros((1, 32, 32, 3)), jnp.zeros((1, 16), jnp.int32)
    init = jax.jit(CodePredictor(400, 16, **SIZES, token_std=0.1, position_scale=5.0).init)
    params = init(jax.random.key(0), images, codes)["params"]
    assert np.std(params["decoder"]["EmbedTargets"]["embedding"]) == pytest.approx(0.1, rel=0.05)
    for name in ("pos_embedding_encoder", "pos_embedding_decoder"):
        assert np.std(params[name]) == pytest.approx(5 / np.sqrt(D), rel=0.15)
    model = CodePredictor(4096)  # as published
    assert (model.token_std, model.position_scale) == (1.0, 1.0)


def test_parameter_names_and_shapes_at_paper_scale_are_the_published_ones():
    trees = json.loads((ROOT / "tests" / "golden" / "published_trees.json").read_text())
    params = abstract_params(CodePredictor(4096))
    shapes = {name: list(x.shape) for name, x in flatten_dict(params, sep="/").items()}
    assert shapes == trees["uvim_stage2"]

    counts = {name: sum(x.size for x in jax.tree.leaves(part)) for name, part in params.items()}
    assert counts == {
        "EmbedPatches": 787_456,
        "pos_embedding_encoder": 1_048_576,
        "pos_embedding_decoder": 262_144,
        "encoder": 302_311_424,
        "decoder": 411_320_321,
    }
    assert sum(counts.values()) == 715_729_921


def test_weights_start_as_the_published_ones():
    model = CodePredictor(127, 64, 32, 4, width=64, num_layers=1, num_heads=4, mlp_width=256)
    images, codes = jnp.ones((1, 32, 32, 3)), jnp.zeros((1, 64), jnp.int32)
    params = flatten_dict(jax.jit(model.init)(jax.random.key(0), images, codes)["params"], sep="/")
    deviations = {"decoder/EmbedTargets/embedding": 1, "pos_embedding_encoder": 1 / 8, "pos_embedding_decoder": 1 / 8}
    for kind in ("SelfAttn", "CrossAttn"):
        for kernel in ("query", "key", "value", "out"):
            deviations[f"decoder/EncDecBlock0/{kind}/{kernel}/kernel"] = 1 / 8  # LeCun, fan-in 64
    deviations["decoder/EncDecBlock0/MLP/Dense_0/kernel"] = np.sqrt(2 / (64 + 256))  # Xavier
    for name, deviation in deviations.items():
        assert np.std(params[name]) == pytest.approx(deviation, rel=0.05), name
    assert not np.any(params["decoder/LogitsDense/kernel"]) and not np.any(params["decoder/LogitsDense/bias"])


def test_logits_have_no_gradient_to_later_inputs_and_one_to_every_patch(golden):
    """Position embeddings are added where the codes enter: row j of them to the code j - 1 (row 0 to the start)."""
    images, codes, _, variables = golden

    def logits_at(positions, images):
        logits = Tiny().apply({"params": variables["params"] | {"pos_embedding_decoder": positions}}, images, codes)
        return jnp.sum(jnp.sin(logits), axis=(0, 2))

    jacobians = jax.jit(jax.jacrev(logits_at, argnums=(0, 1)))
    positions_Sx1xSxD, images_SxBxHxWx3 = jacobians(variables["params"]["pos_embedding_decoder"], images)
    reach = np.abs(positions_Sx1xSxD).max(axis=(1, 3))
    np.testing.assert_array_equal(np.triu(reach, 1), 0.0)
    assert np.all(reach[np.tril_indices(S)] > 1e-4)
    patches = np.asarray(images_SxBxHxWx3).reshape(S, B, 4, 8, 4, 8, 3)
    assert np.all(np.abs(patches).max(axis=(3, 5, 6)) > 1e-6)


def test_logits_see_exactly_earlier_codes(golden):
    images, codes, _, variables = golden
    logits = np.asarray(compiled(Tiny())(variables, images, codes))
    for i in range(S):
        other = codes.copy()
        other[:, i] = (other[:, i] + 1) % K
        changed = np.asarray(compiled(Tiny())(variables, images, other))
        np.testing.assert_array_equal(changed[:, : i + 1], logits[:, : i + 1])
        assert np.all(np.abs(changed - logits)[:, i + 1 :].max(axis=-1) > 1e-4)


def decode(model, variables, images, codes_BxS):
    """Logits (B, S, K) of all positions, one `decode_step` each, in a scan."""
    fed_BxS = jnp.pad(codes_BxS[:, :-1], ((0, 0), (1, 0)), constant_values=START)

    def step(cache, inputs):
        logits, cache = model.apply(variables, cache, *inputs, method="decode_step")
        return cache, logits

    cache = model.apply(variables, images, method="init_cache")
    _, logits_SxBxK = jax.lax.scan(step, cache, (fed_BxS.T, jnp.arange(S)))
    return logits_SxBxK.transpose(1, 0, 2)


def test_cached_steps_equal_the_uncached_network(golden):
    images, codes, _, variables = golden
    steps = jax.jit(functools.partial(decode, Tiny()))(variables, images, codes)
    np.testing.assert_allclose(steps, compiled(Tiny())(variables, images, codes)[..., 1:], rtol=1e-5, atol=1e-5)


def test_a_step_takes_the_memory_from_the_cache_alone(golden):
    images, codes, _, variables = golden
    step = compiled(Tiny(), "decode_step")
    cache = compiled(Tiny(), "init_cache")(variables, images)
    spent = {}  # without what only the encoder and the memory's keys and values need
    for name, x in flatten_dict(variables["params"], sep="/").items():
        encoding = name.startswith(("encoder/", "EmbedPatches/", "pos_embedding_encoder"))
        spent[name] = np.full_like(x, np.nan) if encoding or "CrossAttn/key" in name or "CrossAttn/value" in name else x
    inputs = codes[:, 0], jnp.int32(0)
    logits, _ = step({"params": unflatten_dict(spent, sep="/")}, cache, *inputs)
    np.testing.assert_array_equal(logits, step(variables, cache, *inputs)[0])


def test_the_sampler_at_the_published_temperature_gives_the_argmax_sequence_of_an_uncached_loop(golden):
    images, _, _, variables = golden
    rng = np.random.default_rng(1)  # noise that makes the codes differ along a sequence and between the images
    variables = jax.tree.map(lambda x: x + 0.3 * rng.standard_normal(x.shape).astype(np.float32), variables)

    @jax.jit
    def sample(variables, images, keys):
        cache = Tiny().apply(variables, images, method="init_cache")
        step = functools.partial(Tiny().apply, variables, method="decode_step")
        return autoregressive_decode(step, cache, jnp.full(B, START), keys, S, temperature=1e-7)

    codes = sample(variables, images, sample_keys(jax.random.key(0), jnp.arange(B)))
    expected = np.zeros((B, S), np.int32)
    for i in range(S):
        expected[:, i] = np.argmax(compiled(Tiny())(variables, images, expected)[:, i, 1:], axis=-1)
    np.testing.assert_array_equal(codes, expected)
    assert len(np.unique(expected, axis=0)) == B and len(np.unique(expected)) > S  # not one code for all


def test_remat_changes_neither_logits_nor_gradients(golden):
    images, codes, _, variables = golden

    def loss(model, variables):
        logits = model.apply(variables, images, codes)
        return jnp.sum(jnp.sin(logits)), logits

    plain, remat = Tiny(), Tiny(remat=True)
    assert str(jax.make_jaxpr(functools.partial(loss, remat))(variables)).count("= remat") == 2 * LAYERS
    assert "remat" not in str(jax.make_jaxpr(functools.partial(loss, plain))(variables))
    results = [jax.jit(jax.grad(functools.partial(loss, m), has_aux=True))(variables) for m in (plain, remat)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *results)
    assert jax.eval_shape(functools.partial(decode, remat), variables, images, codes).shape == (B, S, K)


def test_bfloat16_compute_keeps_float32_parameters_and_logits(golden):
    images, codes, published, variables = golden
    model = Tiny(dtype=jnp.bfloat16)
    assert {x.dtype for x in jax.tree.leaves(abstract_params(model))} == {jnp.dtype(jnp.float32)}
    logits = compiled(model)(variables, images, codes)
    assert logits.dtype == jnp.float32
    assert 0 < np.abs(logits - published).max() < 0.1  # logits reach 3
    cache = jax.eval_shape(lambda: model.apply(variables, images, method="init_cache"))
    assert [[(x.shape, x.dtype) for x in layer] for layer in cache] == LAYERS * [
        [((B, length, 4, D // 4), jnp.bfloat16) for length in (S, S, 16, 16)]
    ]
    assert jax.eval_shape(functools.partial(decode, model), variables, images, codes).dtype == jnp.float32


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"num_heads": 5}, "num_heads is 5"),
        ({"patch_size": 7}, "image_size is 32, but must be a multiple of 7"),
        ({"patch_size": 64}, "image_size is 32, but must be a multiple of 64"),
    ],
)
def test_bad_arguments_are_refused(fields, message):
    images, codes = jnp.zeros((2, 32, 32, 3)), jnp.zeros((2, 4), jnp.int32)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: Tiny(**fields).init(jax.random.key(0), images, codes))
