"""Tables: footnotes, dashes, sections."""

from statistics import stdev

from fsq_repro.reporting.tradeoff import AUTOENCODERS
from tests.reporting.synthetic import FD_PROTOCOL, RFD, entry, paper_like, parsed, record, tables, without


def test_several_seeds_show_mean_and_deviation(tmp_path):
    raw = [record(seed=s, fd=fd, usage=u) for s, fd, u in ((0, 9.0, 0.8), (1, 10.0, 0.9), (2, 12.5, 0.85))]
    ((row,),) = tables(AUTOENCODERS.text(parsed(tmp_path, raw)))
    assert row["rFD-alexnet (train)"] == f"10.50 ± {stdev([9.0, 10.0, 12.5]):.2f}"
    assert row["usage"] == "85.0% ± 5.0%"
    assert row["tokens counted"] == "40,960"
    assert row["runs"] == "3 (seeds 0, 1, 2)"


def test_a_value_without_protocol_is_not_printed(tmp_path):
    raw = record("fsq", 10, fd=12.3456)
    entry(raw, RFD)["protocol"] = None
    text = AUTOENCODERS.text(parsed(tmp_path, [raw, record("vq", 10)]))
    assert "12.35" not in text and "12.3" not in text
    assert tables(text)[0][0]["rFD-alexnet (train)"] == "–†"
    assert "† Left out: the run record gives this value without its protocol." in text
    assert "†" not in AUTOENCODERS.text(parsed(tmp_path, [record()]))


def test_a_missing_metric_is_a_plain_dash(tmp_path):
    table = AUTOENCODERS.text(parsed(tmp_path, [without(record(), "ssim")]))
    assert tables(table)[0][0]["SSIM"] == "–" and "†" not in table


def test_protocols_are_footnotes_written_once(tmp_path):
    text = AUTOENCODERS.text(parsed(tmp_path, paper_like()))
    assert text.count("reference count 24,000") == 1
    assert "[a] rFD-alexnet (train): feature network alexnet, feature file sha256 0123456789ab..." in text
    assert "[c] PSNR (dB), SSIM, usage" in text
    assert "| rFD-alexnet (train) [a] |" in text
    assert FD_PROTOCOL["feature_file_sha256"] not in text


def test_cells_measured_differently_carry_their_own_mark(tmp_path):
    raw = [record("fsq", 10), record("vq", 10)]
    for m in raw[1]["metrics"]:
        m["protocol"]["weights"] = "raw"
    text = AUTOENCODERS.text(parsed(tmp_path, raw))
    first, second = (r["rFD-alexnet (train)"] for r in tables(text)[0])
    assert first.split(" ")[0] == second.split(" ")[0] == "10.00"
    assert first != second


def test_settings_have_their_own_sections(tmp_path):
    text = AUTOENCODERS.text(parsed(tmp_path, [record(), record("vq", steps=99)]))
    assert text.count("Setting: tradeoff_autoencoder, photos at 32 px") == 2
    assert "99 steps of batch 64" in text and "1,200 steps of batch 64" in text
