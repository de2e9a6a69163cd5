"""What a training pipeline costs on one core: CPU time of reading, of augmentation and of what the task prepares.

CPU time, not wall time: it holds for one core however many threads work, and waiting for a disk is not in it.
"""

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from ml_collections import ConfigDict

from fsq_repro.data.pipeline import Batch
from fsq_repro.data.sources import Source
from fsq_repro.errors import UserError
from fsq_repro.experiments.registry import kind_of
from fsq_repro.runtime.run_dir import changed

BATCH_SIZE = 32  # the cost of an image hardly depends on it, the memory of the batches read ahead does


class Stopwatch:
    """Calls a function and keeps the CPU seconds of each call, whichever thread makes it."""

    def __init__(self, function: Callable[[Any], Any]):
        self._function = function
        self.seconds: list[float] = []

    def __call__(self, argument: Any) -> Any:
        started = time.thread_time()
        result = self._function(argument)
        self.seconds.append(time.thread_time() - started)
        return result


class TimedSource:
    """A source whose items are read, and decoded, by a stopwatch; else the same."""

    def __init__(self, source: Source):
        self._source = source
        self.stopwatch = Stopwatch(source.__getitem__)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict:
        return self.stopwatch(index)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


@dataclasses.dataclass(frozen=True)
class Cost:
    """CPU seconds an image."""

    read: float  # and decode
    augment: float  # crop, resize, mirror, and make float batches
    prepare: float  # what the task makes of a batch; 0 where it makes nothing

    @property
    def images_per_second(self) -> float:
        """Of the whole pipeline on one core."""
        return 1 / (self.read + self.augment + self.prepare)

    def workers(self, images_per_second: float) -> int:
        """Worker processes, one core each, that keep up with steps that take so many images a second."""
        return max(1, math.ceil(images_per_second / self.images_per_second))


def measure(
    iterator: Iterator[Batch], reading: Stopwatch, preparing: Stopwatch | None, *, batch_size: int, batches: int
) -> Cost:
    """Draws at least `batches` batches, after two that warm the pipeline up, and shares the process' CPU time out.

    `iterator` is over a pipeline without worker processes. `reading` times the reads of single items, `preparing` the
    task's work on whole batches of `batch_size`; None where there is none.
    """

    def state() -> tuple[float, int, float, int, float]:
        prepared = preparing.seconds if preparing else []
        return time.process_time(), len(reading.seconds), sum(reading.seconds), len(prepared), sum(prepared)

    for _ in range(2):
        next(iterator)
    before, drawn = state(), 0
    # Batches made ahead cost nothing now: some must be read, and prepared, while the clock runs.
    while drawn < batches or state()[1] == before[1] or (preparing and state()[3] == before[3]):
        next(iterator)
        drawn += 1
    cpu, reads, read, prepares, prepare = (b - a for a, b in zip(before, state(), strict=True))
    # Batches in the making when the clock starts and stops: each stage is divided by what itself has finished.
    read, prepare = read / reads, prepare / (prepares * batch_size) if prepares else 0.0
    return Cost(read, max(0.0, cpu / reads - read - prepare), prepare)


def measure_pipeline(config: ConfigDict, batches: int) -> Cost:
    """CPU time of the config's training pipeline, of its own data set; UserError if training reads no images."""
    kind, devices = kind_of(config), jax.device_count()
    if kind.trains_on_tokens(config):
        raise UserError(
            "data.crop = 'none' makes stage II train on tokens, which are made once and need no workers; give the "
            "config of stage I"
        )
    config = changed(config, {"data.num_workers": 0, "batch_size": devices * -(-BATCH_SIZE // devices)})
    source, task, preparing = TimedSource(kind.build_source(config, "train")), kind.build_task(config), None
    if task is not None:
        task, preparing = copy.copy(task), Stopwatch(task.prepare)
        object.__setattr__(task, "prepare", preparing)  # tasks are frozen
    iterator = kind.train_iterator(config, task, source)
    return measure(iterator, source.stopwatch, preparing, batch_size=config.batch_size, batches=batches)
