"""The figure of histograms, soups, constant codes and stitched images."""

import numpy as np
import pytest
from PIL import Image

from fsq_repro.reporting.representation import STRIPS, representation_figure
from tests.reporting.test_report import BLUE, ORANGE, pixels

COLOURS = {key: (250, 10 + 40 * i, 90) for i, key in enumerate(STRIPS)}  # each kind of image in a colour of its own


def study(size, used, images=3):
    counts = np.zeros(size, np.int64)
    counts[:used] = 10 + np.arange(used)
    strips = {key: np.full((images, 8, 8, 3), colour, np.uint8) for key, colour in COLOURS.items()}
    return {"counts_K": counts, "constant_codes": np.argsort(-counts)[:images], **strips}


def test_every_image_is_drawn_for_each_quantizer(tmp_path):
    representation_figure({"fsq": study(4375, 4375), "vq": study(4096, 40)}, tmp_path / "x.png")
    for colour in COLOURS.values():
        assert 6 * 190**2 < pixels(tmp_path / "x.png", colour) <= 6 * 202**2  # six images of an inch at 200 dots
    # Ranks are on a logarithmic axis from 0.5: 40 of 4,096 codes end at log(40.5 / 0.5) / log(4096.5 / 0.5) of it.
    full, collapsed = (columns_with(tmp_path / "x.png", colour) for colour in (BLUE, ORANGE))
    assert full > 550 and collapsed == pytest.approx(0.487 * full, rel=0.02)


def columns_with(path, colour):
    """Number of pixel columns that hold this colour."""
    image = np.asarray(Image.open(path).convert("RGB"))
    return int((image == np.array(colour, np.uint8)).all(axis=-1).any(axis=0).sum())


def test_something_must_be_drawn(tmp_path):
    with pytest.raises(ValueError, match="at least one quantizer"):
        representation_figure({}, tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()
