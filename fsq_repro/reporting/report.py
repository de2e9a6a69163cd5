"""The report: every table and figure for which there are run records."""

import dataclasses
import itertools
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Mapping, Sequence

from fsq_repro.reporting import (
    drawing,
    guidance,
    histograms,
    levels,
    search,
    tradeoff,
    tradeoff_figure,
    uvim,
    uvim_figure,
)
from fsq_repro.reporting.groups import split_by_setting
from fsq_repro.reporting.records import RECORD_NAME, RunRecord, Setting, load_records

PICTURES = ("evaluation", "classes")  # samples/NAME.png of a run directory
RECORDS = "records"  # where a report keeps those that it is made from


@dataclasses.dataclass(frozen=True)
class Study:
    """What a sweep's records become: a figure and tables; a table without runs is empty."""

    figure: Callable[[Sequence[RunRecord], pathlib.Path], None]
    tables: tuple[Callable[[Sequence[RunRecord]], str], ...]
    one_figure: bool = False  # of all runs; else one a setting of autoencoders and the generators on their tokens


STUDIES = {
    "tradeoff": Study(tradeoff_figure.tradeoff_figure, (tradeoff.AUTOENCODERS.text, tradeoff.GENERATORS.text)),
    "levels": Study(levels.levels_figure, (levels.LEVEL_SETS.text, levels.GENERATORS_BY_LEVEL_SET.text)),
    "guidance": Study(
        guidance.guidance_figure, (tradeoff.AUTOENCODERS.text, guidance.GUIDANCE.text, tradeoff.GENERATORS.text)
    ),
    "search": Study(search.nothing_to_draw, (search.search_tables,)),
    "uvim": Study(uvim_figure.uvim_figure, (uvim.uvim_table,), one_figure=True),
}


def write_report(
    runs_dir: str | os.PathLike, out_dir: str | os.PathLike, *, show_data: bool = True
) -> list[pathlib.Path]:
    """Writes tables (Markdown) and figures (PNG) of all run records below a directory.

    SWEEP.md and SWEEP*.png come from the runs of that sweep: `tradeoff` (Fig. 3), `levels` (Fig. 10), `guidance`
    (Fig. 4), `uvim` (Table 2) or `search` (the log of its trials); `*_histograms.png` shows the use of each level.
    Where autoencoders differ in data, steps or batch size, each setting has its own figure (UViM's tasks share one),
    and each setting of autoencoders or generators its own section. The records go to `records/`, from which the report
    can be made again, and the pictures that a run's evaluation left beside its record to `pictures/`. Without
    `show_data` pictures of the data and reconstructions of it are left out, for data that may not be shown: samples
    stay. Returns the tables and figures written.

    FileNotFoundError if there is no runs directory; ValueError, before anything is written, if it holds no finished run
    of a known sweep.
    """
    records = load_records(runs_dir, copies=pathlib.Path(out_dir) / RECORDS)
    studies = {name: [r for r in records if r.sweep == name] for name in STUDIES}
    chosen = [r for runs in studies.values() for r in runs]
    if not chosen:
        found = sorted({r.sweep for r in records})
        detail = f"; its records are of {', '.join(found)}" if found else ""
        *known, last = STUDIES
        raise ValueError(f"{runs_dir} holds no finished run of the sweeps {', '.join(known)} or {last}{detail}.")
    out_dir = pathlib.Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    pictures = _copy_records_and_pictures(chosen, out_dir, show_data)
    return [f for name, runs in studies.items() if runs for f in _write_study(name, runs, pictures, out_dir)]


def _write_study(
    name: str, records: Sequence[RunRecord], pictures: Mapping[pathlib.Path, list[str]], out_dir: pathlib.Path
) -> list[pathlib.Path]:
    """One sweep's table and figures; a figure that no record has the numbers for is not drawn."""
    study, files = STUDIES[name], []
    settings = split_by_setting(records, of_stage1=True)
    drawings = [(study.figure, records, f"{name}.png")] if study.one_figure else []
    for setting, runs in settings.items():
        suffix = "" if len(settings) == 1 else f"_{_slug(setting)}"
        drawings += [] if study.one_figure else [(study.figure, runs, f"{name}{suffix}.png")]
        drawings.append((histograms.level_histogram_figure, runs, f"{name}_histograms{suffix}.png"))
    for figure, runs, file in drawings:
        try:
            figure(runs, out_dir / file)
        except drawing.NothingToDrawError:
            continue
        files.append(out_dir / file)
    parts = [f"# Sweep `{name}`\n", *(f"![{f.stem}]({f.name})\n" for f in files)]
    parts += [text for table in (*study.tables, histograms.level_histogram_table) if (text := table(records))]
    images = [f"![{pathlib.PurePath(p).stem}]({p})\n" for r in records for p in pictures[r.path]]
    if images:
        parts += ["## Pictures\n", *images]
    markdown = out_dir / f"{name}.md"
    markdown.write_text("\n".join(parts), encoding="utf-8")
    return [markdown, *files]


def _copy_records_and_pictures(
    records: Sequence[RunRecord], out_dir: pathlib.Path, show_data: bool
) -> dict[pathlib.Path, list[str]]:
    """Copies each record to records/RUN/seedK/ and its pictures to pictures/RUN_seedK_NAME.png, returned by record.

    Runs of one name and seed are kept apart by their setting and, where that is the same too, by numbers. A report that
    is made again from its own records finds the pictures where it put them.
    """
    owners: dict[tuple[str, int], Setting] = {}
    taken: set[tuple[str, int]] = set()
    pictures: dict[pathlib.Path, list[str]] = {}
    for r in records:
        own_name = owners.setdefault((r.run, r.seed), r.setting) == r.setting
        run = name = r.run if own_name else f"{r.run}_{_slug(r.setting)}"
        number = itertools.count(2)
        while (run, r.seed) in taken:
            run = f"{name}_{next(number)}"
        taken.add((run, r.seed))
        copy = out_dir / RECORDS / run / f"seed{r.seed}" / RECORD_NAME
        again = copy.resolve() == r.path.resolve()
        if not again:
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(r.path, copy)
        pictures[r.path] = []
        for name in PICTURES if show_data or r.generator else ():
            picture, target = r.path.parent / "samples" / f"{name}.png", f"pictures/{run}_seed{r.seed}_{name}.png"
            if picture.is_file():
                (out_dir / "pictures").mkdir(exist_ok=True)
                shutil.copyfile(picture, out_dir / target)
            if picture.is_file() or (again and (out_dir / target).is_file()):
                pictures[r.path].append(target)
    return pictures


def _slug(setting: Setting) -> str:
    return re.sub(r"[^a-z0-9]+", "_", str(setting).lower()).strip("_")
