"""Evaluates a trained run and merges the metrics into its record.json.

Stage I: reconstructions and codebook usage on the whole test split. Stage II: samples and compression cost.
UViM, either stage: depth errors, panoptic quality or colour distances.

python scripts/evaluate.py --workdir=runs/fsq_10 [--weights=raw] [--checkpoint=600] [--networks=alexnet,vgg16]
python scripts/evaluate.py --workdir=runs/fsq_10 --networks=inception --inception=pt_inception-2015-12-05-6726825d.pth
"""

from absl import flags

from fsq_repro.errors import explained
from fsq_repro.experiments.registry import kind_of
from fsq_repro.factories import common
from fsq_repro.runtime import cli, startup
from fsq_repro.runtime.output_flags import define_output_folder
from fsq_repro.runtime.run_dir import RunDir, read_metrics

define_output_folder("workdir", None, "Run directory.")
flags.DEFINE_enum("weights", None, ("ema", "raw"), "Averaged weights or not; by default what the tables show.")
flags.DEFINE_integer("checkpoint", None, "Step of the checkpoint; the last by default.")
flags.DEFINE_list("networks", None, "Feature networks of the Frechet distances; by default those of the config.")
flags.DEFINE_string("inception", None, "Inception's weight file; by default that of the config's eval.inception.")
flags.DEFINE_string("stage1", None, "Stage I's run directory, if a stage-II run's is no longer where it was.")
flags.mark_flags_as_required(["workdir"])
FLAGS = flags.FLAGS


def main() -> None:
    run = RunDir(FLAGS.workdir)
    startup.start(common.batch_sizes(run.config))
    with explained():
        kind = kind_of(run.config)
    record = kind.evaluate(
        run,
        stage1=FLAGS.stage1,
        weights=FLAGS.weights,
        step=FLAGS.checkpoint,
        networks=FLAGS.networks,
        inception=FLAGS.inception,
    )
    for key, measured in read_metrics(record).items():
        print(f"{key!s:40s} {measured.value:.6g}")


if __name__ == "__main__":
    cli.run(main)
