"""Groups of runs that may share a table (one setting) or a mean (they differ in nothing but the seed)."""

import dataclasses
import json
import statistics
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from fsq_repro.reporting.records import GENERATORS, RunRecord

# Feature networks in the order of trust: only the first one's distance may be called FID.
FEATURE_NETWORKS = ("inception", "alexnet", "vgg16")
# "names": the published lists of file names (FID-5k); "file": published statistics.
REFERENCES = ("names", "file", "train", "validation")
FID_5K = "cfd_inception_names"  # the colourisation distance that the paper reports


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
class Statistic:
    """Mean over seeds, sample standard deviation (None for one seed) and the number of seeds."""

    mean: float
    std: float | None
    count: int


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs of one quantizer, codebook and protocol that differ in their seed; at least one."""

    records: tuple[RunRecord, ...]

    @property
    def first(self) -> RunRecord:
        return self.records[0]

    @property
    def seeds(self) -> list[int]:
        return [r.seed for r in self.records]

    def statistic(self, name: str) -> Statistic | None:
        """Mean and deviation of a figure over the seeds; None if any run lacks it or its protocol, or they differ."""
        measured = [r.measured(name) for r in self.records]
        if any(m is None or m.protocol != measured[0].protocol for m in measured):
            return None
        values = [m.value for m in measured]
        return Statistic(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))

    def protocol(self, name: str) -> dict[str, Any] | None:
        """The protocol of a figure, the same for all runs of the group; None where `statistic` is."""
        return self.first.measured(name).protocol if self.statistic(name) is not None else None


def setting_of(record: RunRecord) -> Setting:
    """The setting of a run of either stage."""
    source, resolution = str(record.data.get("source", "unknown data")), str(record.data.get("resolution", "unknown"))
    tokens = ""
    if record.stage1:
        tokens = f"{record.stage1.experiment} ({record.stage1.steps:,} steps of batch {record.stage1.batch_size})"
    return Setting(record.experiment, source, resolution, record.steps or 0, record.batch_size or 0, tokens)


def stage1_setting_of(record: RunRecord) -> Setting:
    """The setting of the autoencoder: of the run itself in stage 1, of the run behind it in stage 2."""
    if record.stage1 is None:
        return setting_of(record)
    s = record.stage1
    return dataclasses.replace(
        setting_of(record), experiment=s.experiment, steps=s.steps, batch_size=s.batch_size, tokens=""
    )


def split_by_setting(
    records: Iterable[RunRecord], setting: Callable[[RunRecord], Setting] = setting_of
) -> dict[Setting, list[RunRecord]]:
    """Records by setting, the settings in order. By `stage1_setting_of`, generators join their autoencoders."""
    settings: dict[Setting, list[RunRecord]] = {}
    for r in records:
        settings.setdefault(setting(r), []).append(r)
    return dict(sorted(settings.items()))


def group_runs(records: Iterable[RunRecord]) -> list[Group]:
    """Groups the records of one setting, ordered by target bits, quantizer, levels and generator.

    Runs share a group if quantizer, levels, codebook size, target bits, generator, parameters, tokens, task, context
    and the protocols of all figures agree (but for extra ones, NAME@...): numbers measured differently never enter one
    mean. UViM's generators must share their autoencoder too: the paper's deviation is that of stage II. A seed that
    occurs twice in a group is named in a warning and counted once, since a copied run would make the deviation look
    small.
    """
    groups: dict[tuple, dict[int, RunRecord]] = {}
    for r in records:
        protocols = json.dumps({n: f.protocol for n, f in r.figures.items() if "@" not in n}, sort_keys=True)
        key = (
            r.target_bits,
            r.quantizer,
            r.levels or (),
            r.codebook_size,
            GENERATORS.index(r.generator) if r.generator else -1,
            r.parameters or 0,
            r.num_tokens or 0,
            r.task or "",
            bool(r.context),
            (r.stage1.run, r.stage1.seed) if r.task and r.stage1 else (),
            protocols,
        )
        by_seed = groups.setdefault(key, {})
        if r.seed in by_seed:
            warnings.warn(f"left out {r.path}: the same run as {by_seed[r.seed].path}", stacklevel=2)
        else:
            by_seed[r.seed] = r
    return [Group(tuple(by_seed[seed] for seed in sorted(by_seed))) for _, by_seed in sorted(groups.items())]


def frechet_names(records: Iterable[RunRecord], kind: str = "rfd") -> list[str]:
    """Names of the Frechet distances in the records, of reconstructions ("rfd"), samples ("sfd") or colourised images
    ("cfd"), most trusted network first, then by `REFERENCES`. Extra figures (NAME@...) are not among them."""
    present = {name for r in records for name in r.figures if name.startswith(f"{kind}_") and "@" not in name}
    known = [f"{kind}_{n}_{ref}" for n in FEATURE_NETWORKS for ref in REFERENCES]
    return [name for name in known if name in present] + sorted(present - set(known))


def network_of(name: str) -> str:
    """`sfd_alexnet_train` -> `alexnet`."""
    return name.split("_")[1]


def frechet_label(name: str) -> str:
    """`rfd_alexnet_train` -> `rFD-alexnet (train)`, `sfd_...` -> `sampling FD-...`, `cfd_...` -> `FD-...`.

    Inception's alone is called FID, and of colourised images FID-5k where the reference is the published name list.

    Sampling FID is not shortened: sFID is the ADM suite's name for FID of spatial features (`spatialfd_...`).
    """
    kind, _, rest = name.partition("_")
    network, _, reference = rest.partition("_")
    if name == FID_5K:
        return "FID-5k"
    prefix = {"rfd": "r", "sfd": "sampling ", "spatialfd": "s", "cfd": ""}[kind]
    return f"{prefix}{'FID' if network == 'inception' else f'FD-{network}'} ({reference})"


def display_quantizer(name: str) -> str:
    """A record's quantizer as tables and legends call it."""
    known = {
        "fsq": "FSQ",
        "vq": "VQ",
        "vq_no_entropy": "VQ, no entropy term",
        "ema_vq": "EMA-VQ",
        "ema_vq_no_splitting": "EMA-VQ, no splitting",
    }
    return known.get(name, name)


def protocol_text(protocol: dict[str, Any]) -> str:
    """A protocol in one line; hashes are cut to 12 digits (the record has them whole)."""
    parts = []
    for key, value in protocol.items():
        text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
        parts.append(f"{key.replace('_', ' ')} {text[:12] + '...' if key.endswith('sha256') else text}")
    return ", ".join(parts)
