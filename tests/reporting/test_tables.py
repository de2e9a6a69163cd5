"""Tables: values, protocols, seeds, and verdicts that follow from the records."""

import statistics

import pytest

from fsq_repro.reporting import paper
from fsq_repro.reporting.claims import levels_findings, tradeoff_findings
from fsq_repro.reporting.groups import group_runs
from fsq_repro.reporting.records import parse_record
from fsq_repro.reporting.tables import (
    format_header,
    format_row,
    level_histogram_table,
    levels_table,
    tradeoff_table,
)
from tests.reporting.synthetic import FD_PROTOCOL, paper_like, record, uvim


def parsed(tmp_path, raw):
    return [parse_record(r, tmp_path / f"{i}.json") for i, r in enumerate(raw)]


def rows(markdown):
    """Table rows as dicts keyed by header, footnote marks cut off the headers."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines]
    header = [c.split(" [")[0] for c in cells[0]]
    assert all(len(line) == len(header) for line in cells)
    return [dict(zip(header, line, strict=True)) for line in cells[2:]]


def verdicts(raw, tmp_path, judge=tradeoff_findings):
    return {f.claim: (f.verdict, f.evidence) for f in judge(group_runs(parsed(tmp_path, raw)))}


def test_rows_by_size_then_quantizer_with_every_value(tmp_path):
    table = rows(tradeoff_table(parsed(tmp_path, reversed(paper_like()))))
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
    assert fsq["rFD-alexnet (train)"] == "10.00" and fsq["rFD-alexnet (validation)"] == "7.00"
    assert (fsq["PSNR (dB)"], fsq["SSIM"], fsq["usage"], fsq["tokens counted"]) == ("30.00", "0.750", "91.0%", "40,960")
    assert fsq["entropy (bits)"] == "8.97" and fsq["usage of a uniform source"] == "100.0%"
    assert fsq["runs"] == "1 (seed 0)"
    assert "FID about 8" in fsq["paper"] and "read by eye" in fsq["paper"]
    assert "2^10 codes" in table[6]["paper"]
    assert table[4]["paper"] == "–"  # the paper has no VQ without the entropy term in this study


def test_several_seeds_show_mean_and_deviation(tmp_path):
    raw = [record(seed=s, fd=fd, usage=u) for s, fd, u in ((0, 9.0, 0.8), (1, 10.0, 0.9), (2, 12.5, 0.85))]
    (row,) = rows(tradeoff_table(parsed(tmp_path, raw)))
    assert row["rFD-alexnet (train)"] == f"10.50 ± {statistics.stdev([9.0, 10.0, 12.5]):.2f}"
    assert row["usage"] == "85.0% ± 5.0%"
    assert row["tokens counted"] == "40,960"
    assert row["runs"] == "3 (seeds 0, 1, 2)"


def test_a_figure_without_protocol_is_not_printed(tmp_path):
    raw = record("fsq", 10, fd=12.3456)
    raw["figures"]["rfd_alexnet_train"]["protocol"] = None
    text = tradeoff_table(parsed(tmp_path, [raw, record("vq", 10)]))
    assert "12.35" not in text and "12.3" not in text
    assert rows(text)[0]["rFD-alexnet (train)"] == "–†"
    assert "† Left out: the run record gives this figure without its protocol." in text
    assert "†" not in tradeoff_table(parsed(tmp_path, [record()]))


def test_a_missing_figure_is_a_plain_dash(tmp_path):
    raw = record()
    del raw["figures"]["ssim"]
    table = tradeoff_table(parsed(tmp_path, [raw]))
    assert rows(table)[0]["SSIM"] == "–" and "†" not in table


def test_protocols_are_footnotes_written_once(tmp_path):
    text = tradeoff_table(parsed(tmp_path, paper_like()))
    assert text.count("reference count 24,000") == 1
    assert "[a] rFD-alexnet (train): feature network alexnet, feature file sha256 0123456789ab..." in text
    assert "[c] PSNR (dB), SSIM, usage" in text
    assert "| rFD-alexnet (train) [a] |" in text
    assert FD_PROTOCOL["feature_file_sha256"] not in text


def test_cells_measured_differently_carry_their_own_mark(tmp_path):
    raw = [record("fsq", 10), record("vq", 10)]
    for figure in raw[1]["figures"].values():
        figure["protocol"]["weights"] = "raw"
    text = tradeoff_table(parsed(tmp_path, raw))
    first, second = (r["rFD-alexnet (train)"] for r in rows(text))
    assert first.split(" ")[0] == second.split(" ")[0] == "10.00"
    assert first != second
    # And they are never compared.
    assert verdicts(raw, tmp_path)["rFD-alexnet (train): FSQ ahead of VQ beyond 2^10"][0] == "not measured"


def test_settings_have_their_own_sections(tmp_path):
    text = tradeoff_table(parsed(tmp_path, [record(), record("vq", steps=99)]))
    assert text.count("Setting: tradeoff_autoencoder, photos at 32 px") == 2
    assert "99 steps of batch 64" in text and "1,200 steps of batch 64" in text


def test_verdicts_where_the_paper_holds(tmp_path):
    v = verdicts(paper_like(), tmp_path)
    assert v["usage of FSQ >= 95% at 2^8"] == ("yes", "[8,6,5] 98.0%")
    assert v["usage of FSQ >= 80% at 2^10"] == ("yes", "[8,5,5,5] 91.0%")
    assert v["rFD-alexnet (train): FSQ ahead of VQ beyond 2^10"] == ("yes", "FSQ 2^12 9 against VQ 2^12 11.25")
    assert v["rFD-alexnet (train): VQ slightly ahead of FSQ up to 2^8"][0] == "yes"
    assert v["rFD-alexnet (validation): FSQ improves with every larger codebook"][0] == "yes"
    assert v["usage of VQ < 50% and at most 2^10 codes beyond 2^11"] == ("yes", "2^12 12.5%, 512 codes")
    assert v["FSQ models have fewer parameters than VQ models of the same codebook size"][0] == "yes"
    assert v["usage of FSQ >= 95% at 2^14"] == ("not measured", "")
    assert v["rFD-alexnet (train): VQ worsens beyond 2^11"][0] == "not measured"


def test_verdicts_where_it_does_not(tmp_path):
    raw = [
        record("fsq", 8, fd=12.0, usage=0.94),
        record("fsq", 10, fd=13.0, usage=0.3),
        record("fsq", 12, fd=11.0, usage=0.2),
        record("vq", 12, fd=10.0, usage=0.9),
    ]
    v = verdicts(raw, tmp_path)
    assert v["usage of FSQ >= 95% at 2^8"] == ("no", "[8,6,5] 94.0%")
    assert v["rFD-alexnet (train): FSQ ahead of VQ beyond 2^10"] == ("no", "FSQ 2^12 11 against VQ 2^12 10")
    assert v["FSQ uses a larger share of its codebook than VQ beyond 2^10"][0] == "no"
    assert v["usage of VQ < 50% and at most 2^10 codes beyond 2^11"][0] == "no"
    improves = v["rFD-alexnet (train): FSQ improves with every larger codebook"]
    assert improves == ("partly", "2^8 to 2^10: 12 to 13, 2^10 to 2^12: 13 to 11")
    assert "**no**; FSQ 2^12 11 against VQ 2^12 10." in tradeoff_table(parsed(tmp_path, raw))


def test_levels_table_and_its_verdict(tmp_path):
    raw = [
        record(levels=[8, 5, 5, 5], fd=9.0, sweep="levels"),
        record(levels=[4, 4, 4, 4, 4], fd=10.0, sweep="levels"),
        record(levels=[3] * 6, fd=11.0, sweep="levels"),
        record("vq", 10, fd=1.0),
    ]
    text = levels_table(parsed(tmp_path, raw))
    table = rows(text)
    assert [r["smallest level"] for r in table] == ["3", "4", "5"]
    assert [r["dimensions"] for r in table] == ["6", "5", "4"]
    assert table[2]["rFD-alexnet (train)"] == "9.00"
    assert table[0]["paper"].startswith("breaks") and table[2]["paper"].startswith("keeps")
    assert paper.LEVELS_RULE in text
    claim = "rFD-alexnet (train): levels of 5 and more beat sets with a smaller level at the same codebook size"
    assert verdicts(raw, tmp_path, levels_findings)[claim] == ("yes", "[8,5,5,5] 9 against [4,4,4,4,4] 10")
    raw[1]["figures"]["rfd_alexnet_train"]["value"] = 8.0
    assert verdicts(raw, tmp_path, levels_findings)[claim][0] == "no"


def test_level_histogram_table(tmp_path):
    table = rows(level_histogram_table(parsed(tmp_path, [record("fsq", 8), record("vq", 8)])))
    assert [r["dimension"] for r in table] == ["1 of 3", "2 of 3", "3 of 3"]
    first = table[0]  # counts 6, 1, 1, 1, 1, 1, 1, 3
    assert first["share of each level, lowest first (%)"] == "40.0 6.7 6.7 6.7 6.7 6.7 6.7 20.0"
    assert (first["saturation"], first["even spread"]) == ("60.0%", "25.0%")
    assert [r["levels"] for r in table] == ["8", "6", "5"]


def test_text_rows_line_up_with_their_header(tmp_path):
    fsq, vq = parsed(tmp_path, [record("fsq", 10, fd=12.34), record("vq", 12, fd=8.0)])
    header, row, other = format_header(fsq), format_row(fsq), format_row(vq)
    assert len(header) == len(row) == len(other)
    for title, value in (("rFD-alexnet (train)", "12.34"), ("usage", "90.0%"), ("minutes", "4.0")):
        assert header.index(title) + len(title) == row.index(value) + len(value)
    assert "8x5x5x5" in row and "\n" not in row
    raw = record(fd=12.34)
    raw["figures"]["rfd_alexnet_train"]["protocol"] = None
    assert "12.34" not in format_row(parse_record(raw, tmp_path))


@pytest.mark.parametrize(
    "task, values, shown",
    [
        ("depth", {"rmse": 0.4734, "delta1": 0.76}, {"RMSE (m)": "0.473", "δ < 1.25": "0.760"}),
        ("panoptic", {"pq": 0.434, "sq": 0.801, "rq": 0.6}, {"PQ": "43.4", "SQ": "80.1", "RQ": "60.0"}),
        (
            "colorization",
            {"mse": 0.01234},
            {"FD-alexnet (train)": "9.00", "FD-alexnet (validation)": "6.00", "MSE": "0.0123"},
        ),
    ],
)
def test_text_rows_of_uvim_show_their_task(tmp_path, task, values, shown):
    raw = [uvim(task, score=9.0), uvim(task, "ema_vq", stage=1, run=f"{task}_vq_nocontext_stage1")]
    for name, value in values.items():
        raw[0]["figures"][name]["value"] = value
    predictor, oracle = parsed(tmp_path, raw)
    header, row, other = format_header(predictor), format_row(predictor), format_row(oracle)
    assert len(header) == len(row) == len(other) and header == format_header(oracle) and "\n" not in row
    for title, value in (shown | {"usage": "98.0%", "minutes": "2.0", "codebook": "4,375"}).items():
        assert header.index(title) + len(title) == row.index(value) + len(value)
    stage = header.index("stage")
    assert row[stage:].split()[0] == "II" and other[stage:].split()[0] == "I"
    for figure in raw[0]["figures"].values():
        figure["protocol"] = None
    assert not any(value in format_row(parse_record(raw[0], tmp_path)) for value in shown.values())


@pytest.mark.parametrize("statement", paper.TRADEOFF)
def test_published_statements_have_a_source(statement):
    assert statement.text and ("section" in statement.source or "Fig." in statement.source)
    assert statement in paper.statements(statement.quantizer, statement.min_bits)


def test_statements_are_for_their_sizes_only():
    assert [s.text for s in paper.statements("vq", 12)] == ["FID worsens; usage < 50%, never more than 2^10 codes"]
    assert paper.statements("vq", 10) == [] and paper.statements("vq_no_entropy", 12) == []
