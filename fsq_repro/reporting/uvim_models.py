"""UViM's runs as the rows of Table 2: a model is its stage-II runs together with the stage-I run behind them."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from fsq_repro.metrics.table import MetricKey
from fsq_repro.reporting.groups import Group, display_quantizer, group_runs, keys_of, split_by_setting
from fsq_repro.reporting.records import RunRecord, Setting, Stage1

QUANTIZERS = {"fsq": "FSQ", "ema_vq": "VQ", "ema_vq_no_splitting": "VQ, no splitting"}  # as Table 2 calls them
METRICS = {"depth": "rmse", "panoptic": "pq", "colorization": "colorization_fd"}
FID_5K = MetricKey("colorization_fd", network="inception", reference="names")  # which the paper reports
# What a protocol says of the model and its decoding; the rest says what was measured.
OF_THE_RUN = ("weights", "checkpoint", "sampler", "temperature", "seed", "sampler seed")


@dataclasses.dataclass(frozen=True)
class Model:
    """One row: stage-II runs of one stage-I run, and the stage-I run (its oracle score); one of the two may be None."""

    stage2: Group | None
    stage1: Group | None

    @property
    def first(self) -> RunRecord:
        return (self.stage2 or self.stage1).first

    @property
    def groups(self) -> list[Group]:
        """Stage II first."""
        return [g for g in (self.stage2, self.stage1) if g is not None]

    @property
    def variant(self) -> str:
        """`FSQ`, or `VQ, no splitting`, or `FSQ, no context`; behind it what tells it from others of these names."""
        r = self.first
        quantizer = QUANTIZERS.get(r.quantizer) or display_quantizer(r.quantizer)
        suffixes = dict.fromkeys(g.suffix for g in self.groups)
        return quantizer + ("" if r.context else ", no context") + "".join(suffixes)

    def of_labels(self, key: MetricKey) -> Group:
        """The group to take a metric of the labels' codes (usage, ...) from: stage I, else one stage-II run.

        Stage-II records repeat what stage I measured: a deviation over them would be none.
        """
        candidates = [g for g in (self.stage1, self.stage2 and Group((self.stage2.first,))) if g]
        return next((g for g in candidates if g.values(key)), candidates[0])


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The models of one task and setting, and the metric that Table 2 judges the task by."""

    task: str
    setting: Setting
    records: Sequence[RunRecord]
    models: Sequence[Model]
    metric: MetricKey


def comparisons(records: Iterable[RunRecord]) -> Iterator[Comparison]:
    """The runs that may stand in one table, in order of settings: generators of one setting and their autoencoders.

    Autoencoders without a generator in the setting are models with stage I only, in the table of each setting of
    generators on autoencoders like them. Runs without a task are left out.
    """
    for own_setting, runs in split_by_setting((r for r in records if r.task), of_stage1=True).items():
        oracles = [r for r in runs if r.stage1 is None]
        for setting, generators in (split_by_setting(r for r in runs if r.stage1) or {own_setting: []}).items():
            mine = [*generators, *oracles]
            yield Comparison(mine[0].task, setting, mine, _models(generators, oracles), _metric(mine))


def same_measurement(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two protocols agree in all that both state on what was measured: data, split, crop, network, ...
    So that a stage-I score or a baseline may be set against a prediction, which has a checkpoint and a sampler."""
    return all(a[key] == b[key] for key in (a.keys() & b.keys()) - set(OF_THE_RUN))


def comparable(a: Group, key: MetricKey, b: Group, other: MetricKey) -> bool:
    """Whether both have their metric, of the same measurement."""
    return bool(a.values(key) and b.values(other)) and same_measurement(a.protocol(key), b.protocol(other))


def baselines(records: Iterable[RunRecord], key: MetricKey) -> list[tuple[MetricKey, Group]]:
    """What was measured in a model's place, each with the first run that has it; the same value once.

    A baseline depends on the data and not on the run, so that several values mean several ways of measuring.
    """
    found: list[tuple[MetricKey, Group]] = []
    for r in records:
        for k in r.metrics:
            measured = r.measured(k) if k.baseline and k == dataclasses.replace(key, baseline=k.baseline) else None
            known = [g.statistic(other).mean for other, g in found if other == k]
            if measured and not any(math.isclose(measured.value, value, rel_tol=1e-4) for value in known):
                found.append((k, Group((r,))))
    return sorted(found, key=lambda item: item[0].baseline)


def _models(generators: Sequence[RunRecord], oracles: Sequence[RunRecord]) -> list[Model]:
    of_stage1 = group_runs(oracles)
    single = [Group((r,), g.variant) for g in of_stage1 for r in g.records]
    models: list[Model] = []
    for g in group_runs(generators):
        models.append(Model(g, next((oracle for oracle in single if _is_behind(oracle.first, g.first)), None)))
    used = {id(m.stage1.first) for m in models if m.stage1}
    for g in of_stage1:
        if rest := tuple(r for r in g.records if id(r) not in used):
            models.append(Model(None, Group(rest, g.variant)))

    def place(m: Model) -> tuple:
        r = m.first
        return not r.context, (*QUANTIZERS, r.quantizer).index(r.quantizer), r.quantizer, r.target_bits, not m.stage2

    return sorted(models, key=place)


def _is_behind(oracle: RunRecord, generator: RunRecord) -> bool:
    facts = Stage1(oracle.experiment, oracle.run, oracle.steps, oracle.batch_size, oracle.seed)
    model = (oracle.quantizer, oracle.codebook_size, oracle.context)
    weights = (oracle.weights, generator.stage1.fingerprint)
    if None not in weights and weights[0] != weights[1]:
        return False
    return facts == generator.stage1 and model == (generator.quantizer, generator.codebook_size, generator.context)


def _metric(records: Sequence[RunRecord]) -> MetricKey:
    """Of colorization's distances the most trusted one: which there are depends on the network that was at hand."""
    metric = METRICS[records[0].task]
    keys = keys_of(records, metric) or [FID_5K if metric == FID_5K.metric else MetricKey(metric)]
    return next((k for k in keys if any(r.measured(k) for r in records)), keys[0])
