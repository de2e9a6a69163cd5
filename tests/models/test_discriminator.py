"""The discriminator against the published MaskGIT module's logits, input gradients and parameter counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from fsq_repro.models.discriminator import Discriminator, blur_pool
from tests.conftest import load_golden


def abstract_params(model, size):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, size, size, 3))))["params"]


@pytest.fixture(scope="module")
def golden():
    arrays, weights = load_golden("maskgit_discriminator")
    return arrays, {"params": unflatten_dict(weights, sep="/")}


def test_parameter_names_and_shapes_are_the_published_ones(golden):
    ours = flatten_dict(abstract_params(Discriminator(), 32), sep="/")
    published = flatten_dict(golden[1]["params"], sep="/")
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in published.items()}


def test_logits_and_squared_input_gradients_equal_the_published_ones(golden):
    arrays, variables = golden

    @jax.jit
    def run(variables, images):
        logits, pullback = jax.vjp(lambda x: Discriminator().apply(variables, x), images)
        (gradient,) = pullback(jnp.ones_like(logits))  # no statistics across the batch: each image sees only its logit
        return logits, jnp.sum(gradient**2, axis=(1, 2, 3))

    logits, squared_gradient = run(variables, arrays["image"])
    np.testing.assert_allclose(logits, arrays["logits"], rtol=1e-4, atol=1e-4 * np.abs(arrays["logits"]).max())
    np.testing.assert_allclose(squared_gradient, arrays["squared_input_gradient"], rtol=1e-4)


@pytest.mark.parametrize("size, count", [(128, 23_880_833), (256, 23_998_017)])
def test_parameter_count_at_paper_scale(size, count):
    assert sum(x.size for x in jax.tree.leaves(abstract_params(Discriminator(), size))) == count


def test_blur_pool_equals_a_strided_depthwise_convolution():
    x = np.random.default_rng(0).standard_normal((2, 8, 6, 3))
    kernel = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.stack(
        [
            np.stack([np.einsum("bhwc,hw->bc", padded[:, i : i + 4, j : j + 4], kernel) for j in range(0, 6, 2)], 1)
            for i in range(0, 8, 2)
        ],
        axis=1,
    )
    np.testing.assert_allclose(blur_pool(x.astype(np.float32)), expected, atol=1e-6)


def test_channel_multiplier_scales_every_width():
    shapes = {k: v.shape for k, v in flatten_dict(abstract_params(Discriminator(0.125), 64), sep="/").items()}
    assert shapes["Conv_0/kernel"] == (3, 3, 3, 32)
    assert shapes["ResBlock_0/Conv_2/kernel"] == (3, 3, 32, 64)
    assert shapes["Dense_0/kernel"] == (4 * 4 * 64, 64)


def test_bfloat16_compute_keeps_float32_parameters_and_logits():
    model = Discriminator(0.0625, dtype=jnp.bfloat16)
    logits, variables = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), jnp.zeros((2, 8, 8, 3))))
    assert (logits.shape, logits.dtype) == ((2, 1), jnp.float32)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("shape", [(1, 4, 4, 3), (1, 24, 24, 3), (1, 16, 32, 3), (1, 1024, 1024, 3)])
def test_image_sizes_it_cannot_halve_to_four_are_refused(shape):
    with pytest.raises(ValueError, match=f"Image size {shape[1]}x{shape[2]} does not suit"):
        jax.eval_shape(lambda: Discriminator().init(jax.random.key(0), jnp.zeros(shape)))


def test_a_multiplier_that_leaves_no_channel_is_refused():
    with pytest.raises(ValueError, match="channel_multiplier is 0.001"):
        abstract_params(Discriminator(0.001), 32)
