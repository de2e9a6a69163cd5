"""What a run will need, found out on CPU without training or allocating: run it before paying for accelerators.

    python scripts/dry_run.py --config=configs/imagenet256_maskgit.py:quantizer=fsq --devices=8 [--fsdp=8] [--json=FILE]

Traces the training step and compiles it for DEVICES virtual CPU devices (minutes at paper scale; --nocompile leaves out
what only the compiled program tells). Prints parameters, tokens, FLOPs, memory a device, collectives, checkpoint size,
the images a second that a step consumes, and device-hours at an assumed share of the peak rate. A stage II needs no
trained stage I: where --config.stage1 is empty, the config that belongs to it is taken. With --devices several times,
and --fsdp and --json as often or not at all, the step is traced once and compiled for each.
"""

import dataclasses
import importlib
import logging
import pathlib

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

from fsq_repro.runtime import cli, run_dir, sharding
from fsq_repro.runtime.errors import UserError, explained
from fsq_repro.trainers.abstract_experiments import build_abstract
from fsq_repro.trainers.dry_run import DryRun, dry_run

config_flags.DEFINE_config_file("config", None, "FILE.py:ARG, see configs/.", lock_config=True)
flags.DEFINE_multi_integer("devices", 1, "Virtual devices, of all hosts together.", lower_bound=1)
flags.DEFINE_multi_integer(
    "fsdp", [], "Devices that parameters are split over; config.mesh.fsdp by default.", lower_bound=1
)
flags.DEFINE_boolean("compile", True, "Compile the step; without it nothing is said of temporaries and collectives.")
flags.DEFINE_float("utilisation", 0.3, "Assumed share of the accelerators' peak rate.")
flags.DEFINE_multi_string("json", [], "Also writes all figures to this file.")
flags.mark_flags_as_required(["config"])
FLAGS = flags.FLAGS


def main() -> None:
    logging.getLogger("absl").setLevel(logging.ERROR)
    counts = (("platforms", "cpu"), ("num_cpu_devices", max(FLAGS.devices)), ("enable_compilation_cache", False))
    for name, value in counts:
        jax.config.update(f"jax_{name}", value)
    config, runs = FLAGS.config, len(FLAGS.devices)
    for name in ("fsdp", "json"):
        if len(FLAGS[name].value) not in (0, runs):
            raise UserError(f"--{name} stands there {len(FLAGS[name].value)} times, but --devices {runs} times")
    for file in FLAGS.json:
        if not pathlib.Path(file).parent.is_dir():
            raise UserError(f"--json={file} lies in no directory that exists")
    splits = FLAGS.fsdp or [config.mesh.fsdp] * runs
    with explained():
        layouts = zip(FLAGS.devices, splits, strict=True)
        meshes = [sharding.make_mesh(fsdp, jax.devices()[:devices]) for devices, fsdp in layouts]
        experiment = build_abstract(config, stage1_config(config) if "stage1" in config else None)
        for mesh, file in zip(meshes, FLAGS.json or [None] * runs, strict=True):
            found = dry_run(experiment, mesh, utilisation=FLAGS.utilisation, compile_step=FLAGS.compile)
            print("\n".join(f"{name:38} {value}" for name, value in lines(found)), flush=True)
            if file:
                run_dir.write_json(pathlib.Path(file), dataclasses.asdict(found))


def stage1_config(config: ConfigDict) -> ConfigDict | None:
    """The config of the stage I that belongs to a stage II, with what the two must share; None where it has a run."""
    if config.stage1:
        return None
    stage = "stage=1," if config.trainer == "uvim_stage2" else ""
    name = config.experiment.replace("maskgit", "autoencoder")
    try:
        stage1 = importlib.import_module(f"configs.{name}").get_config(f"{stage}scale={config.scale}")
    except ModuleNotFoundError as e:
        raise UserError(f"there is no configs/{name}.py; give stage I's run directory, --config.stage1=DIR") from e
    stage1.data.resolution = config.data.resolution
    return ConfigDict(stage1.to_dict() | {k: config[k] for k in ("quantizer", "task", "context") if k in config})


def lines(found: DryRun) -> list[tuple[str, str]]:
    """Name and value of each figure."""
    rows = [
        ("experiment", f"{found.experiment}, {found.dtype}, {found.devices} devices, fsdp {found.fsdp}"),
        *((f"parameters of {name}", f"{count:,}") for name, count in found.parameters.items()),
        ("parameters", f"{sum(found.parameters.values()):,}"),
        ("tokens an example, a step", f"{found.tokens_per_example:,}, {found.tokens_per_step:,}"),
        ("FLOPs a step, of the run", f"{found.flops_per_step:.4g}, {found.flops:.4g} ({found.steps:,} steps)"),
        *((f"memory: {k.replace('_', ' ')}", gib(v)) for k, v in dataclasses.asdict(found.memory).items()),
        ("checkpoint, uncompressed", gib(found.checkpoint_bytes)),
    ]
    if found.compiled:
        rows += [
            ("memory: temporaries, upper bound", gib(found.compiled.temporaries)),
            *((f"{kind} a step", gib(size)) for kind, size in sorted(found.compiled.collectives.bytes.items())),
            ("loops counted once", str(found.compiled.collectives.loops_counted_once)),
            ("XLA's FLOPs a device, loops once", f"{found.compiled.flops:.4g}"),
            ("seconds to compile", f"{found.compiled.seconds:.1f}"),
        ]
    words = {True: "fits", False: "may not fit: the bound is above its memory", None: "temporaries not known"}
    for e in found.estimates:
        value = f"hours {e.device_hours:,.0f}, {e.step_seconds:.3g} s a step, {e.images_per_second:,.0f} images/s"
        rows.append((f"{e.accelerator.name} at {found.utilisation:.0%} of peak", f"device-{value}; {words[e.fits]}"))
    return rows


def gib(size: int) -> str:
    return f"{size / 2**30:.4f} GiB" if size >= 2**20 else f"{size:,} bytes"


if __name__ == "__main__":
    cli.run(main)
