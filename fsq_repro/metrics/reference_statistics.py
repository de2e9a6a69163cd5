"""Reference statistics in the .npz files of the published suites, theirs and ours.

- ADM suite (openai/guided-diffusion, `VIRTUAL_imagenet256_labeled.npz`): `mu`, `sigma` of pool_3, `mu_s`, `sigma_s` of
  the spatial features (sFID), and images `arr_0` uint8 (N, H, W, 3) for precision and recall.
- pytorch-fid, clean-fid and the original FID code: `mu` and `sigma`.
- Ours: what the ADM suite's have, `count`, and the `protocol` as JSON text; both suites read them as their own.

Published files are taken as they are. They do not say of how many images they are, nor by which network.
"""

import dataclasses
import hashlib
import json
import os
import zipfile
from typing import Any

import numpy as np

from fsq_repro.files import atomic_path, in_one_line
from fsq_repro.metrics.frechet import Moments, Statistics
from fsq_repro.metrics.image_sets import ImageSet
from fsq_repro.models.npz_files import npz_names, open_npz, read_array

MAX_BYTES = 2**30  # of an array; Inception's covariance has 2**25


@dataclasses.dataclass(frozen=True, eq=False)
class ReferenceStatistics:
    """What a reference file says."""

    path: str
    pool: Statistics  # of the features of Frechet distances
    spatial: Statistics | None  # of those of sFID
    has_images: bool  # whether the file has `arr_0` too; `image_sets.NpzImages` reads them
    protocol: dict[str, Any]  # what the file says of how it was made; empty for published files
    file_sha256: str


def holds_statistics(path: str | os.PathLike) -> bool:
    """Whether an .npz file has `mu` or `sigma` and not only images. ValueError if it cannot be read."""
    with open_npz(path) as archive:
        return not {"mu", "sigma"}.isdisjoint(npz_names(archive))


def read_reference(path: str | os.PathLike) -> ReferenceStatistics:
    """Reads a reference file of any of the suites; its images are left in it.

    Raises ValueError for no such file, none of the format, and an array missing, of a wrong shape or not finite.
    """
    with open_npz(path) as archive:
        names = npz_names(archive)
        count = None
        if "count" in names:
            number = _read_array(archive, path, "count")
            if number.shape != () or number.dtype.kind not in "iu" or number < 2:
                raise ValueError(f"count of {path} must be a whole number of at least 2, got {in_one_line(number)}.")
            count = int(number)
        pool = _read_statistics(archive, path, "mu", "sigma", count)
        # The ADM suite reads both or fails; one without the other is a damaged file.
        has_spatial = not {"mu_s", "sigma_s"}.isdisjoint(names)
        spatial = _read_statistics(archive, path, "mu_s", "sigma_s", count) if has_spatial else None
        protocol: Any = {}
        if "protocol" in names:
            text = str(_read_array(archive, path, "protocol"))
            try:
                protocol = json.loads(text)
            except ValueError:
                protocol = None
            if not isinstance(protocol, dict):
                raise ValueError(f"protocol of {path} must be a JSON object, got {text[:60]!r}.")
    with open(path, "rb") as f:
        file_sha256 = hashlib.file_digest(f, "sha256").hexdigest()
    return ReferenceStatistics(str(path), pool, spatial, "arr_0" in names, protocol, file_sha256)


def write_reference(
    path: str | os.PathLike,
    pool: Moments,
    *,
    spatial: Moments | None = None,
    images: ImageSet | None = None,
    protocol: dict[str, Any],
) -> None:
    """Writes a reference file that the ADM suite and pytorch-fid read as their own; it appears complete or not at all.

    Args:
      path: ends in .npz.
      pool, spatial: moments of the same images, at least two.
      images: for precision and recall; the ADM suite's files have 10,000.
      protocol: JSON-serialisable: network, resize, data.
    """
    arrays: dict[str, Any] = {"mu": pool.mean, "sigma": pool.covariance}
    if spatial is not None:
        arrays |= {"mu_s": spatial.mean, "sigma_s": spatial.covariance}
    arrays |= {"count": np.int64(pool.count), "protocol": np.array(json.dumps(protocol))}
    with atomic_path(path) as temporary:
        np.savez(temporary, **arrays)
        if images is not None:  # streamed, which np.savez cannot
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(images), *images.size, 3)}
            with zipfile.ZipFile(temporary, "a") as archive, archive.open("arr_0.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array_header_1_0(stream, header)
                for batch in images.batches(64):
                    stream.write(batch.tobytes())


def _read_array(archive: zipfile.ZipFile, path: str | os.PathLike, name: str) -> np.ndarray:
    if name not in npz_names(archive):
        raise ValueError(f"{path} lacks the array {name}; it holds {in_one_line(', '.join(npz_names(archive)))}.")
    if (size := archive.getinfo(f"{name}.npy").file_size) > MAX_BYTES:
        raise ValueError(f"the array {name} of {path} must have at most {MAX_BYTES:,} bytes, it has {size:,}.")
    return read_array(archive, path, name)


def _read_statistics(
    archive: zipfile.ZipFile, path: str | os.PathLike, mean_name: str, covariance_name: str, count: int | None
) -> Statistics:
    mean_D, covariance_DxD = (_read_array(archive, path, name) for name in (mean_name, covariance_name))
    if mean_D.ndim != 1 or mean_D.size == 0 or covariance_DxD.shape != (len(mean_D), len(mean_D)):
        raise ValueError(
            f"{mean_name} and {covariance_name} of {path} must have shapes (D,) and (D, D), got {mean_D.shape} and "
            f"{covariance_DxD.shape}."
        )
    for name, array in ((mean_name, mean_D), (covariance_name, covariance_DxD)):
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ValueError(f"{name} of {path} must hold finite floats, got {array.dtype} values that are not.")
    mean_D, covariance_DxD = mean_D.astype(np.float64), covariance_DxD.astype(np.float64)
    asymmetry = np.abs(covariance_DxD - covariance_DxD.T).max()
    if asymmetry > 1e-4 * np.abs(covariance_DxD).max() or covariance_DxD.diagonal().min() < 0:
        raise ValueError(
            f"{covariance_name} of {path} must be a covariance: symmetric with a diagonal of at least 0, its halves "
            f"differ by {asymmetry:.3g} and its smallest variance is {covariance_DxD.diagonal().min():.3g}."
        )
    return Statistics(count, mean_D, covariance_DxD)
