"""From a source to batches: grain pipelines for training and one ordered pass for evaluation.

Batches are dicts of numpy arrays: `image` float32 (B, H, W, 3) in [0, 1], `label` int32 (B,) and the dense labels that
the source has: `depth` float32 (B, H, W) in metres, `semantics` and `instances` int32 (B, H, W), `crowd` bool
(B, H, W). Evaluation adds `mask` bool (B,). Names of files are not batched; evaluation is in the source's order.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Literal

import grain
import numpy as np

from fsq_repro.data import transforms
from fsq_repro.data.images import to_unit_float
from fsq_repro.data.position import PlacedIterator
from fsq_repro.data.sources import Source
from fsq_repro.data.tokens import TokenSource

Batch = dict[str, np.ndarray]
Prepare = Callable[[Batch], Batch]

DRAW_BOX = {"random_resized": transforms.draw_crop_box, "inception": transforms.draw_inception_box}


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What happens to a training item.

    Crop `none` brings items to the resolution by the evaluation crop; `random_resized` and `inception` cut a random
    box, see `transforms.draw_crop_box` and `transforms.draw_inception_box`.
    """

    flip: bool = True  # mirror half of the items left to right
    mirror: Callable[[transforms.Item], transforms.Item] = transforms.flip  # labels may change with the side
    crop: Literal["none", "random_resized", "inception"] = "none"
    min_scale: float = 0.8  # smallest area of the box, as a share of the image (MaskBit 0.8; UViM 0.05)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)  # range of its width over its height (UViM 0.75 to 1.33)
    antialias: bool = True  # of the box's resize (UViM: without)

    def __post_init__(self):
        if self.crop != "none" and self.crop not in DRAW_BOX:
            raise ValueError(f"augmentation crop must be 'none', 'random_resized' or 'inception', not {self.crop!r}.")
        if not 0 < self.min_scale <= 1:
            raise ValueError(f"augmentation min_scale must be in (0, 1], not {self.min_scale}.")
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise ValueError(f"augmentation aspect must be a range of positive ratios, not {self.aspect}.")

    def __call__(self, item: transforms.Item, resolution: int, rng: np.random.Generator) -> transforms.Item:
        """Returns the augmented item at (resolution, resolution)."""
        if self.crop == "none":
            item = transforms.center_crop(item, resolution)
        else:
            box = DRAW_BOX[self.crop](rng, *item["image"].shape[:2], self.min_scale, self.aspect)
            item = transforms.resized_crop(item, box, resolution, antialias=self.antialias)
        return self.mirror(item) if self.flip and rng.random() < 0.5 else item


def train_iterator(
    source: Source,
    *,
    batch_size: int,
    resolution: int,
    seed: int,
    augmentation: Augmentation,
    prepare: Prepare | None = None,
    num_workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.DatasetIterator:
    """Returns an endless iterator over shuffled, augmented batches of this process's share of the source.

    Order and augmentation follow from `seed` alone, whatever the number of workers; every epoch is shuffled anew. The
    iterator's position is saved and restored with `get_state` / `set_state` or `grain.checkpoint`, also with another
    number of workers.

    Args:
      source: item i goes to process i mod `process_count`; ValueError where it has fewer items than these.
      batch_size: items a batch on this process.
      resolution: side of the images in pixels.
      prepare: makes of a finished batch what the task learns from, on the host; its errors come out of `next`.
      num_workers: worker processes that decode, one core each; 0 reads with threads of this process, enough for
        embedded data. `scripts/benchmark_data.py` tells how many a config needs.
    """
    if len(source) < process_count:
        raise ValueError(f"data source {source.name!r} has {len(source)} items, too few for {process_count} processes.")
    mine = grain.MapDataset.source(source)[process_index::process_count]

    def augment(item: transforms.Item, rng: np.random.Generator) -> transforms.Item:
        return augmentation(_without_names(item), resolution, rng)

    dataset = _finished(_shuffled(mine, seed, augment, batch_size), prepare)
    # Few threads: small crops are bound by the interpreter, and decoding of large images releases it. A worker is one
    # core, and what it reads ahead are whole batches of its own: with 16 workers, one more each is plenty of memory.
    threads, ahead = (1, 1) if num_workers else (4, 8)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)

    def start_at(position: int) -> grain.DatasetIterator:
        batches = dataset[position:].to_iter_dataset(options)
        return iter(batches.mp_prefetch(grain.MultiprocessingOptions(num_workers)) if num_workers else batches)

    return PlacedIterator(start_at)


def token_iterator(source: TokenSource, *, batch_size: int, seed: int) -> grain.DatasetIterator:
    """Returns an endless iterator over shuffled batches: `tokens` int32 (B, S), `label` int32 (B,).

    Where the source has mirror images, each item is one of the two at random. The source is this process's share (an
    empty one is a ValueError); the position is saved and restored as that of `train_iterator`.
    """
    if not len(source):
        raise ValueError(f"data source {source.name!r} has no item for this process.")

    def choose(item: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
        return item | {"tokens": item["tokens"][rng.integers(len(item["tokens"]))]}

    dataset = _shuffled(grain.MapDataset.source(source), seed, choose, batch_size)
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)))


def token_eval_batches(source: TokenSource, *, batch_size: int) -> Iterator[Batch]:
    """One pass over this process's share, in order and not mirrored: `tokens` (B, S), `label` (B,) and `mask` (B,).

    As in `eval_batches`, all batches are full, masked copies fill them up, and all processes have as many.
    """
    for start in range(0, -(-source.total // source.process_count), batch_size):
        rows = start + np.arange(batch_size)
        wanted = rows.clip(max=len(source) - 1)
        tokens, labels = source.tokens_NxVxS[wanted, 0], source.labels_N[wanted]
        yield {"tokens": tokens, "label": labels, "mask": rows < len(source)}


def _shuffled(dataset: grain.MapDataset, seed: int, random_map: Callable, batch_size: int) -> grain.MapDataset:
    return dataset.seed(seed).shuffle().repeat().random_map(random_map).batch(batch_size, drop_remainder=True)


class eval_batches:  # noqa: N801 - reads as a function
    """One pass over this process's share of a source, in order: iterate it as often as needed; `len` is the batches.

    Every item of the source occurs once over all processes (item i on process i mod `process_count`) with `mask` True.
    The last batches are filled up with masked copies, so that all batches have `batch_size` items and all processes
    the same number of batches.
    """

    def __init__(
        self,
        source: Source,
        *,
        batch_size: int,
        resolution: int,
        transform: Callable[[transforms.Item, int], transforms.Item] = transforms.center_crop,
        prepare: Prepare | None = None,
        process_index: int = 0,
        process_count: int = 1,
    ):
        """Sets the pass up; arguments as of `train_iterator`, and:

        Args:
          transform: brings an item to the resolution: ADM's evaluation crop, or `transforms.plain_resize`.
          prepare: is not given `mask`; a last batch that is not full is prepared before it is filled up.
        """
        self._num_mine = len(range(process_index, len(source), process_count))
        self._num_batches = -(-len(source) // (process_count * batch_size))
        self._batch_size = batch_size
        # A process without a share of a tiny source still needs the shapes: it reads item 0 and masks it.
        mine = slice(process_index, None, process_count) if self._num_mine else slice(0, 1)
        items = grain.MapDataset.source(source)[mine].map(lambda item: transform(_without_names(item), resolution))
        self._dataset = _finished(items.batch(batch_size, drop_remainder=False), prepare)

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[Batch]:
        read = iter(self._dataset.to_iter_dataset(grain.ReadOptions(num_threads=4, prefetch_buffer_size=8)))
        batch = {}
        for i in range(self._num_batches):
            batch = next(read, batch)
            valid = np.arange(self._batch_size) + i * self._batch_size < self._num_mine
            wanted = np.arange(self._batch_size).clip(max=len(next(iter(batch.values()))) - 1)
            yield {**{k: v[wanted] for k, v in batch.items()}, "mask": valid}


def _without_names(item: transforms.Item) -> transforms.Item:
    return {key: value for key, value in item.items() if key != "file_name"}


def _finished(dataset: grain.MapDataset, prepare: Prepare | None) -> grain.MapDataset:
    dataset = dataset.map(lambda batch: batch | {"image": to_unit_float(batch["image"])})
    return dataset if prepare is None else dataset.map(prepare)
