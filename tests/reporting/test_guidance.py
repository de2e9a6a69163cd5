"""Fig. 4 in tables: curves over the guidance weight, beside the paper's rows."""

import dataclasses

from fsq_repro.metrics.table import MetricKey
from fsq_repro.reporting import paper
from fsq_repro.reporting.groups import group_runs
from fsq_repro.reporting.guidance import GUIDANCE, guidance_curve
from tests.reporting.synthetic import SFD, add, entry, guided, parsed, stage2, tables


def test_guidance_curve_holds_points_measured_alike(tmp_path):
    raw = guided()
    add(raw, dataclasses.replace(SFD, weights="raw", step=600), 1.0, entry(raw, SFD)["protocol"])
    add(raw, dataclasses.replace(SFD, guidance=0.8), 1.0, {"samples": 3, "guidance weight": 0.8})
    (group,) = group_runs(parsed(tmp_path, [raw]))
    assert list(guidance_curve(group, SFD)) == [0.0, 0.05, 0.1, 0.2, 0.4]
    assert guidance_curve(group, SFD)[0.0] == SFD
    recall = MetricKey("recall", "alexnet")
    assert guidance_curve(group, recall)[0.4] == dataclasses.replace(recall, guidance=0.4)


def test_at_its_weight_the_runs_own_metric_is_the_point(tmp_path):
    raw = guided()
    add(raw, dataclasses.replace(SFD, guidance=0.0), 99.0, entry(raw, SFD)["protocol"])
    (group,) = group_runs(parsed(tmp_path, [raw]))
    assert guidance_curve(group, SFD)[0.0] == SFD


def test_runs_that_do_not_state_their_weight_have_no_curve(tmp_path):
    raw = stage2()
    del entry(raw, SFD)["protocol"]["guidance weight"]
    assert "No run has a sampling distance with a protocol" in GUIDANCE.text(parsed(tmp_path, [raw]))


def test_guidance_table_sets_the_best_weight_beside_the_papers(tmp_path):
    raw = [guided("fsq", 0.2), guided("vq", 0.1), guided("fsq", 0.4, generator="autoregressive")]
    text = GUIDANCE.text(parsed(tmp_path, raw))
    best, every = tables(text)
    assert [(r["model"], r["FID (paper)"], r["best guidance weight"]) for r in best] == [
        ("MaskGIT (VQ)", "4.509", "0.1"),
        ("MaskGIT (FSQ)", "4.534", "0.2"),
        ("MaskGIT (VQ)", "4.916", "–"),
        ("ADM, guided", "4.59", "–"),
        ("–", "–", "0.4"),
    ]
    assert [best[1][c] for c in ("precision (paper)", "recall (paper)", "usage (paper)")] == ["0.864", "0.453", "100%"]
    assert best[1]["sampling FD-alexnet (train)"].split(" ")[0] == "20.00"
    assert best[1]["precision-alexnet"].split(" ")[0] == "0.700"
    assert [r["guidance weight"] for r in every] == 3 * ["0", "0.05", "0.1", "0.2", "0.4"]
    vq = [r["sampling FD-alexnet (train)"].split(" ")[0] for r in every if r["quantizer"] == "VQ"]
    assert vq == ["20.60", "20.15", "20.00", "20.60", "25.40"]
    assert "not comparable" in text and paper.FIG4_PROTOCOL in text
    assert ", guidance weight 0" not in text  # its own column has it
