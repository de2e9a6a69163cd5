"""Fig. 3 in tables: values beside the paper, and verdicts that follow from the records."""

import pytest

from fsq_repro.metrics.table import MetricKey
from fsq_repro.reporting import paper
from fsq_repro.reporting.groups import group_runs
from fsq_repro.reporting.tradeoff import AUTOENCODERS, GENERATORS, sanity_checks
from tests.reporting.synthetic import (
    SFD,
    add,
    entry,
    only,
    paper_like,
    paper_like_stage2,
    parsed,
    record,
    stage2,
    tables,
    three_seeds,
)

AHEAD, IMPROVES = "FSQ ahead of VQ beyond 2^10", "FSQ improves with every larger codebook"
FULL = "FSQ uses at least 95% of the codes that a uniform source would use, at every size"
COLLAPSED = "VQ uses less than 50% of the codes that a uniform source would use beyond 2^11"
FEW_CODES = "VQ uses fewer than 2^10 codes beyond 2^11"
SLIGHTLY_AHEAD = "VQ slightly ahead of FSQ up to 2^8 (by at most 10%)"
SATURATES = "FSQ saturates from 2^12, larger codebooks change it by less than 5%"
COST_RISES = "compression cost of FSQ rises with the codebook size"
COST_DROPS = "compression cost of VQ drops beyond 2^11, where its usage collapses"
SLIGHTLY_ABOVE = "compression cost of FSQ slightly above that of VQ at equal size (by at most 10%)"
BELOW_ENTROPY = "compression cost below the marginal entropy, every point"
TRAIN, SAMPLES = "rFD-alexnet (train): ", "sampling FD-alexnet (train): "
NEARER = "FD-alexnet own class: samples of a class are nearer to it than to other classes (below 0.9 of it)"


def judged(raw, tmp_path, judge=AUTOENCODERS.judge):
    return {f.claim: (f.verdict, f.evidence) for f in judge(group_runs(parsed(tmp_path, raw)))}


def masked(raw):
    return [r for r in raw if r["generator"] == "masked"]


def test_rows_by_size_then_quantizer_with_every_value(tmp_path):
    (table,) = tables(AUTOENCODERS.text(parsed(tmp_path, reversed(paper_like()))))
    order = [(r["target"], r["quantizer"]) for r in table]
    no_entropy = "VQ, no entropy term"
    assert order == [
        ("2^8", "FSQ"),
        ("2^8", "VQ"),
        ("2^10", "FSQ"),
        ("2^10", "VQ"),
        ("2^10", no_entropy),
        ("2^12", "FSQ"),
        ("2^12", "VQ"),
    ]
    fsq = table[2]
    assert fsq["levels"] == "[8, 5, 5, 5]" and fsq["codebook"] == "1,000" and fsq["bits"] == "9.97"
    assert fsq["rFD-alexnet (train)"] == "10.00" and fsq["rFD-alexnet (test)"] == "7.00"
    assert (fsq["PSNR (dB)"], fsq["SSIM"], fsq["usage"], fsq["tokens counted"]) == ("30.00", "0.750", "91.0%", "40,960")
    assert fsq["entropy (bits)"] == "8.97" and fsq["usage of a uniform source"] == "100.0%"
    assert fsq["runs"] == "1 (seed 0)"
    assert "FID about 8" in fsq["paper"] and "read by eye" in fsq["paper"]
    assert "2^10 codes" in table[6]["paper"]
    assert table[4]["paper"] == "–"  # the paper has no VQ without the entropy term in this study


def test_verdicts_where_the_paper_holds(tmp_path):
    raw = paper_like()
    entry(raw[2], "usage")["value"] = entry(raw[4], "usage")["value"] = 0.97
    v = judged(three_seeds(raw), tmp_path)
    assert {claim for claim, (verdict, _) in v.items() if verdict != "yes"} == {
        *(f"rFD-alexnet ({reference}): VQ worsens beyond 2^11" for reference in ("train", "test"))
    }
    assert {v[f"rFD-alexnet ({ref}): VQ worsens beyond 2^11"] for ref in ("train", "test")} == {("not measured", "")}
    assert v[TRAIN + AHEAD][1] == "FSQ 2^12 9.00 ± 0.01 against VQ 2^12 11.25 ± 0.01 (-20.0%)"
    assert v[TRAIN + IMPROVES][1].startswith("FSQ 2^10 10.00 ± 0.01 against FSQ 2^8 12.00 ± 0.01 (-16.7%), FSQ 2^12")
    assert v[FULL][1].startswith("FSQ 2^8 98.0% ± 0.1% against a uniform source 100.0% (-2.0%), FSQ 2^10")
    assert v[FEW_CODES][1] == "VQ 2^12 512 ± 1 against a bound of 1,024 (-50.0%)"


def test_verdicts_where_it_does_not(tmp_path):
    raw = [
        record("fsq", 8, fd=12.0, usage=0.94),
        record("vq", 8, fd=13.0),
        record("fsq", 10, fd=13.0, usage=0.3),
        record("fsq", 12, fd=11.0, usage=0.2),
        record("vq", 12, fd=10.0, usage=0.9),
    ]
    v = judged(three_seeds(raw), tmp_path)
    no = (FULL, COLLAPSED, FEW_CODES, TRAIN + AHEAD, TRAIN + SLIGHTLY_AHEAD)
    assert {v[claim][0] for claim in (*no, "FSQ uses a larger share of its codebook than VQ beyond 2^10")} == {"no"}
    assert v[TRAIN + IMPROVES][0] == "partly"
    line = f"{TRAIN}{AHEAD} (section 5.1, said of sampling FID, Fig. 3b): **no**; FSQ 2^12 11.00 ± 0.01 against VQ"
    assert line in AUTOENCODERS.text(parsed(tmp_path, three_seeds(raw)))


def test_one_seed_decides_nothing(tmp_path):
    raw = [record("fsq", 10, fd=266.92), record("fsq", 12, fd=266.69)]
    one_seed = "FSQ 2^12 266.69 against FSQ 2^10 266.92 (-0.1%)"
    assert judged(raw, tmp_path)[TRAIN + IMPROVES] == ("one seed, undecided", one_seed)
    # Three of one and one of the other decide as little.
    assert judged([*three_seeds(raw[:1]), raw[1]], tmp_path)[TRAIN + IMPROVES][0] == "one seed, undecided"
    found = {verdict for verdict, _ in judged(paper_like(), tmp_path).values()}
    assert found == {"one seed, undecided", "not measured"}


@pytest.mark.parametrize(
    ("change", "spread", "verdict"),
    [
        (0.99, 0.001, "yes"),
        (1.01, 0.001, "no"),  # a worsening by 1%
        (1.01, 0.04, "within noise"),
        (266.7 / 267.3, 11 / 267, "within noise"),
    ],
)
def test_a_difference_must_exceed_the_noise(tmp_path, change, spread, verdict):
    raw = three_seeds([record("fsq", 10, fd=267.3), record("fsq", 12, fd=267.3 * change)], spread)
    assert judged(raw, tmp_path)[TRAIN + IMPROVES][0] == verdict
    raw = three_seeds([record("vq", 12, fd=267.3), record("fsq", 12, fd=267.3 * change)], spread)
    assert judged(raw, tmp_path)[TRAIN + AHEAD][0] == verdict


@pytest.mark.parametrize(("ratio", "verdict"), [(0.89, "no"), (0.92, "yes"), (0.99, "yes"), (1.01, "no")])
def test_slightly_is_bounded_from_both_sides(tmp_path, ratio, verdict):
    raw = three_seeds([record("fsq", 8, fd=10.0), record("vq", 8, fd=10.0 * ratio)])
    assert judged(raw, tmp_path)[TRAIN + SLIGHTLY_AHEAD][0] == verdict
    raw = three_seeds([stage2("fsq", 8, cost=6 / ratio), stage2("vq", 8, cost=6.0)])
    assert judged(raw, tmp_path, GENERATORS.judge)[SLIGHTLY_ABOVE][0] == verdict


@pytest.mark.parametrize(("ratio", "verdict"), [(0.9, "no"), (0.97, "yes"), (1.03, "yes"), (1.1, "no")])
def test_saturation_is_bounded_from_both_sides(tmp_path, ratio, verdict):
    raw = three_seeds([stage2("fsq", 12, fd=20.0), stage2("fsq", 14, fd=20.0 * ratio)])
    assert judged(raw, tmp_path, GENERATORS.judge)[SAMPLES + SATURATES][0] == verdict


def test_usage_is_judged_by_what_a_uniform_source_would_show(tmp_path):
    """2^14 codes and 40,960 tokens: a uniform source shows 93.05% of 15,360 codes."""
    uniform = entry(record("fsq", 14), "uniform_usage")["value"]
    for share, verdict in ((0.94, "no"), (0.96, "yes")):
        raw = three_seeds([record("fsq", 14, usage=share * uniform)])
        assert judged(raw, tmp_path)[FULL][0] == verdict
    # 2^16 codes: a uniform source shows 46.5%, which is no collapse.
    for share, verdict in ((1.0, "no"), (0.45, "yes")):
        raw = record("vq", 16)
        entry(raw, "usage")["value"] = share * entry(raw, "uniform_usage")["value"]
        assert judged(three_seeds([raw]), tmp_path)[COLLAPSED][0] == verdict


def test_what_could_not_fail_is_not_judged(tmp_path):
    """1,600 tokens: a uniform source would use fewer than twice 2^10 codes too."""
    raw = record("vq", 12, usage=0.1)
    entry(raw, "uniform_usage")["value"] = 0.3233
    assert judged(three_seeds([raw]), tmp_path)[FEW_CODES] == ("not measured", "")
    assert not any("parameters" in claim or "log2" in claim for claim in judged(paper_like(), tmp_path))


def test_other_protocols_are_never_compared(tmp_path):
    raw = three_seeds([*paper_like(), *paper_like_stage2()])
    for r in raw:
        for m in r["metrics"]:
            m["protocol"] |= {"weights": "raw"} if r["quantizer"] == "vq" else {}
    assert judged([r for r in raw if "stage" not in r], tmp_path)[TRAIN + AHEAD] == ("not measured", "")
    v = judged(masked([r for r in raw if "stage" in r]), tmp_path, GENERATORS.judge)
    assert {v[claim] for claim in (SAMPLES + AHEAD, SLIGHTLY_ABOVE)} == {("not measured", "")}


def test_generators_on_other_tokens_have_their_own_section(tmp_path):
    longer = stage2("vq")
    longer["stage1"]["steps"] = 5000
    records = parsed(tmp_path, [stage2(), longer, stage2("vq", 8, data={"source": "scenes", "resolution": 32})])
    text = GENERATORS.text(records)
    assert text.count("Setting: tradeoff_maskgit") == 3
    assert "tokens of tradeoff_autoencoder (5,000 steps of batch 64)" in text


def test_stage1_tables_do_not_look_at_generators(tmp_path):
    alone = AUTOENCODERS.text(parsed(tmp_path, paper_like()))
    assert AUTOENCODERS.text(parsed(tmp_path, [*paper_like(), *paper_like_stage2()])) == alone


def test_sampling_and_compression_tables(tmp_path):
    text = GENERATORS.text(parsed(tmp_path, [*paper_like(), *reversed(paper_like_stage2())]))
    samples, classes, costs = tables(text)
    order = [(r["target"], r["quantizer"], r["generator"]) for r in samples]
    assert order[:4] == [("2^8", q, g) for q in ("FSQ", "VQ") for g in ("masked", "autoregressive")]
    assert order == [(r["target"], r["quantizer"], r["generator"]) for r in costs] and len(order) == 9
    fsq = samples[4]
    assert (fsq["levels"], fsq["codebook"], fsq["generator"]) == ("[8, 5, 5, 5]", "1,000", "masked")
    columns = ("sampling FD-alexnet (train)", "precision-alexnet", "recall-alexnet")
    assert [fsq[c].split(" ")[0] for c in columns] == ["19.00", "0.700", "0.400"]
    columns = [f"{of}-alexnet" for of in ("class agreement", "of reconstructions", "of test images")]
    columns += [f"FD-alexnet {of}" for of in ("own class", "other class", "soup", "marginal soup")]
    shown = [classes[4][c].split(" ")[0] for c in columns]
    assert shown == ["50.0%", "70.0%", "80.0%", "28.50", "76.00", "57.00", "95.00"]
    cost = costs[4]
    assert (cost["bits log2(C)"], cost["marginal entropy (bits)"]) == ("9.97", "8.97")
    assert cost["compression cost (bits per token)"].split(" ")[0] == "7.700"
    assert cost["coder (bits per token)"].startswith("7.731 (+0.40%)")
    assert "saturates" in samples[7]["paper"] and "cost drops" in costs[8]["paper"]
    # The paper has no autoregressive generator, and the two kinds never share a footnote.
    assert all(r["paper"] == "–" for r in [*samples, *costs] if r["generator"] == "autoregressive")
    assert fsq["sampling FD-alexnet (train)"] != samples[5]["sampling FD-alexnet (train)"].replace("18.80", "19.00")
    assert "schedule teacher-forced" in text and "schedule M2T, 12 groups" in text


def test_what_has_no_protocol_is_not_printed(tmp_path):
    raw = stage2(fd=12.3456, cost=5.4321)
    for key in (SFD, "compression_bits", "coder_bits"):
        entry(raw, key)["protocol"] = None
    text = GENERATORS.text(parsed(tmp_path, [raw]))
    samples, _, costs = tables(text)
    assert "12.3" not in text and "5.43" not in text
    assert samples[0]["sampling FD-alexnet (train)"] == costs[0]["coder (bits per token)"] == "–†"


def test_what_inception_alone_gives_has_columns_where_a_run_has_it(tmp_path):
    raw = stage2()
    for metric, reference in (
        *(("sampling_fd", "file"), ("sampling_fd", "train"), ("spatial_fd", "file"), ("inception_score", "")),
        ("precision", ""),
    ):
        add(raw, MetricKey(metric, "inception", reference), 7.25, entry(raw, SFD)["protocol"])
    names = list(tables(GENERATORS.text(parsed(tmp_path, [raw])))[0][0])
    expected = ["sampling FID (file)", "sFID (file)", "Inception score", "precision-inception"]
    start = names.index(expected[0])
    assert names[start : start + 4] == expected
    assert names.count("precision-inception") == 1 and "sampling FID (train)" in names
    alexnet = list(tables(GENERATORS.text(parsed(tmp_path, [stage2()])))[0][0])
    assert not any("FID" in name for name in alexnet) and "precision-alexnet" in alexnet


def test_generators_where_the_paper_holds(tmp_path):
    raw = masked(paper_like_stage2())
    raw += [stage2("vq", 11, fd=19.2, cost=8.95), stage2("fsq", 14, fd=18.5, cost=10.9)]
    v = judged(three_seeds(raw), tmp_path, GENERATORS.judge)
    undecided = {claim for claim, (verdict, _) in v.items() if verdict != "yes"}
    ranks = {f"{SAMPLES}falls as the compression cost rises, {q}" for q in ("FSQ", "VQ")}
    assert undecided == ranks
    assert v[f"{SAMPLES}falls as the compression cost rises, FSQ"] == (
        "undecided",
        "Spearman's rho -0.80 over 4 points",
    )
    assert v[SAMPLES + SATURATES][1] == "FSQ 2^14 18.50 ± 0.02 against FSQ 2^12 18.00 ± 0.02 (+2.8%)"
    assert v[SLIGHTLY_ABOVE][1].startswith("FSQ 2^8 6.300 ± 0.006 against VQ 2^8 6.200 ± 0.006 (+1.6%)")
    assert v[NEARER][1].startswith("FSQ 2^8 31.50 ± 0.03 against other classes 84.00 ± 0.08 (-62.5%)")


def test_generators_where_it_does_not(tmp_path):
    raw = [
        stage2("fsq", 8, fd=18.0, cost=7.95),
        stage2("fsq", 10, fd=19.0, cost=7.0),
        stage2("vq", 10, fd=17.0, cost=5.0),
        stage2("fsq", 12, fd=20.0, cost=6.0),
        stage2("fsq", 14, fd=30.0, cost=5.9),
        stage2("vq", 12, fd=17.5, cost=6.5),
    ]
    for r in raw:
        own = entry(r, "class_fd_own", network="alexnet")["value"]
        entry(r, "class_fd_other", network="alexnet")["value"] = 1.05 * own  # 1.05 times farther: the bound is 0.9
        entry(r, "class_fd_soup", network="alexnet")["value"] = 0.9 * own
    v = judged(three_seeds(raw), tmp_path, GENERATORS.judge)
    no = (SAMPLES + AHEAD, SAMPLES + SATURATES, COST_RISES, SLIGHTLY_ABOVE, NEARER)
    assert {v[claim][0] for claim in no} == {"no"}
    assert v[BELOW_ENTROPY][0] == "partly"
    assert v[f"{SAMPLES}falls as the compression cost rises, VQ"][0] == "undecided"  # two points
    assert v[f"{SAMPLES}VQ worsens beyond 2^11"][0] == v[COST_DROPS][0] == "not measured"


def test_two_metrics_of_a_run_are_compared_seed_by_seed(tmp_path):
    """Seeds differ by 30%, but in each the cost is 2% below the entropy."""
    raw = three_seeds([stage2("vq", 10)], spread=0.3)
    for r in raw:
        entry(r, "compression_bits")["value"] = (0.98 + 0.001 * r["seed"]) * entry(r, "entropy_bits")["value"]
    assert judged(raw, tmp_path, GENERATORS.judge)[BELOW_ENTROPY][0] == "yes"


def test_generators_of_two_kinds_are_judged_apart(tmp_path):
    v = judged(three_seeds(paper_like_stage2()), tmp_path, GENERATORS.judge)
    assert v[f"masked: {SAMPLES}{AHEAD}"][0] == "yes"
    # The paper's claims are on masked transformers: of others only what was measured is listed.
    assert v[f"autoregressive: {BELOW_ENTROPY}"][0] == "yes" and f"autoregressive: {SAMPLES}{AHEAD}" not in v
    # Without any metric nothing is measured, and nothing is claimed.
    nothing = judged([stage2() | {"metrics": []}], tmp_path, GENERATORS.judge)
    assert {verdict for verdict, _ in nothing.values()} == {"not measured"}


def test_sanity_checks_are_no_findings(tmp_path):
    raw = [stage2("fsq", 8), stage2("vq", 8)]
    uniform, coder = sanity_checks(group_runs(parsed(tmp_path, raw)))
    assert uniform.startswith(
        "compression cost below log2|C|, every point: holds; FSQ 2^8 6.326 against log2|C| 7.907,"
    )
    assert coder.startswith("a range coder's stream is within 1% of the model's cost: holds; FSQ 2^8 6.351 against")
    text = GENERATORS.text(parsed(tmp_path, raw))
    assert f"Sanity checks, no findings:\n\n- {uniform}\n- {coder}\n" in text
    entry(raw[1], "compression_bits")["value"] = 8.01
    entry(raw[0], "coder_bits")["value"] = 1.02 * entry(raw[0], "coder_expected_bits")["value"]
    assert all("**fails**" in line for line in sanity_checks(group_runs(parsed(tmp_path, raw))))
    assert sanity_checks(group_runs(parsed(tmp_path, [only(raw[0], "tokens")]))) == []


@pytest.mark.parametrize("statement", paper.TRADEOFF)
def test_published_statements_have_a_source(statement):
    assert statement.text and ("section" in statement.source or "Fig." in statement.source)
    assert statement in paper.statements(statement.quantizer, statement.min_bits)


def test_statements_are_for_their_sizes_only():
    assert [s.text for s in paper.statements("vq", 12)] == ["FID worsens; usage < 50%, never more than 2^10 codes"]
    assert paper.statements("vq", 10) == [] and paper.statements("vq_no_entropy", 12) == []


def test_a_vq_of_narrow_codes_is_judged_by_itself(tmp_path):
    """The paper's claims on VQ, with the other VQ in its place: its numbers, and no line where it has no runs."""
    raw = three_seeds([record("fsq", 12, fd=9.0), record("vq", 12, fd=11.0), record("vq_narrow", 12, fd=8.0)])
    raw += three_seeds([stage2("fsq", 12, cost=6.2), stage2("vq_narrow", 12, cost=6.0), stage2("vq", 12, cost=7.0)])
    for judge in (AUTOENCODERS.judge, GENERATORS.judge):
        stage = [r for r in raw if ("generator" in r) == (judge == GENERATORS.judge)]
        v = judged(stage, tmp_path, judge)
        narrow = {claim for claim in v if "VQ of narrow codes" in claim}
        assert {claim.replace("VQ of narrow codes", "VQ") for claim in narrow} <= v.keys() and len(narrow) > 4
        assert not any("VQ 2^12" in v[claim][1] for claim in narrow)
        without = judged([r for r in stage if r["quantizer"] != "vq_narrow"], tmp_path, judge)
        assert without.keys() == v.keys() - narrow
    narrow_ahead = TRAIN + AHEAD.replace("VQ", "VQ of narrow codes")
    v = judged([r for r in raw if "generator" not in r], tmp_path)
    assert (v[TRAIN + AHEAD][0], v[narrow_ahead][0]) == ("yes", "no")
    assert v[narrow_ahead][1].startswith("FSQ 2^12 9.00 ± 0.01 against VQ, narrow codes 2^12 8.00")
