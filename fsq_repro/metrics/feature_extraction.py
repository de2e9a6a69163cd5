"""A feature network at work on byte images and on whole sets of them."""

import hashlib
import logging

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from fsq_repro.data.images import to_unit_float
from fsq_repro.metrics.feature_statistics import LOGITS, POOL, SPATIAL, FeatureStatistics
from fsq_repro.metrics.image_sets import ImageSet
from fsq_repro.metrics.resize import clean_resize
from fsq_repro.models.feature_networks import FeatureNetwork, load_feature_network
from fsq_repro.models.inception import SIDE, InceptionNetwork, InceptionOutputs
from fsq_repro.progress import track

log = logging.getLogger(__name__)


class FeatureExtractor:
    """Features of byte images, in batches of one shape that are split over this process's devices.

    `batch_size` is rounded up to a multiple of their number. Attributes also `dim`, the features per image, and
    `protocol`, what a record says of the network.
    """

    def __init__(self, network: FeatureNetwork | InceptionNetwork, *, batch_size: int, clean: bool = False) -> None:
        """With `clean`, `clean_resize` brings images to the network's size, so that its own resize does nothing."""
        devices = jax.local_devices()
        self.batch_size = -(-batch_size // len(devices)) * len(devices)
        self.dim = network.dim
        resize = network.resize
        if clean:
            resize = f"clean: Pillow's bicubic to {SIDE} px on float channels (antialiased), (x - 128) / 128"
        self.protocol = dict(feature_network=network.name, feature_file_sha256=network.file_hash, resize=resize)
        mesh = jax.sharding.Mesh(np.array(devices), ("data",))
        self._sharding = NamedSharding(mesh, PartitionSpec("data"))
        self._params = jax.device_put(network.params, NamedSharding(mesh, PartitionSpec()))
        self._apply = jax.jit(network.apply)
        self._clean = clean

    def __call__(self, images_NxHxWx3: np.ndarray) -> dict[str, np.ndarray]:
        """uint8 images, any number of them -> float32 `pool` (N, D); of Inception `spatial` and `logits` too."""
        starts = range(0, len(images_NxHxWx3), self.batch_size)
        parts = [self._of_batch(images_NxHxWx3[start : start + self.batch_size]) for start in starts]
        return {kind: np.concatenate([part[kind] for part in parts]) for kind in parts[0]}

    def _of_batch(self, images_BxHxWx3: np.ndarray) -> dict[str, np.ndarray]:
        count = len(images_BxHxWx3)
        images = np.pad(images_BxHxWx3, [(0, self.batch_size - count), (0, 0), (0, 0), (0, 0)])
        images = clean_resize(images, SIDE) / np.float32(255) if self._clean else to_unit_float(images)
        outputs = jax.device_get(self._apply(self._params, jax.device_put(images, self._sharding)))
        named = {POOL: outputs}
        if isinstance(outputs, InceptionOutputs):
            named = {POOL: outputs.pool_3, SPATIAL: outputs.spatial, LOGITS: outputs.logits}
        return {kind: x[:count] for kind, x in named.items()}


def load_extractor(name: str, *, path: str = "", resize: str | None = None, batch_size: int) -> FeatureExtractor:
    """A feature network by name.

    Args:
      name: "inception", "efficientnet", "alexnet" or "vgg16".
      path: the weight file, of Inception only.
      resize: of Inception only: "adm" (also where None), "pytorch-fid" or "clean".

    Raises ValueError for other names, a path or resize where none belongs, a missing path or a file that does not fit;
    FileNotFoundError where it is not there.
    """
    if name == "inception" and not path:
        raise ValueError("the feature network inception needs its weight file (pytorch-fid's .pth), its path is empty.")
    if name != "inception" and resize is not None:
        raise ValueError(f"the feature network {name} has a resize of its own, resize must be left out, got {resize}.")
    clean = resize == "clean"
    network = load_feature_network(name, path, "adm" if resize is None or clean else resize)
    return FeatureExtractor(network, batch_size=batch_size, clean=clean)


def measure(
    images: ImageSet, extractor: FeatureExtractor, *, keep_features: bool = False
) -> tuple[FeatureStatistics, str]:
    """One pass over a set gives its statistics and the SHA-256 of the RGB bytes of all images in order.

    The hash is the same for a folder and an .npz of the same images. Images that are not RGB are told of in one line of
    the log. Raises ValueError for an image that cannot be read, features that are not finite, or a set that gave
    another number of images than it has.
    """
    if images.converted:
        kinds = ", ".join(f"{count} {kind}" for kind, count in images.converted.items())
        log.warning("%s: images that are not RGB are made so, transparency is laid on white: %s", images.name, kinds)
    statistics, digest = FeatureStatistics(keep_features=keep_features), hashlib.sha256()
    batches = images.batches(extractor.batch_size)
    for batch in track(batches, f"features of {images.name}", -(-len(images) // extractor.batch_size)):
        digest.update(np.ascontiguousarray(batch).data)
        statistics.update(extractor(batch))
    if statistics.pool.count != len(images):
        raise ValueError(f"{images.name} gave {statistics.pool.count} images, it has {len(images)}.")
    return statistics, digest.hexdigest()
