"""How a stage-II run holds on to the stage-I run that its config names: the checks that all stages II share."""

import dataclasses
import logging
from typing import Any

from ml_collections import ConfigDict

from fsq_repro.errors import UserError
from fsq_repro.quantizers import make_quantizer, quantizer_label
from fsq_repro.runtime.run_dir import RunDir, open_run

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Stage1Need:
    """The run that `config.stage1` of a stage II must name.

    Attributes:
      trainer: of that run.
      same: fields of the config that must be equal in both, besides quantizer and resolution.
    """

    trainer: str
    same: tuple[str, ...] = ()

    def open(self, config: ConfigDict) -> RunDir:
        """The run in `config.stage1`, which must be what stage II's config says.

        Raises:
          UserError: no run there, one of another trainer, or one with another codebook, resolution or other field.
        """
        if not config.stage1:
            raise UserError("stage1 is empty; give stage I's run directory, --config.stage1=DIR")
        run = open_run(config.stage1)
        if not (run.path / "config.json").is_file():
            raise UserError(
                f"stage1 = {config.stage1} is not a run directory: {run.path.absolute()} has no config.json; where it "
                "lies is told by --config.stage1=DIR in training, and by --stage1=DIR where a run is evaluated or used"
            )
        found, pair = run.config.trainer, (config, run.config)
        if found != self.trainer:
            raise UserError(f"stage1 = {config.stage1} holds a run of the trainer {found!r}, not of {self.trainer!r}")
        quantizers = [make_quantizer(**c.quantizer) for c in pair]
        compared = [
            ("quantizer", *(quantizer_label(**c.quantizer) for c in pair)),
            ("codebook size", *(q.codebook_size for q in quantizers)),
            ("quantizer.levels", *(q.levels for q in quantizers)),
            *((field, *(_field(c, field) for c in pair)) for field in ("data.resolution", *self.same)),
        ]
        for words, mine, other in compared:
            if mine != other:
                raise UserError(
                    f"stage1 = {config.stage1} has {words} {other}, the config has {mine}; they must be equal"
                )
        return run


def _field(config: ConfigDict, name: str) -> Any:
    for part in name.split("."):
        config = config[part]
    return config.to_dict() if isinstance(config, ConfigDict) else config


def check_weights(run: RunDir, step: int, fingerprint: str, known: str | None) -> None:
    """UserError unless stage I's weights, of training step `step`, are those that the run of stage II was started with.

    `known` is the fingerprint of the latter; None for a new run.
    """
    if step < run.config.steps:
        log.warning("stage1 = %s is not finished: step %d of %d", run.path, step, run.config.steps)
    if known and known != fingerprint:
        raise UserError(
            f"stage1 = {run.path} holds other weights (fingerprint {fingerprint}) than this run was "
            f"trained on ({known}); use the autoencoder that it was started with"
        )


def known_fingerprint(run: RunDir) -> str | None:
    """Fingerprint of the autoencoder that a run was started with; None where there is no run yet."""
    return run.record["stage1"]["fingerprint"] if (run.path / "record.json").exists() else None


def stage1_facts(config: ConfigDict, fingerprint: str) -> dict:
    """What the record of a stage-II run says of its stage I."""
    theirs, keys = open_run(config.stage1).record, ("experiment", "run", "steps", "batch_size", "seed")
    return {key: theirs[key] for key in keys} | {"fingerprint": fingerprint}
