"""Writes the reference statistics of a data source, as the ADM suite and pytorch-fid read them.

    python scripts/reference_stats.py --data=imagenet2012 --resolution=256 --features=inception \
        --weights=pt_inception-2015-12-05-6726825d.pth --out=imagenet256.npz
    python scripts/reference_stats.py --data=photos --resolution=32 --features=alexnet --out=photos32.npz

The file holds `mu` and `sigma` of all images of the split, of Inception also `mu_s` and `sigma_s` (sFID), `count`,
`protocol` (JSON), and `arr_0`, images of the split, chosen by a permutation, for precision and recall. Images are
brought to the resolution by the ADM suite's crop.
"""

import sys
import warnings

from absl import flags

from fsq_repro.data.choice import CHOICE, some_items
from fsq_repro.data.sources import SPLITS, make_source
from fsq_repro.errors import explained
from fsq_repro.metrics.feature_extraction import load_extractor, measure
from fsq_repro.metrics.image_sets import SourceImages
from fsq_repro.metrics.reference_statistics import write_reference
from fsq_repro.metrics.table import FEATURE_NETWORKS
from fsq_repro.runtime import cli, startup
from fsq_repro.runtime.output_flags import define_output_file

flags.DEFINE_string("data", None, "photos, scenes, folder:PATH or a TFDS name.", required=True)
flags.DEFINE_enum("split", "train", SPLITS, "Which part of the data.")
flags.DEFINE_integer("resolution", None, "Side of the images in pixels.", required=True)
flags.DEFINE_enum("features", None, FEATURE_NETWORKS, "Feature network.", required=True)
flags.DEFINE_string("weights", "", "Inception's weight file, pytorch-fid's .pth.")
flags.DEFINE_enum("resize", None, ("adm", "pytorch-fid", "clean"), "Of Inception; adm by default.")
flags.DEFINE_integer("images", 10_000, "Images kept for precision and recall, at most; 0 keeps none.", lower_bound=0)
flags.register_validator("images", lambda n: n != 1, "must be 0 or at least 2")
flags.DEFINE_integer("batch_size", 64, "Images at a time.", lower_bound=1)
define_output_file("out", "The .npz file.", suffix=".npz", required=True)
FLAGS = flags.FLAGS


def main() -> None:
    startup.start()
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    with explained():
        source = make_source(FLAGS.data, FLAGS.split, FLAGS.resolution)
        images = SourceImages(source, FLAGS.resolution)
        extractor = load_extractor(FLAGS.features, path=FLAGS.weights, resize=FLAGS.resize, batch_size=FLAGS.batch_size)
        statistics, pixels_sha256 = measure(images, extractor)
        chosen = some_items(source, FLAGS.images)
        kept = len(chosen)
        write_reference(
            FLAGS.out,
            statistics.pool,
            spatial=statistics.spatial,
            images=SourceImages(chosen, FLAGS.resolution) if kept else None,
            protocol=extractor.protocol
            | {
                "data": FLAGS.data,
                "split": FLAGS.split,
                "fingerprint": source.fingerprint,
                "resolution": FLAGS.resolution,
                "unreadable": images.unreadable,  # files that were left out
                "images_chosen": CHOICE,
                "pixels_sha256": pixels_sha256,
                "versions": startup.versions(),
                "revision": startup.git_revision(),
            },
        )
    left_out = f", {images.unreadable} unreadable files left out" if images.unreadable else ""
    print(f"{FLAGS.out}: {len(images):,} images, {statistics.pool.mean.size} features, {kept:,} images kept{left_out}")


if __name__ == "__main__":
    cli.run(main)
