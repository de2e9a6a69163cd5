"""Makes a data set ready ahead of time: builds `photos` and `scenes`, checks a folder, downloads a TFDS set.

    python scripts/prepare_data.py --data=photos --resolution=32
    python scripts/prepare_data.py --data=folder:my_pictures
    python scripts/prepare_data.py --data=imagenet2012   # needs requirements-tfds.txt, and ImageNet's tars in place

Training does the same on first use, except that it never prepares TFDS sets.
"""

import importlib.util

import tqdm
from absl import flags

from fsq_repro.data.cache import cache_dir
from fsq_repro.data.sources import SPLITS, make_source
from fsq_repro.runtime import cli
from fsq_repro.runtime.errors import UserError, explained

flags.DEFINE_string("data", None, "photos, scenes, folder:PATH or a TFDS name.", required=True)
flags.DEFINE_integer("resolution", 32, "Side in pixels at which photos and scenes are made.")
FLAGS = flags.FLAGS


def main() -> None:
    name = FLAGS.data
    with explained():
        if name not in ("photos", "scenes") and not name.startswith("folder:"):
            prepare_tfds(name.removeprefix("tfds:"))
        for split in SPLITS:
            bar = lambda items, split=split: tqdm.tqdm(items, desc=f"{name} {split}", mininterval=0.5)  # noqa: E731
            source = make_source(name, split, FLAGS.resolution, progress=bar)
            print(f"{name} {split}: {len(source):,} images, classes: {source.num_classes}", flush=True)
    if getattr(source, "num_unreadable", 0):
        print(f"{source.num_unreadable} unreadable images are left out")
    if name in ("photos", "scenes"):
        files = [f for f in cache_dir().glob(f"{name}-*-{FLAGS.resolution}px-*/*.npy")]
        print(f"{sum(f.stat().st_size for f in files) / 1e6:,.0f} MB in {cache_dir()}")


def prepare_tfds(name: str) -> None:
    """Downloads a TFDS set and writes it as array_record files, which are read without TensorFlow."""
    from fsq_repro.data.tfds_source import load_builder

    builder = load_builder(name)
    if not builder.is_prepared() and importlib.util.find_spec("tensorflow") is None:
        raise UserError(f"preparing the TFDS set {name!r} needs TensorFlow: pip install -r requirements-tfds.txt.")
    builder.download_and_prepare()
    print(f"{name}: {builder.info.dataset_size / 1e6:,.0f} MB in {builder.data_dir}")


if __name__ == "__main__":
    cli.run(main)
