"""A feature network at work: features of images, and the references of a data source, made once and kept on disk."""

import logging
from collections.abc import Iterable, Sequence

import jax
import numpy as np

from fsq_repro.data.cache import cache_dir
from fsq_repro.data.pipeline import eval_batches
from fsq_repro.data.sources import Source
from fsq_repro.evaluation.frechet import Moments
from fsq_repro.evaluation.images import to_uint8, to_unit_float
from fsq_repro.evaluation.reconstruction import reference_moments
from fsq_repro.files import atomic_path
from fsq_repro.models.feature_networks import load_feature_network

log = logging.getLogger(__name__)


class Scorer:
    """One feature network on images of one resolution.

    Attributes:
      name: of the network.
      protocol: what a record says of the network.
    """

    def __init__(self, network: str, *, resolution: int, batch_size: int):
        """ValueError or FileNotFoundError where there is no such network, or no weights of it."""
        self._network = load_feature_network(network)
        self._apply = jax.jit(self._network.apply)
        self._params = jax.device_put(self._network.params)
        self._resolution, self._batch_size = resolution, batch_size
        self.name = network
        self.protocol = {
            "feature_network": network,
            "feature_file_sha256": self._network.file_hash,
            "resize": self._network.resize,
        }

    def __call__(self, images_BxHxWx3: np.ndarray) -> np.ndarray:
        """Features float32 (B, D) of float images in [0, 1]."""
        return np.asarray(self._apply(self._params, images_BxHxWx3))

    def features(self, images_NxHxWx3: np.ndarray) -> np.ndarray:
        """Features float32 (N, D) of uint8 images, any number of them, in batches of one shape."""
        parts = []
        for start in range(0, len(images_NxHxWx3), self._batch_size):
            part = images_NxHxWx3[start : start + self._batch_size]
            padding = [(0, self._batch_size - len(part)), (0, 0), (0, 0), (0, 0)]
            parts.append(self(to_unit_float(np.pad(part, padding)))[: len(part)])
        return np.concatenate(parts)

    def moments(self, images_NxHxWx3: np.ndarray) -> Moments:
        """Moments of the features of uint8 images."""
        moments = Moments()
        moments.update(self.features(images_NxHxWx3))
        return moments

    def reference_moments(self, source: Source) -> Moments:
        """Moments of all images of a split."""
        file = cache_dir() / "reference_moments" / f"{self._key(source)}.npz"
        if file.exists():
            return Moments.load(file)
        log.info("features of %d images of %s/%s by %s", len(source), source.name, source.split, self.name)
        moments = reference_moments({self.name: self}, self._batches(source), expected_count=len(source))[self.name]
        moments.save(file)
        return moments

    def reference_features(self, source: Source, count: int) -> np.ndarray:
        """Features float32 (count, D) of images spread evenly over a split (all of them, if it has fewer)."""
        count = min(count, len(source))
        file = cache_dir() / "reference_features" / f"{self._key(source)}-{count}.npy"
        if file.exists():
            return np.load(file)
        log.info("features of %d images of %s/%s by %s", count, source.name, source.split, self.name)
        chosen = Chosen(source, [i * len(source) // count for i in range(count)])
        features = np.concatenate(
            [self(to_unit_float(to_uint8(batch["image"])))[batch["mask"]] for batch in self._batches(chosen)]
        )
        with atomic_path(file) as temporary, open(temporary, "wb") as f:
            np.save(f, features)
        return features

    def _key(self, source: Source) -> str:
        file_hash = self._network.file_hash[:12]
        return f"{self.name}-{file_hash}-{source.fingerprint}-{source.split}-{self._resolution}"

    def _batches(self, source: Source) -> Iterable[dict]:
        return eval_batches(source, batch_size=self._batch_size, resolution=self._resolution)


class Chosen:
    """Some items of a source."""

    def __init__(self, source: Source, indices: Sequence[int]):
        self.name = source.name
        self._source, self._indices = source, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return self._source[self._indices[index]]
