"""Reading run records, and what may be averaged."""

import json
import statistics
import subprocess
import sys

import pytest

from fsq_repro.reporting.groups import frechet_label, frechet_names, group_runs, split_by_setting
from fsq_repro.reporting.records import load_records, parse_record
from tests.reporting.synthetic import record, write


def parsed(tmp_path, *raw):
    return [parse_record(r, tmp_path / f"{i}.json") for i, r in enumerate(raw)]


def test_records_are_found_at_any_depth(tmp_path):
    write(tmp_path / "a" / "b", record("fsq", 8))
    write(tmp_path / "c", record("vq", 8, seed=2))
    fsq, vq = load_records(tmp_path)
    assert (fsq.quantizer, fsq.levels, fsq.codebook_size, fsq.target_bits) == ("fsq", (8, 6, 5), 240, 8)
    assert fsq.bits == pytest.approx(7.907, abs=1e-3)
    assert (vq.quantizer, vq.levels, vq.seed) == ("vq", None, 2)
    assert fsq.measured("rfd_alexnet_train").value == 10.0
    assert fsq.measured("rfd_alexnet_train").protocol["reference_count"] == 24000


def test_a_figure_without_protocol_is_not_measured(tmp_path):
    raw = record()
    del raw["figures"]["psnr"]["protocol"]
    raw["figures"]["ssim"]["protocol"] = {}
    (r,) = parsed(tmp_path, raw)
    assert r.measured("psnr") is None and r.measured("ssim") is None and r.measured("lpips") is None
    assert r.measured("usage").value == 0.9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "training"}, "status is 'training'"),
        ({"seed": "zero"}, "field seed must be an integer, got 'zero'"),
        ({"wall_time_s": True}, "field wall_time_s must be a number, got True"),
        ({"codebook_size": 999}, "give 1000 codes, codebook_size is 999"),
        ({"levels": [8, 5, 5, 5.0]}, "levels must be integers"),
        ({"figures": {"psnr": 3.0}}, "figure psnr must be an object"),
        ({"figures": {"psnr": {"value": float("nan"), "protocol": {"a": 1}}}}, "figure psnr .* finite"),
        ({"level_histograms": [[1, 2]]}, "level_histograms must hold"),
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


def test_a_run_without_a_sweep_belongs_to_its_experiments_study(tmp_path):
    (r,) = parsed(tmp_path, record(sweep=None, run="alone", target_bits=None))
    assert (r.sweep, r.target_bits) == ("tradeoff", 10)


def test_seeds_are_averaged_and_other_runs_are_not(tmp_path):
    other = record(seed=3, fd=99.0)
    other["figures"]["rfd_alexnet_train"]["protocol"]["weights"] = "raw"
    records = parsed(tmp_path, record(fd=9.0), record(seed=1, fd=10.0), record(seed=2, fd=12.5), other)
    groups = group_runs(records)
    assert sorted(len(g.records) for g in groups) == [1, 3]
    three = max(groups, key=lambda g: len(g.records)).statistic("rfd_alexnet_train")
    assert three.mean == pytest.approx(10.5) and three.count == 3
    assert three.std == pytest.approx(statistics.stdev([9.0, 10.0, 12.5]))
    assert min(groups, key=lambda g: len(g.records)).statistic("rfd_alexnet_train").std is None


def test_a_copied_run_counts_once(tmp_path):
    with pytest.warns(UserWarning, match="left out .*1.json: the same run as .*0.json"):
        (group,) = group_runs(parsed(tmp_path, record(fd=9.0), record(fd=9.0)))
    assert len(group.records) == 1


def test_settings_are_kept_apart(tmp_path):
    longer = record(steps=5000)
    other_data = record(data={"source": "scenes", "resolution": 32})
    settings = split_by_setting(parsed(tmp_path, record(), longer, other_data, record("vq")))
    assert sorted(len(runs) for runs in settings.values()) == [1, 1, 2]


def test_distances_are_named_by_their_network(tmp_path):
    raw = record()
    raw["figures"]["rfd_inception_train"] = raw["figures"]["psnr"]
    raw["figures"]["rfd_vgg16_train"] = raw["figures"]["psnr"]
    names = frechet_names(parsed(tmp_path, raw))
    assert names == ["rfd_inception_train", "rfd_alexnet_train", "rfd_alexnet_validation", "rfd_vgg16_train"]
    labels = [frechet_label(n) for n in names]
    assert labels == ["rFID (train)", "rFD-alexnet (train)", "rFD-alexnet (validation)", "rFD-vgg16 (train)"]


def test_reporting_never_imports_jax():
    code = "import sys, fsq_repro.reporting.report; sys.exit('jax' in sys.modules or 'flax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
