"""What the data of an experiment are now, for comparison with those that a run was trained and measured on."""

import functools
import logging

from ml_collections import ConfigDict, FrozenConfigDict

from fsq_repro.data.sources import SPLITS, contents
from fsq_repro.errors import BUILD_ERRORS, UserError
from fsq_repro.experiments.registry import kind_of

log = logging.getLogger(__name__)


def data_hashes(config: ConfigDict) -> dict[str, str]:
    """Split -> hash as of `sources.contents`; {}, with a warning, where the data cannot be opened on this machine."""
    return _hashes(FrozenConfigDict({name: config[name] for name in ("trainer", "data", "task") if name in config}))


@functools.cache
def _hashes(config: FrozenConfigDict) -> dict[str, str]:
    try:
        return {split: contents(kind_of(config).build_source(config, split)) for split in SPLITS}
    except (*BUILD_ERRORS, UserError) as e:
        log.warning("whether the data of finished runs have changed is not known here: %s", e)
        return {}
