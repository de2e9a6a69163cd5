"""Reading run records, and what may be averaged."""

import dataclasses
import json
import subprocess
import sys

import pytest

from fsq_repro.metrics.table import CODEBOOK_USAGE, MetricKey
from fsq_repro.reporting.records import Stage1, load_records, parse_record
from tests.reporting.synthetic import RFD, add, entry, parsed, record, stage2, uvim, write


def test_records_are_found_at_any_depth(tmp_path):
    write(tmp_path / "a" / "b", record("fsq", 8))
    write(tmp_path / "c", record("vq", 8, seed=2))
    fsq, vq = load_records(tmp_path)
    assert (fsq.quantizer, fsq.levels, fsq.codebook_size, fsq.target_bits) == ("fsq", (8, 6, 5), 240, 8)
    assert fsq.bits == pytest.approx(7.907, abs=1e-3)
    assert (vq.quantizer, vq.levels, vq.seed) == ("vq", None, 2)
    assert fsq.measured(RFD).value == 10.0
    assert fsq.measured(RFD).protocol["reference_count"] == 24000


def test_a_value_without_protocol_is_not_measured(tmp_path):
    raw = record()
    del entry(raw, "psnr")["protocol"]
    entry(raw, "ssim")["protocol"] = {}
    (r,) = parsed(tmp_path, [raw])
    assert [r.measured(MetricKey(name)) for name in ("psnr", "ssim", "rmse")] == [None] * 3
    assert r.measured(MetricKey("usage")).value == 0.9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "training"}, "status is 'training'"),
        ({"seed": "zero"}, "field seed must be an integer, got 'zero'"),
        ({"wall_time_s": True}, "field wall_time_s must be a number, got True"),
        ({"codebook_size": 999}, "give 1000 codes, codebook_size is 999"),
        ({"levels": [8, 5, 5, 5.0]}, "levels must be integers"),
        ({"metrics": {"psnr": 3.0}}, "field metrics must be a list"),
        ({"metrics": [3.0]}, "an entry of metrics must be an object, got 3.0"),
        ({"metrics": [{"metric": "psrn", "value": 3.0}]}, "metric 'psrn' is not one of"),
        ({"metrics": [{"value": 3.0}]}, "a measurement needs a metric, got None"),
        ({"metrics": [{"metric": "psnr", "value": float("nan")}]}, "value of metric psnr must be a finite number"),
        ({"metrics": [{"metric": "psnr", "value": True}]}, "value of metric psnr must be a finite number"),
        ({"metrics": [{"metric": "psnr", "value": 3.0, "protocol": "x"}]}, "protocol of metric psnr must be an object"),
        ({"metrics": [{"metric": "psnr", "value": 3.0, "network": {}}]}, "fields of a metric must be words"),
        ({"metrics": [{"metric": "psnr", "value": 3.0, "network": 3}]}, "fields of a metric must be words"),
        ({"metrics": 2 * [{"metric": "psnr", "value": 3.0}]}, "metric psnr stands twice"),
        ({"level_histograms": [[1, 2]]}, "level_histograms must hold"),
        ({"level_histograms": [8, 5, 5, 5]}, "level_histograms must hold"),
        ({"level_histograms": [["many"] * n for n in (8, 5, 5, 5)]}, "level_histograms must hold"),
        ({"wall_time_s": float("inf")}, "field wall_time_s must be a number, got inf"),
        ({"metrics": [{"metric": "psnr", "value": 10**400}]}, "value of metric psnr must be a finite number"),
    ],
)
def test_broken_records_are_named_and_left_out(tmp_path, change, message):
    write(tmp_path, record("vq", 8), record("fsq", 10) | {"run": "broken"} | change)
    with pytest.warns(UserWarning, match=f"left out .*broken/seed.*/record.json: .*{message}"):
        records = load_records(tmp_path)
    assert [r.quantizer for r in records] == ["vq"]


def test_truncated_and_incomplete_files(tmp_path):
    write(tmp_path, record("vq", 8))
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "record.json").write_text(json.dumps(record())[:100])
    with pytest.warns(UserWarning, match="left out .*cut/record.json"):
        assert len(load_records(tmp_path)) == 1
    raw = record()
    del raw["quantizer"]
    with pytest.raises(ValueError, match="field quantizer is missing"):
        parse_record(raw, tmp_path)
    with pytest.raises(ValueError, match="must be a JSON object"):
        parse_record([raw], tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_records(tmp_path / "nowhere")


RUNS = {
    "autoencoder": lambda **c: record(**c),
    "generator": lambda **c: stage2(**c),
    "uvim stage I": lambda **c: uvim(stage=1, **c),
    "uvim stage II": lambda **c: uvim(**c),
}


@pytest.mark.parametrize("kind", RUNS)
def test_metrics_of_one_checkpoint_are_never_those_of_another(tmp_path, kind):
    """A run trained further keeps what was measured before, with its step; what was chosen so stays as it was."""
    raw = RUNS[kind]()
    last = raw["steps"]
    add(raw, MetricKey("images", weights="raw", step=5), 1, {"weights": "raw", "checkpoint": 5})
    (whole,) = parsed(tmp_path, [raw])
    with pytest.warns(UserWarning, match=f"0.json: its metrics are of step {last:,} and not shown, .* to {last + 9:,}"):
        (further,) = parsed(tmp_path, [raw | {"steps": last + 9}])
    assert len(further.metrics) == len(whole.metrics) and further.level_histograms is None
    for key, measured in whole.metrics.items():
        checkpoint = (measured.protocol or {}).get("checkpoint")
        moved = dataclasses.replace(key, weights=measured.protocol.get("weights", ""), step=checkpoint)
        of_stage1 = raw.get("task") and raw["stage"] == 2 and key.metric in CODEBOOK_USAGE
        assert further.metrics[moved if checkpoint == last and not of_stage1 else key] == measured
    shown = [m for key, m in further.metrics.items() if key.is_main and "checkpoint" in m.protocol]
    assert {m.protocol["checkpoint"] for m in shown} == ({800} if kind == "uvim stage II" else set())


def test_a_check_of_an_earlier_step_is_not_the_last(tmp_path):
    checks = [{"step": 1200, "mse": 0.1}, {"step": 600, "mse": 0.1}, {"mse": 0.1}]
    records = parsed(tmp_path, [record(validation=check) for check in checks])
    assert [r.validation for r in records] == [checks[0], None, checks[2]]


def test_a_run_without_a_sweep_belongs_to_its_experiments_study(tmp_path):
    (r,) = parsed(tmp_path, [record(sweep=None, run="alone", target_bits=None)])
    assert (r.sweep, r.target_bits) == ("tradeoff", 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stage": 3}, "stage must be 1 or 2, got 3"),
        ({"generator": None}, "generator must be a string"),
        ({"generator": "diffusion"}, "one of masked, autoregressive, got 'diffusion'"),
        ({"stage1": {"experiment": "x"}}, "field run is missing"),
    ],
)
def test_broken_generator_records_are_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        parse_record(stage2() | change, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "flow"}, "field task must be one of depth, panoptic, colorization, got 'flow'"),
        ({"task": 3}, "field task must be a string, got 3"),
        ({"context": None}, "field context must be true or false, got None"),
        ({"context": 1}, "field context must be true or false, got 1"),
    ],
)
def test_broken_uvim_records_are_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        parse_record(uvim() | change, tmp_path)


def test_stages_and_tasks(tmp_path):
    first, second, depth, plain = parsed(tmp_path, [record() | {"stage": 1}, stage2(), uvim(), uvim(context=False)])
    assert (first.generator, first.stage1, first.task, first.context) == (None, None, None, None)
    assert (second.generator, second.stage1) == ("masked", Stage1("tradeoff_autoencoder", "fsq_10", 1200, 64, 0))
    assert (depth.task, depth.context, plain.context) == ("depth", True, False)


def test_reporting_never_imports_jax():
    code = "import sys, fsq_repro.reporting.report; sys.exit('jax' in sys.modules or 'flax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
