"""Figures and the whole report, from files to files."""

import pathlib
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from fsq_repro.metrics.table import MetricKey
from fsq_repro.reporting import drawing
from fsq_repro.reporting.drawing import caption_of, measured_so, stages
from fsq_repro.reporting.groups import group_runs
from fsq_repro.reporting.guidance import guidance_figure
from fsq_repro.reporting.histograms import level_histogram_figure
from fsq_repro.reporting.levels import levels_figure
from fsq_repro.reporting.report import write_report
from fsq_repro.reporting.tradeoff_figure import tradeoff_figure
from tests.reporting.synthetic import (
    RFD,
    SFD,
    entry,
    guided,
    only,
    paper_like,
    paper_like_stage2,
    parsed,
    record,
    stage2,
    write,
)

SCRIPT = pathlib.Path(__file__).parents[2] / "scripts" / "report.py"
BLUE, ORANGE = (0x00, 0x72, 0xB2), (0xE6, 0x9F, 0x00)


def pixels(path, colour):
    """Number of pixels of exactly this colour."""
    image = np.asarray(Image.open(path).convert("RGB"))
    return int((image == np.array(colour, np.uint8)).all(axis=-1).sum())


def test_tradeoff_figure_draws_both_quantizers(tmp_path):
    records = parsed(tmp_path, [*paper_like(), record("fsq", 10, seed=1, fd=10.6)])
    tradeoff_figure(records, tmp_path / "all.png")
    assert pixels(tmp_path / "all.png", BLUE) > 300 and pixels(tmp_path / "all.png", ORANGE) > 300
    tradeoff_figure([r for r in records if r.quantizer == "fsq"], tmp_path / "fsq.png")
    assert pixels(tmp_path / "fsq.png", BLUE) > 300 and pixels(tmp_path / "fsq.png", ORANGE) == 0


def test_figures_leave_out_what_has_no_or_another_protocol(tmp_path):
    raw = [record("fsq", 8), record("fsq", 10), record("vq", 8), record("vq", 10)]
    entry(raw[2], RFD)["protocol"] = None
    for m in raw[3]["metrics"]:
        m["protocol"]["weights"] = "raw"
    tradeoff_figure(parsed(tmp_path, raw), tmp_path / "x.png")
    assert pixels(tmp_path / "x.png", ORANGE) == 0
    with pytest.raises(ValueError, match="nothing to draw"):
        tradeoff_figure(parsed(tmp_path, [only(raw[2], "usage")]), tmp_path / "y")
    with pytest.raises(ValueError, match="one setting"):
        tradeoff_figure(parsed(tmp_path, [record(), record(steps=1)]), tmp_path / "y")
    assert not (tmp_path / "y").exists()


def test_levels_figure_colours_by_the_smallest_level(tmp_path):
    sets = ([8, 5, 5, 5], [4, 4, 4, 4, 4], [3] * 6)
    levels_figure(parsed(tmp_path, [record(levels=s, fd=9.0 + i) for i, s in enumerate(sets)]), tmp_path / "x.png")
    image = np.asarray(Image.open(tmp_path / "x.png").convert("RGB")).reshape(-1, 3).astype(int)
    colourful = image[image.max(axis=1) - image.min(axis=1) > 60]
    colours, counts = np.unique(colourful, axis=0, return_counts=True)
    assert len(colours[counts > 30]) == 3


def test_level_histogram_figure(tmp_path):
    level_histogram_figure(parsed(tmp_path, paper_like()), tmp_path / "x.png")
    assert pixels(tmp_path / "x.png", BLUE) > 3000


def size(path):
    with Image.open(path) as image:
        return image.size


def test_tradeoff_figure_has_four_panels_with_generators(tmp_path):
    records = parsed(tmp_path, [*paper_like(), *paper_like_stage2()])
    stage1, stage2_ = [r for r in records if r.stage1 is None], [r for r in records if r.stage1]
    # A quantizer without generators is in panels a and c only.
    tradeoff_figure([*stage1, *(r for r in stage2_ if r.quantizer == "fsq")], tmp_path / "four.png")
    tradeoff_figure([r for r in stage2_ if r.quantizer == "fsq"], tmp_path / "two.png")  # b and d
    assert size(tmp_path / "four.png")[1] > 1.5 * size(tmp_path / "two.png")[1]  # two rows of panels
    assert pixels(tmp_path / "four.png", BLUE) > 1.3 * pixels(tmp_path / "two.png", BLUE) > 1000
    assert pixels(tmp_path / "four.png", ORANGE) > 1000 and pixels(tmp_path / "two.png", ORANGE) == 0


def test_of_each_kind_of_generator_the_setting_with_most_runs_is_drawn(tmp_path):
    raw = [*paper_like_stage2(), stage2("fsq", 8, steps=9), stage2("fsq", 8, generator="autoregressive", steps=9)]
    stage1, (masked, causal), left_out = stages(parsed(tmp_path, raw))
    assert (stage1, len(masked), len(causal), left_out) == ([], 6, 3, 2)
    assert {g.first.steps for g in [*masked, *causal]} == {2000}
    caption = caption_of(masked, measured_so([*masked, *causal], MetricKey("compression_bits")), left_out)
    assert "compression cost (bits per token), masked: split photos/test" in caption and "Left out: 2 run(s)" in caption
    # The second protocol is told by its difference.
    assert caption.count("photos/test") == 1 and "schedule teacher-forced, raster order, otherwise" in caption


def test_levels_figure_shows_sampling_beside_reconstruction(tmp_path):
    first = [record(levels=s, fd=9.0 + i) for i, s in enumerate(([8, 5, 5, 5], [4, 4, 4, 4, 4]))]
    second = [stage2("fsq", 10) | {"levels": r["levels"], "codebook_size": r["codebook_size"]} for r in first]
    levels_figure(parsed(tmp_path, first), tmp_path / "one.png")
    levels_figure(parsed(tmp_path, [*first, *second]), tmp_path / "two.png")
    assert size(tmp_path / "two.png")[0] > 1.5 * size(tmp_path / "one.png")[0]


def test_guidance_figure_draws_a_line_a_quantizer(tmp_path):
    records = parsed(tmp_path, [guided("fsq"), guided("vq", 0.1)])
    guidance_figure(records, tmp_path / "both.png")
    guidance_figure(records[:1], tmp_path / "fsq.png")
    assert min(pixels(tmp_path / "both.png", c) for c in (BLUE, ORANGE)) > 1000
    assert pixels(tmp_path / "fsq.png", ORANGE) == 0
    silent = stage2()
    del entry(silent, SFD)["protocol"]["guidance weight"]
    with pytest.raises(ValueError, match="states its guidance weight; nothing to draw"):
        guidance_figure(parsed(tmp_path, [silent]), tmp_path / "none.png")


def test_report_of_both_stages_with_pictures(tmp_path):
    raw = [paper_like()[1], *paper_like_stage2()[:2], guided()]  # VQ's: no histograms to draw
    runs = write(tmp_path / "runs", *raw)
    samples = runs / "masked_fsq_8" / "seed0" / "samples"
    samples.mkdir()
    for name in ("evaluation", "classes", "step_100"):
        Image.new("RGB", (4, 4)).save(samples / f"{name}.png")
    out = tmp_path / "out"
    names = [f.name for f in write_report(runs, out)]
    assert names == ["tradeoff.md", "tradeoff.png", "guidance.md", "guidance.png"]
    text = (out / "tradeoff.md").read_text()
    sections = [line for line in text.splitlines() if line.startswith("## ")]
    assert sections[1:] == ["## Sampling and compression", "## Pictures"]
    assert sorted(p.name for p in (out / "pictures").iterdir()) == [
        "masked_fsq_8_seed0_classes.png",
        "masked_fsq_8_seed0_evaluation.png",
    ]
    assert "![masked_fsq_8_seed0_classes](pictures/masked_fsq_8_seed0_classes.png)" in text
    assert "pictures/" not in (out / "guidance.md").read_text()
    # Made again from its own records it says the same, pictures included.
    write_report(out / "records", out)
    assert (out / "tradeoff.md").read_text() == text


def test_data_that_may_not_be_shown_is_not_copied(tmp_path):
    runs = write(tmp_path / "runs", paper_like()[0], *paper_like_stage2()[:1])
    for run in (paper_like()[0], paper_like_stage2()[0]):
        samples = runs / run["run"] / "seed0" / "samples"
        samples.mkdir()
        Image.new("RGB", (4, 4)).save(samples / "evaluation.png")
    write_report(runs, tmp_path / "out", show_data=False)
    kept = [p.name for p in (tmp_path / "out" / "pictures").iterdir()]
    assert kept == [f"{paper_like_stage2()[0]['run']}_seed0_evaluation.png"]  # samples, no reconstructions


def test_runs_of_one_name_and_of_two_stages_are_both_kept(tmp_path):
    write(tmp_path / "runs" / "a", only(record("vq", 8), "tokens"))
    write(tmp_path / "runs" / "b", only(stage2("vq", 8, run="vq_8"), "tokens"))
    texts = []
    for source in ("runs", "out/records"):
        (markdown,) = write_report(tmp_path / source, tmp_path / "out")
        texts.append(markdown.read_text())
        assert len(list((tmp_path / "out" / "records").rglob("record.json"))) == 2
    assert texts[0] == texts[1] and "## Sampling and compression" in texts[0]


@pytest.mark.parametrize("inside", ["report", ".", "deep/report"])
def test_a_report_below_its_runs_never_reads_its_own_copies(tmp_path, inside):
    """Made as the runs are, after one was evaluated again, and when only the copies are left."""
    runs = write(tmp_path / "runs", only(record("vq", 8), "psnr"), only(record("vq", 10), "psnr"))
    texts = [write_report(runs, runs / inside)[0].read_text()]
    changed = only(record("vq", 8), "psnr")
    entry(changed, "psnr")["value"] = 99.0
    write(runs, changed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a copy would be named
        texts.append(write_report(runs, runs / inside)[0].read_text())
    for name in ("vq_8", "vq_10"):
        shutil.rmtree(runs / name)
    texts.append(write_report(runs, runs / inside)[0].read_text())
    assert "99.00" not in texts[0] and "99.00" in texts[1] and texts[1] == texts[2]


def test_records_of_one_name_seed_and_setting_are_all_kept(tmp_path):
    for place, rate in (("a", "0.1"), ("b", "0.2")):
        raw = only(record("vq", 8, overrides={"optimizer.learning_rate": rate}), "psnr")
        entry(raw, "psnr")["value"] += float(rate)
        write(tmp_path / "runs" / place, raw)
    texts = [write_report(tmp_path / source, tmp_path / "out")[0].read_text() for source in ("runs", "out/records")]
    assert texts[0] == texts[1]
    assert [f"VQ (optimizer.learning_rate={rate})" in texts[0] for rate in ("0.1", "0.2")] == [True, True]
    assert "28.10" in texts[0] and "28.20" in texts[0]


def test_lines_of_a_figure_are_runs_that_differ_in_the_codebook_alone(tmp_path):
    """Two learning rates are two lines with names of their own, in different colours."""
    rate = {"optimizer.learning_rate": "0.1"}
    groups = group_runs(parsed(tmp_path, [record(), record("fsq", 12), record(fd=12.0, overrides=rate)]))
    look = drawing.styles(g.line for g in groups)
    axes = Figure().subplots()
    drawing.lines(axes, groups, RFD, look)
    _, labels = axes.get_legend_handles_labels()
    assert labels == ["FSQ", "FSQ (optimizer.learning_rate=0.1)"]
    assert len({style[0] for style in look.values()}) == 2


def test_report_writes_what_there_are_records_for(tmp_path):
    runs = write(tmp_path / "runs", *paper_like()[:2])
    files = write_report(runs, tmp_path / "out")
    assert [f.name for f in files] == ["tradeoff.md", "tradeoff.png", "tradeoff_histograms.png"]
    assert all(f.stat().st_size > 1000 for f in files)
    text = files[0].read_text()
    assert "![tradeoff](tradeoff.png)" in text and "Do the paper's claims appear" in text
    assert "Use of each level by FSQ" in text

    write(runs, *(record(levels=s, sweep="levels", level_histograms=None) for s in ([4, 4, 4, 4, 4], [8, 5, 5, 5])))
    names = {f.name for f in write_report(runs, tmp_path / "out")}
    assert names == {p.name for p in (tmp_path / "out").iterdir() if p.is_file()}
    assert {"levels.md", "levels.png", "tradeoff.md"} <= names
    assert "[4, 4, 4, 4, 4]" not in (tmp_path / "out" / "tradeoff.md").read_text()

    # The copied records give the same report, also when it is written over itself.
    before = {n: (tmp_path / "out" / n).read_bytes() for n in names if n.endswith(".md")}
    write_report(tmp_path / "out" / "records", tmp_path / "out")
    assert before == {n: (tmp_path / "out" / n).read_bytes() for n in before}


def test_each_setting_has_its_own_figure(tmp_path):
    runs = write(tmp_path / "runs", record("vq", 8), record("vq", 10, steps=50))
    names = sorted(f.name for f in write_report(runs, tmp_path / "out"))
    assert names == [
        "tradeoff.md",
        "tradeoff_tradeoff_autoencoder_photos_at_32_px_1_200_steps_of_batch_64.png",
        "tradeoff_tradeoff_autoencoder_photos_at_32_px_50_steps_of_batch_64.png",
    ]


def test_a_report_without_drawable_figures_is_a_table(tmp_path):
    raw = only(record("vq", 8), "psnr")
    assert [f.name for f in write_report(write(tmp_path / "runs", raw), tmp_path / "out")] == ["tradeoff.md"]


def test_script(tmp_path):
    def run(*arguments):
        return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False)

    (tmp_path / "empty").mkdir()
    nothing = run(f"--runs={tmp_path / 'empty'}", f"--out={tmp_path / 'out'}")
    assert nothing.returncode == 2 and not (tmp_path / "out").exists()
    assert nothing.stderr.strip().count("\n") == 0 and "holds no finished run" in nothing.stderr

    runs = write(tmp_path / "runs", *paper_like()[:2], record("fsq", 8, run="cut", status="training"))
    done = run(f"--runs={runs}", f"--out={tmp_path / 'out'}")
    assert done.returncode == 0
    assert "| 2^8 |" in done.stdout  # the table itself
    assert done.stdout.split()[-3:] == [
        str(tmp_path / "out" / n) for n in ("tradeoff.md", "tradeoff.png", "tradeoff_histograms.png")
    ]
    assert "left out" in done.stderr and "cut/seed0/record.json" in done.stderr
