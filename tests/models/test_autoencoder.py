"""The autoencoder against the published MaskGIT module's outputs and parameter counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from fsq_repro.models import autoencoder as ae
from fsq_repro.quantizers.base import Quantized
from fsq_repro.quantizers.fsq import FSQ
from fsq_repro.quantizers.vq import VectorQuantizer
from tests.conftest import load_golden


class Identity(nn.Module):
    """Follows the quantizer contract and changes nothing, so that a test sees the autoencoder alone."""

    num_channels: int

    @nn.compact
    def __call__(self, z, *, train):
        return Quantized(z, jnp.zeros(z.shape[:-1], jnp.int32), jnp.zeros(()), {})


TINY = {"filters": 32, "channel_multipliers": (1, 2), "num_res_blocks": 1}


def num_params(variables):
    return sum(x.size for x in jax.tree.leaves(variables["params"]))


def abstract_init(model, size=32):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, size, size, 3)), train=False))


@pytest.fixture(scope="module")
def golden():
    arrays, weights = load_golden("maskgit_autoencoder")
    weights["quantizer/codebook"] *= 8  # as it was measured: codewords as long as the features
    return arrays, {"params": unflatten_dict(weights, sep="/")}


GOLDEN_MODEL = ae.Autoencoder(VectorQuantizer(codebook_size=64, embedding_dim=16), filters=32)


def test_parameter_names_and_shapes_are_the_published_ones(golden):
    ours = flatten_dict(abstract_init(GOLDEN_MODEL)["params"], sep="/")
    published = flatten_dict(golden[1]["params"], sep="/")
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in published.items()}


def test_features_indices_and_reconstruction_equal_the_published_ones(golden):
    arrays, variables = golden

    @jax.jit
    def run(variables, images):
        reconstruction, quantized = GOLDEN_MODEL.apply(variables, images, train=False)
        return GOLDEN_MODEL.apply(variables, images, method="encode"), quantized.indices, reconstruction

    features, indices, reconstruction = run(variables, arrays["image"])
    np.testing.assert_allclose(features, arrays["features"], rtol=1e-4, atol=1e-4 * np.abs(arrays["features"]).max())
    np.testing.assert_array_equal(indices, arrays["indices"])
    expected = arrays["reconstruction"]
    np.testing.assert_allclose(reconstruction, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    "quantizer, count",
    [(VectorQuantizer(codebook_size=1024, embedding_dim=256), 54_515_587), (FSQ((8, 5, 5, 5)), 52_962_951)],
    ids=["vq1024", "fsq4"],
)
def test_parameter_count_at_paper_scale(quantizer, count):
    assert num_params(abstract_init(ae.Autoencoder(quantizer), 256)) == count


def test_space_to_depth_keeps_each_patch_together_and_inverts():
    x = jnp.arange(2 * 4 * 8 * 3.0).reshape(2, 4, 8, 3)
    folded = ae.space_to_depth(x, 4)
    assert folded.shape == (2, 1, 2, 48)
    np.testing.assert_array_equal(folded[1, 0, 1], np.asarray(x[1, 0:4, 4:8]).ravel())
    np.testing.assert_array_equal(ae.depth_to_space(folded, 4), x)


def test_upsample_nearest_equals_numpy_repeat():
    x = np.random.default_rng(0).standard_normal((2, 3, 2, 4)).astype(np.float32)
    np.testing.assert_array_equal(ae.upsample_nearest(x), x.repeat(2, axis=1).repeat(2, axis=2))


@pytest.mark.parametrize("stem_patch, stride", [(1, 2), (4, 8)])
def test_stem_patch_multiplies_the_stride_and_keeps_the_image_size(stem_patch, stride):
    model = ae.Autoencoder(Identity(3), stem_patch=stem_patch, **TINY)
    assert model.stride == stride
    shapes = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), jnp.zeros((2, 16, 24, 3)), train=False)[0]
    )
    assert shapes[0].shape == (2, 16, 24, 3)
    assert shapes[1].codes.shape == (2, 16 // stride, 24 // stride, 3)


def test_shortcut_reads_the_input_only_where_it_is_not_the_published_one():
    """With zero main-branch kernels the published block loses its input; the corrected one passes it on."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 4, 4, 32), dtype=np.float32)
    for faithful in (True, False):
        block = ae.ResBlock(64, faithful_shortcut=faithful)
        shapes = jax.eval_shape(lambda block=block: block.init(jax.random.key(0), x))["params"]
        params = jax.tree.map(lambda s: rng.standard_normal(s.shape, dtype=np.float32), shapes)
        params["Conv_1"]["kernel"][:] = 0
        out = jax.jit(block.apply)({"params": params}, x)
        expected = 0.0 if faithful else x @ params["Conv_2"]["kernel"][0, 0]
        np.testing.assert_allclose(out, np.broadcast_to(expected, out.shape), atol=1e-4)


def test_bfloat16_compute_keeps_float32_parameters_and_images():
    model = ae.Autoencoder(Identity(3), dtype=jnp.bfloat16, **TINY)
    (images, quantized), variables = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=True)
    )
    assert images.dtype == jnp.float32
    assert quantized.codes.dtype == jnp.bfloat16
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize(
    "fields, size, message",
    [
        ({"stem_patch": 4}, 12, "12x12 is not divisible by the autoencoder's stride of 8"),
        ({"filters": 48}, 32, "filters is 48"),
        ({"channel_multipliers": ()}, 32, r"channel_multipliers is \(\)"),
        ({"stem_patch": 0}, 32, "stem_patch 0"),
    ],
)
def test_bad_input_is_refused(fields, size, message):
    with pytest.raises(ValueError, match=message):
        abstract_init(ae.Autoencoder(Identity(3), **{**TINY, **fields}), size)
