"""UViM in reports: which runs make a row of Table 2, what the rows say, verdicts that follow from the records."""

import numpy as np
import pytest
from PIL import Image

from fsq_repro.metrics.table import MetricKey
from fsq_repro.reporting import paper_uvim
from fsq_repro.reporting.markdown import MISSING, NO_PROTOCOL
from fsq_repro.reporting.records import load_records
from fsq_repro.reporting.report import write_report
from fsq_repro.reporting.uvim import uvim_findings, uvim_table
from fsq_repro.reporting.uvim_figure import uvim_figure
from fsq_repro.reporting.uvim_models import comparisons, same_measurement
from tests.reporting.synthetic import (
    CFD,
    add,
    entry,
    paper_like_uvim,
    parsed,
    record,
    tables,
    three_seeds,
    uvim,
    without,
    write,
)
from tests.reporting.test_report import BLUE, ORANGE, pixels

RMSE, RMSE_ORACLE = "RMSE (m), stage II", "RMSE (m), stage I (oracle)"
MEAN_DEPTH, MEAN_MAP = (MetricKey("rmse", baseline=name) for name in ("mean_depth", "mean_map"))
FULL = "FSQ uses at least 95% of the codes that a uniform source would use"
FEWER = "VQ without splitting uses far fewer codes than VQ (below 0.5 of its usage)"
ORACLE_BETTER = "stage I (true labels encoded and decoded) is better than stage II"
CLEARLY = "clearly better than the baseline"


def column(row, title):
    """A cell by its column's title, whose footnote mark is left off, as is the cell's."""
    (name,) = (k for k in row if k.partition(" [")[0] == title)
    return row[name].partition(" [")[0]


def measured_rows(markdown, table=0):
    return [r for r in tables(markdown)[table] if column(r, "source") == "measured here"]


def judged(raw, tmp_path):
    return {f.claim: (f.verdict, f.evidence) for c in comparisons(parsed(tmp_path, raw)) for f in uvim_findings(c)}


def of_task(task, seeds=False):
    """The runs of a task; with three seeds of both stages, the paper's stage-II seeds on stage I's first."""
    raw = [r for r in paper_like_uvim() if r["task"] == task]
    return three_seeds(raw) if seeds else raw


def test_stages_are_joined_into_rows(tmp_path):
    raw = [uvim(seed=s, score=v) for s, v in enumerate((0.5, 0.53, 0.47))]
    raw += [uvim(stage=1, score=0.2), uvim(stage=1, score=0.9, seed=1)]  # seed 1 has no stage II
    raw += [uvim(quantizer="ema_vq", score=0.6)]  # its stage I is missing
    rows = measured_rows(uvim_table(parsed(tmp_path, raw)))
    assert [column(r, "model") for r in rows] == ["UViM (FSQ)", "UViM (FSQ)", "UViM (VQ)"]
    assert [column(r, RMSE) for r in rows] == ["0.500 ± 0.030", MISSING, "0.600"]
    assert [column(r, RMSE_ORACLE) for r in rows] == ["0.200", "0.900", MISSING]
    assert [column(r, "runs") for r in rows] == [
        "3 (seeds 0, 1, 2); stage I: seed 0",
        "1 (seed 1); stage I only",
        "1 (seed 0); stage I: seed 0",
    ]
    assert [column(r, "codebook") for r in rows] == ["4,375", "4,375", "4,096"]


@pytest.mark.parametrize("change", [{"steps": 801}, {"batch_size": 16}, {"seed": 1}, {"run": "x"}, {"context": False}])
def test_only_the_stage_i_behind_a_run_is_its_oracle(tmp_path, change):
    compared = comparisons(parsed(tmp_path, [uvim(), uvim(stage=1) | change]))
    assert sorted((m.stage2 is None, m.stage1 is None) for c in compared for m in c.models) == [
        (False, True),
        (True, False),
    ]


def test_copied_stage_i_records_make_one_row(tmp_path):
    write(tmp_path / "a", uvim(), uvim(stage=1))
    write(tmp_path / "b", uvim(stage=1))
    with pytest.warns(UserWarning, match="left out .*b.*: the same run as .*a"):
        (c,) = comparisons(load_records(tmp_path))
    assert len(c.models) == 1 and c.models[0].stage1 is not None


def test_stage_i_runs_of_one_name_are_told_apart_by_their_weights(tmp_path):
    """Also two that differ in a field that no table shows, and the generators on their codes."""
    raw = []
    for weights, score in (("aa", 0.1), ("bb", 0.2)):
        overrides = {"optimizer.rsqrt_timescale": weights}
        raw.append(uvim(stage=1, score=score, evaluated={"weights": weights}, overrides=overrides))
        raw.append(uvim(score=2 * score))
        raw[-1]["stage1"]["fingerprint"] = weights
    (c,) = comparisons(parsed(tmp_path, raw))
    rmse = MetricKey("rmse")
    assert {m.variant: (m.stage2.statistic(rmse).mean, m.stage1.statistic(rmse).mean) for m in c.models} == {
        "FSQ (optimizer.rsqrt_timescale=aa)": (0.2, 0.1),
        "FSQ (optimizer.rsqrt_timescale=bb)": (0.4, 0.2),
    }
    (c,) = comparisons(parsed(tmp_path, raw[:3]))  # of the second its autoencoder alone
    assert [m.variant.endswith(f"={weights})") for m, weights in zip(c.models, ("aa", "bb"), strict=True)] == [True] * 2


def test_generators_of_two_settings_have_two_tables_with_the_same_oracle(tmp_path):
    raw = [uvim(score=0.5), uvim(score=0.4, steps=900), uvim(stage=1, score=0.2), uvim("panoptic", stage=1)]
    text = uvim_table(parsed(tmp_path, raw))
    depth = [measured_rows(text, i) for i in (0, 2)]
    assert [[column(r, RMSE) for r in rows] for rows in depth] == [["0.500"], ["0.400"]]
    assert [[column(r, RMSE_ORACLE) for r in rows] for rows in depth] == [["0.200"], ["0.200"]]
    assert text.count("## Depth estimation") == 1 and "tokens of uvim_depth (800 steps of batch 32)" in text


def test_table_of_the_three_tasks(tmp_path):
    text = uvim_table(parsed(tmp_path, reversed(paper_like_uvim())))
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == [
        "## Depth estimation (Table 2)",
        "## Panoptic segmentation (Table 2)",
        "## Colorization (Table 2)",
    ]
    depth, depth_further, panoptic, panoptic_further, colour, colour_further = tables(text)
    assert [column(r, "model") for r in depth] == [
        *("UViM (FSQ)", "UViM (VQ)", "UViM (VQ, no splitting)"),
        *("training mean depth everywhere", "training mean depth of each pixel"),
        *(p.model for p in paper_uvim.TABLE2["depth"]),
    ]
    assert [column(r, RMSE) for r in depth[:5]] == ["0.473", "0.468", "0.490", "1.000", "0.900"]
    assert column(depth[2], "usage") == "0.8%" and column(depth[2], "codes used") == "32"
    assert column(depth[0], "usage of a uniform source") == "100.0%"
    assert column(depth[0], "tokens counted") == "65,536"
    # Fractions are shown times 100, as the paper does.
    pq = [(column(r, "PQ, stage II"), column(r, "PQ, stage I (oracle)")) for r in panoptic[:5]]
    assert pq == [("43.2", "76.0"), ("43.4", "75.0"), ("40.2", "70.0"), ("39.0", "66.0"), ("10.0", MISSING)]
    models = [column(r, "model") for r in panoptic[2:5]]
    assert models == [
        "UViM (FSQ, no context)",
        "UViM (VQ, no context)",
        "most frequent class at each place of the training maps",
    ]
    assert column(panoptic_further[0], "SQ things") == "43.2" and column(panoptic_further[0], "classes") == "9"
    assert [column(r, "stage") for r in depth_further] == 3 * ["stage II"] + 3 * ["stage I"]
    assert column(depth_further[3], "abs-rel") == "0.037"
    assert column(depth_further[0], "δ < 1.25²") == f"{1 - 0.473 / 4:.3f}"
    grey, truth = colour_further[-2:]
    assert [column(r, "model") for r in (grey, truth)] == ["grey input itself", "true colours"]
    assert [column(r, "colourfulness") for r in (grey, truth)] == ["0", "41.5"]
    assert column(colour_further[0], "FD-alexnet (test)") == "14.20"
    assert column(colour[2], "FD-alexnet (train), stage II") == "90.00"


def test_published_rows_are_marked_and_whole(tmp_path):
    text = uvim_table(parsed(tmp_path, paper_like_uvim()))
    titles = {"depth": ("RMSE", "{:.3f}"), "panoptic": ("PQ", "{:.1f}"), "colorization": ("FID-5k", "{:.2f}")}
    for table, (task, (title, form)) in zip(tables(text)[::2], titles.items(), strict=True):
        published = paper_uvim.TABLE2[task]
        theirs = table[-len(published) :]
        for row, p in zip(theirs, published, strict=True):
            cells = list(row.values())
            assert cells[0] == p.model and cells[1] == p.source
            assert cells[3].endswith(" ‡") and form.format(p.score) in cells[3]
            assert (cells[4] == MISSING) == (p.stage1 is None)
        ours = table[: -len(published)]
        assert not any("‡" in cell for row in ours for cell in row.values())
        assert f"‡ Published {title} ({paper_uvim.MEASURED_ON[task]}): not comparable with" in text
    depth, _, panoptic, _, colour, _ = tables(text)
    github = next(r for r in depth if r["source"] == "GitHub")
    assert column(github, RMSE_ORACLE) == "0.155 ‡" and column(github, "usage") == MISSING
    plain = next(r for r in depth if r["model"] == "UViM (VQ, no splitting)" and r["source"] == "theirs")
    assert (column(plain, RMSE), column(plain, "usage")) == ("0.490 ± 0.0037 ‡", "0.78%")
    vq = next(r for r in panoptic if r["model"] == "UViM (VQ)" and r["source"] == "theirs")
    assert column(vq, "PQ, stage II") == "43.4 ± 0.08 ‡"  # printed as 0.0008
    # Over a column of another network's distance FID is named as such.
    assert column(colour[-1], "FD-alexnet (train), stage II") == "FID-5k 19.37 ‡"


def test_what_table_2_says(tmp_path):
    """Table 2 of the paper, by hand."""
    assert {(p.model, p.source, p.score, p.std, p.usage) for p in paper_uvim.TABLE2["colorization"]} >= {
        ("UViM (VQ)", "theirs", 16.90, 0.056, 1.0),
        ("UViM (FSQ)", "theirs", 17.55, 0.057, 1.0),
        ("UViM (VQ)", "GitHub", 16.99, 0.057, None),
        ("ColTran", "literature", 19.37, None, None),
    }
    assert {(p.model, p.score) for p in paper_uvim.TABLE2["panoptic"]} >= {("DETR-R101", 45.1), ("UViM (VQ)", 43.1)}
    assert {(p.model, p.score) for p in paper_uvim.TABLE2["depth"]} >= {("DenseDepth", 0.465), ("UViM (VQ)", 0.463)}


def test_published_fid_5k_is_named_where_the_column_is_of_another_distance(tmp_path):
    raw = uvim("colorization", score=20.0)
    for network, reference, value in (("inception", "train", 18.0), ("inception", "names", 17.0)):
        add(raw, MetricKey("colorization_fd", network, reference), value, entry(raw, CFD)["protocol"])
    main, further = tables(uvim_table(parsed(tmp_path, [raw])))
    assert column(main[0], "FID-5k, stage II") == "17.00" and column(main[-1], "FID-5k, stage II") == "19.37 ‡"
    assert column(further[0], "FID (train)") == "18.00"


def test_usage_is_that_of_one_stage_i_and_has_no_deviation(tmp_path):
    rows = measured_rows(uvim_table(parsed(tmp_path, [uvim(seed=s, usage=0.75) for s in range(3)])))
    assert [column(r, "usage") for r in rows] == ["75.0%"]
    several = [uvim(stage=1, seed=s, usage=v) for s, v in enumerate((0.5, 0.6, 0.7))]
    rows = measured_rows(uvim_table(parsed(tmp_path, several)))
    assert [column(r, "usage") for r in rows] == ["60.0% ± 10.0%"]


def test_a_record_without_usage_takes_its_stage_is(tmp_path):
    silent, alone = (without(r, "usage") for r in (uvim(), uvim(quantizer="ema_vq")))
    rows = measured_rows(uvim_table(parsed(tmp_path, [silent, uvim(stage=1, usage=0.25), alone])))
    assert [column(r, "usage") for r in rows] == ["25.0%", MISSING]
    v = judged([alone | {"quantizer": "fsq", "codebook_size": 4375}], tmp_path)
    assert v[FULL] == ("not measured", "")


def test_what_has_no_protocol_is_not_printed(tmp_path):
    raw = uvim(score=0.4567)
    for key in ("rmse", MEAN_MAP):
        entry(raw, key)["protocol"] = None
    text = uvim_table(parsed(tmp_path, [raw]))
    assert column(tables(text)[0][0], RMSE) == NO_PROTOCOL and "0.457" not in text and "each pixel" not in text


def test_baselines_measured_in_two_ways_have_two_rows(tmp_path):
    eigen = uvim(quantizer="ema_vq", score=0.95)
    for key in ("rmse", MEAN_DEPTH):
        entry(eigen, key)["protocol"]["crop"] = "eigen"
    entry(eigen, MEAN_DEPTH)["value"] = 1.25
    text = uvim_table(parsed(tmp_path, [uvim(), eigen]))
    means = [column(r, RMSE) for r in tables(text)[0] if r["model"] == "training mean depth everywhere"]
    assert means == ["1.000", "1.250"]
    # Each model is judged by the baseline of its own crop.
    evidence = "FSQ 0.500 against a baseline of 1.000 (-50.0%), VQ 0.950 against a baseline of 1.250 (-24.0%)"
    claim = f"RMSE (m): {CLEARLY} mean depth (by more than 10%)"
    assert judged([uvim(), eigen], tmp_path)[claim] == ("one seed, undecided", evidence)


def test_other_checkpoints_of_a_run_are_in_no_table(tmp_path):
    raw = uvim(score=0.5)
    for key in (MetricKey("rmse"), MetricKey("abs_rel")):
        other = MetricKey(key.metric, weights="raw", step=100)
        add(raw, other, 0.789, entry(raw, key)["protocol"])
    add(raw, MetricKey("rmse", baseline="mean_depth", weights="raw", step=100), 0.789, {"a": 1})
    text = uvim_table(parsed(tmp_path, [raw]))
    assert "0.789" not in text


def test_same_measurement_ignores_what_one_side_does_not_state():
    stage1 = {"split": "test", "checkpoint": 1}
    stage2 = {"split": "test", "checkpoint": 2, "sampler": "autoregressive", "temperature": 1.0}
    assert same_measurement(stage1, stage2) and same_measurement(stage2, stage1)
    assert same_measurement(stage2, stage2 | {"temperature": 0.0})
    assert not same_measurement(stage1, stage2 | {"split": "validation"})


def test_a_baselines_footnote_is_of_the_data_alone(tmp_path):
    raw = uvim()
    for key in (MEAN_DEPTH, MEAN_MAP):
        entry(raw, key)["protocol"] = dict(entry(raw, "rmse")["protocol"])
    text = uvim_table(parsed(tmp_path, [raw]))
    assert "[b] RMSE (m), stage II: data scenes, resolution 64, split test, images 256, crop none.  " in text


def test_verdicts_where_the_paper_holds(tmp_path):
    """A row has one stage I, so that claims on it stay undecided; all others hold with three seeds of stage II."""
    v = judged(of_task("depth", seeds=True), tmp_path)
    of_stage1 = {FULL, FEWER, f"RMSE (m): {ORACLE_BETTER}"}
    assert {claim for claim, (verdict, _) in v.items() if verdict != "yes"} == of_stage1 and len(v) == 7
    assert {v[claim][0] for claim in of_stage1} == {"one seed, undecided"}
    close = v["RMSE (m): FSQ within 3% of VQ, or ahead"]
    assert close == ("yes", "FSQ 0.473 ± 0.000 against VQ 0.468 ± 0.000 (+1.1%)")
    worse = v["RMSE (m): VQ is better than VQ without splitting"]
    assert worse[1] == "VQ 0.468 ± 0.000 against VQ no splitting 0.490 ± 0.000 (-4.5%)"
    assert v[FEWER][1].startswith("VQ no splitting 0.8% against VQ 98.9% (-99.2%)")
    assert v[FULL][1].startswith("FSQ 98.9% against a uniform source 100.0%")
    v = judged(of_task("panoptic", seeds=True), tmp_path)
    assert {claim for claim, (verdict, _) in v.items() if verdict != "yes"} == {FULL, f"PQ: {ORACLE_BETTER}"}
    assert v["PQ: without context FSQ loses less than VQ"][1] == "FSQ 3.0 against VQ 4.4" and len(v) == 6
    v = judged(of_task("colorization", seeds=True), tmp_path)
    undecided = {FULL, f"FD-alexnet (train): {ORACLE_BETTER}"}
    assert {claim for claim, (verdict, _) in v.items() if verdict != "yes"} == undecided and len(v) == 4


def test_one_seed_decides_nothing(tmp_path):
    for task in ("depth", "panoptic", "colorization"):
        assert {verdict for verdict, _ in judged(of_task(task), tmp_path).values()} == {"one seed, undecided"}


FLIPS = [
    # FSQ worse than VQ by more than 3%
    ("depth", {("fsq", True, 2): 0.49}, "RMSE (m): FSQ within 3% of VQ, or ahead"),
    ("panoptic", {("fsq", True, 2): 0.42}, "PQ: FSQ within 3% of VQ, or ahead"),
    ("colorization", {("fsq", True, 2): 17.55}, "FD-alexnet (train): FSQ within 3% of VQ, or ahead"),
    ("depth", {("ema_vq_no_splitting", True, 2): 0.46}, "RMSE (m): VQ is better than VQ without splitting"),
    ("panoptic", {("fsq", False, 2): 0.38}, "PQ: without context FSQ loses less than VQ"),
]


@pytest.mark.parametrize(("task", "change", "flipped"), FLIPS)
def test_each_verdict_flips_with_its_number(tmp_path, task, change, flipped):
    raw = of_task(task)
    main = {"depth": "rmse", "panoptic": "pq", "colorization": CFD}[task]
    for r in raw:
        key = (r["quantizer"], r["context"], r["stage"])
        entry(r, main)["value"] = change.get(key, entry(r, main)["value"])
    v = judged(three_seeds(raw), tmp_path)
    assert {claim for claim, (verdict, _) in v.items() if verdict not in ("yes", "one seed, undecided")} == {flipped}
    assert v[flipped][0] == "no"


def test_a_loss_within_the_noise_of_the_losses(tmp_path):
    claim = "PQ: without context FSQ loses less than VQ"
    assert judged(three_seeds(of_task("panoptic"), 0.02), tmp_path)[claim][0] == "within noise"


def test_usage_baselines_and_oracles(tmp_path):
    raw = of_task("depth")
    for r in raw:
        if r["stage"] == 1:
            r["seed"], entry(r, "rmse")["value"] = 0, 0.48
        if r["quantizer"] != "ema_vq":
            entry(r, "usage")["value"] = 0.6
        entry(r, MEAN_MAP)["value"] = 0.49 / 0.95
    v = judged(three_seeds(raw), tmp_path)
    assert v[f"RMSE (m): {CLEARLY} mean map (by more than 10%)"][0] == "no"
    assert v[f"RMSE (m): {CLEARLY} mean depth (by more than 10%)"][0] == "yes"
    # Autoencoders alone: each model is the seeds of stage I.
    v = judged([r for r in three_seeds(raw) if r["stage"] == 1], tmp_path)
    assert (v[FULL][0], v[FEWER][0]) == ("no", "no")
    assert v[f"RMSE (m): {ORACLE_BETTER}"][0] == "not measured"


def test_a_baseline_of_zero_is_judged(tmp_path):
    raw = [uvim("panoptic", score=0.0), uvim("panoptic", "ema_vq", score=0.01)]
    for r in raw:
        entry(r, "pq", baseline="majority_map")["value"] = 0.0
    verdict, evidence = judged(three_seeds(raw), tmp_path)[f"PQ: {CLEARLY} majority map (by more than 10%)"]
    assert verdict == "within noise" and evidence.startswith("FSQ 0.0 ± 0.0 against a baseline of 0.0, VQ 1.0")


def test_what_was_measured_differently_is_not_compared(tmp_path):
    raw = of_task("panoptic")
    for r in raw:
        if r["quantizer"] == "ema_vq":
            for name in ("pq", "usage"):
                entry(r, name)["protocol"]["split"] = "validation"
    v = judged(raw, tmp_path)
    assert v["PQ: FSQ within 3% of VQ, or ahead"] == ("not measured", "")
    assert v["PQ: without context FSQ loses less than VQ"] == ("not measured", "")
    assert v[f"PQ: {CLEARLY} majority map (by more than 10%)"][1].count("against") == 2


def test_figure_has_a_panel_per_task(tmp_path):
    records = parsed(tmp_path, paper_like_uvim())
    uvim_figure(records, tmp_path / "all.png")
    uvim_figure([r for r in records if r.task == "depth" and r.quantizer == "fsq"], tmp_path / "one.png")
    assert min(pixels(tmp_path / "all.png", c) for c in (BLUE, ORANGE)) > 100
    assert pixels(tmp_path / "one.png", BLUE) > 30 and pixels(tmp_path / "one.png", ORANGE) == 0
    widths = [np.asarray(Image.open(tmp_path / f"{name}.png")).shape[1] for name in ("all", "one")]
    assert widths[0] > 2 * widths[1]
    with pytest.raises(ValueError, match="nothing to draw"):
        uvim_figure(parsed(tmp_path, [record()]), tmp_path / "none.png")


def test_report_of_the_study_with_pictures(tmp_path):
    runs = write(tmp_path / "runs", *paper_like_uvim())
    samples = runs / "depth_fsq" / "seed0" / "samples"
    samples.mkdir()
    Image.new("RGB", (4, 4)).save(samples / "evaluation.png")
    names = [f.name for f in write_report(runs, tmp_path / "out")]
    assert names == ["uvim.md", "uvim.png"]
    text = (tmp_path / "out" / "uvim.md").read_text()
    assert "![uvim](uvim.png)" in text and text.count("Do the paper's claims appear") == 3
    assert "![depth_fsq_seed0_evaluation](pictures/depth_fsq_seed0_evaluation.png)" in text
    write_report(tmp_path / "out" / "records", tmp_path / "out")
    assert (tmp_path / "out" / "uvim.md").read_text() == text


def test_settings_chosen_on_the_split_that_is_reported_are_said_to_be_so(tmp_path):
    note = "chosen on the images that this table is computed on"
    assert note in uvim_table(parsed(tmp_path, [uvim(scale="cpu")]))
    assert note not in uvim_table(parsed(tmp_path, [uvim(scale="paper")]))
