"""What single codes mean (App. A.3): histograms, soups, constant codes and stitched images of stage-I runs, one figure.

python scripts/representation.py --runs=runs/tradeoff/fsq_10/seed0,runs/tradeoff/vq_10/seed0 --out=representation.png
"""

import numpy as np
from absl import flags

from fsq_repro.errors import UserError, explained
from fsq_repro.factories import common
from fsq_repro.files import atomic_path
from fsq_repro.inference.tokenizer import load_tokenizer
from fsq_repro.quantizers import quantizer_label
from fsq_repro.reporting.representation import representation_figure
from fsq_repro.runtime import cli, startup
from fsq_repro.runtime.output_flags import define_output_file
from fsq_repro.runtime.run_dir import RunDir
from fsq_repro.visualization.representation import representation_study

flags.DEFINE_list("runs", None, "Run directories of stage I, one a quantizer.", required=True)
define_output_file("out", "PNG.", suffix=".png", required=True)
flags.DEFINE_integer("seed", 0, "Chooses the random draws and the stitched images.")
FLAGS = flags.FLAGS


def main() -> None:
    studies, runs = {}, [RunDir(run) for run in FLAGS.runs]
    startup.start(common.batch_sizes(*(run.config for run in runs)))
    for run in runs:
        config = run.config
        quantizer = quantizer_label(**config.quantizer)
        if quantizer in studies:
            raise UserError(f"--runs has two runs with the quantizer {quantizer}; give one of each")
        tokenizer = load_tokenizer(run)
        with explained():
            test = common.build_source(config, "test")
            study = representation_study(
                lambda images, t=tokenizer: np.asarray(t.encode(images)),
                lambda indices, t=tokenizer: np.asarray(t.decode(indices)),
                common.build_eval_batches(config, test),
                expected_count=len(test),
                codebook_size=tokenizer.codebook_size,
                seed=FLAGS.seed,
            )
        studies[quantizer] = study
        pairs = zip(study["constant_codes"], study["constant_shares"], strict=True)
        shares = ", ".join(f"{c} ({s:.1%})" for c, s in pairs)
        print(f"{run.path}: commonest codes {shares}")
    with atomic_path(FLAGS.out) as temporary, explained():
        representation_figure(studies, temporary)
    print(FLAGS.out)


if __name__ == "__main__":
    cli.run(main)
