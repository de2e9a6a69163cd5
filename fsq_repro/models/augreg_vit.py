"""AugReg's ImageNet-21k ViTs (arXiv:2106.10270) as the start of UViM's stage-II encoder, from their `.npz` files.

UViM starts from big_vision's `howto-i21k-L/16`, which is the file
`L_16-i21k-300ep-lr_0.001-aug_strong1-wd_0.1-do_0.0-sd_0.0.npz` of `gs://vit_models/augreg`. What big_vision does to
load it (`models/vit.py` and `models/proj/uvim/vtt.py`) is done here.
"""

import math
import os
import pathlib
import re
import zipfile
from typing import Any

import numpy as np
import scipy.ndimage
from flax.traverse_util import flatten_dict, unflatten_dict

from fsq_repro.models.npz_files import npz_names, open_npz, read_array

POSITIONS = "Transformer/posembed_input/pos_embedding"
# The files number a block's modules in one sequence, Linen numbers each kind on its own.
FILE_MODULES = {
    "LayerNorm_1": "LayerNorm_2",
    "MlpBlock_0": "MlpBlock_3",
    "MultiHeadDotProductAttention_0": "MultiHeadDotProductAttention_1",
}


def file_name(parameter: str) -> str:
    """The array's name in the file, of a parameter of `CodePredictor` that its encoder is made of."""
    first, *rest = parameter.split("/")
    if first == "pos_embedding_encoder":
        return POSITIONS
    root = {"EmbedPatches": "embedding", "encoder": "Transformer"}[first]
    return "/".join([root, *(FILE_MODULES.get(part, part) for part in rest)])


def resample_positions(positions_1xNxD: np.ndarray, num_patches: int) -> np.ndarray:
    """Position embeddings of a class token and a square grid -> those of a square grid of `num_patches` patches.

    Bilinear, with the corners of both grids on each other, as big_vision; the class token's is dropped. Float32
    (1, num_patches, D).

    Raises ValueError where one of the grids is not square.
    """
    _, N, D = positions_1xNxD.shape
    old, new = math.isqrt(N - 1), math.isqrt(num_patches)
    if old**2 != N - 1 or new**2 != num_patches or not old:
        raise ValueError(
            f"position embeddings have the shape {positions_1xNxD.shape} and are wanted for {num_patches} patches, but "
            "there must be a class token and a square grid in the file and a square grid in the model."
        )
    grid = positions_1xNxD[0, 1:].reshape(old, old, D).astype(np.float32)
    if old != new:
        # With big_vision's mode, scipy's default "constant", rounding zeroes the last row of some grids (26 from 8).
        grid = scipy.ndimage.zoom(grid, (new / old, new / old, 1), order=1, mode="nearest")
    return grid.reshape(1, num_patches, D)


def load_augreg_vit(path: str | os.PathLike, params: Any) -> dict[str, Any]:
    """Reads the encoder of `CodePredictor` from an AugReg ViT's file.

    Args:
      path: the `.npz` file; its class token and head are not used.
      params: the model's parameters, or their shapes as `jax.eval_shape` gives them.

    Returns float32 NumPy arrays {"EmbedPatches", "encoder", "pos_embedding_encoder"}; `params | load_augreg_vit(...)`
    is the model that starts from the file.

    Raises ValueError: there is no such file, it is no `.npz`, or it holds a ViT of another depth, width, number of
    heads or patch size.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"There is no AugReg file {path}; it must be the path of a ViT's .npz.")
    encoder = {name: params[name] for name in ("EmbedPatches", "encoder", "pos_embedding_encoder")}
    with open_npz(path) as archive:
        names = npz_names(archive)
        found = {match[1] for name in names if (match := re.match(r"Transformer/encoderblock_(\d+)/", name))}
        depth = sum(name.startswith("encoderblock_") for name in params["encoder"])
        if len(found) != depth:
            raise ValueError(
                f"{path} holds a ViT of {len(found)} encoder blocks, but the model's num_layers is {depth}."
            )
        wanted = flatten_dict(encoder, sep="/").items()
        return unflatten_dict({name: _read(path, archive, file_name(name), x.shape) for name, x in wanted}, sep="/")


def _read(path: pathlib.Path, archive: zipfile.ZipFile, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array as float32 of this shape, to which position embeddings are resampled."""
    if name not in npz_names(archive):
        raise ValueError(f"{path} has no array {name}, which must be there for the model's {shape}.")
    x, positions = read_array(archive, path, name), name == POSITIONS
    if x.ndim != len(shape) or (x.shape[-1] != shape[-1] if positions else x.shape != shape):
        wanted = f"(1, positions, {shape[-1]})" if positions else shape
        raise ValueError(f"{path} has {name} of the shape {x.shape}, but the model needs {wanted}.")
    if x.dtype.kind != "f":
        raise ValueError(f"{path} has {name} as {x.dtype}, but the model needs floats.")
    return resample_positions(x, shape[1]) if positions else x.astype(np.float32)
