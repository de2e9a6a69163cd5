"""Anybody's images for evaluation, as streams of bytes: folders, the ADM suite's .npz files, and our data sources.

Every set is checked when it is opened, before a feature is computed: at least two images, all of one size. Nothing is
resized here but for data sources. Other kinds of pixels become RGB as everywhere, see `data.image_reader`: transparency
is laid on white and the EXIF orientation applied, where the published suites (pytorch-fid, clean-fid) drop both.
"""

import abc
import concurrent.futures
import contextlib
import math
import os
import pathlib
from collections import Counter
from collections.abc import Iterator
from typing import IO

import numpy as np

from fsq_repro.data.image_folder import check_images, image_names
from fsq_repro.data.image_reader import MAX_PIXELS, on_white, read_image
from fsq_repro.data.images import to_uint8
from fsq_repro.data.pipeline import eval_batches
from fsq_repro.data.sources import Source
from fsq_repro.files import in_one_line, printable
from fsq_repro.models.npz_files import npz_names, open_array, open_npz


class ImageSet(abc.ABC):
    """Images of one `size` (height, width in pixels) in an order that never changes; `name` is as the user gave it.

    `converted` counts the images that are no RGB, by kind; `unreadable` the files that are left out.
    """

    def __init__(
        self, name: str, count: int, size: tuple[int, int], converted: dict[str, int], unreadable: int = 0
    ) -> None:
        self.name, self.size, self.converted, self.unreadable = name, size, converted, unreadable
        self._count = count

    def __len__(self) -> int:
        return self._count

    @abc.abstractmethod
    def batches(self, batch_size: int) -> Iterator[np.ndarray]:
        """All images in order: uint8 (batch_size, H, W, 3), the last may be shorter; ValueError for a broken image."""


class FolderImages(ImageSet):
    """The readable images anywhere below a folder, in the order of their names."""

    def __init__(self, path: str | os.PathLike) -> None:
        """Checks every image, see `data.image_folder`; ValueError for fewer than two readable ones, or mixed sizes."""
        root, name = pathlib.Path(path), printable(path)
        checked = check_images(root, image_names(root))
        good = {name: verdict for name, verdict in checked.items() if verdict.unreadable is None}
        _check_count(f"the folder {name}", len(good))
        self._files = [root / file for file in good]
        (first, first_size), *others = ((file, verdict.size or (0, 0)) for file, verdict in good.items())
        for file, size in others:
            if size != first_size:
                raise ValueError(
                    f"the folder {name} must hold images of one size, {printable(root / first)} has {first_size[0]} x "
                    f"{first_size[1]} pixels and {printable(root / file)} {size[0]} x {size[1]}."
                )
        kinds = Counter(kind for verdict in good.values() if (kind := verdict.kind or "RGB") != "RGB")
        super().__init__(name, len(good), first_size, dict(kinds), len(checked) - len(good))

    def batches(self, batch_size: int) -> Iterator[np.ndarray]:
        """As `ImageSet.batches`; the next batch is decoded by threads while the last one is in use."""
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            coming = pool.map(read_image, self._files[:batch_size])
            for start in range(batch_size, len(self._files) + batch_size, batch_size):
                ready, coming = coming, pool.map(read_image, self._files[start : start + batch_size])
                images = list(ready)
                if any(image.shape != (*self.size, 3) for image in images):
                    raise ValueError(f"the folder {self.name} changed while it was read.")
                yield np.stack(images)


class NpzImages(ImageSet):
    """`arr_0` of an .npz file, uint8 (N, H, W, C); read in parts, never as a whole."""

    def __init__(self, path: str | os.PathLike) -> None:
        """Reads the array's header; ValueError for no such file, another array, or fewer than two images."""
        with _images_array(path) as (shape, fortran_order, dtype, _):
            if dtype != np.uint8 or len(shape) != 4 or shape[-1] not in (1, 3, 4) or fortran_order:
                order = " in Fortran order" if fortran_order else ""
                raise ValueError(
                    f"arr_0 of {path} must be uint8 (N, H, W, C) in C order with 1, 3 or 4 channels, got "
                    f"{dtype} {shape}{order}."
                )
        _check_count(printable(path), shape[0])
        if math.prod(shape[1:3]) > MAX_PIXELS:
            raise ValueError(
                f"images in {printable(path)} must have at most {MAX_PIXELS:,} pixels, they have {shape[1:3]}."
            )
        self._path, self._shape = path, shape
        converted = {} if shape[-1] == 3 else {"grey" if shape[-1] == 1 else "RGBA": shape[0]}
        super().__init__(printable(path), shape[0], shape[1:3], converted)

    def batches(self, batch_size: int) -> Iterator[np.ndarray]:
        count, height, width, channels = self._shape
        with _images_array(self._path) as (*_, stream):
            for start in range(0, count, batch_size):
                shape = (min(batch_size, count - start), height, width, channels)
                content = stream.read(math.prod(shape))
                if len(content) != math.prod(shape):
                    raise ValueError(f"{self.name} cannot be read as an .npz file: arr_0 ends before its last image.")
                images = np.frombuffer(content, np.uint8).reshape(shape)
                yield images.repeat(3, axis=-1) if channels == 1 else on_white(images) if channels == 4 else images


class SourceImages(ImageSet):
    """All images of a data source, brought to one resolution by the ADM suite's crop (`transforms.adm_resize`)."""

    def __init__(self, source: Source, resolution: int) -> None:
        """Raises ValueError for fewer than two images."""
        _check_count(f"the data source {printable(source.name)}", len(source))
        unreadable = getattr(source, "num_unreadable", 0)  # of all splits of a folder
        super().__init__(printable(source.name), len(source), (resolution, resolution), {}, unreadable)
        self._source = source

    def batches(self, batch_size: int) -> Iterator[np.ndarray]:
        for batch in eval_batches(self._source, batch_size=batch_size, resolution=self.size[0]):
            yield to_uint8(batch["image"])[batch["mask"]]


@contextlib.contextmanager
def _images_array(path: str | os.PathLike) -> Iterator[tuple[tuple[int, ...], bool, np.dtype, IO[bytes]]]:
    """Shape, whether in Fortran order, dtype, and the stream of the values of `arr_0`."""
    with open_npz(path) as archive:
        names = npz_names(archive)
        if "arr_0" not in names:
            found = in_one_line(", ".join(names) or "no array")
            raise ValueError(
                f"{printable(path)} must hold images (arr_0) or statistics (mu and sigma), it holds {found}."
            )
        with open_array(archive, path, "arr_0") as array:
            yield array


def _check_count(name: str | os.PathLike, count: int) -> None:
    if count < 2:
        raise ValueError(f"{name} must hold at least two images, it holds {count or 'none'}.")
