"""Evaluates a trained run on its whole validation split and merges the figures into its record.json.

python scripts/evaluate.py --workdir=runs/fsq_10 [--weights=raw] [--checkpoint=600] [--networks=alexnet,vgg16]
"""

import pathlib

from absl import flags

from fsq_repro.runtime import cli, startup
from fsq_repro.trainers.stage1_evaluation import evaluate_run

flags.DEFINE_string("workdir", None, "Run directory.")
flags.DEFINE_enum("weights", "ema", ("ema", "raw"), "Averaged weights, as the tables, or those of the last step.")
flags.DEFINE_integer("checkpoint", None, "Step of the checkpoint; the last by default.")
flags.DEFINE_list("networks", None, "Feature networks of the Frechet distances; by default those of the config.")
flags.mark_flags_as_required(["workdir"])
FLAGS = flags.FLAGS


def main() -> None:
    startup.start()
    record = evaluate_run(
        pathlib.Path(FLAGS.workdir), weights=FLAGS.weights, step=FLAGS.checkpoint, networks=FLAGS.networks
    )
    for name, figure in record["figures"].items():
        print(f"{name:32s} {figure['value']:.6g}")


if __name__ == "__main__":
    cli.run(main)
