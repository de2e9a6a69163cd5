"""What a run will need, found out on CPU without training or allocating: run it before paying for accelerators.

    python scripts/dry_run.py --config=configs/imagenet256_maskgit.py:quantizer=fsq --devices=8 [--fsdp=8] [--json=FILE]

Traces the training step and compiles it for DEVICES virtual CPU devices (minutes at paper scale; --nocompile leaves out
what only the compiled program tells). Prints parameters, tokens, FLOPs, memory a device, collectives, checkpoint size,
the images a second that a step consumes, and device-hours at an assumed share of the peak rate. A stage II needs no
trained stage I: where --config.stage1 is empty, the config that belongs to it is taken. With --devices several times,
and --fsdp and --json as often or not at all, the step is traced and compiled for each.
"""

import importlib
import logging
import pathlib

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

from fsq_repro.errors import UserError, explained
from fsq_repro.experiments.registry import kind_of
from fsq_repro.factories.stage1_link import Stage1Need
from fsq_repro.profiling.abstract import build_abstract
from fsq_repro.profiling.dry_run import dry_run
from fsq_repro.reporting.dry_run import dry_run_lines
from fsq_repro.runtime import cli, run_dir, sharding, startup
from fsq_repro.runtime.output_flags import define_output_files

config_flags.DEFINE_config_file("config", None, "FILE.py:ARG, see configs/.", lock_config=True)
flags.DEFINE_multi_integer("devices", 1, "Virtual devices, of all hosts together.", lower_bound=1)
flags.DEFINE_multi_integer(
    "fsdp", [], "Devices that parameters are split over; config.mesh.fsdp by default.", lower_bound=1
)
flags.DEFINE_boolean("compile", True, "Compile the step; without it nothing is said of temporaries and collectives.")
flags.DEFINE_float("utilisation", 0.3, "Assumed share of the accelerators' peak rate.")
define_output_files("json", "Also writes all numbers to this file.")
flags.mark_flags_as_required(["config"])
FLAGS = flags.FLAGS


def main() -> None:
    logging.getLogger("absl").setLevel(logging.ERROR)
    startup.collect_rarely()
    settings = (("platforms", "cpu"), ("num_cpu_devices", max(FLAGS.devices)), ("enable_compilation_cache", False))
    for name, value in settings:
        jax.config.update(f"jax_{name}", value)
    config, runs = FLAGS.config, len(FLAGS.devices)
    for name in ("fsdp", "json"):
        if len(FLAGS[name].value) not in (0, runs):
            raise UserError(f"--{name} stands there {len(FLAGS[name].value)} times, but --devices {runs} times")
    splits = FLAGS.fsdp or [config.mesh.fsdp] * runs
    with explained():
        layouts = zip(FLAGS.devices, splits, strict=True)
        meshes = [sharding.make_mesh(fsdp, jax.devices()[:devices]) for devices, fsdp in layouts]
        needed = kind_of(config).needs
        stage1 = stage1_config(config, needed) if needed and not config.stage1 else None
        experiment = build_abstract(config, stage1)
        for mesh, file in zip(meshes, FLAGS.json or [None] * runs, strict=True):
            found = dry_run(experiment, mesh, utilisation=FLAGS.utilisation, compile_step=FLAGS.compile)
            print("\n".join(f"{name:38} {value}" for name, value in dry_run_lines(found)), flush=True)
            if file:
                run_dir.write_json(pathlib.Path(file), found)


def stage1_config(config: ConfigDict, needed: Stage1Need) -> ConfigDict:
    """The config of the stage I that belongs to a stage II, with what the two must share."""
    stage = "stage=1," if "task" in config else ""
    name = config.experiment.replace("maskgit", "autoencoder")
    try:
        stage1 = importlib.import_module(f"configs.{name}").get_config(f"{stage}scale={config.scale}")
    except ModuleNotFoundError as e:
        raise UserError(f"there is no configs/{name}.py; give stage I's run directory, --config.stage1=DIR") from e
    stage1.data.resolution = config.data.resolution
    return ConfigDict(stage1.to_dict() | {field: config[field] for field in ("quantizer", *needed.same)})


if __name__ == "__main__":
    cli.run(main)
