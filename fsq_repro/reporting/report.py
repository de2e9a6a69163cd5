"""The report: every table and figure for which there are run records."""

import itertools
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Sequence

from fsq_repro.reporting.figures import level_histogram_figure, levels_figure, tradeoff_figure
from fsq_repro.reporting.groups import frechet_names, split_by_setting
from fsq_repro.reporting.records import RECORD_NAME, RunRecord, load_records
from fsq_repro.reporting.tables import level_histogram_table, levels_table, tradeoff_table


def write_report(runs_dir: str | os.PathLike, out_dir: str | os.PathLike) -> list[pathlib.Path]:
    """Writes tables (Markdown) and figures (PNG) of all run records below a directory.

    `tradeoff.md` and `tradeoff*.png` come from runs of the sweep `tradeoff`, `levels.md` and `levels*.png` from
    `levels`; `*_histograms.png` shows the use of each level. Where runs differ in data, steps or batch size, each
    setting has its own section and its own figures. The records go to `records/`, so that what was measured stays
    beside what was made of it; a report can be made again from them.

    Returns:
      The tables and figures written.

    Raises:
      FileNotFoundError: the runs directory does not exist.
      ValueError: it holds no finished run of a known sweep; nothing is written then.
    """
    records = load_records(runs_dir)
    studies = {name: [r for r in records if r.sweep == name] for name in ("tradeoff", "levels")}
    if not any(studies.values()):
        found = sorted({r.sweep for r in records})
        detail = f"; its records are of {', '.join(found)}" if found else ""
        raise ValueError(f"{runs_dir} holds no finished run of the sweeps tradeoff or levels{detail}.")
    out_dir = pathlib.Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    files = []
    if studies["tradeoff"]:
        files += _study("tradeoff", studies["tradeoff"], tradeoff_table, tradeoff_figure, out_dir)
    if studies["levels"]:
        files += _study("levels", studies["levels"], levels_table, levels_figure, out_dir)
    for record in itertools.chain(*studies.values()):
        copy = out_dir / "records" / record.run / f"seed{record.seed}" / RECORD_NAME
        if copy.resolve() != record.path.resolve():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(record.path, copy)
    return files


def _study(
    name: str,
    records: Sequence[RunRecord],
    table: Callable[[Sequence[RunRecord]], str],
    figure: Callable[[Sequence[RunRecord], pathlib.Path], None],
    out_dir: pathlib.Path,
) -> list[pathlib.Path]:
    """One sweep's table and figures; a figure that no record has the numbers for is not drawn."""
    files = []
    settings = split_by_setting(records)
    for setting, runs in settings.items():
        suffix = "" if len(settings) == 1 else "_" + re.sub(r"[^a-z0-9]+", "_", str(setting).lower()).strip("_")
        if any(r.measured(n) and r.measured("usage") for r in runs for n in frechet_names([r])):
            figure(runs, out_dir / f"{name}{suffix}.png")
            files.append(out_dir / f"{name}{suffix}.png")
        if any(r.level_histograms for r in runs):
            level_histogram_figure(runs, out_dir / f"{name}_histograms{suffix}.png")
            files.append(out_dir / f"{name}_histograms{suffix}.png")
    parts = [f"# Sweep `{name}`\n", *(f"![{f.stem}]({f.name})\n" for f in files), table(records)]
    if any(r.level_histograms for r in records):
        parts.append(level_histogram_table(records))
    markdown = out_dir / f"{name}.md"
    markdown.write_text("\n".join(parts), encoding="utf-8")
    return [markdown, *files]
