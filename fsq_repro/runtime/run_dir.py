"""The run directory: `config.json`, `record.json` and where the rest lies.

config.json      the config as resolved, with its file, argument, overrides and versions
record.json      what reports are made from: the run's facts and every metric with its protocol
metrics.jsonl    one line a write
checkpoints/     orbax
samples/*.png
lock             see `run_lock`
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from fsq_repro.errors import UserError
from fsq_repro.files import atomic_path
from fsq_repro.metrics.table import MetricKey, repeats_stage1

# What a resumed run may change: how long (at a constant learning rate) and how often, and how the batch is spread, not
# what is trained; and where stage I lies, since its weights are compared.
RESUMABLE_CHANGES = (
    "steps",
    "log_every",
    "eval_every",
    "checkpoint_every",
    "eval",
    "data.num_workers",
    "mesh",
    "accumulate_steps",
    "stage1",
    "sampler",
    "compression",
)


# What another machine may set differently in the same run.
OF_THE_MACHINE = (
    "log_every",
    "eval_every",
    "checkpoint_every",
    "data.num_workers",
    "mesh",
    "accumulate_steps",
    "stage1",
    "eval.inception",
    "eval.reference_file",
)
# What a record says of the evaluated checkpoint besides its metrics.
OF_THE_EVALUATION = ("evaluated", "tokens_sha256", "level_histograms", "saturation")


def is_among(field: str, parts: Iterable[str]) -> bool:
    """Whether a config field is one of `parts` or lies below one: "mesh.fsdp" below "mesh"."""
    return any(f"{field}.".startswith(f"{part}.") for part in parts)


def config_fingerprint(config: ConfigDict) -> str:
    """Of what a run trains and measures, 16 hexadecimal digits: the same wherever data, stage I and weights lie."""
    fields = _flatten(config_as_json(config))
    if str(fields.get("data.source", "")).startswith("folder:"):
        fields["data.source"] = "folder"
    kept = {k: v for k, v in fields.items() if not is_among(k, OF_THE_MACHINE)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n")


def changed(config: ConfigDict, fields: dict[str, Any]) -> ConfigDict:
    """A copy of a config with other values in some fields, which are named with dots between: "eval.networks"."""
    copy = config.copy_and_resolve_references()
    copy.update_from_flattened_dict(fields)
    return copy


def _flatten(tree: dict, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        flat.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat


def config_as_json(config: ConfigDict) -> dict:
    """The config as plain JSON values (tuples become lists)."""
    return json.loads(config.to_json())


def _read(path: pathlib.Path) -> dict:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path.parent} is not a run directory: it has no {path.name}") from None
    except json.JSONDecodeError as e:
        raise UserError(f"{path} is not valid JSON ({e})") from None


@dataclasses.dataclass(frozen=True)
class Measured:
    """A measured value and how it was measured; a value without its protocol is in no table."""

    value: float | int
    protocol: dict[str, Any]


Measurements = dict[MetricKey, Measured]


class RunDir:
    """A run directory, at `path` (~ is the home), that is read once. UserError where a file is missing or broken."""

    def __init__(self, path: str | pathlib.Path) -> None:
        self.path = pathlib.Path(os.path.expanduser(path))

    @functools.cached_property
    def config(self) -> ConfigDict:
        """The config that the run was started with, locked: what changes it works on a copy."""

        def tuples(value: Any) -> Any:
            if isinstance(value, dict):
                return {k: tuples(v) for k, v in value.items()}
            return tuple(tuples(v) for v in value) if isinstance(value, list) else value

        return ConfigDict(tuples(_read(self.path / "config.json")["config"])).lock()

    @functools.cached_property
    def record(self) -> dict:
        """`record.json` as it was when first asked for, or as `update_record` left it."""
        return _read(self.path / "record.json")

    @property
    def fingerprint(self) -> str | None:
        """`config_fingerprint` by the record, else of the config as it stands here; None where neither is known."""
        record = _read(self.path / "record.json") if (self.path / "record.json").exists() else {}
        known = record.get("config_fingerprint")
        return known or (config_fingerprint(self.config) if (self.path / "config.json").exists() else None)

    @property
    def checkpoints(self) -> pathlib.Path:
        return self.path / "checkpoints"

    @property
    def trained_steps(self) -> int:
        """Step of the last checkpoint, by the names in `checkpoints`; 0 where there is none."""
        names = [path.name for path in self.checkpoints.iterdir()] if self.checkpoints.is_dir() else []
        return max((int(name) for name in names if name.isdecimal()), default=0)

    @property
    def samples(self) -> pathlib.Path:
        return self.path / "samples"

    def last_check(self) -> dict[str, float]:
        """The loop's last measurements on the validation split, and their `step`; {} before the first."""
        file, found = self.path / "metrics.jsonl", {}
        for line in file.read_text().splitlines() if file.exists() else ():
            scalars = json.loads(line)
            if any(name.startswith("validation/") for name in scalars):
                found = scalars
        return {name.removeprefix("validation/"): value for name, value in found.items()}

    def check_resumable(self, config: ConfigDict) -> None:
        """UserError where the run's config differs in fields that resuming may not change; names each."""
        if not (self.path / "config.json").exists():
            if self.path.exists() and not self.path.is_dir():
                raise UserError(f"--workdir={self.path} is not a directory")
            return
        old, new = (_flatten(config_as_json(c)) for c in (self.config, config))
        differ = [
            f"{key}: {old.get(key)!r} -> {new.get(key)!r}"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key) and not is_among(key, RESUMABLE_CHANGES)
        ]
        # Imported weights have trained no step here: their schedule is yet to begin.
        has_trained = (self.path / "record.json").exists() and "wall_time_s" in self.record
        if has_trained and old["steps"] != new["steps"] and new.get("optimizer.schedule") != "constant":
            differ.append(f"steps: {old['steps']} -> {new['steps']}, at which the learning rate's schedule ends")
        elif new["steps"] < self.trained_steps:
            differ.append(
                f"steps: {old['steps']} -> {new['steps']}, less than the {self.trained_steps} of its checkpoint"
            )
        if differ:
            raise UserError(
                f"{self.path} holds a run with another config ({'; '.join(differ)}); resume it as it was, or choose "
                "another --workdir"
            )

    def check_data(self, found: Mapping[str, str]) -> None:
        """UserError where the run was trained on other data than `found`, split -> hash as of `sources.contents`."""
        known = (self.record.get("data_hashes") or {}) if (self.path / "record.json").exists() else {}
        differ = [f"{s} split: {known[s]} -> {found[s]}" for s in sorted(found) if known.get(s, found[s]) != found[s]]
        if differ and self.trained_steps:
            raise UserError(
                f"the data of {self.path} have changed since it was trained (hash of names and sizes, "
                f"{'; '.join(differ)}); give it the data that it had, or choose another --workdir"
            )

    def write_config(self, config: ConfigDict, **origin: Any) -> None:
        """Writes `config.json`: the resolved config, and where it came from (file, command, versions, revision).

        The path in `stage1` becomes an absolute one, so that the run can be used from any folder.
        """
        if config.get("stage1"):
            config = changed(config, {"stage1": str(RunDir(config.stage1).path.absolute())})
        write_json(self.path / "config.json", {"config": config_as_json(config), **origin})
        self.__dict__.pop("config", None)

    def start_record(self, **facts: Any) -> dict:
        """`update_record` when training starts or goes on.

        A run keeps the revision and the versions that it was started with; other revisions that went on with it are
        listed in `later_revisions`. Those that only found it finished are not; they note what is asked for now. A
        record of a run whose checkpoints are gone, or were never here, is that of another run.
        """
        file = self.path / "record.json"
        old = _read(file) if file.exists() else {}
        if old.get("status") == "finished" and not self.trained_steps:
            file.unlink()
            old = {}
        if old.get("status") == "finished" and old.get("steps") == facts["steps"]:
            return self.update_record(**self._asked_again(old, facts))
        facts |= {name: None for name in OF_THE_EVALUATION if name in old}
        if first := old.get("git_revision"):
            later = [r for r in (*old.get("later_revisions", ()), facts["git_revision"]) if r != first]
            kept = {"git_revision": first, "versions": old["versions"], "later_revisions": list(dict.fromkeys(later))}
            facts |= kept if later else {"versions": old["versions"]}
        return self.update_record(**facts)

    def update_record(self, measured: Measurements | None = None, **facts: Any) -> dict:
        """Merges facts and measurements into `record.json`; a measurement replaces the one of its key.

        In the file measurements are the list `metrics`: {"metric", further fields of the key, "value", "protocol"}.
        Measurements of another checkpoint than the last one, of the record's `steps`, are kept under keys that say so.
        Returns the record.
        """
        file = self.path / "record.json"
        record = _read(file) if file.exists() else {"metrics": []}
        record |= facts
        keys = [MetricKey.of_record(entry, record) for entry in record["metrics"]]
        entries = {key: entry | key.to_json() for key, entry in zip(keys, record["metrics"], strict=True)}
        entries |= {key: {**key.to_json(), **dataclasses.asdict(m)} for key, m in (measured or {}).items()}
        record["metrics"] = list(entries.values())
        write_json(file, record)
        self.record = record
        return record

    def _asked_again(self, old: dict, facts: dict) -> dict:
        """What changes in the record of a finished run whose config may now ask for another evaluation."""
        changes = {name: facts[name] for name in ("config_fingerprint", "overrides") if name in facts}
        if not old.get("evaluated") and self.fingerprint != facts.get("config_fingerprint"):
            changes["evaluated"] = {"config_fingerprint": self.fingerprint}  # until it is evaluated again
        return changes


def open_run(run: str | pathlib.Path | RunDir, trainer: str | None = None, why: str = "") -> RunDir:
    """A run directory; one that is open stays the same, with what was read of it.

    UserError, with the reason `why`, where `trainer` is told and the run is of another one.
    """
    run = run if isinstance(run, RunDir) else RunDir(run)
    if trainer and run.config.trainer != trainer:
        why = why or f", not of {trainer!r}"
        raise UserError(f"{run.path} holds a run of the trainer {run.config.trainer!r}{why}")
    return run


def read_metrics(record: dict) -> Measurements:
    """The measurements of a record. ValueError for an entry of an unknown metric."""
    return {MetricKey.of_record(e, record): Measured(e["value"], e["protocol"]) for e in record["metrics"]}


def is_evaluated(record: dict) -> bool:
    """Whether a record has metrics of its run's last checkpoint. ValueError for an entry of an unknown metric."""
    keys = [MetricKey.of_record(e, record) for e in record.get("metrics", ())]
    return any(key.is_main and not repeats_stage1(key, record) for key in keys)
