"""Draws samples of a stage-II run: a picture, and an .npz as the ADM suite reads it.

    python scripts/sample.py --workdir=runs/fsq_10_maskgit --labels=0,3,7 --per_label=8 --out=grid.png
    python scripts/sample.py --workdir=runs/fsq_256_maskgit --per_label=50 --npz=samples.npz --guidance=0.2

The .npz holds `arr_0` uint8 (N, H, W, 3) and `arr_1` int64 (N,), the labels. Sample i of a seed is the same for any
batch size and number of devices.
"""

import pathlib

import numpy as np
from absl import flags

from fsq_repro.errors import UserError, explained
from fsq_repro.factories import common
from fsq_repro.files import atomic_path
from fsq_repro.inference.image_generator import load_image_generator
from fsq_repro.runtime import cli, startup
from fsq_repro.runtime.output_flags import define_output_file
from fsq_repro.runtime.run_dir import RunDir
from fsq_repro.visualization.grids import image_grid, save_png

flags.DEFINE_string("workdir", None, "Run directory of stage II.")
flags.DEFINE_list("labels", None, "Class labels; all classes by default.")
flags.DEFINE_integer("per_label", 8, "Samples of each label.", lower_bound=1)
define_output_file("out", "PNG with one row (or more) a label.")
define_output_file("npz", "File for the samples as the ADM suite reads them.")
flags.DEFINE_integer("seed", 0, "Seed of the samples.")
flags.DEFINE_float("guidance", None, "Guidance weight; that of the run's config by default.", lower_bound=0.0)
flags.DEFINE_enum("weights", "ema", ("ema", "raw"), "Averaged weights, or those of the last step.")
flags.DEFINE_integer("checkpoint", None, "Step of the checkpoint; the last by default.")
flags.DEFINE_string("stage1", None, "Stage I's run directory, if it is no longer where it was.")
flags.mark_flags_as_required(["workdir"])
FLAGS = flags.FLAGS


def main() -> None:
    run = RunDir(FLAGS.workdir)
    startup.start(common.batch_sizes(run.config))
    if not FLAGS.out and not FLAGS.npz:
        raise UserError("neither --out nor --npz is given; name a picture, an .npz, or both")
    config = run.config
    generator = load_image_generator(run, stage1=FLAGS.stage1, weights=FLAGS.weights, step=FLAGS.checkpoint)
    try:
        labels = [int(x) for x in (range(config.data.num_classes) if FLAGS.labels is None else FLAGS.labels or [""])]
    except ValueError:
        raise UserError(f"--labels={','.join(FLAGS.labels)} must be whole numbers with commas between") from None
    guidance = config.sampler.guidance_weight if FLAGS.guidance is None else FLAGS.guidance
    repeated = np.repeat(labels, FLAGS.per_label)
    with explained():
        images = generator.images(repeated, seed=FLAGS.seed, guidance=guidance)
    if FLAGS.out:
        save_png(pathlib.Path(FLAGS.out), image_grid(images))
    if FLAGS.npz:
        with atomic_path(FLAGS.npz) as temporary, open(temporary, "wb") as f:
            np.savez(f, images, repeated.astype(np.int64))
    print(f"{len(images)} samples, guidance weight {guidance:g}: {', '.join(filter(None, (FLAGS.out, FLAGS.npz)))}")


if __name__ == "__main__":
    cli.run(main)
