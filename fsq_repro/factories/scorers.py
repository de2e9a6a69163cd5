"""From `config.eval` to what images are scored by: feature networks and published statistics."""

import logging
import pathlib
from collections.abc import Sequence

from ml_collections import ConfigDict

from fsq_repro.errors import UserError
from fsq_repro.metrics.reference_statistics import ReferenceStatistics
from fsq_repro.metrics.scoring import Scorer
from fsq_repro.models.inception import PUBLISHED_FILE
from fsq_repro.runtime.run_dir import changed

log = logging.getLogger(__name__)


def check_inception(config: ConfigDict) -> None:
    """Tells before training what the evaluation would miss; ValueError for a path where there is no file."""
    if "inception" not in config.eval:  # no Frechet distance is measured
        return
    path = config.eval.inception
    if path and not pathlib.Path(path).is_file():
        raise ValueError(f"eval.inception = {path!r} is no file; it is the path of Inception's weights")
    if not path and "inception" in config.eval.networks:
        log.warning("eval.inception is empty: the evaluation will need scripts/evaluate.py --inception=FILE")


def choose_networks(config: ConfigDict, networks: Sequence[str] | None, inception: str | None) -> ConfigDict:
    """A copy of the config with what an evaluation was told in place of what the run was trained with.

    None changes nothing, and neither does what the config has no field for: depth has no Frechet distance.
    """
    told = {"networks": None if networks is None else tuple(networks), "inception": inception}
    return changed(config, {f"eval.{k}": v for k, v in told.items() if v is not None and k in config.eval})


def build_scorers(config: ConfigDict, resolution: int) -> list[Scorer]:
    """The networks of `config.eval`, for images of this resolution; UserError for Inception without its path."""
    e = config.eval
    if "inception" in e.networks and not e.inception:
        raise UserError(
            f"the networks {', '.join(e.networks)} need Inception's weights, pytorch-fid's {PUBLISHED_FILE}: set "
            "eval.inception to its path or give scripts/evaluate.py --inception=FILE"
        )
    more = {"inception": {"weights": e.inception, "resize": e.inception_resize}}
    return [Scorer(n, resolution=resolution, batch_size=e.batch_size, **more.get(n, {})) for n in e.networks]


def build_reference_files(config: ConfigDict, scorers: Sequence[Scorer]) -> dict[str, ReferenceStatistics]:
    """Network -> the published statistics in `eval.reference_file`; empty without one."""
    path = config.eval.reference_file
    files = {scorer.name: scorer.reference_file(path) for scorer in scorers} if path else {}
    files = {name: reference for name, reference in files.items() if reference is not None}
    if path and not files:
        names = ", ".join(scorer.name for scorer in scorers)
        raise ValueError(f"eval.reference_file = {path!r} is of none of the networks {names}")
    return files
