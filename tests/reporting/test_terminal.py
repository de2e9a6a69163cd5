"""Lines for the terminal."""

import pytest

from fsq_repro.reporting.terminal import format_header, format_row
from tests.reporting.synthetic import RFD, entry, parsed, record, stage2, uvim


def test_text_rows_line_up_with_their_header(tmp_path):
    fsq, vq = parsed(tmp_path, [record("fsq", 10, fd=12.34), record("vq", 12, fd=8.0)])
    header, row, other = format_header(fsq), format_row(fsq), format_row(vq)
    assert len(header) == len(row) == len(other)
    for title, value in (("rFD-alexnet (train)", "12.34"), ("usage", "90.0%"), ("minutes", "4.0")):
        assert header.index(title) + len(title) == row.index(value) + len(value)
    assert "8x5x5x5" in row and "\n" not in row
    raw = record(fd=12.34)
    entry(raw, RFD)["protocol"] = None
    assert "12.34" not in format_row(*parsed(tmp_path, [raw]))


@pytest.mark.parametrize(
    "task, values, shown",
    [
        ("depth", {"rmse": 0.4734, "delta1": 0.76}, {"RMSE (m)": "0.473", "δ < 1.25": "0.760"}),
        ("panoptic", {"pq": 0.434, "sq": 0.801, "rq": 0.6}, {"PQ": "43.4", "SQ": "80.1", "RQ": "60.0"}),
        (
            "colorization",
            {"mse": 0.01234},
            {"FD-alexnet (train)": "9.00", "FD-alexnet (test)": "6.00", "MSE": "0.0123"},
        ),
    ],
)
def test_text_rows_of_uvim_show_their_task(tmp_path, task, values, shown):
    raw = [uvim(task, score=9.0), uvim(task, "ema_vq", stage=1, run=f"{task}_vq_nocontext_stage1")]
    for name, value in values.items():
        entry(raw[0], name)["value"] = value
    predictor, oracle = parsed(tmp_path, raw)
    header, row, other = format_header(predictor), format_row(predictor), format_row(oracle)
    assert len(header) == len(row) == len(other) and header == format_header(oracle) and "\n" not in row
    for title, value in (shown | {"usage": "98.0%", "minutes": "2.0", "codebook": "4,375"}).items():
        assert header.index(title) + len(title) == row.index(value) + len(value)
    stage = header.index("stage")
    assert row[stage:].split()[0] == "II" and other[stage:].split()[0] == "I"
    for m in raw[0]["metrics"]:
        m["protocol"] = None
    assert not any(value in format_row(*parsed(tmp_path, raw[:1])) for value in shown.values())


def test_one_line_a_generator(tmp_path):
    a, b = parsed(tmp_path, [stage2("fsq", 10, fd=12.34), stage2("vq", 12, cost=6.789, generator="autoregressive")])
    header, row, other = format_header(a), format_row(a), format_row(b)
    assert len(header) == len(row) == len(other)
    for title, value in (("sampling FD-alexnet (train)", "12.34"), ("precision", "0.700"), ("recall", "0.400")):
        assert header.index(title) + len(title) == row.index(value) + len(value)
    assert "masked" in row and "autoregressive" in other and "6.789" in other and "PSNR" not in header
