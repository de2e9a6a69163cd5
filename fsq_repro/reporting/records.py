"""Run records: the `record.json` of each run directory, the only thing that reports are made from.

A figure counts only together with its protocol (feature network, reference set, number of samples, weights, ...).
Records that cannot be read are named in a warning and left out; the others still make a report.
"""

import dataclasses
import json
import math
import numbers
import os
import pathlib
import warnings
from typing import Any

RECORD_NAME = "record.json"
GENERATORS = ("masked", "autoregressive")
TASKS = ("depth", "panoptic", "colorization")  # UViM's, in the order of Table 2
KINDS = {
    str: "a string",
    list: "a list",
    dict: "an object",
    bool: "true or false",
    numbers.Integral: "an integer",
    numbers.Real: "a number",
}  # in the words of JSON


@dataclasses.dataclass(frozen=True)
class Measured:
    """One evaluated figure: its value and how it was measured (None if the record does not say)."""

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


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """One finished run, of an autoencoder (stage 1) or of a generator on its tokens (stage 2).

    Attributes (those with a default may be missing in the file):
      experiment: the config file's name; sweep: the sweep's name, else the experiment's first word.
      run: the run's name within its sweep; seed: its seed.
      quantizer: "fsq", "vq" (with the entropy term), "vq_no_entropy", ...
      codebook_size: number of codes; target_bits: log2 of the size that the run is to match.
      levels: FSQ's levels, None for others.
      figures: name -> `Measured`.
      level_histograms: FSQ: per dimension, token counts of each level.
      wall_time_s: training seconds.
      generator: stage 2: "masked" | "autoregressive", None in stage 1; stage1: the autoencoder behind it.
      task: UViM: "depth" | "panoptic" | "colorization", None for others; context: whether its stage 1 sees the image.
    """

    experiment: str
    sweep: str
    run: str
    seed: int
    quantizer: str
    codebook_size: int
    target_bits: float
    figures: dict[str, Measured]
    path: pathlib.Path
    levels: tuple[int, ...] | None = None
    num_tokens: int | None = None
    parameters: int | None = None
    steps: int | None = None
    batch_size: int | None = None
    data: dict[str, Any] = dataclasses.field(default_factory=dict)
    wall_time_s: float | None = None
    device: str | None = None
    git_revision: str | None = None
    level_histograms: list[list[int]] | None = None
    generator: str | None = None
    stage1: Stage1 | None = None
    task: str | None = None
    context: bool | None = None

    @property
    def bits(self) -> float:
        """log2 of the codebook size that the run really has."""
        return math.log2(self.codebook_size)

    def measured(self, name: str) -> Measured | None:
        """The figure of that name; None if the record lacks it or lacks its protocol."""
        figure = self.figures.get(name)
        return figure if figure is not None and figure.protocol else None


def load_records(directory: str | os.PathLike) -> list[RunRecord]:
    """Reads every `record.json` below a directory, ordered by path.

    Broken and unfinished records are named in a warning and left out.

    Raises:
      FileNotFoundError: the directory does not exist.
    """
    directory = pathlib.Path(directory)
    if not directory.is_dir():
        raise FileNotFoundError(f"the runs directory {directory} does not exist.")
    records = []
    for path in sorted(directory.rglob(RECORD_NAME)):
        try:
            records.append(parse_record(json.loads(path.read_text()), path))
        except (ValueError, OSError) as error:  # json's and unicode's errors are ValueErrors
            warnings.warn(f"left out {path}: {error}", stacklevel=2)
    return records


def parse_record(raw: Any, path: pathlib.Path) -> RunRecord:
    """Builds a record from the parsed JSON of a file.

    Raises:
      ValueError: not an object, a field is missing or of the wrong type, or the run is not finished.
    """
    if not isinstance(raw, dict):
        raise ValueError("a run record must be a JSON object.")
    status = raw.get("status")
    if status != "finished":
        raise ValueError(f"its status is {status!r}, only finished runs are reported.")
    experiment = _field(raw, "experiment", str)
    levels = _field(raw, "levels", list, optional=True)
    codebook_size = _field(raw, "codebook_size", numbers.Integral)
    if codebook_size < 2:
        raise ValueError(f"field codebook_size must be at least 2, got {codebook_size}.")
    if levels is not None and not all(isinstance(level, int) and level > 1 for level in levels):
        raise ValueError(f"field levels must be integers above 1, got {levels}.")
    if levels is not None and math.prod(levels) != codebook_size:
        raise ValueError(f"levels {levels} give {math.prod(levels)} codes, codebook_size is {codebook_size}.")
    histograms = _field(raw, "level_histograms", list, optional=True)
    if histograms is not None and [len(h) for h in histograms] != levels:
        raise ValueError(f"field level_histograms must hold one count a level of {levels}, got {histograms}.")
    target_bits = _field(raw, "target_bits", numbers.Real, optional=True)
    generator, stage1 = _generator(raw)
    task = _one_of(raw, "task", TASKS, optional=True)
    return RunRecord(
        experiment=experiment,
        sweep=_field(raw, "sweep", str, optional=True) or experiment.split("_")[0],
        run=_field(raw, "run", str),
        seed=_field(raw, "seed", numbers.Integral),
        quantizer=_field(raw, "quantizer", str),
        codebook_size=codebook_size,
        target_bits=round(math.log2(codebook_size)) if target_bits is None else target_bits,
        figures={name: _figure(name, entry) for name, entry in _field(raw, "figures", dict).items()},
        path=path,
        levels=None if levels is None else tuple(levels),
        num_tokens=_field(raw, "num_tokens", numbers.Integral, optional=True),
        parameters=_field(raw, "parameters", numbers.Integral, optional=True),
        steps=_field(raw, "steps", numbers.Integral, optional=True),
        batch_size=_field(raw, "batch_size", numbers.Integral, optional=True),
        data=_field(raw, "data", dict, optional=True) or {},
        wall_time_s=_field(raw, "wall_time_s", numbers.Real, optional=True),
        device=_field(raw, "device", str, optional=True),
        git_revision=_field(raw, "git_revision", str, optional=True),
        level_histograms=histograms,
        generator=generator,
        stage1=stage1,
        task=task,
        context=_field(raw, "context", bool, optional=task is None),
    )


def _generator(raw: dict) -> tuple[str | None, Stage1 | None]:
    """What only stage-2 records have; (None, None) for stage 1, which is also what a missing stage means."""
    stage = _field(raw, "stage", numbers.Integral, optional=True)
    if stage not in (None, 1, 2):
        raise ValueError(f"field stage must be 1 or 2, got {stage}.")
    if stage != 2:
        return None, None
    generator = _one_of(raw, "generator", GENERATORS)
    facts = _field(raw, "stage1", dict)
    kinds = {f.name: str if f.type is str else numbers.Integral for f in dataclasses.fields(Stage1)}
    return generator, Stage1(**{name: _field(facts, name, kind) for name, kind in kinds.items()})


def _one_of(raw: dict, name: str, allowed: tuple[str, ...], optional: bool = False) -> str | None:
    value = _field(raw, name, str, optional)
    if value is not None and value not in allowed:
        raise ValueError(f"field {name} must be one of {', '.join(allowed)}, got {value!r}.")
    return value


def _field(raw: dict, name: str, kind: type, optional: bool = False) -> Any:
    value = raw.get(name)
    if value is None and optional:
        return None
    if name not in raw:
        raise ValueError(f"field {name} is missing.")
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):  # a bool is an Integral too
        raise ValueError(f"field {name} must be {KINDS[kind]}, got {value!r}.")
    return value


def _figure(name: str, entry: Any) -> Measured:
    value = entry.get("value") if isinstance(entry, dict) else None
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"figure {name} must be an object with a finite number as value, got {entry!r}.")
    protocol = entry.get("protocol")
    if protocol is not None and not isinstance(protocol, dict):
        raise ValueError(f"the protocol of figure {name} must be an object, got {protocol!r}.")
    return Measured(float(value), protocol)
