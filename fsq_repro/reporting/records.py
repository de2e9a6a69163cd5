"""Run records: the `record.json` of each run directory, the only thing that reports are made from.

A measured value counts only together with its protocol (feature network, reference set, number of samples, ...), and
as a run's own only where the run's last checkpoint was measured. Records that cannot be read, and copies of others, are
named in a warning and left out; the others still make a report.
"""

import dataclasses
import json
import math
import os
import pathlib
import sys
import warnings
from typing import Any, NamedTuple

from fsq_repro.files import in_one_line
from fsq_repro.metrics.table import MetricKey

RECORD_NAME = "record.json"
MAX_FLOAT = sys.float_info.max  # JSON has NaN, Infinity, and integers of any size
GENERATORS = ("masked", "autoregressive")
TASKS = ("depth", "panoptic", "colorization")  # UViM's, in the order of Table 2
WORD = {str: "a string", list: "a list", dict: "an object", bool: "true or false", int: "an integer", float: "a number"}


class Measured(NamedTuple):
    """A measured value and how it was measured (None if the record does not say)."""

    value: float
    protocol: dict[str, Any] | None


@dataclasses.dataclass(frozen=True)
class Stage1:
    """The autoencoder run whose tokens a stage-2 run models."""

    experiment: str
    run: str
    steps: int
    batch_size: int
    seed: int
    fingerprint: str | None = dataclasses.field(default=None, compare=False)  # of its weights


@dataclasses.dataclass(frozen=True, order=True)
class Setting:
    """What runs must share to be set side by side; `tokens` names stage 2's autoencoders and is empty in stage 1."""

    experiment: str
    data_source: str
    resolution: str
    steps: int
    batch_size: int
    tokens: str = ""

    def __str__(self) -> str:
        data = f"{self.data_source} at {self.resolution} px"
        text = f"{self.experiment}, {data}, {self.steps:,} steps of batch {self.batch_size}"
        return f"{text}, tokens of {self.tokens}" if self.tokens else text


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """One finished run, of an autoencoder (stage 1) or a generator on its tokens (stage 2); None: not in the file."""

    path: pathlib.Path
    metrics: dict[MetricKey, Measured]
    experiment: str  # the config file's name
    run: str  # its name within its sweep
    seed: int
    quantizer: str  # "fsq", "vq" (with the entropy term), "vq_no_entropy", ...
    codebook_size: int
    target_bits: float  # log2 of the size that the run is to match
    sweep: str  # the sweep's name, else the experiment's first word
    levels: tuple[int, ...] | None  # FSQ's, None for others
    generator: str | None  # stage 2: "masked" | "autoregressive", None in stage 1
    stage1: Stage1 | None  # the autoencoder behind a generator
    data: dict[str, Any]
    num_tokens: int | None
    parameters: int | None
    steps: int | None
    batch_size: int | None
    wall_time_s: float | None  # of training
    device: str | None
    git_revision: str | None
    level_histograms: list[list[int]] | None  # per dimension, token counts of each level
    task: str | None  # UViM: "depth" | "panoptic" | "colorization", None for others
    context: bool | None  # UViM: whether stage 1 sees the image
    scale: str | None  # "paper" | "cifar10" | "cpu" | "smoke"
    overrides: dict[str, str] | None  # config fields that the command line set -> values as they stood there
    validation: dict[str, Any] | None  # the loop's last check on the validation split
    config_fingerprint: str | None  # of the config without what machines set
    data_hashes: dict[str, str] | None  # split -> hash of what it was trained on
    weights: str | None  # stage I: fingerprint of the evaluated weights

    @property
    def bits(self) -> float:
        """log2 of the codebook size that the run really has."""
        return math.log2(self.codebook_size)

    @property
    def stage1_setting(self) -> Setting:
        """The setting of the autoencoder: of the run itself in stage 1, of the run behind it in stage 2."""
        data = str(self.data.get("source", "unknown data")), str(self.data.get("resolution", "unknown"))
        run = self.stage1 or self
        return Setting(run.experiment, *data, run.steps or 0, run.batch_size or 0)

    @property
    def setting(self) -> Setting:
        """The setting of the run itself."""
        s = self.stage1
        if s is None:
            return self.stage1_setting
        tokens = f"{s.experiment} ({s.steps:,} steps of batch {s.batch_size})"
        own = {"experiment": self.experiment, "steps": self.steps or 0, "batch_size": self.batch_size or 0}
        return dataclasses.replace(self.stage1_setting, **own, tokens=tokens)

    def measured(self, key: MetricKey) -> Measured | None:
        """The measurement of that key; None if the record lacks it or lacks its protocol."""
        found = self.metrics.get(key)
        return found if found is not None and found.protocol else None


REQUIRED = {"experiment": str, "run": str, "seed": int, "quantizer": str, "codebook_size": int}
OPTIONAL = {
    **dict.fromkeys(("sweep", "device", "git_revision", "task", "scale", "config_fingerprint"), str),
    **dict.fromkeys(("num_tokens", "parameters", "steps", "batch_size", "stage"), int),
    **dict.fromkeys(("target_bits", "wall_time_s"), float),
    **dict.fromkeys(("levels", "level_histograms"), list),
    **dict.fromkeys(("data", "overrides", "validation", "data_hashes", "evaluated"), dict),
    "context": bool,
}


def load_records(directory: str | os.PathLike, copies: str | os.PathLike | None = None) -> list[RunRecord]:
    """Reads every finished `record.json` below a directory, by path; FileNotFoundError if there is no directory.

    Run directories come before mere records: of a run and its copy the run is kept. Records below `copies`, which a
    report keeps for itself, are read only where there are no others.
    """
    directory = pathlib.Path(directory)
    if not directory.is_dir():
        raise FileNotFoundError(f"the runs directory {directory} does not exist.")
    found = sorted(directory.rglob(RECORD_NAME), key=lambda p: (not (p.parent / "config.json").is_file(), p))
    others = [p for p in found if copies is None or not p.resolve().is_relative_to(pathlib.Path(copies).resolve())]
    records: dict[tuple, list[RunRecord]] = {}
    for path in others or found:
        try:
            record = parse_record(json.loads(path.read_text()), path)
        except (ValueError, OSError, RecursionError) as error:  # json's and unicode's errors are ValueErrors
            warnings.warn(f"left out {path}: {in_one_line(error)}", stacklevel=2)
            continue
        alike = records.setdefault((record.sweep, record.run, record.seed, record.generator, record.setting), [])
        if same := next((other for other in alike if is_same_run(record, other)), None):
            warnings.warn(f"left out {path}: the same run as {same.path}", stacklevel=2)
        else:
            alike.append(record)
    return [record for alike in records.values() for record in alike]


def is_same_run(a: RunRecord, b: RunRecord) -> bool:
    """Whether two records of one name, seed and setting are one run: copies, or alike in config, data and stage I."""
    known = [(a.config_fingerprint, b.config_fingerprint), (a.data_hashes, b.data_hashes)]
    known += [(a.stage1.fingerprint, b.stage1.fingerprint)] if a.stage1 and b.stage1 else []
    differ = any(x is not None and y is not None and x != y for x, y in known)
    same_config = a.config_fingerprint is not None and a.config_fingerprint == b.config_fingerprint
    return not differ and (same_config or (a.metrics, a.validation) == (b.metrics, b.validation))


def parse_record(raw: Any, path: pathlib.Path) -> RunRecord:
    """Builds a record from a file's JSON; ValueError where a field is missing or wrong or the run not finished."""
    if not isinstance(raw, dict):
        raise ValueError("a run record must be a JSON object.")
    if raw.get("status") != "finished":
        raise ValueError(f"its status is {raw.get('status')!r}, only finished runs are reported.")
    fields = {name: _field(raw, name, kind) for name, kind in REQUIRED.items()}
    fields |= {name: _field(raw, name, kind, optional=True) for name, kind in OPTIONAL.items()}
    size, levels, histograms = (fields[name] for name in ("codebook_size", "levels", "level_histograms"))
    if size < 2:
        raise ValueError(f"field codebook_size must be at least 2, got {size}.")
    if levels is not None and not all(isinstance(level, int) and level > 1 for level in levels):
        raise ValueError(f"field levels must be integers above 1, got {levels}.")
    if levels is not None and math.prod(levels) != size:
        raise ValueError(f"levels {levels} give {math.prod(levels)} codes, codebook_size is {size}.")
    if histograms is not None and (not all(map(_is_counts, histograms)) or [len(h) for h in histograms] != levels):
        raise ValueError(f"field level_histograms must hold one count per level of {levels}, got {histograms}.")
    if fields["target_bits"] is None:
        fields["target_bits"] = round(math.log2(size))
    if fields["task"] is not None:
        _one_of(raw, "task", TASKS)
        _field(raw, "context", bool)
    fields["sweep"] = fields["sweep"] or fields["experiment"].split("_")[0]
    fields["levels"] = None if levels is None else tuple(levels)
    fields["data"] = fields["data"] or {}
    stage, generator, stage1 = fields.pop("stage"), None, None  # a missing stage is the first
    if stage not in (None, 1, 2):
        raise ValueError(f"field stage must be 1 or 2, got {stage}.")
    if stage == 2:
        generator, facts = _one_of(raw, "generator", GENERATORS), _field(raw, "stage1", dict)
        stage1 = Stage1(**{f.name: _field(facts, f.name, f.type) for f in dataclasses.fields(Stage1) if f.compare})
        stage1 = dataclasses.replace(stage1, fingerprint=_field(facts, "fingerprint", str, optional=True))
    metrics, older = _metrics(raw)
    if older:
        steps = ", ".join(f"{step:,}" for step in sorted(older))
        warnings.warn(
            f"{path}: its metrics are of step {steps} and not shown, since it was trained to {raw['steps']:,}; "
            "scripts/evaluate.py measures it again",
            stacklevel=2,
        )
        fields["level_histograms"] = None
    if fields["validation"] and fields["validation"].get("step", fields["steps"]) != fields["steps"]:
        fields["validation"] = None
    weights = (fields.pop("evaluated") or {}).get("weights")
    return RunRecord(path=path, metrics=metrics, generator=generator, stage1=stage1, weights=weights, **fields)


def _is_counts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(x, int) and 0 <= x <= MAX_FLOAT for x in values)


def _one_of(raw: dict, name: str, allowed: tuple[str, ...]) -> str:
    value = _field(raw, name, str)
    if value not in allowed:
        raise ValueError(f"field {name} must be one of {', '.join(allowed)}, got {value!r}.")
    return value


def _field(raw: dict, name: str, kind: type, optional: bool = False) -> Any:
    value = raw.get(name)
    if value is None and optional:
        return None
    if name not in raw:
        raise ValueError(f"field {name} is missing.")
    accepted = (int, float) if kind is float else kind
    wrong = not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool)  # a bool is an int too
    if wrong or (kind is float and not abs(value) <= MAX_FLOAT):
        raise ValueError(f"field {name} must be {WORD[kind]}, got {value!r}.")
    return value


def _metrics(raw: dict) -> tuple[dict[MetricKey, Measured], set[int]]:
    """The measurements, and the steps of those under a main key that are of an older checkpoint: their keys say so."""
    found, seen, older = {}, set(), set()
    for entry in _field(raw, "metrics", list):
        if not isinstance(entry, dict):
            raise ValueError(f"an entry of metrics must be an object, got {entry!r}.")
        key, value, protocol = MetricKey.from_json(entry), entry.get("value"), entry.get("protocol")
        try:
            hash(key), str(key)
        except TypeError:
            raise ValueError(f"the fields of a metric must be words, got {entry!r}.") from None
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= MAX_FLOAT:
            raise ValueError(f"the value of metric {key} must be a finite number, got {value!r}.")
        if protocol is not None and not isinstance(protocol, dict):
            raise ValueError(f"the protocol of metric {key} must be an object, got {protocol!r}.")
        if key in seen:
            raise ValueError(f"metric {key} stands twice in it.")
        seen.add(key)
        of_checkpoint = MetricKey.of_record(entry, raw)
        if of_checkpoint != key:
            older.add(of_checkpoint.step)
        found[of_checkpoint] = Measured(float(value), protocol)
    return found, older
