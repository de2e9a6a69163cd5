"""Images a second that one core reads, decodes and augments for a config, and the workers that its steps need.

    python scripts/benchmark_data.py --config=configs/tradeoff_autoencoder.py --images_per_s=2000
    python scripts/benchmark_data.py --config=configs/uvim_depth.py:stage=1,scale=cpu --batches=50

The pipeline is the config's own, on its own data set, without worker processes; the figures are of CPU time, so that
neither other programs nor a slow disk are in them. `--images_per_s` is what the steps of one process (one host) take:
its part of the batch over the step time, see scripts/benchmark.py.
"""

import os

from absl import flags
from ml_collections import config_flags

from fsq_repro.errors import UserError, explained
from fsq_repro.factories import common
from fsq_repro.profiling.data_throughput import Cost, measure_pipeline
from fsq_repro.runtime import cli, startup

config_flags.DEFINE_config_file("config", None, "FILE.py:ARG, see configs/.", lock_config=True)
flags.DEFINE_integer("batches", 20, "Batches of some 32 images to draw.", lower_bound=1)
flags.DEFINE_float("images_per_s", None, "Images that the training steps of one process take a second.")
flags.mark_flags_as_required(["config"])
FLAGS = flags.FLAGS


def main() -> None:
    if FLAGS.images_per_s is not None and not 0 < FLAGS.images_per_s < float("inf"):
        raise UserError(f"--images_per_s = {FLAGS.images_per_s} must be a positive number")
    config = FLAGS.config
    startup.start(common.batch_sizes(config))
    with explained():
        cost = measure_pipeline(config, FLAGS.batches)
    print(f"{config.data.source} at {config.data.resolution} px, on one core:")
    for name, seconds in (("read, decode", cost.read), ("augment, batch", cost.augment), ("prepare", cost.prepare)):
        if seconds:
            print(f"  {name:15s}{1 / seconds:12,.0f} images/s {1e3 * seconds:10.3f} ms an image")
    print(f"  {'all':15s}{cost.images_per_second:12,.0f} images/s {1e3 / cost.images_per_second:10.3f} ms an image")
    if FLAGS.images_per_s is not None:
        print(advice(cost, FLAGS.images_per_s, config.data.num_workers, os.cpu_count()))


def advice(cost: Cost, images_per_s: float, num_workers: int, cores: int) -> str:
    """Says whether the config's workers keep up; without workers the pipeline has threads of one interpreter."""
    wanted = cost.workers(images_per_s)
    needs = f"{images_per_s:,.0f} images/s need {wanted} worker{'s' if wanted > 1 else ''}, one core each"
    if max(1, num_workers) >= wanted:
        verdict = f"data.num_workers = {num_workers} is enough"
    else:
        verdict = f"data.num_workers = {num_workers} is too small: give --config.data.num_workers={wanted}"
    missing = f"; this machine has only {cores} cores" if wanted > cores else ""
    return f"{needs}; {verdict}{missing}."


if __name__ == "__main__":
    cli.run(main)
