"""UViM's stage I against the published module's outputs, names and parameter counts, and its code dropout."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from fsq_repro.models import label_autoencoder
from fsq_repro.models.label_autoencoder import LabelAutoencoder, kept_codes, patchify, resize_grid, unpatchify
from fsq_repro.models.vit_layers import Encoder, PatchEmbed
from fsq_repro.quantizers import FSQ, EmaVectorQuantizer, fsq
from tests.conftest import ROOT, golden_weights, load_golden

SMALL = {
    "resolution": 32,
    "patch_size": 8,
    "code_grid": 2,
    "width": 32,
    "encoder_depth": 1,
    "decoder_depth": 2,
    "num_heads": 4,
    "mlp_width": 64,
}
GOLDEN_MODEL = LabelAutoencoder(EmaVectorQuantizer(16, 32), (("depth", 8),), code_dropout=False, **SMALL)
TASKS = {
    "depth": (("depth", 256),),
    "color": (("color", 3),),
    "panoptic": (("semantics", 134), ("instances", 100)),
}
TINY = {**SMALL, "width": 8, "decoder_depth": 1, "num_heads": 2, "mlp_width": 8}
TINY_LABELS = (("semantics", 3), ("instances", 2))


@pytest.fixture(scope="module")
def golden():
    arrays, weights = load_golden("uvim_stage1")
    state = {"dictionary": arrays["dictionary_sums"], "counts": arrays["counts"]}
    one_hot = np.eye(8, dtype=np.float32)[arrays["labels"]].swapaxes(2, 3)  # (3, 16, 8, 64) as published
    labels = {"depth": unpatchify(jnp.asarray(one_hot), (4, 4))}
    variables = {"params": unflatten_dict(weights, sep="/"), "quantizer": {"quantizer": state}}
    return arrays, variables, labels


def shapes(variables, prefix=""):
    return {prefix + k: v.shape for k, v in flatten_dict(variables, sep="/").items()}


def init(model, batch=1):
    """Zero labels and context, and variables for a model."""
    side = (batch, model.resolution, model.resolution)
    labels = {name: jnp.zeros((*side, channels)) for name, channels in model.labels}
    rngs = {"params": jax.random.key(0), "quantizer": jax.random.key(1)}
    return model.init(rngs, labels, jnp.zeros((*side, 3)), train=False)


@functools.cache
def abstract_init(model):
    return jax.eval_shape(functools.partial(init, model))


def num_params(model):
    return sum(x.size for x in jax.tree.leaves(abstract_init(model)["params"]))


def test_a_training_step_equals_the_published_one(golden):
    arrays, variables, labels = golden
    assert shapes(abstract_init(GOLDEN_MODEL)) == shapes(variables)

    @jax.jit
    def step(variables, labels, context):
        z = GOLDEN_MODEL.apply(variables, labels, context, method="encode")
        rngs = {"quantizer": jax.random.key(0)}
        outputs, state = GOLDEN_MODEL.apply(variables, labels, context, train=True, mutable="quantizer", rngs=rngs)
        return z, *outputs, state["quantizer"]["quantizer"]

    z, logits, quantized, state = step(variables, labels, arrays["context"])
    expected = {
        "bottleneck": jax.nn.standardize(z, axis=-1),
        "quantized": quantized.codes,
        "logits": patchify(logits["depth"], 8),
        "dictionary_sums_after_step": state["dictionary"],
        "counts_after_step": state["counts"],
    }
    np.testing.assert_array_equal(quantized.indices, arrays["code"])
    for name, ours in expected.items():
        scale = np.abs(arrays[name]).max()
        np.testing.assert_allclose(ours, arrays[name], rtol=1e-4, atol=1e-4 * scale, err_msg=name)


@pytest.mark.parametrize("task, count", [("depth", 232_249_600), ("color", 132_701_184), ("panoptic", 223_593_984)])
def test_published_names_shapes_and_counts(task, count):
    with open(ROOT / "tests" / "golden" / "published_trees.json") as f:
        published = {k: tuple(v) for k, v in json.load(f)[f"uvim_{task}_stage1"].items()}
    model = LabelAutoencoder(EmaVectorQuantizer(4096, 768), TASKS[task])
    ours = abstract_init(model)
    assert shapes(ours["params"], "params/") | shapes(ours["quantizer"]["quantizer"], "state/") == published
    assert num_params(model) == count


def test_counts_without_context_and_with_fsq():
    """From the published counts: a patch embedding less for each context, and d instead of 768 channels of a code."""
    depth, colour, width, d = 232_249_600, 132_701_184, 768, 5
    both_contexts = 2 * (16 * 16 * 3 * width + width)
    assert both_contexts == 1_181_184
    vq = EmaVectorQuantizer(4096, width)
    off = {"encoder_context": False, "decoder_context": False}
    assert num_params(LabelAutoencoder(vq, TASKS["depth"], **off)) == depth - both_contexts
    head_and_stem_vq = (width * width + width) + (width * width + width)
    head_and_stem_fsq = (width * d + d) + (d * width + width)
    assert head_and_stem_fsq == 8_453
    count = colour - head_and_stem_vq + head_and_stem_fsq
    assert num_params(LabelAutoencoder(FSQ((7, 5, 5, 5, 5)), TASKS["color"])) == count
    count = colour - head_and_stem_vq + head_and_stem_fsq - both_contexts // 2
    assert num_params(LabelAutoencoder(FSQ((7, 5, 5, 5, 5)), TASKS["color"], encoder_context=False)) == count


def test_patches_are_in_raster_order_and_unpatchify_inverts():
    x = jnp.arange(2 * 4 * 6 * 3.0).reshape(2, 4, 6, 3)
    patches = patchify(x, 2)
    assert patches.shape == (2, 6, 3, 4)
    # Patch 4 is the second of the second row: rows 2..3, columns 2..3.
    np.testing.assert_array_equal(patches[1, 4, 2], np.asarray(x)[1, 2:4, 2:4, 2].ravel())
    np.testing.assert_array_equal(unpatchify(patches, (2, 3)), x)


def test_patch_embedding_is_the_strided_convolution():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 8, 12, 3))
    params = {"kernel": rng.normal(size=(4, 4, 3, 5)), "bias": rng.normal(size=5)}
    tokens = PatchEmbed(5, 4).apply({"params": jax.tree.map(jnp.float32, params)}, jnp.asarray(x, jnp.float32))
    patches = x.reshape(2, 2, 4, 3, 4, 3)  # B y i x j C: pixel (i, j) of patch (y, x)
    expected = np.einsum("byixjc,ijcd->byxd", patches, params["kernel"])
    np.testing.assert_allclose(tokens, expected.reshape(2, 6, 5) + params["bias"], atol=1e-5)


def test_remat_changes_neither_names_nor_gradients():
    plain, remat = Encoder(2, 2, 4), Encoder(2, 2, 4, remat=True)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 3, 4)), jnp.float32)
    tree = jax.eval_shape(plain.init, jax.random.key(0), x)["params"]
    assert shapes(tree) == shapes(jax.eval_shape(remat.init, jax.random.key(0), x)["params"])
    params = unflatten_dict(golden_weights(shapes(tree)), sep="/")
    gradient = jax.grad(lambda params, encoder: jnp.sum(encoder.apply({"params": params}, x) ** 3))
    ours, expected = jax.jit(lambda params: (gradient(params, remat), gradient(params, plain)))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, expected)
    assert "remat" in str(jax.make_jaxpr(lambda params: gradient(params, remat))(params))


def test_resize_is_linear_along_rows_and_columns():
    rows, columns = np.mgrid[:4, :4].astype(np.float32)
    x = jnp.asarray(np.stack([rows, columns], -1).reshape(1, 16, 2))
    ramp = np.asarray(resize_grid(x, 8)).reshape(8, 8, 2)
    np.testing.assert_allclose(ramp[3, :, 1], np.clip((np.arange(8) + 0.5) / 2 - 0.5, 0, 3), atol=1e-6)
    np.testing.assert_allclose(ramp[:, 3, 0], ramp[3, :, 1], atol=1e-6)
    # Down: the antialiased triangle over 4 neighbours, weights 1 3 3 1, normalised at the border.
    impulse = resize_grid(jnp.zeros((1, 16, 1)).at[0, 5].set(1.0), 2)
    np.testing.assert_allclose(np.asarray(impulse)[0, :, 0] * 49, [9, 3, 3, 1], rtol=1e-5)


def test_code_dropout_keeps_any_number_of_codes_at_random_positions():
    B, S = 20_000, 4
    kept = np.asarray(jax.jit(kept_codes, static_argnums=(1, 2))(jax.random.key(0), B, S))
    counts = np.bincount(kept.sum(1), minlength=S + 1)
    np.testing.assert_allclose(counts / B, 1 / (S + 1), atol=0.015)
    pairs = kept[kept.sum(1) == 2] @ (1 << np.arange(S))
    frequencies = np.bincount(pairs, minlength=16)[[3, 5, 6, 9, 10, 12]] / len(pairs)
    np.testing.assert_allclose(frequencies, 1 / 6, atol=0.03)


def test_heads_start_at_zero():
    model = LabelAutoencoder(FSQ((5, 3)), TINY_LABELS, **TINY)
    heads = jax.jit(lambda: {k: v for k, v in init(model)["params"].items() if k.startswith("head_")})()
    assert len(heads) == 2 and not any(np.any(x) for x in jax.tree.leaves(heads))


@pytest.fixture(scope="module")
def tiny():
    """A model with FSQ, weights none of which are zero, and random inputs."""
    model = LabelAutoencoder(FSQ((5, 3)), TINY_LABELS, **TINY)
    params = unflatten_dict(golden_weights(shapes(abstract_init(model)["params"])), sep="/")
    rng = np.random.default_rng(0)
    labels = {name: rng.normal(size=(3, 32, 32, channels)).astype(np.float32) for name, channels in TINY_LABELS}
    return model, {"params": params}, labels, rng.uniform(-1, 1, (3, 32, 32, 3)).astype(np.float32)


def test_dropped_codes_are_zero_vectors_in_training_only(tiny, monkeypatch):
    model, variables, _, context = tiny
    codes = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)
    mask = np.array([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]], bool)
    monkeypatch.setattr(label_autoencoder, "kept_codes", lambda key, batch, length: jnp.asarray(mask))

    @jax.jit
    def run(codes, key):
        def decode(model, codes, train):
            return model.apply(variables, codes, context, train=train, method="decode", rngs={"dropout": key})

        masked = codes * mask[:, :, None]
        no_dropout = model.clone(code_dropout=False)
        return (
            decode(model, codes, True),
            decode(model, masked, False),
            decode(model, codes, False),
            decode(no_dropout, codes, True),
        )

    dropped, zeroed, evaluated, kept = run(codes, jax.random.key(0))
    for name, channels in TINY_LABELS:
        assert dropped[name].shape == (3, 32, 32, channels)
        np.testing.assert_allclose(dropped[name], zeroed[name], atol=1e-6)
        np.testing.assert_allclose(kept[name], evaluated[name], atol=1e-6)
        assert np.abs(evaluated[name] - zeroed[name])[:2].max() > 1e-3


def test_fsq_gets_the_encoders_output_as_it_is_and_passes_the_gradient(tiny):
    model, variables, labels, context = tiny

    def loss(params):
        z = model.apply({"params": params}, labels, context, method="encode")
        logits, quantized = model.apply({"params": params}, labels, context, train=False)
        return sum(jnp.sum(x**2) for x in logits.values()), (quantized, *fsq.quantize(z, (5, 3)))

    gradients, (quantized, codes, indices) = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    np.testing.assert_array_equal(quantized.indices, indices)
    np.testing.assert_array_equal(quantized.codes, codes)
    for name in ("embedding_semantics", "embedding_instances", "ctx_enc_embedding", "encoder_head", "decoder_stem"):
        assert np.abs(gradients[name]["kernel"]).max() > 0, name


@pytest.mark.parametrize("encoder, decoder", [(True, False), (False, True), (False, False)])
def test_each_context_reaches_only_its_own_part(tiny, encoder, decoder):
    _, variables, labels, context = tiny
    model = LabelAutoencoder(FSQ((5, 3)), TINY_LABELS, encoder_context=encoder, decoder_context=decoder, **TINY)
    unused = {name for name, on in (("ctx_enc_embedding", encoder), ("ctx_dec_embedding", decoder)) if not on}
    assert set(variables["params"]) - set(abstract_init(model)["params"]) == unused

    def sums(context):
        z = model.apply(variables, labels, context if encoder else None, method="encode")
        codes = jnp.ones((3, 4, 2))
        logits = model.apply(variables, codes, context if decoder else None, method="decode")
        return jnp.sum(z), jnp.sum(logits["semantics"])

    gradient_z, gradient_logits = jax.jit(jax.jacrev(sums))(context)
    assert np.any(gradient_z) == encoder and np.any(gradient_logits) == decoder


def test_bfloat16_compute_keeps_float32_parameters_and_logits():
    model = LabelAutoencoder(FSQ((5, 3)), TINY_LABELS, dtype=jnp.bfloat16, **TINY)
    variables = abstract_init(model)
    labels = {name: jax.ShapeDtypeStruct((2, 32, 32, c), jnp.float32) for name, c in TINY_LABELS}
    context = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    apply = functools.partial(model.apply, train=True, rngs={"dropout": jax.random.key(0)})
    logits, quantized = jax.eval_shape(apply, variables, labels, context)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {x.dtype for x in logits.values()} == {jnp.dtype("float32")}
    assert quantized.codes.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    "change, match",
    [
        ({"labels": ()}, r"labels is \(\), but must be pairs"),
        ({"labels": (("a", 2), ("a", 3))}, "each once"),
        ({"labels": (("a", 0),)}, "labels is"),
        ({"resolution": 30}, "resolution is 30, but must be a multiple of patch_size 8"),
        ({"code_grid": 5}, r"code_grid is 5, but must be in 1\.\.4"),
        ({"num_heads": 3}, "num_heads is 3, but must be at least 1 and divide the width of 8"),
    ],
)
def test_bad_sizes(change, match):
    with pytest.raises(ValueError, match=match):
        abstract_init(LabelAutoencoder(**{"quantizer": FSQ((5, 3)), "labels": TINY_LABELS, **TINY, **change}))
