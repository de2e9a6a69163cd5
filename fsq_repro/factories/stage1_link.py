"""How a stage-II run holds on to the stage-I run that its config names: the checks that all stages II share."""

import logging
import pathlib
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from fsq_repro.errors import UserError
from fsq_repro.factories import factory
from fsq_repro.runtime import run_dir

log = logging.getLogger(__name__)


def stage1_config(config: ConfigDict, trainer: str, same: Sequence[tuple[str, str]] = ()) -> ConfigDict:
    """The config of the run in `config.stage1`, which must be what stage II's config says.

    Args:
      config: of stage II.
      trainer: of the run there.
      same: pairs of (words for it, field) that must be equal, besides quantizer and resolution.

    Raises:
      UserError: no run there, one of another trainer, or one with another codebook, resolution or other field.
    """
    if not config.stage1:
        raise UserError("stage1 is empty; give stage I's run directory, --config.stage1=DIR")
    theirs = run_dir.RunDir(pathlib.Path(config.stage1)).config
    if theirs.trainer != trainer:
        raise UserError(f"stage1 = {config.stage1} holds a run of the trainer {theirs.trainer!r}, not of {trainer!r}")
    pair = (config, theirs)
    compared = [
        ("quantizer", *(factory.quantizer_label(c.quantizer) for c in pair)),
        ("codebook size", *(factory.build_quantizer(c.quantizer).codebook_size for c in pair)),
        ("quantizer.levels", *(c.quantizer.get("levels") for c in pair)),
        ("data.resolution", *(c.data.resolution for c in pair)),
        *((words, *(_field(c, field) for c in pair)) for words, field in same),
    ]
    for words, mine, other in compared:
        if mine != other:
            raise UserError(f"stage1 = {config.stage1} has {words} {other}, the config has {mine}; they must be equal")
    return theirs


def _field(config: ConfigDict, name: str) -> Any:
    for part in name.split("."):
        config = config[part]
    return config.to_dict() if isinstance(config, ConfigDict) else config


def check_weights(config: ConfigDict, theirs: ConfigDict, step: int, fingerprint: str, known: str | None) -> None:
    """Compares stage I's weights, of training step `step`, with those that the run was started with, if it was.

    Raises:
      UserError: they are other ones.
    """
    if step < theirs.steps:
        log.warning("stage1 = %s is not finished: step %d of %d", config.stage1, step, theirs.steps)
    if known and known != fingerprint:
        raise UserError(
            f"stage1 = {config.stage1} holds other weights (fingerprint {fingerprint}) than this run was "
            f"trained on ({known}); use the autoencoder that it was started with"
        )


def known_fingerprint(path: pathlib.Path) -> str | None:
    """Fingerprint of the autoencoder that the run in `path` was started with; None where there is no run."""
    return run_dir.RunDir(path).record["stage1"]["fingerprint"] if (path / "record.json").exists() else None


def stage1_facts(config: ConfigDict, fingerprint: str) -> dict:
    """What the record of a stage-II run says of its stage I."""
    theirs = run_dir.RunDir(pathlib.Path(config.stage1)).record
    return {key: theirs[key] for key in ("experiment", "run", "steps", "batch_size", "seed")} | {
        "fingerprint": fingerprint
    }
