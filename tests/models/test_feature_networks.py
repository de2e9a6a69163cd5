"""AlexNet and VGG16 features against float64 NumPy, and the preparation of images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.models import conv_stacks, efficientnet_lite, feature_networks
from tests.models import numpy_networks

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def alexnet():
    return feature_networks.load_feature_network("alexnet")


def images(side, count=2):
    return np.random.default_rng(0).random((count, side, side, 3)).astype(np.float32)


@pytest.mark.parametrize("name, dim", [("alexnet", 256), ("vgg16", 512)])
def test_features_equal_a_float64_oracle_at_64_px(name, dim, strict_dtypes):
    network, x = feature_networks.load_feature_network(name), images(64, 1)
    features = jax.jit(network.apply)(network.params, x)
    last = numpy_networks.taps(name, network.params["convolutions"], (x - MEAN) / STD)[-1]
    assert features.shape == (1, dim) and network.dim == dim
    np.testing.assert_allclose(features, last.mean(axis=(1, 2)), rtol=1e-4, atol=1e-4 * last.mean())


def test_efficientnet_sees_images_of_64_px():
    network, x = feature_networks.load_feature_network("efficientnet"), images(64)
    features = jax.jit(network.apply)(network.params, x)
    expected = jax.jit(efficientnet_lite.features)(network.params, x)
    assert features.shape == (2, network.dim) == (2, 1280)
    np.testing.assert_allclose(features, expected, rtol=1e-5)
    small = feature_networks.resize_antialiased(jnp.asarray(x), 32, "bicubic")
    again = feature_networks.resize_antialiased(small, 64, "bicubic")
    np.testing.assert_allclose(network.apply(network.params, small), network.apply(network.params, again), rtol=1e-5)


def test_images_of_other_sizes_are_resized_with_antialiasing(alexnet):
    """A checkerboard of single pixels has mean 1/2 in each target pixel: without antialiasing it would not be grey."""
    checkers = np.indices((128, 128)).sum(0).astype(np.float32) % 2
    checkers = np.broadcast_to(checkers[None, :, :, None], (1, 128, 128, 3))
    resized = feature_networks.resize_antialiased(jnp.asarray(checkers), 64, "bicubic")
    assert resized.shape == (1, 64, 64, 3)
    np.testing.assert_allclose(resized[:, 4:-4, 4:-4], 0.5, atol=1e-3)

    small = jnp.asarray(images(32))
    expected = alexnet.apply(alexnet.params, feature_networks.resize_antialiased(small, 64, "bicubic"))
    np.testing.assert_allclose(alexnet.apply(alexnet.params, small), expected, rtol=1e-5, atol=1e-6)


def test_a_network_says_what_a_record_needs(alexnet):
    assert alexnet.name == "alexnet"
    assert len(alexnet.file_hash) == 64
    assert "bicubic to 64 px" in alexnet.resize
    assert "heads" not in alexnet.params


def test_maps_smaller_than_their_kernel_convolve_as_padded_ones_do():
    rng = np.random.default_rng(1)
    x, kernel = rng.standard_normal((2, 2, 1, 5)), rng.standard_normal((3, 3, 5, 4))
    weight = {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.zeros(4)}
    y = conv_stacks.convolve(jnp.asarray(x, jnp.float32), weight, 1, 1, "highest")
    np.testing.assert_allclose(y, numpy_networks.convolve(x, kernel, 1, 1), atol=1e-5)


@pytest.mark.parametrize("name, smallest", [("alexnet", 31), ("vgg16", 16)])
def test_images_too_small_for_the_pools_are_refused(name, smallest):
    weights = jax.eval_shape(lambda: feature_networks.load_feature_network(name).params)["convolutions"]

    def taps(side):
        stack = conv_stacks.STACKS[name]
        return jax.eval_shape(lambda w, x: conv_stacks.conv_taps(stack, w, x), weights, jnp.zeros((1, side, side, 3)))

    assert taps(smallest)[-1].shape[1] == 1
    with pytest.raises(ValueError, match=f"too small: this network needs {smallest} px"):
        taps(smallest - 1)
