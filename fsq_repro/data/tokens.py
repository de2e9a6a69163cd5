"""Images as the tokens of a stage-I autoencoder: encoded once, kept on disk, read by stage II.

Only for pipelines without a random crop: an image then has two encodings, as it is and mirrored.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from fsq_repro.data import transforms
from fsq_repro.data.cache import cached_arrays
from fsq_repro.data.images import to_unit_float
from fsq_repro.data.sources import Source
from fsq_repro.progress import track

VERSION = 1  # raise when a token changes


@dataclasses.dataclass(frozen=True)
class TokenSource:
    """One process's share of a source: `tokens` int32 (variants, S) and `label` int32 () of each item.

    Attributes:
      name: of the source.
      tokens_NxVxS: variant 0 is the image, 1 its mirror image.
      total: items of all processes.
      process_count: processes that share them.
    """

    name: str
    tokens_NxVxS: np.ndarray
    labels_N: np.ndarray
    total: int
    process_count: int

    def __len__(self) -> int:
        return len(self.labels_N)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {"tokens": self.tokens_NxVxS[index], "label": self.labels_N[index]}


def encode_source(
    source: Source,
    encode: Callable[[np.ndarray], np.ndarray],
    *,
    tokenizer: str,
    num_tokens: int,
    resolution: int,
    mirrored: bool,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
) -> TokenSource:
    """Returns the tokens of this process's share of a source, encoding it if that was never done.

    Args:
      source: images; brought to the resolution, their side in pixels, by ADM's evaluation crop.
      encode: images float32 (batch_size, H, W, 3) in [0, 1] -> indices int32 (batch_size, h, w); always called with
        full batches.
      tokenizer: fingerprint of the autoencoder's weights; part of the cache's key.
      num_tokens: h * w.
      mirrored: also encode the mirror images.
      process_index, process_count: item i belongs to process i mod `process_count`.
    """
    mine = range(process_index, len(source), process_count)
    variants = 2 if mirrored else 1
    key = {
        "version": VERSION,
        "source": [source.name, source.split, source.fingerprint],
        "tokenizer": tokenizer,
        "resolution": resolution,
        "mirrored": mirrored,
        "share": [process_index, process_count],
    }
    specs = {"tokens": ((len(mine), variants, num_tokens), "int32"), "labels": ((len(mine),), "int32")}

    def fill(arrays: dict[str, np.ndarray]) -> None:
        for start in track(range(0, len(mine), batch_size), f"encoding {source.name}, {source.split}"):
            rows = slice(start, min(start + batch_size, len(mine)))
            items = [transforms.center_crop(source[i], resolution) for i in mine[rows]]
            arrays["labels"][rows] = [item["label"] for item in items]
            for v in range(variants):
                images = to_unit_float(np.stack([(transforms.flip(item) if v else item)["image"] for item in items]))
                padding = [(0, batch_size - len(images)), (0, 0), (0, 0), (0, 0)]
                indices = np.asarray(encode(np.pad(images, padding)))[: len(images)]
                arrays["tokens"][rows, v] = indices.reshape(len(images), num_tokens)

    arrays = cached_arrays(f"tokens-{source.name.split(':')[0]}-{source.split}", key, specs, fill)
    return TokenSource(source.name, arrays["tokens"], arrays["labels"], len(source), process_count)
