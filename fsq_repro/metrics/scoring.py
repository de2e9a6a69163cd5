"""A feature network and its references: those of a data source are made once and kept on disk."""

import hashlib
import logging
import pathlib
import zipfile
import zlib
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from fsq_repro.data.cache import cache_dir
from fsq_repro.data.choice import SEED, some_items
from fsq_repro.data.sources import Source
from fsq_repro.files import atomic_path
from fsq_repro.metrics.class_agreement import PENALTY, ClassProbe
from fsq_repro.metrics.feature_extraction import load_extractor, measure
from fsq_repro.metrics.feature_statistics import POOL, SPATIAL, FeatureStatistics
from fsq_repro.metrics.frechet import Moments
from fsq_repro.metrics.image_sets import NpzImages, SourceImages
from fsq_repro.metrics.reference_statistics import ReferenceStatistics, read_reference

log = logging.getLogger(__name__)

T = TypeVar("T")


class Scorer:
    """One feature network on images of one resolution.

    Attributes:
      name: of the network.
      protocol: what a record says of the network.
    """

    def __init__(
        self, network: str, *, resolution: int, batch_size: int, weights: str = "", resize: str | None = None
    ) -> None:
        """ValueError or FileNotFoundError where there is no such network, or no weights of it."""
        self._extractor = load_extractor(network, path=weights, resize=resize, batch_size=batch_size)
        self._resolution = resolution
        self.name = network
        self.protocol = self._extractor.protocol

    def outputs(self, images_NxHxWx3: np.ndarray) -> dict[str, np.ndarray]:
        """uint8 images, any number of them -> float32 `pool` (N, D); of Inception `spatial` and `logits` too."""
        return self._extractor(images_NxHxWx3)

    def features(self, images_NxHxWx3: np.ndarray) -> np.ndarray:
        """The `pool` features of uint8 images."""
        return self.outputs(images_NxHxWx3)[POOL]

    def reference_moments(self, source: Source, kind: str = POOL) -> Moments:
        """Moments of all images of a split."""
        folder, key = cache_dir() / "reference_moments", self._key(source)
        files = {POOL: folder / f"{key}.npz", SPATIAL: folder / f"{key}-spatial.npz"}
        if (kept := _kept(files[kind], Moments.load)) is not None:
            return kept
        statistics = self._measure(source)
        if statistics.spatial is not None:
            statistics.spatial.save(files[SPATIAL])
        statistics.pool.save(files[POOL])
        return Moments.load(files[kind])

    def reference_file(self, path: str) -> ReferenceStatistics | None:
        """Statistics in a reference file; None where they are of another network.

        ValueError where the file cannot be used, or says that its features were made in another way.
        """
        reference = read_reference(path)
        theirs = reference.protocol
        if len(reference.pool.mean) != self._extractor.dim or theirs.get("feature_network", self.name) != self.name:
            return None
        for field, ours in self.protocol.items():
            if theirs.get(field, ours) != ours:
                raise ValueError(f"{path} has {field} {theirs[field]!r}, but must have {ours!r}")
        return reference

    def reference_features(self, source: Source, count: int) -> np.ndarray:
        """Features float32 (count, D) of some images of a split (all of them, if it has fewer), see `some_items`."""
        chosen = some_items(source, count)
        file = cache_dir() / "reference_features" / f"{self._key(source)}-{len(chosen)}-permuted{SEED}.npy"
        if (kept := _kept(file, np.load)) is not None:
            return kept
        features = self._measure(chosen, keep_features=True).features_NxD
        with atomic_path(file) as temporary, open(temporary, "wb") as f:
            np.save(f, features)
        return features

    def class_probe(self, source: Source, count: int) -> ClassProbe:
        """A classifier on the features of `count` images of a split (all, if it has fewer) and their labels."""
        chosen = some_items(source, count)
        file = cache_dir() / "class_probes" / f"{self._key(source)}-{len(chosen)}-permuted{SEED}-penalty{PENALTY:g}.npz"
        if (kept := _kept(file, ClassProbe.load)) is not None:
            return kept
        labels_N = np.array([chosen[i]["label"] for i in range(len(chosen))], np.int64)
        features_NxD = self._measure(chosen, keep_features=True).features_NxD
        probe = ClassProbe.fit(features_NxD, labels_N, penalty=PENALTY)
        probe.save(file)
        return probe

    def image_features(self, path: str) -> np.ndarray:
        """Features float32 (N, D) of the images in an .npz file, `arr_0`."""
        return measure(NpzImages(path), self._extractor, keep_features=True)[0].features_NxD

    def _measure(self, source: Source, *, keep_features: bool = False) -> FeatureStatistics:
        log.info("features of %d images of %s by %s", len(source), source.name, self.name)
        return measure(SourceImages(source, self._resolution), self._extractor, keep_features=keep_features)[0]

    def _key(self, source: Source) -> str:
        network = hashlib.sha256(repr(sorted(self.protocol.items())).encode()).hexdigest()[:12]
        return f"{self.name}-{network}-{source.fingerprint}-{source.split}-{self._resolution}"


def _kept(file: pathlib.Path, load: Callable[[pathlib.Path], T]) -> T | None:
    """What a file of the cache holds; None where there is no file, or a damaged one, which is to be made again."""
    try:
        return load(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, EOFError, LookupError, SyntaxError, zipfile.BadZipFile, zlib.error):
        log.warning("%s is damaged and made again", file)
        return None
