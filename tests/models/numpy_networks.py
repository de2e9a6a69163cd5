"""The tests' oracles: float64 NumPy convolutions and pools, and with them torchvision's AlexNet and VGG16."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

# Convolutions as (stride, padding), "pool" as max pooling of the network's side and stride 2, in torchvision's order.
ALEXNET = ((4, 2), "pool", (1, 2), "pool", (1, 1), (1, 1), (1, 1))
VGG16 = tuple("pool" if c == "M" else (1, 1) for c in "CCMCCMCCCMCCCMCCC")
LAYERS = {"alexnet": ALEXNET, "vgg16": VGG16}
POOL_SIDES = {"alexnet": 3, "vgg16": 2}
TAPS = {"alexnet": (0, 1, 2, 3, 4), "vgg16": (1, 3, 6, 9, 12)}


def convolve(x_BxHxWxC, kernel, stride, pad):
    """Cross-correlation with zero padding, as deep learning calls convolution."""
    x = np.pad(x_BxHxWxC, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = sliding_window_view(x, kernel.shape[:2], axis=(1, 2))[:, ::stride, ::stride]  # (B, H', W', C, side, side)
    return np.tensordot(windows, kernel.astype(np.float64), axes=((3, 4, 5), (2, 0, 1)))


def max_pool(x_BxHxWxC, side, pad=0):
    x = np.pad(x_BxHxWxC, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=-np.inf)
    return sliding_window_view(x, (side, side), axis=(1, 2))[:, ::2, ::2].max(axis=(-2, -1))


def taps(network, convolutions, x):
    """Feature maps after ReLU that LPIPS reads, from normalised images."""
    x, maps = x.astype(np.float64), []
    weights = iter(convolutions)
    for layer in LAYERS[network]:
        if layer == "pool":
            x = max_pool(x, POOL_SIDES[network])
        else:
            w = next(weights)
            x = np.maximum(convolve(x, np.asarray(w["kernel"]), *layer) + np.asarray(w["bias"], np.float64), 0)
            maps.append(x)
    return [maps[i] for i in TAPS[network]]
