"""What the tests of tasks share: batches as the pipeline gives them, and sources made of lists."""

import dataclasses

import numpy as np

from fsq_repro.tasks.colorization import ColorizationTask
from fsq_repro.tasks.depth import DepthTask
from fsq_repro.tasks.panoptic import PanopticTask
from tests.tiny import DenseNoiseSource

BINS = 8
DEPTH, COLORIZATION, PANOPTIC = DepthTask(BINS), ColorizationTask(), PanopticTask(4, 6)
TASKS = [DEPTH, COLORIZATION, PANOPTIC]
SIZES = [(16, 24), (24, 8), (8, 8), (8, 16)]  # multiples of the model's 8 x 8


def batch(size: int = 4) -> dict[str, np.ndarray]:
    """A batch as the pipeline gives it."""
    source = DenseNoiseSource()
    items = [source[i] for i in range(size)]
    stacked = {name: np.stack([item[name] for item in items]) for name in items[0]}
    return stacked | {"image": stacked["image"].astype(np.float32) / 255}


def random_outputs(task, size: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: 3 * rng.standard_normal((size, 16, 16, K)).astype(np.float32) for name, K in task.labels}


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    chosen = np.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return np.log(np.exp(logits).sum(-1)) - chosen


@dataclasses.dataclass
class Items:
    """A source made of a list."""

    items: list[dict]
    name: str = "made_up"
    num_semantics: int = 4
    things: tuple[int, ...] = (1, 2)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def enlarged(map_8x8, size):
    return np.kron(map_8x8, np.ones((size[0] // 8, size[1] // 8), map_8x8.dtype))


def image(rng, size=(8, 8)):
    return rng.integers(0, 256, (*size, 3), dtype=np.uint8)
