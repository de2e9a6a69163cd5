"""What a record says of the evaluation that its tables are made from: of which checkpoint, config and data it is."""

import logging
from collections.abc import Iterable
from typing import Any

from fsq_repro.data.sources import Source, contents
from fsq_repro.runtime.run_dir import RunDir, config_fingerprint

log = logging.getLogger(__name__)


def evaluated(run: RunDir, config: Any, sources: Iterable[Source], step: int, **more: Any) -> dict:
    """The fact `evaluated` of a run's record, for an evaluation of its last checkpoint; sweeps go by it.

    Warns where a run was trained on other data than it is measured on.

    Args:
      config: the run's, with what the evaluation was told: {} where that asks for other metrics than the run's own.
      sources: what it was measured on.
      step: of the checkpoint.
      **more: `weights`, the hash of a stage I's, by which stages II know it.
    """
    data = {source.split: contents(source) for source in sources}
    known = run.record.get("data_hashes") or {}
    if changed := [split for split in data if known.get(split, data[split]) != data[split]]:
        log.warning("%s was trained on other data than those measured on: split %s", run.path, ", ".join(changed))
    fingerprint = config_fingerprint(config)
    if fingerprint != config_fingerprint(run.config):
        return {}
    return {"evaluated": {"checkpoint": step, "config_fingerprint": fingerprint, "data_hashes": data, **more}}
