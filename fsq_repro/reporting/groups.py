"""Groups of runs that may share a table (one setting) or a mean (they differ in nothing but the seed)."""

import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from fsq_repro.metrics.table import FEATURE_NETWORKS, REFERENCES, MetricKey
from fsq_repro.reporting import variants
from fsq_repro.reporting.records import GENERATORS, RunRecord, Setting

T = TypeVar("T")
QUANTIZERS = {
    "fsq": "FSQ",
    "vq": "VQ",
    "vq_no_entropy": "VQ, no entropy term",
    "vq_narrow": "VQ, narrow codes",
    "vq_narrow_no_entropy": "VQ, narrow codes, no entropy term",
    "ema_vq": "EMA-VQ",
    "ema_vq_no_splitting": "EMA-VQ, no splitting",
}


@dataclasses.dataclass(frozen=True)
class Statistic:
    """Mean over seeds, sample standard deviation (None for one seed) and the number of seeds.

    A value that does not depend on the seed has infinitely many that deviate by 0.
    """

    mean: float
    std: float | None
    count: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Statistic":
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs of one quantizer, codebook and protocol that differ in their seed; at least one.

    `variant` is what tells them from others that tables would name alike, "" where there are none; see `variants`.
    """

    records: tuple[RunRecord, ...]
    variant: str = ""

    @property
    def first(self) -> RunRecord:
        return self.records[0]

    @property
    def suffix(self) -> str:
        """` (optimizer.beta2=0.9)`, or ""."""
        return f" ({self.variant})" if self.variant else ""

    @property
    def quantizer(self) -> str:
        """The quantizer, and the variant, as tables and legends call it."""
        return display_quantizer(self.first.quantizer) + self.suffix

    @property
    def line(self) -> str:
        """What figures draw as one line and in one style: the record's quantizer, and the variant."""
        return self.first.quantizer + self.suffix

    @property
    def levels_text(self) -> str:
        """`[8,5,5,5]`, or `1,024 codes`; and the variant."""
        r = self.first
        codes = f"[{','.join(map(str, r.levels))}]" if r.levels else f"{r.codebook_size:,} codes"
        return codes + self.suffix

    def values(self, key: MetricKey) -> list[float] | None:
        """A metric of each seed; None if any run lacks it or its protocol, or the protocols differ."""
        measured = [r.measured(key) for r in self.records]
        if any(m is None or m.protocol != measured[0].protocol for m in measured):
            return None
        return [m.value for m in measured]

    def statistic(self, key: MetricKey) -> Statistic | None:
        """Mean and deviation of a metric over the seeds; None where `values` is."""
        values = self.values(key)
        return None if values is None else Statistic.of(values)

    def protocol(self, key: MetricKey) -> dict[str, Any] | None:
        """The protocol of a metric, the same for all runs of the group; None where `values` is."""
        return None if self.values(key) is None else self.first.measured(key).protocol


def split_by_setting(records: Iterable[RunRecord], of_stage1: bool = False) -> dict[Setting, list[RunRecord]]:
    """Records by setting, the settings in order; by those of stage 1, generators join their autoencoders."""
    settings: dict[Setting, list[RunRecord]] = {}
    for r in records:
        settings.setdefault(r.stage1_setting if of_stage1 else r.setting, []).append(r)
    return dict(sorted(settings.items()))


def group_runs(records: Iterable[RunRecord]) -> list[Group]:
    """Groups the records of one setting, ordered by target bits, quantizer, levels and generator.

    Runs share a group if these, codebook size, parameters, tokens, task, context and the protocols of their own metrics
    agree: numbers measured differently never enter one mean. UViM's generators must share their autoencoder too: the
    paper's deviation is that of stage II. Runs that differ in further overridden fields, or of which there are several
    of one seed, are groups of their own and have a `variant` each.
    """
    named_alike: dict[tuple, list[RunRecord]] = {}
    for r in records:
        order = (r.target_bits, r.quantizer, r.levels or (), r.codebook_size, (None, *GENERATORS).index(r.generator))
        named_alike.setdefault((order, r.task or "", bool(r.context)), []).append(r)
    measured_alike: dict[tuple, list[RunRecord]] = {}
    for (order, *task), runs in named_alike.items():
        for r, variant in zip(runs, variants.by_overrides(runs), strict=True):
            protocols = json.dumps({str(k): m.protocol for k, m in r.metrics.items() if k.is_main}, sort_keys=True)
            model = (r.parameters or 0, r.num_tokens or 0, *task)
            behind = (r.stage1.run, r.stage1.seed, r.stage1.fingerprint or "") if r.task and r.stage1 else ()
            measured_alike.setdefault((order, variant, model, behind, protocols), []).append(r)
    groups = []
    for (_, variant, *_), runs in sorted(measured_alike.items(), key=lambda item: item[0]):
        parts: dict[str, list[RunRecord]] = {}
        for r, name in zip(runs, variants.by_name(runs), strict=True):
            parts.setdefault(", ".join(filter(None, (variant, name))), []).append(r)
        groups += [Group(tuple(sorted(part, key=lambda r: r.seed)), label) for label, part in sorted(parts.items())]
    return groups


def keys_of(records: Iterable[RunRecord], metric: str) -> list[MetricKey]:
    """The runs' own keys of a metric, most trusted network first, then by `REFERENCES`; a group's runs share theirs."""

    def place(key: MetricKey) -> tuple:  # unknown names behind the known ones
        known = ((key.network, FEATURE_NETWORKS), (key.reference, REFERENCES))
        return *((*names, name).index(name) for name, names in known), key.network, key.reference

    return sorted({k for r in records for k in r.metrics if k.metric == metric and k.is_main}, key=place)


def titled(key: MetricKey) -> str:
    """Title and unit, `PSNR (dB)`; percent signs stand behind the numbers instead."""
    unit = key.declared.unit
    return f"{key.title} ({unit})" if unit not in ("", "%") else key.title


def shown(key: MetricKey, s: Statistic) -> str:
    """`12.30`, `12.30 ± 0.45`, `81.0% ± 1.0%`."""
    metric = key.declared
    sign = "%" if metric.unit == "%" else ""
    text = metric.show(s.mean) + sign
    return text if s.std is None or math.isinf(s.count) or metric.of_data else f"{text} ± {metric.show(s.std)}{sign}"


def display_quantizer(name: str) -> str:
    """A record's quantizer as tables and legends call it."""
    return QUANTIZERS.get(name, name)


def commonest(items: Iterable[T], protocol: Callable[[T], dict[str, Any] | None]) -> list[T]:
    """Of the items that have a protocol, those with the commonest one."""
    by_protocol: dict[str, list[T]] = {}
    for item in items:
        if (found := protocol(item)) is not None:
            by_protocol.setdefault(protocol_text(found), []).append(item)
    return max(by_protocol.values(), key=len, default=[])


def protocol_text(protocol: dict[str, Any]) -> str:
    """A protocol in one line; hashes are cut to 12 digits (the record has them whole)."""
    parts = []
    for key, value in protocol.items():
        text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
        parts.append(f"{key.replace('_', ' ')} {text[:12] + '...' if key.endswith('sha256') else text}")
    return ", ".join(parts)
