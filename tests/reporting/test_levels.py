"""Fig. 10 in tables: level sets of one size, and verdicts that follow from the records."""

from fsq_repro.reporting import paper
from fsq_repro.reporting.groups import group_runs
from fsq_repro.reporting.histograms import level_histogram_table
from fsq_repro.reporting.levels import GENERATORS_BY_LEVEL_SET, LEVEL_SETS
from tests.reporting.synthetic import RFD, entry, parsed, record, stage2, tables, three_seeds

CLAIM = "FD-alexnet (train): levels of 5 and more beat sets with a smaller level at the same codebook size"


def judged(raw, tmp_path, judge):
    return {f.claim: (f.verdict, f.evidence) for f in judge(group_runs(parsed(tmp_path, raw)))}


def test_levels_table_and_its_verdict(tmp_path):
    raw = [
        record(levels=[8, 5, 5, 5], fd=9.0, sweep="levels"),
        record(levels=[4, 4, 4, 4, 4], fd=10.0, sweep="levels"),
        record(levels=[3] * 6, fd=11.0, sweep="levels"),
        record("vq", 10, fd=1.0),
    ]
    text = LEVEL_SETS.text(parsed(tmp_path, raw))
    (table,) = tables(text)
    assert [r["smallest level"] for r in table] == ["3", "4", "5"]
    assert [r["dimensions"] for r in table] == ["6", "5", "4"]
    assert table[2]["rFD-alexnet (train)"] == "9.00"
    assert table[0]["paper"].startswith("breaks") and table[2]["paper"].startswith("keeps")
    assert paper.LEVELS_RULE in text
    evidence = "[8,5,5,5] 9.00 ± 0.01 against [4,4,4,4,4] 10.00 ± 0.01 (-10.0%)"
    assert judged(three_seeds(raw), tmp_path, LEVEL_SETS.judge)[f"r{CLAIM}"] == ("yes", evidence)
    assert judged(raw, tmp_path, LEVEL_SETS.judge)[f"r{CLAIM}"][0] == "one seed, undecided"
    entry(raw[1], RFD)["value"] = 8.0
    assert judged(three_seeds(raw), tmp_path, LEVEL_SETS.judge)[f"r{CLAIM}"][0] == "no"


def test_level_histogram_table(tmp_path):
    (table,) = tables(level_histogram_table(parsed(tmp_path, [record("fsq", 8), record("vq", 8)])))
    assert [r["dimension"] for r in table] == ["1 of 3", "2 of 3", "3 of 3"]
    first = table[0]  # counts 6, 1, 1, 1, 1, 1, 1, 3
    assert first["share of each level, lowest first (%)"] == "40.0 6.7 6.7 6.7 6.7 6.7 6.7 20.0"
    assert (first["saturation"], first["even spread"]) == ("60.0%", "25.0%")
    assert [r["levels"] for r in table] == ["8", "6", "5"]


def test_level_sets_are_judged_by_samples(tmp_path):
    few = stage2(fd=18.0) | {"levels": [4, 4, 4, 4, 4], "codebook_size": 1024}
    raw = [stage2(fd=20.0), few, stage2("vq", fd=1.0)]
    evidence = "[8,5,5,5] 20.00 ± 0.02 against [4,4,4,4,4] 18.00 ± 0.02 (+11.1%)"
    judged_so = judged(three_seeds(raw), tmp_path, GENERATORS_BY_LEVEL_SET.judge)
    assert judged_so == {f"sampling {CLAIM}": ("no", evidence)}
    text = GENERATORS_BY_LEVEL_SET.text(parsed(tmp_path, raw))
    assert [r["levels"] for r in tables(text)[0]] == [
        "[4, 4, 4, 4, 4]",
        "[8, 5, 5, 5]",
    ] and f"- sampling {CLAIM}" in text
