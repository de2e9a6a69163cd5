"""ImageNet ResNet-50 up to its last feature map, the perceptual network named by MaskGIT's VQGAN config.

MaskGIT compares images by "a pretrained image model" with `perceptual_loss_on_logit = False`: mean-squared error of the
7x7x2048 map before pooling, of images resized bilinearly to 224 px. Its weights are not published; here they come from
torchvision, whose network this is (v1.5: the stride sits in the 3x3 convolution). Batch norm runs on its stored
statistics and is folded into the convolutions. One line makes the weight file, where torchvision is installed:

    numpy.savez("resnet50.npz", **torchvision.models.resnet50(weights="IMAGENET1K_V1").state_dict())
"""

import hashlib
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from fsq_repro.models.conv_stacks import convolve
from fsq_repro.models.feature_networks import normalize_imagenet, resize_antialiased
from fsq_repro.models.npz_files import npz_names, open_npz, read_array

BLOCKS = (3, 4, 6, 3)  # bottlenecks in each of the four stages
IMAGE_SIDE = 224
BATCH_NORM_EPS = 1e-5


def _conv_shapes() -> dict[str, tuple[tuple[int, ...], str]]:
    """{convolution: (its (out, in, side, side) shape, its batch norm)} by torchvision's state-dict names."""
    shapes = {"conv1": ((64, 3, 7, 7), "bn1")}
    channels = 64
    for stage, count in enumerate(BLOCKS):
        width = 64 * 2**stage
        for i in range(count):
            block = f"layer{stage + 1}.{i}"
            shapes[f"{block}.conv1"] = ((width, channels, 1, 1), f"{block}.bn1")
            shapes[f"{block}.conv2"] = ((width, width, 3, 3), f"{block}.bn2")
            shapes[f"{block}.conv3"] = ((4 * width, width, 1, 1), f"{block}.bn3")
            if i == 0:
                shapes[f"{block}.downsample.0"] = ((4 * width, channels, 1, 1), f"{block}.downsample.1")
            channels = 4 * width
    return shapes


CONV_SHAPES = _conv_shapes()
NORM_FIELDS = ("weight", "bias", "running_mean", "running_var")


def expected_shapes() -> dict[str, tuple[int, ...]]:
    """{state-dict name: shape} of everything that is read; the classifier (`fc.*`) is not."""
    shapes = {}
    for conv, (shape, norm) in CONV_SHAPES.items():
        shapes[f"{conv}.weight"] = shape
        shapes |= {f"{norm}.{field}": shape[:1] for field in NORM_FIELDS}
    return shapes


def fold_batch_norm(state: dict[str, np.ndarray]) -> dict[str, dict[str, Array]]:
    """State dict -> {convolution: {"kernel" (side, side, in, out), "bias" (out,)}}, float32."""
    params = {}
    for conv, (_, norm) in CONV_SHAPES.items():
        gamma, beta, mean, variance = (state[f"{norm}.{field}"].astype(np.float64) for field in NORM_FIELDS)
        scale = gamma / np.sqrt(variance + BATCH_NORM_EPS)
        folded = {"kernel": state[f"{conv}.weight"].transpose(2, 3, 1, 0) * scale, "bias": beta - mean * scale}
        params[conv] = {name: jnp.asarray(x, jnp.float32) for name, x in folded.items()}
    return params


def load_resnet50(path: str) -> tuple[dict[str, dict[str, Array]], str]:
    """Reads an .npz file with torchvision's names; returns (params, SHA-256 of the file).

    Raises FileNotFoundError where there is no file, ValueError where it is not an .npz file or lacks an array.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"There is no ResNet-50 weight file at {path!r}; see fsq_repro/models/resnet50.py.")
    shapes = expected_shapes()
    with open_npz(file) as archive:
        if missing := sorted(shapes.keys() - set(npz_names(archive))):
            raise ValueError(
                f"The ResNet-50 weight file {path!r} lacks {len(missing)} of {len(shapes)} arrays: "
                f"{', '.join(missing[:4])}{' ...' if len(missing) > 4 else ''}."
            )
        state = {name: read_array(archive, file, name) for name in shapes}
    for name, shape in shapes.items():
        if state[name].shape != shape:
            raise ValueError(f"{name} in {path!r} has shape {state[name].shape}, but ResNet-50 needs {shape}.")
        if state[name].dtype.kind != "f":
            raise ValueError(f"{name} in {path!r} is {state[name].dtype}, but ResNet-50 needs floats.")
    return fold_batch_norm(state), hashlib.sha256(file.read_bytes()).hexdigest()


def _conv(params: Any, x: Array, stride: int = 1) -> Array:
    """Convolution with torchvision's symmetric padding and its folded batch norm."""
    return convolve(x, params, stride, params["kernel"].shape[0] // 2)


def bottleneck(params: Any, block: str, x: Array, stride: int) -> Array:
    """One residual block, e.g. "layer2.0": (B, H, W, C) -> (B, H/stride, W/stride, 4 * width)."""
    y = jax.nn.relu(_conv(params[f"{block}.conv1"], x))
    y = jax.nn.relu(_conv(params[f"{block}.conv2"], y, stride))
    y = _conv(params[f"{block}.conv3"], y)
    skip = _conv(params[f"{block}.downsample.0"], x, stride) if f"{block}.downsample.0" in params else x
    return jax.nn.relu(y + skip)


def resnet50_features(params: Any, images: Array) -> Array:
    """Float32 images (B, H, W, 3) in [0, 1] -> the feature map before pooling, (B, 7, 7, 2048)."""
    x = normalize_imagenet(resize_antialiased(images, IMAGE_SIDE, "bilinear"))
    x = jax.nn.relu(_conv(params["conv1"], x, stride=2))
    x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
    for stage, count in enumerate(BLOCKS):
        for i in range(count):
            x = bottleneck(params, f"layer{stage + 1}.{i}", x, stride=2 if stage > 0 and i == 0 else 1)
    return x


def resnet50_distance(params: Any, x: Array, y: Array) -> Array:
    """Mean-squared error between the feature maps of each pair of images (B, H, W, 3) in [0, 1] -> (B,)."""
    return jnp.mean(jnp.square(resnet50_features(params, x) - resnet50_features(params, y)), axis=(1, 2, 3))
