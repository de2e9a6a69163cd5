"""Makes a data set ready ahead of time: builds `photos` and `scenes`, checks a folder, builds a TFDS set.

    python scripts/prepare_data.py --data=photos --resolution=32
    python scripts/prepare_data.py --data=folder:my_pictures
    python scripts/prepare_data.py --data=cifar10                                    # needs `make tfds`
    python scripts/prepare_data.py --data=imagenet2012 --manual_dir=FOLDER_OF_TARS
    python scripts/prepare_data.py --data=nyu_depth_v2 --data_dir=/disk/tfds
    python scripts/prepare_data.py --data=coco/2017_panoptic

Training does the same on first use, except that it never builds TFDS sets. These are built as array_record files, which
are read without TensorFlow; what must be downloaded by hand, and how much room it takes, is said before it starts.
"""

import os
import pathlib

from absl import flags

from fsq_repro.data import prepare
from fsq_repro.data.cache import cache_dir
from fsq_repro.data.sources import SPLITS, make_source
from fsq_repro.errors import UserError, explained
from fsq_repro.files import printable
from fsq_repro.runtime import cli

flags.DEFINE_string("data", None, "photos, scenes, folder:PATH or a TFDS name.", required=True)
flags.DEFINE_integer("resolution", 32, "Side in pixels at which photos and scenes are made.")
flags.DEFINE_string("data_dir", None, "Where TFDS sets lie; default: $TFDS_DATA_DIR or ~/tensorflow_datasets.")
flags.DEFINE_string("manual_dir", None, "Files of a TFDS set downloaded by hand; default: DATA_DIR/downloads/manual.")
FLAGS = flags.FLAGS


def main() -> None:
    name = FLAGS.data
    made = name in ("photos", "scenes")
    is_tfds = not made and not name.startswith("folder:")
    for flag in ("data_dir", "manual_dir"):
        if FLAGS[flag].value is not None and not is_tfds:
            raise UserError(f"--{flag} = {FLAGS[flag].value!r} is for TFDS sets only, not for --data={name}")
    if FLAGS.data_dir is not None:  # TFDS reads the variable when it is imported
        os.environ["TFDS_DATA_DIR"] = str(pathlib.Path(FLAGS.data_dir).expanduser().absolute())
    with explained():
        if is_tfds:
            name = name.removeprefix("tfds:")
            prepare.prepare_set(name, manual_dir=FLAGS.manual_dir)
        for split in SPLITS:
            source = prepare.open_set(name, split) if is_tfds else make_source(name, split, FLAGS.resolution)
            height, width = source[0]["image"].shape[:2]
            size = f"first {height} x {width} pixels"
            print(
                f"{printable(name)} {split}: {len(source):,} images, {size}, classes: {source.num_classes}", flush=True
            )
    if getattr(source, "num_unreadable", 0):
        print(f"{source.num_unreadable} unreadable images are left out")
    if made:
        files = [f for f in cache_dir().glob(f"{name}-*-{FLAGS.resolution}px-*/*.npy")]
        print(f"{sum(f.stat().st_size for f in files) / 1e6:,.0f} MB in {cache_dir()}")
    if FLAGS.data_dir is not None:
        print(f"training finds it with TFDS_DATA_DIR={os.environ['TFDS_DATA_DIR']}")


if __name__ == "__main__":
    cli.run(main)
