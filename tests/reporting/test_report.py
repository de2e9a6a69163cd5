"""Figures and the whole report, from files to files."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fsq_repro.reporting.figures import level_histogram_figure, levels_figure, tradeoff_figure
from fsq_repro.reporting.records import parse_record
from fsq_repro.reporting.report import write_report
from tests.reporting.synthetic import paper_like, record, write

SCRIPT = pathlib.Path(__file__).parents[2] / "scripts" / "report.py"
BLUE, ORANGE = (0x00, 0x72, 0xB2), (0xE6, 0x9F, 0x00)


def parsed(tmp_path, raw):
    return [parse_record(r, tmp_path / f"{i}.json") for i, r in enumerate(raw)]


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
    raw[2]["figures"]["rfd_alexnet_train"]["protocol"] = None
    for figure in raw[3]["figures"].values():
        figure["protocol"]["weights"] = "raw"
    tradeoff_figure(parsed(tmp_path, raw), tmp_path / "x.png")
    assert pixels(tmp_path / "x.png", ORANGE) == 0
    with pytest.raises(ValueError, match="nothing to draw"):
        tradeoff_figure(parsed(tmp_path, [raw[2] | {"figures": {"usage": raw[2]["figures"]["usage"]}}]), tmp_path / "y")
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


def test_report_writes_what_there_are_records_for(tmp_path):
    runs = write(tmp_path / "runs", *paper_like()[:2])
    files = write_report(runs, tmp_path / "out")
    assert [f.name for f in files] == ["tradeoff.md", "tradeoff.png", "tradeoff_histograms.png"]
    assert all(f.stat().st_size > 1000 for f in files)
    text = files[0].read_text()
    assert "![tradeoff](tradeoff.png)" in text and "Do the paper's claims appear" in text
    assert "Use of each level by FSQ" in text

    write(runs, record(levels=[4, 4, 4, 4, 4], sweep="levels"), record(levels=[8, 5, 5, 5], sweep="levels"))
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
    raw = record("vq", 8)
    raw["figures"] = {"psnr": raw["figures"]["psnr"]}
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
