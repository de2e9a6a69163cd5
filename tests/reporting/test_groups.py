"""What may share a mean or a table, and how numbers and distances are called."""

import statistics

import pytest

from fsq_repro.metrics.table import MetricKey
from fsq_repro.reporting.groups import (
    Statistic,
    group_runs,
    keys_of,
    shown,
    split_by_setting,
    titled,
)
from fsq_repro.reporting.records import load_records
from tests.reporting.synthetic import CFD, RFD, SPLIT_PROTOCOL, add, entry, parsed, record, stage2, uvim, write


def test_seeds_are_averaged_and_other_runs_are_not(tmp_path):
    other = record(seed=3, fd=99.0)
    entry(other, RFD)["protocol"]["weights"] = "raw"
    records = parsed(tmp_path, [record(fd=9.0), record(seed=1, fd=10.0), record(seed=2, fd=12.5), other])
    groups = group_runs(records)
    assert sorted(len(g.records) for g in groups) == [1, 3]
    three = max(groups, key=lambda g: len(g.records)).statistic(RFD)
    assert three.mean == pytest.approx(10.5) and three.count == 3
    assert three.std == pytest.approx(statistics.stdev([9.0, 10.0, 12.5]))
    assert min(groups, key=lambda g: len(g.records)).statistic(RFD).std is None


def test_further_measurements_of_a_run_do_not_keep_it_from_its_seeds(tmp_path):
    first, second = record(), record(seed=1)
    add(second, MetricKey("psnr", weights="raw", step=5), 1.0, {"weights": "raw"})
    assert len(group_runs(parsed(tmp_path, [first, second]))) == 1


# Ways in which two runs that tables name alike differ, and the labels that tell them apart.
DIFFERENCES = {
    "learning rate": ({}, {"overrides": {"optimizer.learning_rate": "0.01"}}, "", "optimizer.learning_rate=0.01"),
    "two rates": (
        {"overrides": {"optimizer.learning_rate": "1e-2", "seed": "0"}},
        {"overrides": {"optimizer.learning_rate": "0.02", "seed": "0"}},
        "optimizer.learning_rate=0.01",
        "optimizer.learning_rate=0.02",
    ),
    "sampler": ({}, {"overrides": {"sampler.temperature": "2"}}, "", "sampler.temperature=2"),
    "a field below": ({}, {"overrides": {"loss.gan": "0", "mesh.fsdp": "2"}}, "", "loss.gan=0"),
    "width": ({}, {"overrides": {"model.width": "8"}, "parameters": 7}, "", "model.width=8"),
    "argument of the config": ({"run": "a"}, {"run": "b"}, "run a", "run b"),
    "config file": ({"config_fingerprint": "1"}, {"config_fingerprint": "2"}, "in first", "in second"),
    "data": (
        {"config_fingerprint": "1", "data_hashes": {"train": "1"}},
        {"config_fingerprint": "1", "data_hashes": {"train": "2"}},
        "in first",
        "in second",
    ),
    "unknown": ({}, {}, "in first", "in second"),
}


@pytest.mark.parametrize("make", [record, stage2, uvim], ids=["autoencoder", "generator", "uvim"])
@pytest.mark.parametrize("difference", DIFFERENCES)
def test_runs_that_differ_are_told_apart_whatever_the_field(tmp_path, make, difference):
    """Two seeds of each: they share their mean with each other and with no other."""
    first, second, *labels = DIFFERENCES[difference]
    for place, changes in (("first", first), ("second", second)):
        for seed in (0, 1):
            raw = make(seed=seed, **changes)
            for m in raw["metrics"]:
                m["value"] += 0.01 * seed + (0.1 if place == "second" else 0.0)
            write(tmp_path / place, raw)
    groups = group_runs(load_records(tmp_path))
    assert [(g.variant, [r.seed for r in g.records]) for g in groups] == [(label, [0, 1]) for label in labels]
    assert all(g.quantizer == f"FSQ ({g.variant})" or not g.variant for g in groups)


@pytest.mark.parametrize("changes", [{"overrides": {"eval.batch_size": "8", "log_every": "1"}}, {"device": "gpu"}])
def test_what_changes_no_number_keeps_no_seed_apart(tmp_path, changes):
    (group,) = group_runs(parsed(tmp_path, [record(), record(seed=1, **changes)]))
    assert len(group.records) == 2 and group.quantizer == "FSQ"


@pytest.mark.parametrize("again", [{}, {"config_fingerprint": "1", "fd": 9.5}], ids=["copy", "trained again"])
def test_a_run_counts_once(tmp_path, again):
    """Whichever comes first by path, a run directory wins over a record alone."""
    write(tmp_path / "a", record(config_fingerprint="1"))
    write(tmp_path / "b", record(**{"config_fingerprint": "1"} | again))
    (tmp_path / "b" / "fsq_10" / "seed0" / "config.json").touch()
    with pytest.warns(UserWarning, match="left out .*/a/.*: the same run as .*/b/"):
        (r,) = load_records(tmp_path)
    assert r.measured(RFD).value == again.get("fd", 10.0)


def test_settings_are_kept_apart(tmp_path):
    longer = record(steps=5000)
    other_data = record(data={"source": "scenes", "resolution": 32})
    settings = split_by_setting(parsed(tmp_path, [record(), longer, other_data, record("vq")]))
    assert sorted(len(runs) for runs in settings.values()) == [1, 1, 2]


def test_a_generator_shares_its_autoencoders_setting(tmp_path):
    first, second = parsed(tmp_path, [record("fsq", 10), stage2("fsq", 10)])
    assert second.stage1_setting == first.stage1_setting
    assert len(split_by_setting([first, second])) == 2


def test_a_mean_of_uvim_is_over_stage_ii_seeds_of_one_stage_i(tmp_path):
    raw = [uvim(seed=s, score=v) for s, v in enumerate((0.5, 0.53, 0.47))]
    others = [uvim(context=False), uvim(stage1_seed=1), uvim(quantizer="ema_vq"), uvim(task="panoptic")]
    groups = group_runs(parsed(tmp_path, [*raw, *others]))
    assert sorted(len(g.records) for g in groups) == [1, 1, 1, 1, 3]
    three = max(groups, key=lambda g: len(g.records)).statistic(MetricKey("rmse"))
    assert three.mean == pytest.approx(0.5) and three.std == pytest.approx(statistics.stdev([0.5, 0.53, 0.47]))


def test_distances_are_ordered_by_trust_and_named_by_their_network(tmp_path):
    raw = record()
    for network in ("vgg16", "inception"):
        add(raw, MetricKey("reconstruction_fd", network, "train"), 1.0, SPLIT_PROTOCOL)
    add(raw, MetricKey("reconstruction_fd", "inception", "train", weights="raw", step=5), 1.0, SPLIT_PROTOCOL)
    keys = keys_of(parsed(tmp_path, [raw]), "reconstruction_fd")
    assert [titled(k) for k in keys] == [
        *("rFID (train)", "rFD-alexnet (train)", "rFD-alexnet (test)", "rFD-vgg16 (train)")
    ]


def test_only_inception_on_the_name_lists_is_fid_5k(tmp_path):
    raw = uvim("colorization")
    for network, reference in (("inception", "train"), ("inception", "names"), ("alexnet", "names")):
        add(raw, MetricKey("colorization_fd", network, reference), 1.0, entry(raw, CFD)["protocol"])
    keys = keys_of(parsed(tmp_path, [raw]), "colorization_fd")
    assert [titled(k) for k in keys][:4] == ["FID-5k", "FID (train)", "FD-alexnet (names)", "FD-alexnet (train)"]


@pytest.mark.parametrize(
    ("metric", "statistic", "title", "text"),
    [
        ("psnr", Statistic(20.126, None, 1), "PSNR (dB)", "20.13"),
        ("usage", Statistic(0.85, 0.05, 3), "usage", "85.0% ± 5.0%"),
        ("compression_bits", Statistic(5.8, 0.01, 2), "compression cost (bits per token)", "5.800 ± 0.010"),
        ("pq", Statistic(0.434, 0.001, 3), "PQ", "43.4 ± 0.1"),
        ("tokens", Statistic(40960, 0.0, 3), "tokens counted", "40,960"),
    ],
)
def test_numbers_are_shown_by_their_metrics_declaration(metric, statistic, title, text):
    assert (titled(MetricKey(metric)), shown(MetricKey(metric), statistic)) == (title, text)
