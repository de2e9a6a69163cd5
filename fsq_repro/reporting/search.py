"""The log of a search: every trial with what it changed and its last check on the validation split."""

import itertools
import math
import pathlib
from collections.abc import Sequence

from fsq_repro.reporting import drawing
from fsq_repro.reporting.groups import display_quantizer
from fsq_repro.reporting.markdown import MISSING, markdown_table
from fsq_repro.reporting.records import RunRecord

UNINTERESTING = {"seed", "steps", "eval_every", "checkpoint_every", "data.source"}


def search_tables(records: Sequence[RunRecord]) -> str:
    """A table for each quantizer and size, the trial with the smallest squared error first; "" without trials.

    PSNR is that of the mean squared error over all validation images: 10 log10(1 / mse).
    """
    trials = sorted((r for r in records if r.validation), key=_place)
    parts = []
    for (name, bits), group in itertools.groupby(trials, key=lambda r: (_kind(r), r.target_bits)):
        runs = list(group)
        fields = sorted({field for r in runs for field in r.overrides or {}} - UNINTERESTING)
        header = ["trial", *fields, "steps", "validation PSNR (dB)", "usage", "entropy (bits)", "minutes"]
        table = markdown_table(header, [[_name(r), *_settings(r, fields), *_scores(r)] for r in runs])
        parts.append(f"## {name}, 2^{bits:g} codes: {len(runs)} trials\n\n{table}")
    return "\n".join(parts)


def nothing_to_draw(records: Sequence[RunRecord], path: pathlib.Path) -> None:
    """A search has no figure."""
    raise drawing.NothingToDrawError


def _kind(r: RunRecord) -> str:
    """FSQ, or VQ whatever its settings: they are what is searched."""
    return display_quantizer(r.quantizer.split("_")[0])


def _place(r: RunRecord) -> tuple:
    return _kind(r), r.target_bits, r.validation["mse"]


def _name(r: RunRecord) -> str:
    return f"{r.run}, seed {r.seed}"


def _settings(r: RunRecord, fields: Sequence[str]) -> list[str]:
    return [(r.overrides or {}).get(field, MISSING) for field in fields]


def _scores(r: RunRecord) -> list[str]:
    v = r.validation
    minutes = MISSING if r.wall_time_s is None else f"{r.wall_time_s / 60:.1f}"
    psnr = 10 * math.log10(1 / v["mse"])
    return [f"{r.steps:,}", f"{psnr:.2f}", f"{v['usage']:.1%}", f"{v['entropy_bits']:.2f}", minutes]
