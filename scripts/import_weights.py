"""Makes a run directory of published weights: MaskGIT's checkpoints (flax msgpack) or UViM's .npz files, either stage.

    python scripts/import_weights.py --config=configs/imagenet256_autoencoder.py:quantizer=vq \
        --file=tokenizer_imagenet256_checkpoint --workdir=runs/maskgit_256_tokenizer
    python scripts/import_weights.py --config=configs/imagenet256_maskgit.py:quantizer=vq \
        --file=maskgit_imagenet256_checkpoint --config.stage1=runs/maskgit_256_tokenizer --workdir=runs/maskgit_256
    python scripts/import_weights.py --config=configs/uvim_depth.py:stage=1,quantizer=vq \
        --file=depth_stageI_params.npz --workdir=runs/uvim_depth_stage1

The config says what the file must hold; for MaskGIT at 512 px add --config.data.resolution=512 to both. The directory
is used like that of any finished run, also by scripts/train.py, which goes on training from it with the same config and
a higher --config.steps.
"""

import sys

from absl import flags
from ml_collections import config_flags

from fsq_repro.conversion.published_weights import import_run
from fsq_repro.factories import common
from fsq_repro.runtime import cli, startup
from fsq_repro.runtime.output_flags import define_output_folder

config_flags.DEFINE_config_file("config", None, "FILE.py:ARG, see configs/.", lock_config=True)
flags.DEFINE_string("file", None, "The file with the weights.")
define_output_folder("workdir", None, "Run directory to be made; it must not exist or be empty.")
flags.mark_flags_as_required(["config", "file", "workdir"])
FLAGS = flags.FLAGS


def main() -> None:
    startup.start(common.batch_sizes(FLAGS.config))
    software = {"versions": startup.versions(), "git_revision": startup.git_revision()}
    config_file = config_flags.get_config_filename(FLAGS["config"])
    record = import_run(FLAGS.config, FLAGS.file, FLAGS.workdir, file=config_file, command=sys.argv, **software)
    imported = record["imported"]
    print(f"{imported['arrays']} arrays, {record['parameters']:,} parameters, SHA-256 {imported['sha256']}")
    if imported["not_used"]:
        print(f"not used, beside {imported['prefix']!r}: {', '.join(imported['not_used'])}")
    print(f"evaluate with: python scripts/evaluate.py --workdir={FLAGS.workdir}")


if __name__ == "__main__":
    cli.run(main)
