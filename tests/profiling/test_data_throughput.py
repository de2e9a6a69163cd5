import time
import types

import pytest

from fsq_repro.errors import UserError
from fsq_repro.factories import common, label_autoencoder
from fsq_repro.profiling import data_throughput
from fsq_repro.profiling.data_throughput import Cost, Stopwatch, TimedSource, measure, measure_pipeline
from tests.tiny import NoiseSource, make_dense_noise, tiny_config, tiny_stage2, tiny_uvim


def test_each_stage_gets_its_own_cpu_time(monkeypatch):
    """Four items a batch: 2 ms to read, 4 ms to augment, and 12 ms a batch to prepare."""
    cpu = 0.0

    def burn(seconds):
        nonlocal cpu
        cpu += seconds

    clock = types.SimpleNamespace(thread_time=lambda: cpu, process_time=lambda: cpu)
    monkeypatch.setattr(data_throughput, "time", clock)

    class Source(NoiseSource):
        def __getitem__(self, index):
            burn(0.002)
            return super().__getitem__(index)

    source = TimedSource(Source())
    prepare = Stopwatch(lambda batch: burn(0.012) or batch)
    assert len(source) == 64 and source.name == "noise"

    def batches(prepare):
        while True:
            batch = [source[i] for i in range(4)]
            burn(0.016)
            yield prepare(batch)

    cost = measure(batches(prepare), source.stopwatch, prepare, batch_size=4, batches=5)
    assert len(source.stopwatch.seconds) == 7 * 4 and len(prepare.seconds) == 7
    assert (cost.read, cost.augment, cost.prepare) == pytest.approx((0.002, 0.004, 0.003))
    without = measure(batches(lambda batch: batch), source.stopwatch, None, batch_size=4, batches=5)
    assert without.prepare == 0 and without.augment == pytest.approx(0.004)


def test_only_the_threads_own_cpu_time_counts():
    waits = Stopwatch(lambda seconds: time.sleep(seconds))
    waits(0.2)
    assert waits.seconds[0] < 0.1


def test_workers_for_a_rate():
    cost = Cost(read=1 / 128, augment=1 / 256, prepare=1 / 256)
    assert cost.images_per_second == 64
    assert [cost.workers(rate) for rate in (1, 64, 65, 640)] == [1, 1, 2, 10]


@pytest.mark.parametrize("config", [tiny_config(), tiny_uvim(1)], ids=lambda c: c.trainer)
def test_the_pipeline_is_the_kinds_own(config, monkeypatch):
    monkeypatch.setattr(common, "make_source", lambda name, split, resolution: NoiseSource(64, resolution))
    monkeypatch.setattr(label_autoencoder, "make_dense_source", make_dense_noise)
    workers = config.data.num_workers
    cost = measure_pipeline(config, batches=2)
    assert cost.read > 0 and (cost.prepare > 0) == (config.trainer == "uvim_stage1")
    assert config.data.num_workers == workers and config.batch_size == 8


def test_tokens_have_no_pipeline():
    with pytest.raises(UserError, match="data.crop = 'none' makes stage II train on tokens"):
        measure_pipeline(tiny_stage2(""), batches=1)
