"""Step time of a config on this machine, beside what its matrix products could do.

    python scripts/benchmark.py --config=configs/tradeoff_autoencoder.py:scale=cpu
    python scripts/benchmark.py --config=configs/tradeoff_maskgit.py:scale=cpu \
        --config.stage1=runs/tradeoff/fsq_10/seed0

    python scripts/benchmark.py --inception=pt_inception-2015-12-05-6726825d.pth --pytorch_fid=OTHER_VENV/bin/python

    python scripts/benchmark.py --quantizers [--peers=OTHER_VENV/bin/python]

With --inception: rate and memory of the Inception features beside those of the package pytorch-fid, same images,
weights and batch size. With --quantizers: time and memory of each quantizer by itself, beside vector-quantize-pytorch's
with --peers. Else: time to the first step with a cold and with a warm compilation cache, step time, images/s,
floating-point operations per step (XLA's count) and their share of the measured rate of a matrix product. Of stage II
also samples/s, decoded to images.
"""

import json
import os
import subprocess
import sys
import tempfile

from absl import flags
from ml_collections import config_flags

from fsq_repro.errors import UserError, explained
from fsq_repro.experiments.experiment import build_experiment
from fsq_repro.factories import common
from fsq_repro.profiling import benchmark_quantizers
from fsq_repro.profiling.benchmark import measure_sampling, measure_step
from fsq_repro.profiling.benchmark_inception import compare_rates
from fsq_repro.runtime import cli, startup
from fsq_repro.runtime.run_dir import RunDir
from fsq_repro.trainers.maskgit import MaskGITTrainer

config_flags.DEFINE_config_file("config", None, "FILE.py:ARG, see configs/.", lock_config=True)
flags.DEFINE_string("inception", None, "Inception's weight file, pytorch-fid's .pth: measure its features instead.")
flags.DEFINE_string("pytorch_fid", None, "Python of an environment with pytorch-fid.")
flags.DEFINE_integer("images", 128, "Images for --inception.", lower_bound=1)
flags.DEFINE_integer("batch_size", 32, "Images at a time for --inception.", lower_bound=1)
flags.DEFINE_boolean("quantizers", False, "Measure the quantizers by themselves instead.")
flags.DEFINE_string("peers", None, "Python of an environment with vector-quantize-pytorch, for --quantizers.")
flags.DEFINE_integer("steps", 30, "Steps to time, or with --quantizers turns, at most.", lower_bound=1)
flags.DEFINE_boolean("measure", False, "Measure in this process and print JSON (the script calls itself with it).")
FLAGS = flags.FLAGS

SAMPLE_BATCHES = 8


def main() -> int:
    startup.start(common.batch_sizes(FLAGS.config) if FLAGS.config else ())
    chosen = [x for x in (FLAGS.config, FLAGS.inception, FLAGS.quantizers) if x]
    if len(chosen) != 1 or bool(FLAGS.inception) != bool(FLAGS.pytorch_fid) or (FLAGS.peers and not FLAGS.quantizers):
        raise UserError("give one of --config, --inception with --pytorch_fid, and --quantizers, with --peers or not")
    if FLAGS.quantizers:
        benchmark_quantizers.show(FLAGS.steps, FLAGS.peers)
        return 0
    if FLAGS.inception:
        rates = compare_rates(FLAGS.inception, FLAGS.pytorch_fid, images=FLAGS.images, batch_size=FLAGS.batch_size)
        for name, value in rates.items():
            print(f"{name:30s} {value:.3g}")
        return 0
    if FLAGS.measure:
        with explained(), tempfile.TemporaryDirectory() as nowhere:
            e = build_experiment(FLAGS.config, RunDir(nowhere))
        figures = measure_step(e.trainer, e.data_iterator, e.loop_config, FLAGS.steps)
        if isinstance(e.trainer, MaskGITTrainer):
            figures |= measure_sampling(e.trainer, FLAGS.config.eval.batch_size, SAMPLE_BATCHES)
        print("\n" + json.dumps(figures))
        return 0
    with tempfile.TemporaryDirectory() as cache:
        cold, warm = measure_apart(cache), measure_apart(cache)
    print(f"device                         {startup.device_description()}")
    print(f"time to first step, cold cache {cold['first_step_s']:.1f} s")
    print(f"time to first step, warm cache {warm['first_step_s']:.1f} s")
    for name, value in warm.items():
        if name != "first_step_s":
            print(f"{name:30s} {value:.3g}")
    return 0


def measure_apart(cache: str) -> dict[str, float]:
    """Runs this script with --measure in a process of its own."""
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
    run = subprocess.run([sys.executable, *sys.argv, "--measure"], env=environment, stdout=subprocess.PIPE, text=True)
    if run.returncode:
        sys.exit(run.returncode)
    return json.loads(run.stdout.splitlines()[-1])


if __name__ == "__main__":
    cli.run(main)
