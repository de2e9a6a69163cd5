"""Two sets of images, or the reference files of such sets, compared: the metrics and the protocol that they hold under.

The order is that of the ADM suite's evaluator: reference first, samples second. Frechet distances do not depend on it;
precision and recall, the Inception score and the number in a distance's name do.
"""

import os
from collections.abc import Iterable
from typing import Any

from fsq_repro.metrics.feature_extraction import FeatureExtractor, measure
from fsq_repro.metrics.feature_statistics import FeatureStatistics
from fsq_repro.metrics.frechet import frechet_distance
from fsq_repro.metrics.image_sets import FolderImages, ImageSet, NpzImages
from fsq_repro.metrics.precision_recall import precision_recall
from fsq_repro.metrics.reference_statistics import ReferenceStatistics, holds_statistics, read_reference
from fsq_repro.models.inception import PUBLISHED_SHA256

Side = ImageSet | ReferenceStatistics


def open_side(path: str | os.PathLike) -> Side:
    """A folder of images, an .npz of images, or a reference file; ValueError where it is none of them or damaged."""
    if os.path.isdir(path):
        return FolderImages(path)
    return read_reference(path) if holds_statistics(path) else NpzImages(path)


def compare(
    reference: Side, samples: Side, extractor: FeatureExtractor | None, *, with_precision_recall: bool = False
) -> dict[str, Any]:
    """Metrics of two sets.

    Args:
      reference, samples: as `open_side` gives them.
      extractor: makes the features; None for two reference files.
      with_precision_recall: also precision and recall (k = 3), which need images on both sides.

    Returns:
      name, value: the Frechet distance, named by `distance_name` after the number of samples.
      figures: {name: value} of it and, of Inception, of sFID where both sides have spatial features and of the
        samples' Inception score; precision and recall.
      reference, samples: what each set is: `path`, `count` behind the distance (None where a file does not say); of
        images that were looked at `images` (their number), `size` in pixels, `converted`, `unreadable` (files that
        were left out) and `pixels_sha256`; of a reference file `file_sha256` and its own `protocol`.
      protocol: feature network, its file's hash and the resize, as far as they are known.

    Raises ValueError for images without an extractor, a reference file of another network, precision and recall without
    images, or an image that cannot be read.
    """
    sides = {"reference": reference, "samples": samples}
    protocol = _common_protocol(sides.values(), extractor)
    images = {}  # what must be looked at
    for role, side in sides.items():
        if not isinstance(side, ReferenceStatistics):
            images[role] = side
        elif with_precision_recall:
            if not side.has_images:
                raise ValueError(f"precision and recall need images (arr_0) in {side.path}, it has none.")
            images[role] = NpzImages(side.path)
    measured = {}
    for role, x in images.items():
        if extractor is None:
            raise ValueError("a feature network must be named to compare images, only reference files go without.")
        measured[role] = measure(x, extractor, keep_features=with_precision_recall)
    a, b = (side if isinstance(side, ReferenceStatistics) else measured[role][0] for role, side in sides.items())
    name, value = distance_name(protocol, b.pool.count), frechet_distance(a.pool, b.pool)
    figures = {name: value}
    if a.spatial is not None and b.spatial is not None:
        figures[distance_name(protocol, b.pool.count, spatial=True)] = frechet_distance(a.spatial, b.spatial)
    if isinstance(b, FeatureStatistics) and b.score is not None:
        figures |= b.score.compute()
    if with_precision_recall:
        pair = precision_recall(*(measured[role][0].features_NxD for role in sides))
        figures |= dict(zip(("precision", "recall"), pair, strict=True))
    described: dict[str, dict[str, Any]] = {}
    for role, side in sides.items():
        if isinstance(side, ReferenceStatistics):
            file = dict(file_sha256=side.file_sha256, protocol=side.protocol)
            described[role] = dict(path=side.path, count=side.pool.count) | file
        else:
            described[role] = dict(path=side.name, count=len(side))
        if role in images:
            x, (_, sha256) = images[role], measured[role]
            described[role] |= dict(images=len(x), size=list(x.size), converted=x.converted, unreadable=x.unreadable)
            described[role] |= dict(pixels_sha256=sha256)
    return {"name": name, "value": value, "figures": figures, **described, "protocol": protocol}


def distance_name(protocol: dict[str, Any], count: int | None, *, spatial: bool = False) -> str:
    """What a Frechet distance may be called: FID-50k of 50,000 samples, FID-n of n, FID where n is not known.

    FID is of Inception with the published weights, clean-FID of these and the resize `clean`; others are
    FD-<network>, which cannot be compared with published FID. Of spatial features it is sFID.
    """
    s = "s" if spatial else ""
    network = protocol.get("feature_network")
    if network == "inception" and protocol.get("feature_file_sha256") == PUBLISHED_SHA256:
        name = f"clean-{s}FID" if protocol.get("resize", "").startswith("clean") else f"{s}FID"
    else:
        name = f"{s}FD-{network}" if network else f"{s}FD"
    if count is None:
        return name
    return f"{name}-{count // 1000}k" if count % 1000 == 0 else f"{name}-{count}"


def _common_protocol(sides: Iterable[Side], extractor: FeatureExtractor | None) -> dict[str, Any]:
    """Network, file hash and resize, of which no two parts may say different things."""
    parts = [] if extractor is None else [("the feature network", extractor.protocol, extractor.dim)]
    parts += [(s.path, s.protocol, len(s.pool.mean)) for s in sides if isinstance(s, ReferenceStatistics)]
    common: dict[str, Any] = {}
    for path, protocol, width in parts:
        for field in ("feature_network", "feature_file_sha256", "resize"):
            if field in protocol and common.setdefault(field, protocol[field]) != protocol[field]:
                raise ValueError(f"{path} is of {field} {protocol[field]!r}, but must be of {common[field]!r}.")
        if width != parts[0][2]:
            raise ValueError(f"{path} has features of width {width}, but must have {parts[0][2]} as {parts[0][0]}.")
    return common
