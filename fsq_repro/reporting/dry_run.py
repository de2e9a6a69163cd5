"""Tables of dry runs: what every run of a sweep needs, from the JSON files that `scripts/dry_run.py` writes."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from fsq_repro.reporting.markdown import MISSING, markdown_table

NOTES = """\
- **FLOPs** are those of matrix products and convolutions of a training step, forward and backward, loops counted as
  often as they run. **Device-hours** are these over the peak rate at a utilisation of {utilisation:.0%}, an assumption;
  evaluations, start-up and waiting for data are left out. A rate is that of the config's dtype: JAX's default products
  of float32 arrays are rounded to bfloat16 on TPUs and to TF32 on GPUs.
- **Images per second** are what one device consumes at that rate: the data pipeline must deliver so many for each.
- **Memory** is of one device. `params`, `optimiser` and `other` (averaged parameters, codebook state) follow from the
  shardings, as do frozen networks and the batch. FSDP splits the first three among N devices, but for small arrays and
  those of which N divides no axis: Adafactor's row and column statistics are many of these. Temporaries are XLA's for
  virtual CPU devices: an **upper bound** for accelerators, whose compilers schedule and fuse for memory. What
  `model.remat` saves is not in them: the CPU backend does not keep the order that it asks for (jax-ml/jax#19822).
- **Collectives** are bytes of their results on one device in a step, read in the compiled program; {missing} where
  nothing was compiled. Data-parallel devices all-reduce the gradients; stage I also gathers its codes' indices, four
  bytes each, for the usage. FSDP gathers the parameters once per step; whole they are among the temporaries. XLA's CPU
  backend makes no reduce-scatter, so its gradients are summed by whole all-reduces. It also sums the gradients of
  parameters that a step uses several times (the discriminator, MaskGIT's embedding, which is its output layer too) by
  one all-reduce per use. VQ's entropy term goes through the tokens in pieces of 2^25 distances and sums its codebook's
  gradient in each, 32 times at 2^16 codes; with FSDP it exchanges pieces (all-to-all) at 2^14 and 2^16. In loops whose
  length depends on the data (marked *) collectives are counted once.
"""


@dataclasses.dataclass(frozen=True)
class DryRunRow:
    """The dry runs of one run of a sweep."""

    sweep: str
    run: str
    config: str  # FILE:ARG, with overrides
    found: Sequence[dict[str, Any]]  # of `dry_run`, one for each layout of devices


def dry_run_lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and value of each number of a dry run, as in the JSON file."""
    rows = [
        ("experiment", f"{found['experiment']}, {found['dtype']}, {found['devices']} devices, fsdp {found['fsdp']}"),
        *((f"parameters of {name}", f"{count:,}") for name, count in found["parameters"].items()),
        ("parameters", f"{sum(found['parameters'].values()):,}"),
        ("tokens per example, per step", f"{found['tokens_per_example']:,}, {found['tokens_per_step']:,}"),
        ("FLOPs per step, per run", f"{found['flops_per_step']:.4g}, {found['flops']:.4g} ({found['steps']:,} steps)"),
        *((f"memory: {k.replace('_', ' ')}", _size(v)) for k, v in found["memory"].items()),
        ("checkpoint, uncompressed", _size(found["checkpoint_bytes"])),
    ]
    if compiled := found["compiled"]:
        collectives = compiled["collectives"]
        rows += [
            ("memory: temporaries, upper bound, blind to remat", _size(compiled["temporaries"])),
            *((f"{kind} per step", _size(size)) for kind, size in sorted(collectives["bytes"].items())),
            ("loops counted once", str(collectives["loops_counted_once"])),
            ("XLA's FLOPs per device, loops once", f"{compiled['flops']:.4g}"),
        ]
    words = {True: "fits", False: "may not fit: the bound is above its memory", None: "temporaries not known"}
    for e in found["estimates"]:
        value = f"{e['device_hours']:,.0f}, {e['step_seconds']:.3g} s per step, {e['images_per_second']:,.0f} images/s"
        name = f"{e['accelerator']['name']} at {found['utilisation']:.0%} of peak"
        rows.append((name, f"device-hours {value}; {words[e['fits']]}"))
    return rows


def _size(size: int) -> str:
    return f"{size / 2**30:.4f} GiB" if size >= 2**20 else f"{size:,} bytes"


def dry_run_report(rows: Sequence[DryRunRow], title: str) -> str:
    """Markdown: the accelerators, then for each sweep costs, data rates and memory with collectives.
    Each row must have a dry run; ValueError without rows."""
    if not rows:
        raise ValueError("there are no dry runs to report")
    first = rows[0].found[0]
    specifications = [
        (a["name"], *(f"{a[k] / 1e12:g}" for k in ("bfloat16_flops", "float32_flops")), gib(a["memory"]), a["source"])
        for a in (e["accelerator"] for e in first["estimates"])
    ]
    header = ("device", "bfloat16 (TFLOP/s)", "float32 arrays (TFLOP/s)", "memory (GiB)", "source")
    parts = [f"# {title}\n", NOTES.format(utilisation=first["utilisation"], missing=MISSING)]
    parts.append(markdown_table(header, specifications))
    for sweep in dict.fromkeys(row.sweep for row in rows):
        mine = [row for row in rows if row.sweep == sweep]
        parts += [f"## {sweep}\n", _costs(mine)]
        hours = _by_accelerator(mine, lambda found, e: e["device_hours"])
        rates = _by_accelerator(mine, lambda found, e: e["images_per_second"] / found["devices"])
        parts += ["Device-hours of a run:\n", hours, "Images per second that one device consumes:\n", rates]
        parts += ["Memory of a device (GiB), and bytes of collectives in a step (MiB):\n", _memory(mine)]
    return "\n".join(parts)


def gib(size: float) -> str:
    """Bytes in GiB, of three digits or more."""
    return f"{size / 2**30:,.0f}" if size >= 100 * 2**30 else f"{size / 2**30:.3g}"


def _costs(rows: Sequence[DryRunRow]) -> str:
    header = ("run", "config", "parameters", "tokens", "batch", "FLOPs per step", "steps", "FLOPs", "checkpoint (GiB)")
    table = []
    for row in rows:
        found = row.found[0]  # these are the same for all layouts
        sizes = (sum(found["parameters"].values()), found["tokens_per_example"], found["batch_size"])
        work = (f"{found['flops_per_step']:.3g}", f"{found['steps']:,}", f"{found['flops']:.3g}")
        table.append((row.run, f"`{row.config}`", *map("{:,}".format, sizes), *work, gib(found["checkpoint_bytes"])))
    return markdown_table(header, table)


def _by_accelerator(rows: Sequence[DryRunRow], figure: Callable[[dict, dict], float]) -> str:
    names = [e["accelerator"]["name"] for e in rows[0].found[0]["estimates"]]
    table = [(row.run, *(f"{figure(row.found[0], e):,.0f}" for e in row.found[0]["estimates"])) for row in rows]
    return markdown_table(("run", *names), table)


def _memory(rows: Sequence[DryRunRow]) -> str:
    compiled = [f["compiled"] for row in rows for f in row.found if f["compiled"]]
    kinds = sorted({kind for c in compiled for kind in c["collectives"]["bytes"]})
    parts = ("params", "optimizer", "other_state", "frozen", "batch")
    titles = ("params", "optimiser", "other", "frozen", "batch", "temporaries ≤")
    table = []
    for row in rows:
        for found in row.found:
            layout = f"{found['devices']}, FSDP" if found["fsdp"] > 1 else f"{found['devices']}"
            cells = [row.run, layout, *(gib(found["memory"][part]) for part in parts)]
            if c := found["compiled"]:
                mark = "*" if c["collectives"]["loops_counted_once"] else ""
                sizes = [c["collectives"]["bytes"].get(kind, 0) for kind in kinds]
                cells += [gib(c["temporaries"]), *(f"{size / 2**20:.4g}{mark}" for size in sizes)]
            else:
                cells += [MISSING] * (1 + len(kinds))
            table.append(cells)
    return markdown_table(("run", "devices", *titles, *kinds), table)
