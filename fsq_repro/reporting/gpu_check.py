"""The table of `scripts/gpu_check.py`."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from fsq_repro.reporting.dry_run import gib
from fsq_repro.reporting.markdown import MISSING, markdown_table

Row = Mapping[str, Any]

ROUNDED = 1e-5  # largest error of a product of float32 arrays: below it they were not rounded

NOTES = """\
- The first rows are trainers in tiny sizes, on random numbers: is each loss finite, and does a run that is resumed from
  a checkpoint end bitwise where an unbroken one does? A stage II has a stage I of random weights.
- The others are steps on one prepared batch of random numbers, without data or saving: the median of three blocks.
  Compilation, tracing included, begins with no cache. TFLOP are those of a step's matrix products and convolutions,
  forward and backward. MFU is their rate over the device's peak rate in that dtype ({missing}: the device is not
  known), "of product" over the rate of one large matrix product in the same process, in TFLOP/s.
- Peak memory is what the device reports ({missing}: it does not), planned what XLA has planned for the step, bound the
  dry run's upper bound, compiled for a CPU.
"""
DIFFERS = """\
- A resumed run differs: some operations on GPUs add up in no fixed order. XLA_FLAGS is {flags}; with
  `--xla_gpu_deterministic_ops=true` in it XLA leaves these out, and steps may take longer.
"""


def gpu_check_report(facts: Row, rows: Mapping[str, Row]) -> str:
    """Markdown: the machine, one table of named rows, and what its columns are.

    Args:
      facts: of the device, as of `profiling.gpu_check.find`, and whether the check was `quick`.
      rows: name -> as of `find`, and `too_large`, the batches that did not fit.
    """
    title = f"# Check of {facts.get('device', 'a device')}, revision {facts.get('revision', 'unknown')[:12]}"
    title += f"{', everything in tiny sizes' * facts['quick']}\n"
    cells = [[name, *(cell(row) for _, cell in COLUMNS)] for name, row in rows.items()]
    table = markdown_table(["run", *(title for title, _ in COLUMNS)], cells)
    notes = NOTES.format(missing=MISSING)
    if any(row.get("resume", {}).get("arrays") for row in rows.values()):
        notes += DIFFERS.format(flags=f"`{facts['xla_flags']}`" if facts.get("xla_flags") else "empty")
    return "\n".join((title, _machine(facts), table, notes))


def _machine(facts: Row) -> str:
    if "failed" in facts:
        return f"- {facts['failed']}\n"
    error = facts["float32_error"]
    kept = "kept in float32" if error < ROUNDED else "rounded before they are multiplied, to TF32 on NVIDIA's GPUs"
    lines = [
        f"Device: {facts['device']} ({facts['platform']}), driver {facts['driver'] or MISSING}, {facts['runtime']}; "
        f"JAX may use {_gib(facts['memory_limit'])} GiB of its memory.",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in facts["versions"].items()) + ".",
        f"Entries of float32 arrays are {kept} (largest error of a product over its largest entry: {error:.1g}).",
    ]
    return "".join(f"- {line}\n" for line in lines)


def _number(key: str, scale: float = 1.0) -> Callable[[Row], str]:
    return lambda row: f"{row[key] * scale:,.4g}" if _has(row, key) else MISSING


def _has(row: Row, *keys: str) -> bool:
    return all(row.get(key) is not None for key in keys)


def _rate(row: Row) -> float:
    """FLOP/s of the step."""
    return row["flops"] / row["step_s"]


def _of_product(row: Row) -> str:
    if not _has(row, "matrix_flops_per_s"):
        return MISSING
    rate = row["matrix_flops_per_s"]
    return f"{_rate(row) / rate:.1%} of {rate / 1e12:.3g}"


def _gib(size: int | None) -> str:
    return MISSING if size is None else gib(size)


def _result(row: Row) -> str:
    """What came out, in words."""
    words = []
    if "loss" in row:
        words.append(f"loss {row['loss']:.4g}" + ("" if math.isfinite(row["loss"]) else ", not finite"))
    if resume := row.get("resume"):
        different = f"differs in {resume['arrays']} arrays, at most by {resume['largest']:.2g} in {resume['where']}"
        words.append(f"resumed: {different if resume['arrays'] else 'equal bitwise'}")
    if row.get("too_large"):
        words.append(f"batch {', '.join(map(str, row['too_large']))} did not fit")
    if row.get("peak_of_compilation"):
        words.append("the peak of memory is that of compilation")
    words += [row[key] for key in ("note", "failed") if row.get(key)]
    return "; ".join(words).replace("|", "/") or MISSING


COLUMNS = (
    ("batch", _number("batch_size")),
    ("compile (s)", _number("compile_s")),
    ("step (ms)", _number("step_s", 1e3)),
    ("examples/s", lambda row: f"{row['batch_size'] / row['step_s']:,.4g}" if _has(row, "step_s") else MISSING),
    ("TFLOP", _number("flops", 1e-12)),
    ("TFLOP/s", lambda row: f"{_rate(row) / 1e12:,.4g}" if _has(row, "flops", "step_s") else MISSING),
    ("MFU", lambda row: f"{_rate(row) / row['peak_flops_per_s']:.1%}" if _has(row, "peak_flops_per_s") else MISSING),
    ("of product", _of_product),
    ("peak (GiB)", lambda row: _gib(row.get("peak_bytes"))),
    ("planned (GiB)", lambda row: _gib(row.get("program_bytes"))),
    ("bound (GiB)", lambda row: _gib(row.get("bound_bytes"))),
    ("result", _result),
)
