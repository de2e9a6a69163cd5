"""Whether a run directory holds what a sweep asks for: its config, data, stage I and evaluated checkpoint.

What a record does not say, because it is older, counts as what is asked for.
"""

import json
import pathlib
from collections.abc import Callable, Mapping

from ml_collections import ConfigDict

from fsq_repro.errors import UserError, explained
from fsq_repro.runtime.run_dir import RunDir, config_fingerprint, is_evaluated

# A config -> split -> hash of the data that it would be trained and measured on now; {} where that is not known.
DataHashes = Callable[[ConfigDict], Mapping[str, str]]


def read_record(path: pathlib.Path) -> dict:
    """The record in a directory; {} where there is none that can be read."""
    try:
        return json.loads((path / "record.json").read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return {}


def outdated(path: pathlib.Path, config: ConfigDict, data_hashes: DataHashes, *, evaluated: bool = True) -> str:
    """Why the run in a directory must be trained or evaluated for it to be what is asked for; "" where it need not.

    Args:
      path: the run directory.
      config: as scripts/train.py will read it.
      data_hashes: asked only of runs whose record says what their data were.
      evaluated: whether its metrics are asked for.

    Raises UserError where the run cannot become that, because it was trained otherwise: names what differs.
    """
    record, run = read_record(path), RunDir(path)
    known_data, evaluation = record.get("data_hashes") or {}, record.get("evaluated") or {}
    now = data_hashes(config) if known_data else {}
    asked = config_fingerprint(config)
    with explained():
        has_metrics = is_evaluated(record)
    reasons = []
    if record.get("status") != "finished":
        reasons.append("its training has not finished" if record else "it has not been trained")
    elif run.fingerprint not in (None, asked):
        reasons.append("its config has changed")
    elif _differ(known_data, now):
        reasons.append("its data have changed")
    elif evaluated and not has_metrics:
        reasons.append(f"its checkpoint of step {record.get('steps')} has not been evaluated")
    elif evaluated and evaluation.get("config_fingerprint", asked) != asked:
        reasons.append("it has been evaluated with another config")
    elif evaluated and _differ(evaluation.get("data_hashes") or {}, now):
        reasons.append("the data that it was evaluated on have changed")
    if reasons:
        run.check_resumable(config)
    run.check_data(now)
    _check_stage1(run, record, config)
    return "".join(reasons)


def _differ(known: Mapping[str, str], now: Mapping[str, str]) -> bool:
    return any(now.get(split, value) != value for split, value in known.items())


def _check_stage1(run: RunDir, record: dict, config: ConfigDict) -> None:
    """UserError where a run was trained on another stage I than the one that `config.stage1` holds now.

    A record that was taken over, without a config beside it, comes from another machine, whose weights differ.
    """
    known = record.get("stage1")
    if not known or not config.get("stage1"):
        return
    theirs = read_record(pathlib.Path(config.stage1))
    now = {name: theirs.get(name) for name in ("experiment", "steps", "batch_size", "seed")}
    if (run.path / "config.json").exists():
        now["fingerprint"] = (theirs.get("evaluated") or {}).get("weights")
    differ = [f"{k}: {known[k]} -> {v}" for k, v in now.items() if v is not None and known.get(k, v) != v]
    if differ:
        raise UserError(
            f"{run.path} was trained on another stage I than the one in {config.stage1} ({'; '.join(differ)}); choose "
            "another --workdir, or remove the run to train it anew"
        )
