"""The log of a search."""

from fsq_repro.reporting.report import write_report
from tests.reporting.synthetic import record, tables, write


def trial(number, mse, quantizer="fsq", **overrides):
    common = {"seed": "0", "steps": "1250", "data.source": "photos"}
    return record(quantizer, 10) | {
        "sweep": "search",
        "run": f"{quantizer}_10_{number:02d}",
        "metrics": [],
        "level_histograms": None,
        "overrides": common | overrides,
        "steps": 1250,
        "validation": {"step": 1250, "mse": mse, "usage": 0.5, "entropy_bits": 9.0},
    }


def test_trials_of_each_quantizer_stand_best_first_with_what_they_changed(tmp_path):
    rate = "optimizer.learning_rate"
    trials = [trial(0, 0.01, **{rate: "0.002"}), trial(1, 0.001, **{rate: "0.004"})]
    trials += [trial(i, 10.0**-i, q) for i, q in enumerate(("vq_narrow", "vq_narrow_no_entropy"), 1)]
    write(tmp_path / "runs", *trials)
    (report,) = write_report(tmp_path / "runs", tmp_path / "out")
    fsq, vq = tables(report.read_text())
    assert [(row["trial"], row[rate]) for row in fsq] == [
        ("fsq_10_01, seed 0", "0.004"),
        ("fsq_10_00, seed 0", "0.002"),
    ]
    assert [row["validation PSNR (dB)"] for row in fsq + vq] == ["30.00", "20.00", "20.00", "10.00"]
    assert fsq[0].keys().isdisjoint({"seed", "data.source"}) and rate not in vq[0]
    assert "FSQ, 2^10 codes: 2 trials" in report.read_text()
