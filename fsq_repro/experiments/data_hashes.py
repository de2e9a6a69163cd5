"""What the data of an experiment are now, for comparison with those that a run was trained and measured on."""

import functools
import logging
import pathlib

from ml_collections import ConfigDict, FrozenConfigDict

from fsq_repro.data.sources import SPLITS, contents
from fsq_repro.errors import BUILD_ERRORS, UserError
from fsq_repro.experiments.registry import kind_of
from fsq_repro.runtime.run_dir import changed

log = logging.getLogger(__name__)


def data_hashes(config: ConfigDict, root: pathlib.Path) -> dict[str, str]:
    """Split -> hash as of `sources.contents`; {}, with a warning, where the data cannot be opened on this machine.

    A folder with a relative path lies below `root`.
    """
    parts = ConfigDict({name: config[name] for name in ("trainer", "data", "task") if name in config})
    kind, colon, path = parts.data.source.partition(":")
    if kind == "folder":
        parts = changed(parts, {"data.source": f"folder{colon}{root / pathlib.Path(path).expanduser()}"})
    return _hashes(FrozenConfigDict(parts))


@functools.cache
def _hashes(config: FrozenConfigDict) -> dict[str, str]:
    try:
        return {split: contents(kind_of(config).build_source(config, split)) for split in SPLITS}
    except (*BUILD_ERRORS, UserError) as e:
        log.warning("whether the data of finished runs have changed is not known here: %s", e)
        return {}
