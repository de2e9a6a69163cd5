"""Generators in reports: records, tables beside the paper, verdicts that follow from the records."""

import itertools

import pytest

from fsq_repro.reporting import paper
from fsq_repro.reporting.claims_stage2 import levels_sampling_findings, sampling_findings
from fsq_repro.reporting.groups import group_runs, split_by_setting, stage1_setting_of
from fsq_repro.reporting.guidance import guidance_curve, guidance_table
from fsq_repro.reporting.records import Stage1, parse_record
from fsq_repro.reporting.tables import format_header, format_row, tradeoff_table
from fsq_repro.reporting.tables_stage2 import levels_sampling_table, sampling_table
from tests.reporting.synthetic import guided, paper_like, paper_like_stage2, record, stage2
from tests.reporting.test_tables import parsed, rows


def verdicts(raw, tmp_path, judge=sampling_findings):
    return {f.claim: (f.verdict, f.evidence) for f in judge(group_runs(parsed(tmp_path, raw)))}


def masked(raw):
    return [r for r in raw if r["generator"] == "masked"]


def tables(markdown):
    """The rows of each table of a text."""
    blocks = itertools.groupby(markdown.splitlines(), key=lambda line: line.startswith("|"))
    return [rows("\n".join(lines)) for is_table, lines in blocks if is_table]


def test_a_generator_knows_its_autoencoder(tmp_path):
    first, second = parsed(tmp_path, [record("fsq", 10), stage2("fsq", 10)])
    assert (first.generator, first.stage1) == (None, None)
    assert (second.generator, second.stage1) == ("masked", Stage1("tradeoff_autoencoder", "fsq_10", 1200, 64, 0))
    assert stage1_setting_of(second) == stage1_setting_of(first)
    assert len(split_by_setting([first, second])) == 2
    (alone,) = parsed(tmp_path, [record() | {"stage": 1}])
    assert alone.stage1 is None


def test_generators_on_other_tokens_are_other_settings(tmp_path):
    longer = stage2("vq")
    longer["stage1"]["steps"] = 5000
    records = parsed(tmp_path, [stage2(), longer, stage2("vq", 8, data={"source": "scenes", "resolution": 32})])
    assert len(split_by_setting(records)) == len(split_by_setting(records, stage1_setting_of)) == 3
    text = sampling_table(records)
    assert text.count("Setting: tradeoff_maskgit") == 3
    assert "tokens of tradeoff_autoencoder (5,000 steps of batch 64)" in text


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


def test_stage1_tables_do_not_look_at_generators(tmp_path):
    alone = tradeoff_table(parsed(tmp_path, paper_like()))
    assert tradeoff_table(parsed(tmp_path, [*paper_like(), *paper_like_stage2()])) == alone


def test_sampling_and_compression_tables(tmp_path):
    text = sampling_table(parsed(tmp_path, [*paper_like(), *reversed(paper_like_stage2())]))
    samples, costs = tables(text)
    order = [(r["target"], r["quantizer"], r["generator"]) for r in samples]
    assert order[:4] == [("2^8", q, g) for q in ("FSQ", "VQ") for g in ("masked", "autoregressive")]
    assert order == [(r["target"], r["quantizer"], r["generator"]) for r in costs] and len(order) == 9
    fsq = samples[4]
    assert (fsq["levels"], fsq["codebook"], fsq["generator"]) == ("[8, 5, 5, 5]", "1,000", "masked")
    columns = ("sampling FD-alexnet (train)", "precision-alexnet", "recall-alexnet", "FD-alexnet own class")
    columns += ("FD-alexnet other class", "FD-alexnet soup", "FD-alexnet marginal soup")
    assert [fsq[c].split(" ")[0] for c in columns] == ["19.00", "0.700", "0.400", "28.50", "76.00", "57.00", "95.00"]
    cost = costs[4]
    assert (cost["bits log2(C)"], cost["marginal entropy (bits)"]) == ("9.97", "8.97")
    assert cost["compression cost (bits a token)"].split(" ")[0] == "7.700"
    assert cost["coder (bits a token)"].startswith("7.731 (+0.40%)")
    assert "saturates" in samples[7]["paper"] and "cost drops" in costs[8]["paper"]
    # The paper has no autoregressive generator, and the two kinds never share a footnote.
    assert all(r["paper"] == "–" for r in [*samples, *costs] if r["generator"] == "autoregressive")
    assert fsq["sampling FD-alexnet (train)"] != samples[5]["sampling FD-alexnet (train)"].replace("18.80", "19.00")
    assert "schedule teacher-forced" in text and "schedule M2T, 12 groups" in text


def test_what_has_no_protocol_is_not_printed(tmp_path):
    raw = stage2(fd=12.3456, cost=5.4321)
    for name in ("sfd_alexnet_train", "compression_bits", "coder_bits"):
        raw["figures"][name]["protocol"] = None
    text = sampling_table(parsed(tmp_path, [raw]))
    samples, costs = tables(text)
    assert "12.3" not in text and "5.43" not in text
    assert samples[0]["sampling FD-alexnet (train)"] == costs[0]["coder (bits a token)"] == "–†"


def test_only_inception_may_be_called_fid(tmp_path):
    raw = stage2()
    raw["figures"]["sfd_inception_train"] = raw["figures"]["sfd_alexnet_train"]
    (row, _) = tables(sampling_table(parsed(tmp_path, [raw])))
    assert [k for k in row[0] if "FID" in k] == ["sampling FID (train)"]


def test_what_inception_alone_gives_has_columns_where_a_run_has_it(tmp_path):
    raw = stage2()
    of_samples = raw["figures"]["sfd_alexnet_train"]
    for name in ("sfd_inception_file", "sfd_inception_train", "spatialfd_inception_file", "inception_score_inception"):
        raw["figures"][name] = of_samples | {"value": 7.25}
    names = list(tables(sampling_table(parsed(tmp_path, [raw])))[0][0])
    expected = ["sampling FID (file)", "sFID (file)", "Inception score", "precision-inception"]
    start = names.index(expected[0])
    assert names[start : start + 4] == expected
    assert names.count("precision-inception") == 1 and "sampling FID (train)" in names
    assert not any("sF" in name for name in tables(sampling_table(parsed(tmp_path, [stage2()])))[0][0])


def test_verdicts_where_the_paper_holds(tmp_path):
    raw = masked(paper_like_stage2())
    raw += [stage2("vq", 11, fd=19.2, cost=8.95), stage2("fsq", 14, fd=18.5, cost=10.9)]
    v = verdicts(raw, tmp_path)
    sfd = "sampling FD-alexnet (train): "
    assert v[f"{sfd}FSQ ahead of VQ beyond 2^10"] == ("yes", "FSQ 2^12 18 against VQ 2^12 20")
    assert v[f"{sfd}VQ worsens beyond 2^11"] == ("yes", "2^11 to 2^12: 19.2 to 20")
    saturates = v[f"{sfd}FSQ saturates from 2^12, larger codebooks change it by less than 5%"]
    assert saturates == ("yes", "2^12 to 2^14: 18 to 18.5, +2.8%")
    assert v["compression cost of FSQ rises with the codebook size"][0] == "yes"
    above = v["compression cost of FSQ slightly above VQ's at equal size (by at most 10%)"]
    assert above[0] == "yes" and above[1].startswith("2^8 6.3 against 6.2, +1.6%")
    assert v["compression cost of VQ drops beyond 2^11, where its usage collapses"][0] == "yes"
    assert v["compression cost below log2|C|, every point"][0] == "yes"
    assert v["compression cost below the marginal entropy, every point"][0] == "yes"
    assert v["a range coder's stream is within 1% of the model's cost"][0] == "yes"
    assert v[f"{sfd}falls as the compression cost rises, FSQ"] == ("yes", "Spearman's rho -0.80 over 4 points")
    assert {t[0] for c, t in v.items() if c.startswith("FD-alexnet")} == {"yes"}


def test_verdicts_where_it_does_not(tmp_path):
    raw = [
        stage2("fsq", 8, fd=18.0, cost=7.95),
        stage2("fsq", 10, fd=19.0, cost=7.0),
        stage2("vq", 10, fd=17.0, cost=5.0),
        stage2("fsq", 12, fd=20.0, cost=6.0),
        stage2("fsq", 14, fd=30.0, cost=5.9),
        stage2("vq", 12, fd=17.5, cost=6.5),
    ]
    for r in raw:
        figures = r["figures"]
        figures["coder_bits"]["value"] = 1.02 * figures["coder_expected_bits"]["value"]
        figures["class_fd_other_alexnet"]["value"] = 1.05 * figures["class_fd_own_alexnet"]["value"]
        figures["class_fd_soup_alexnet"]["value"] = 0.9 * figures["class_fd_own_alexnet"]["value"]
    v = verdicts(raw, tmp_path)
    sfd = "sampling FD-alexnet (train): "
    assert v[f"{sfd}FSQ ahead of VQ beyond 2^10"][0] == "no"
    assert v[f"{sfd}FSQ saturates from 2^12, larger codebooks change it by less than 5%"][0] == "no"
    assert v["compression cost of FSQ rises with the codebook size"][0] == "no"
    # 40% above is not slightly above, and below is not above.
    assert v["compression cost of FSQ slightly above VQ's at equal size (by at most 10%)"][0] == "no"
    assert v["compression cost below log2|C|, every point"][0] == "partly"
    assert v["compression cost below the marginal entropy, every point"][0] == "partly"
    assert v["a range coder's stream is within 1% of the model's cost"][0] == "no"
    assert v[f"{sfd}falls as the compression cost rises, VQ"] == ("not measured", "")  # two points
    assert v[f"{sfd}VQ worsens beyond 2^11"][0] == "not measured"
    # 1.05 times farther is no success: the threshold is 0.9.
    assert {t[0] for c, t in v.items() if c.startswith("FD-alexnet")} == {"no"}


def test_generators_of_two_kinds_are_judged_apart(tmp_path):
    v = verdicts(paper_like_stage2(), tmp_path)
    assert v["masked: sampling FD-alexnet (train): FSQ ahead of VQ beyond 2^10"][0] == "yes"
    # The paper's claims are on masked transformers: of others only what was measured is listed.
    assert "autoregressive: compression cost below log2|C|, every point" in v
    assert "autoregressive: sampling FD-alexnet (train): FSQ ahead of VQ beyond 2^10" not in v
    # Without any figure nothing is measured, and nothing is claimed.
    nothing = verdicts([stage2() | {"figures": {}}], tmp_path)
    assert {verdict for verdict, _ in nothing.values()} == {"not measured"}


def test_other_protocols_are_never_compared(tmp_path):
    raw = masked(paper_like_stage2())
    for r in raw:
        if r["quantizer"] == "vq":
            for figure in r["figures"].values():
                figure["protocol"]["weights"] = "raw"
    v = verdicts(raw, tmp_path)
    assert v["sampling FD-alexnet (train): FSQ ahead of VQ beyond 2^10"][0] == "not measured"
    assert v["compression cost of FSQ slightly above VQ's at equal size (by at most 10%)"][0] == "not measured"


def test_level_sets_are_judged_by_samples(tmp_path):
    few = stage2(fd=18.0) | {"levels": [4, 4, 4, 4, 4], "codebook_size": 1024}
    raw = [stage2(fd=20.0), few, stage2("vq", fd=1.0)]
    claim = "sampling FD-alexnet (train): levels of 5 and more beat sets with a smaller level at the same codebook size"
    judged = verdicts(raw, tmp_path, levels_sampling_findings)
    assert judged[claim] == ("no", "[8,5,5,5] 20 against [4,4,4,4,4] 18")
    text = levels_sampling_table(parsed(tmp_path, raw))
    assert [r["levels"] for r in tables(text)[0]] == ["[4, 4, 4, 4, 4]", "[8, 5, 5, 5]"] and f"- {claim}" in text


def test_guidance_curve_holds_points_measured_alike(tmp_path):
    raw = guided()
    name = "sfd_alexnet_train"
    raw["figures"][f"{name}@raw,600"] = raw["figures"][name]
    raw["figures"][f"{name}@guidance=0.8"] = {"value": 1.0, "protocol": {"samples": 3, "guidance weight": 0.8}}
    (group,) = group_runs(parsed(tmp_path, [raw]))
    assert list(guidance_curve(group, name)) == [0.0, 0.05, 0.1, 0.2, 0.4]
    assert guidance_curve(group, name)[0.0] == name
    assert guidance_curve(group, "recall_alexnet")[0.4] == "recall_alexnet@guidance=0.4"


def test_guidance_table_sets_the_best_weight_beside_the_papers(tmp_path):
    raw = [guided("fsq", 0.2), guided("vq", 0.1), guided("fsq", 0.4, generator="autoregressive")]
    text = guidance_table(parsed(tmp_path, raw))
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


def test_one_line_a_generator(tmp_path):
    a, b = parsed(tmp_path, [stage2("fsq", 10, fd=12.34), stage2("vq", 12, cost=6.789, generator="autoregressive")])
    header, row, other = format_header(a), format_row(a), format_row(b)
    assert len(header) == len(row) == len(other)
    for title, value in (("sampling FD-alexnet (train)", "12.34"), ("precision", "0.700"), ("recall", "0.400")):
        assert header.index(title) + len(title) == row.index(value) + len(value)
    assert "masked" in row and "autoregressive" in other and "6.789" in other and "PSNR" not in header
