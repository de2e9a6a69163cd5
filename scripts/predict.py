"""Writes what a trained stage II of UViM predicts for your own pictures: depth, colour or panoptic segments.

python scripts/predict.py --workdir=runs/depth_fsq kitchen.jpg street.png [--out=predictions]

For each NAME.* in OUT: depth NAME_depth.png, coloured, and NAME_depth.npy in metres; panoptic NAME_panoptic.png,
coloured, and NAME_panoptic.npz with `semantics` and `instances`; colorization NAME_color.png; see `Task.write`.
"""

import pathlib

from absl import flags

from fsq_repro.data.image_reader import read_image
from fsq_repro.errors import UserError, explained
from fsq_repro.inference.label_predictor import load_label_predictor
from fsq_repro.progress import track
from fsq_repro.runtime import cli, startup
from fsq_repro.runtime.output_flags import define_output_folder

flags.DEFINE_string("workdir", None, "Run directory of UViM's stage II.", required=True)
define_output_folder("out", "predictions", "Directory for the predictions.")
flags.DEFINE_string("stage1", None, "Stage I's run directory, if it is no longer where it was.")
flags.DEFINE_integer("checkpoint", None, "Step of the checkpoint; the last by default.")
flags.DEFINE_integer("seed", 0, "Of the decoding, where the run's temperature is above 0.")
FLAGS = flags.FLAGS


def main(files: list[str]) -> None:
    startup.start()
    if not files:
        raise UserError("no picture is given; name one or more behind the flags")
    names = [pathlib.Path(file).stem for file in files]
    if len(set(names)) < len(names):
        raise UserError(f"two pictures have the name {max(names, key=names.count)}, which the predictions are named by")
    with explained():
        images = [read_image(file) for file in files]
    predictor = load_label_predictor(FLAGS.workdir, stage1=FLAGS.stage1, step=FLAGS.checkpoint)
    with explained():
        predictions = predictor.predict(images, seed=FLAGS.seed)
        for name, maps in zip(names, track(predictions, "predicting", len(files)), strict=True):
            for file in predictor.task.write(pathlib.Path(FLAGS.out) / name, maps):
                print(file)


if __name__ == "__main__":
    cli.run(main, arguments=True)
