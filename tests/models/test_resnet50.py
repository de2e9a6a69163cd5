"""ResNet-50 from torchvision's state dict: the whole network against float64 NumPy, and the weight file's errors."""

import jax
import numpy as np
import pytest

from fsq_repro.models import resnet50
from tests.models.numpy_networks import convolve, max_pool


@pytest.fixture(scope="module")
def state():
    """Random weights under torchvision's names, scaled so that activations neither vanish nor explode."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name, shape in resnet50.expected_shapes().items():
        x = rng.standard_normal(shape, dtype=np.float32)
        if len(shape) == 4:
            arrays[name] = x * np.float32(np.sqrt(1 / np.prod(shape[1:])))
        else:
            arrays[name] = 1 + 0.1 * np.abs(x) if name.endswith("running_var") else 0.1 * x + name.endswith("weight")
    return arrays


def oracle(state, x):
    """torchvision.models.resnet50 (v1.5) up to layer4, batch norm not folded."""

    def conv_bn(x, conv, norm, stride=1):
        kernel = state[f"{conv}.weight"].transpose(2, 3, 1, 0)
        y = convolve(x, kernel, stride, kernel.shape[0] // 2)
        gamma, beta, mean, var = (state[f"{norm}.{f}"] for f in ("weight", "bias", "running_mean", "running_var"))
        return (y - mean) / np.sqrt(var + 1e-5) * gamma + beta

    x = max_pool(np.maximum(conv_bn(x, "conv1", "bn1", 2), 0), 3, pad=1)
    for layer, (blocks, stride) in enumerate([(3, 1), (4, 2), (6, 2), (3, 2)], start=1):
        for i in range(blocks):
            name, s = f"layer{layer}.{i}", stride if i == 0 else 1
            y = np.maximum(conv_bn(x, f"{name}.conv1", f"{name}.bn1"), 0)
            y = np.maximum(conv_bn(y, f"{name}.conv2", f"{name}.bn2", s), 0)
            y = conv_bn(y, f"{name}.conv3", f"{name}.bn3")
            skip = conv_bn(x, f"{name}.downsample.0", f"{name}.downsample.1", s) if i == 0 else x
            x = np.maximum(y + skip, 0)
    return x


def test_features_equal_a_float64_oracle(state):
    image = np.random.default_rng(1).random((1, 224, 224, 3)).astype(np.float32)
    features = jax.jit(resnet50.resnet50_features)(resnet50.fold_batch_norm(state), image)
    expected = oracle(state, (image - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225])
    assert features.shape == (1, 7, 7, 2048)
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4 * expected.max())


def test_distance_is_the_mean_squared_error_of_the_features_and_takes_any_size(monkeypatch):
    monkeypatch.setattr(resnet50, "resnet50_features", lambda params, images: images * params)
    x, y = np.zeros((2, 4, 4, 3), np.float32), np.full((2, 4, 4, 3), 0.5, np.float32)
    np.testing.assert_allclose(resnet50.resnet50_distance(2.0, x, y), [1.0, 1.0])


@pytest.mark.parametrize("side", [32, 256])
def test_images_are_resized_to_224(side):
    params = jax.eval_shape(
        lambda: resnet50.fold_batch_norm({k: np.ones(v) for k, v in resnet50.expected_shapes().items()})
    )
    x = jax.ShapeDtypeStruct((3, side, side, 3), np.float32)
    assert jax.eval_shape(resnet50.resnet50_features, params, x).shape == (3, 7, 7, 2048)


def test_parameter_count_is_torchvisions_without_the_classifier():
    trained = {k: v for k, v in resnet50.expected_shapes().items() if "running" not in k}
    assert sum(int(np.prod(shape)) for shape in trained.values()) == 25_557_032 - (2048 * 1000 + 1000)


def test_weight_file_round_trip(tmp_path):
    shapes = resnet50.expected_shapes()
    arrays = {k: np.zeros(v, np.float32) for k, v in shapes.items()}
    arrays["conv1.weight"] += np.random.default_rng(0).standard_normal(shapes["conv1.weight"]).astype(np.float32)
    arrays |= {"bn1.weight": np.full(64, 3.0), "bn1.running_var": np.full(64, 4.0), "bn1.running_mean": np.ones(64)}
    np.savez_compressed(tmp_path / "resnet50.npz", **arrays, **{"fc.bias": np.zeros(1000)})
    params, file_hash = resnet50.load_resnet50(str(tmp_path / "resnet50.npz"))
    np.testing.assert_allclose(params["conv1"]["kernel"], arrays["conv1.weight"].transpose(2, 3, 1, 0) * 1.5, rtol=1e-5)
    np.testing.assert_allclose(params["conv1"]["bias"], -1.5, rtol=1e-5)
    assert len(file_hash) == 64


def test_a_missing_foreign_or_incomplete_file_ends_in_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no ResNet-50 weight file at ''"):
        resnet50.load_resnet50("")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(ValueError, match="text.npz cannot be read as an .npz file: File is not a zip file"):
        resnet50.load_resnet50(str(tmp_path / "text.npz"))
    np.savez(tmp_path / "other.npz", **{"conv1.weight": np.zeros((64, 3, 7, 7))})
    content = bytearray((tmp_path / "other.npz").read_bytes())
    content[content.rindex(b"PK\x01\x02") + 6] = 99  # a later version of zip
    (tmp_path / "late.npz").write_bytes(content)
    with pytest.raises(ValueError, match="late.npz cannot be read as an .npz file: zip file version 9.9"):
        resnet50.load_resnet50(str(tmp_path / "late.npz"))
    with pytest.raises(ValueError, match=r"lacks 264 of 265 arrays: bn1.bias, bn1.running_mean"):
        resnet50.load_resnet50(str(tmp_path / "other.npz"))


def test_an_array_of_another_shape_or_type_is_named(tmp_path):
    arrays = {k: np.zeros(v, np.float16) for k, v in resnet50.expected_shapes().items()}
    np.savez_compressed(tmp_path / "wide.npz", **(arrays | {"bn1.bias": np.zeros(128)}))
    with pytest.raises(ValueError, match=r"bn1.bias in .* has shape \(128,\), but ResNet-50 needs \(64,\)"):
        resnet50.load_resnet50(str(tmp_path / "wide.npz"))
    np.savez_compressed(tmp_path / "words.npz", **(arrays | {"bn1.bias": np.full(64, "many")}))
    with pytest.raises(ValueError, match=r"bn1.bias in .* is <U4, but ResNet-50 needs floats"):
        resnet50.load_resnet50(str(tmp_path / "words.npz"))
