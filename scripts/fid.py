"""Frechet distance of anybody's images: folders, .npz files of images and reference files, in any combination.

    python scripts/fid.py REFERENCE SAMPLES --features=inception --weights=pt_inception-2015-12-05-6726825d.pth
    python scripts/fid.py VIRTUAL_imagenet256_labeled.npz samples.npz --features=inception --weights=... \
        --precision_recall --json
    python scripts/fid.py my_pictures my_samples --features=alexnet

Prints the distance, of Inception also sFID and the samples' Inception score, the number of images on both sides, and
the protocol. A distance is called FID-50k of 50,000 samples only, and FID of Inception with its published weights only.
Folders are searched with their sub-folders; .npz files hold `arr_0` uint8 (N, H, W, 3) as those of the ADM suite;
reference files hold `mu` and `sigma` (ADM suite, pytorch-fid, `reference_stats.py`). Which of the two is the reference
matters to all metrics but the distances; a reference file is, unless both are.
"""

import json
import sys
import warnings
from typing import Any

from absl import flags

from fsq_repro.errors import UserError, explained
from fsq_repro.metrics.feature_extraction import load_extractor
from fsq_repro.metrics.reference_statistics import ReferenceStatistics
from fsq_repro.metrics.set_comparison import compare, open_side
from fsq_repro.metrics.table import FEATURE_NETWORKS
from fsq_repro.runtime import cli, startup

flags.DEFINE_enum("features", None, FEATURE_NETWORKS, "Network; needless for two reference files.")
flags.DEFINE_string("weights", "", "Inception's weight file, pytorch-fid's .pth.")
flags.DEFINE_enum("resize", None, ("adm", "pytorch-fid", "clean"), "Of Inception; adm by default.")
flags.DEFINE_boolean("precision_recall", False, "Also precision and recall (k = 3); images on both sides.")
flags.DEFINE_integer("batch_size", 64, "Images at a time.", lower_bound=1)
flags.DEFINE_boolean("json", False, "Print one JSON object.")
FLAGS = flags.FLAGS


def main(paths: list[str]) -> None:
    startup.start()
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    if len(paths) != 2:
        raise UserError(f"{len(paths)} sets are given, but two are compared; name a reference and samples")
    with explained():
        reference, samples = (open_side(path) for path in paths)
        if isinstance(samples, ReferenceStatistics) and not isinstance(reference, ReferenceStatistics):
            reference, samples = samples, reference
        extractor = None
        if FLAGS.features:
            extractor = load_extractor(
                FLAGS.features, path=FLAGS.weights, resize=FLAGS.resize, batch_size=FLAGS.batch_size
            )
        result = compare(reference, samples, extractor, with_precision_recall=FLAGS.precision_recall)
    result["protocol"] |= {"versions": startup.versions(), "revision": startup.git_revision()}
    print(json.dumps(result, indent=1) if FLAGS.json else text(result))


def text(result: dict[str, Any]) -> str:
    """Metrics, counts and protocol, one per line."""
    lines = [f"{name:20s} {value:.6f}" for name, value in result["figures"].items()]
    for role in ("reference", "samples"):
        side = result[role]
        count = "an unknown number of" if side["count"] is None else f"{side['count']:,}"
        size = f" of {side['size'][0]} x {side['size'][1]} pixels" if "size" in side else ""
        size += f", {side['unreadable']} unreadable files left out" if side.get("unreadable") else ""
        digest = side.get("pixels_sha256") or side["file_sha256"]
        lines.append(f"{role:20s} {side['path']}: {count} images{size}, SHA-256 {digest}")
    for field, value in result["protocol"].items():
        value = " ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        lines.append(f"{field:20s} {value}")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main, arguments=True)
