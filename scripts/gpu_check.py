"""Ten minutes on a GPU: do the trainers run and resume on it, how fast are steps, and in what memory. One table.

    PYTHONPATH=. python scripts/gpu_check.py --out=gpu_check.md [--minutes=10]
    PYTHONPATH=. python scripts/gpu_check.py --quick --out=gpu_check.md    # all of it in tiny sizes, also on a CPU

Needs the packages of requirements.txt and JAX for the device (pip install "jax[cuda12]==0.10.2"), 0.10 to 0.12; no data
and no weights but those in packages. Takes the first device. Each row of the table is found by a process of its own and
says what failed there or was not reached; the file is written anew after each. Has run on CPUs only so far.
"""

import functools
import importlib
import os
import re
import sys
import time

from absl import flags
from ml_collections import ConfigDict

from fsq_repro.errors import UserError
from fsq_repro.files import atomic_path
from fsq_repro.profiling import gpu_check
from fsq_repro.profiling.check_parts import Row, emit, run_part, run_until_it_fits
from fsq_repro.reporting.gpu_check import gpu_check_report
from fsq_repro.runtime import cli, startup
from fsq_repro.runtime.output_flags import define_output_file

STAGE1, STAGE2 = "tradeoff_autoencoder:quantizer=fsq,bits=10", "tradeoff_maskgit:quantizer=fsq,bits=10"
TRAINED = {  # row -> config
    "stage I, VQ, all losses": "tradeoff_autoencoder:quantizer=vq,bits=10,scale=smoke",
    "stage II, masked": f"{STAGE2},scale=smoke",
    "stage II, autoregressive": f"{STAGE2},generator=autoregressive,scale=smoke",
    "UViM stage I, VQ": "uvim_depth:quantizer=vq,stage=1,scale=smoke",
    "UViM stage II, FSQ": "uvim_depth:quantizer=fsq,stage=2,scale=smoke",
}
TIMED = {
    "CIFAR-10 stage I": f"{STAGE1},scale=cifar10",
    "CIFAR-10 stage II": f"{STAGE2},scale=cifar10",
    "ImageNet 128 stage I": STAGE1,
    "ImageNet 256 stage II": "imagenet256_maskgit:quantizer=fsq,bits=10",
}
ROWS = {row: (spec, "") for row, spec in TRAINED.items()}  # row -> config and the dtype that it is timed in
ROWS |= {f"{row}, {dtype}": (spec, dtype) for row, spec in TIMED.items() for dtype in ("float32", "bfloat16")}

define_output_file("out", "Markdown file for the table, which is printed too.")
flags.DEFINE_float("minutes", 10.0, "What is still running then is stopped.", lower_bound=0.0)
flags.DEFINE_multi_enum("row", list(ROWS), list(ROWS), "Rows of the table to find, by default all.")
flags.DEFINE_boolean("quick", False, "Everything in tiny sizes.")
flags.DEFINE_string("part", "", "PART/ROW/BATCH: find it in this process and print it (the script calls itself so).")
FLAGS = flags.FLAGS


def main() -> None:
    if FLAGS.part:
        startup.start()
        part, row, size = FLAGS.part.split("/")
        emit(gpu_check.find(part, *(configs_of(row) if row else ()), batch_size=int(size), quick=FLAGS.quick))
        return
    deadline, rows, chosen = time.monotonic() + 60 * FLAGS.minutes, {}, [row for row in ROWS if row in FLAGS.row]

    def run(part: str, row: str, batch_size: int = 0, **variables: str) -> Row:
        print(part, row, batch_size or "", flush=True)
        command = [sys.executable, *sys.argv, f"--part={part}/{row}/{batch_size}"]
        variables = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"} | variables
        return run_part(part, command, deadline - time.monotonic(), variables)

    def add(row: str, found: Row) -> None:
        rows[row] = rows.get(row, {}) | found
        if FLAGS.out:
            with atomic_path(FLAGS.out) as temporary:
                temporary.write_text(gpu_check_report(facts, rows))

    facts = run("device", "") | {"quick": FLAGS.quick}
    if facts.get("platform") == "cpu" and not FLAGS.quick:
        raise UserError("JAX sees no accelerator, only the CPU: install JAX for it, or give --quick")
    for row in chosen:
        add(row, run_until_it_fits(functools.partial(run, "time" if ROWS[row][1] else "train", row)))
    for row in (row for row in chosen if "step_s" in rows[row]):  # last, for these can be had without a GPU
        add(row, run("bound", row, rows[row]["batch_size"], JAX_PLATFORMS="cpu"))
    print(gpu_check_report(facts, rows))


def configs_of(row: str) -> tuple[ConfigDict, ConfigDict | None]:
    """The row's config and, if it is of a stage II, stage I's."""
    spec, dtype = ROWS[row]
    if FLAGS.quick and dtype:
        spec = re.sub("(,scale=.*)?$", ",scale=smoke", spec, count=1)
    stage1 = spec.replace("maskgit", "autoencoder").replace("stage=2", "stage=1")
    stage1 = stage1.replace(",generator=autoregressive", "")
    configs = []
    for file, _, arg in (s.partition(":") for s in (spec, stage1)):
        configs.append(importlib.import_module(f"configs.{file}").get_config(arg))
        configs[-1].model.dtype = dtype or configs[-1].model.dtype
    return configs[0], configs[1] if stage1 != spec else None


if __name__ == "__main__":
    cli.run(main)
