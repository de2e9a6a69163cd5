"""One line per run, for the terminal while a sweep goes on."""

from collections.abc import Sequence

from fsq_repro.metrics.table import MetricKey
from fsq_repro.reporting.groups import Statistic, display_quantizer, keys_of, shown, titled
from fsq_repro.reporting.markdown import MISSING
from fsq_repro.reporting.records import RunRecord

OF_TASK = {"depth": ("rmse", "delta1"), "panoptic": ("pq", "sq", "rq"), "colorization": ("mse",)}


def format_header(record: RunRecord) -> str:
    """Column titles for `format_row`, for runs of this one's stage that are evaluated like it."""
    middle = "stage" if record.task else "generator" if record.stage1 else "levels"
    scores, rest = ([title for title, _ in columns] for columns in _keys(record))
    return _line("run", "seed", "quantizer", middle, "codebook", scores, [*rest, "minutes"])


def format_row(record: RunRecord) -> str:
    """One run in one line of text; values without a protocol show as a dash.

    Of stage 2, precision and recall are those of the first distance's network, the cost is in bits per token.
    """

    def show(key: MetricKey | None) -> str:
        measured = None if key is None else record.measured(key)
        return MISSING if measured is None else shown(key, Statistic.of([measured.value]))

    if record.task:
        middle = "II" if record.stage1 else "I"
    else:
        middle = record.generator or "x".join(map(str, record.levels or ())) or MISSING
    scores, rest = ([show(key) for _, key in columns] for columns in _keys(record))
    minutes = MISSING if record.wall_time_s is None else f"{record.wall_time_s / 60:.1f}"
    quantizer, size = display_quantizer(record.quantizer), f"{record.codebook_size:,}"
    return _line(record.run, str(record.seed), quantizer, middle, size, scores, [*rest, minutes])


def _keys(record: RunRecord) -> tuple[list[tuple[str, MetricKey | None]], list[tuple[str, MetricKey]]]:
    """(title, key) of the wide columns and of the narrow ones."""
    if record.task:
        keys = keys_of([record], "colorization_fd") + [MetricKey(name) for name in OF_TASK[record.task]]
        return [(titled(key), key) for key in keys], [("usage", MetricKey("usage"))]
    metric, none = ("sampling_fd", "sampling FD") if record.stage1 else ("reconstruction_fd", "rFD")
    keys = keys_of([record], metric)
    scores = [(titled(key), key) for key in keys] or [(none, None)]
    if record.stage1:
        network = keys[0].network if keys else ""
        narrow = [(name, MetricKey(name, network=network)) for name in ("precision", "recall")]
        narrow.append(("cost", MetricKey("compression_bits")))
    else:
        narrow = [(MetricKey(name).title, MetricKey(name)) for name in ("psnr", "ssim", "usage")]
    return scores, [*narrow, ("entropy", MetricKey("entropy_bits"))]


def _line(run, seed, quantizer, middle, codebook, scores: Sequence[str], rest: Sequence[str]) -> str:
    left = f"{run:<32} {seed:>4}  {quantizer:<19} {middle:<14} {codebook:>8}"
    return left + "".join(f" {d:>28}" for d in scores) + "".join(f" {x:>9}" for x in rest)
