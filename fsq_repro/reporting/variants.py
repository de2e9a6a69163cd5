"""Runs that differ in a field which no table shows: what tells them apart.

Tables and figures name a run by quantizer, codebook size, generator and setting. Runs that are the same in all of these
and yet others (learning rate, sampler, ...) are named by the overridden fields that differ between them; where these
say nothing, by their names in the sweep or the directories that they lie in.
"""

import ast
from collections.abc import Callable, Iterable, Sequence

from fsq_repro.reporting.records import RunRecord

# Overridden fields that stand in a table, its protocols or its setting, or change nothing that is measured.
SHOWN = (
    *("seed", "steps", "batch_size", "stage1", "target_bits", "data.source", "data.resolution", "data.num_workers"),
    *("quantizer.name", "quantizer.levels", "quantizer.codebook_size"),
    *("eval", "log_every", "eval_every", "checkpoint_every", "mesh", "accumulate_steps"),
)
# Where overrides say nothing, from short to certain.
NAMES: tuple[Callable[[RunRecord], str], ...] = (
    lambda r: "",
    lambda r: f"run {r.run}",
    lambda r: f"in {r.path.parent.parent.parent.name}",
    lambda r: f"in {r.path.parent}",
)


def by_overrides(records: Sequence[RunRecord]) -> list[str]:
    """Of records that tables name alike, what each overrides otherwise than another: `optimizer.beta2=0.9`, or ""."""
    overrides = [{f: _value(v) for f, v in (r.overrides or {}).items() if not _is_shown(f)} for r in records]
    fields = sorted(set().union(*overrides))
    differing = [f for f in fields if len({fields_of.get(f) for fields_of in overrides}) > 1]
    return [", ".join(f"{f}={mine[f]}" for f in differing if f in mine) for mine in overrides]


def by_name(records: Sequence[RunRecord]) -> list[str]:
    """Of records that would share a mean, "" for each, or what keeps those of one seed apart."""
    for name in NAMES:
        names = [name(r) for r in records]
        if _are_unique((text, r.seed) for text, r in zip(names, records, strict=True)):
            break
    return names


def _are_unique(items: Iterable[tuple]) -> bool:
    items = list(items)
    return len(set(items)) == len(items)


def _is_shown(field: str) -> bool:
    return any(f"{field}.".startswith(f"{part}.") for part in SHOWN)


def _value(text: str) -> str:
    """The same text for 1e-3 and 0.001."""
    try:
        return str(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        return text
