"""Scores of colorized images: perfect colours, the grey baseline, and lists of images."""

import numpy as np
import pytest

from fsq_repro.data.pipeline import eval_batches
from fsq_repro.data.transforms import center_crop
from fsq_repro.metrics import colorization
from fsq_repro.metrics.frechet import frechet_distance
from fsq_repro.metrics.table import MetricKey
from fsq_repro.tasks.colorization_scoring import COLTRAN_PX, ListedColorization, split_colorization
from tests.evaluation.test_maskgit import ToyScorer
from tests.tasks.helpers import COLORIZATION, Items, image
from tests.tiny import DenseNoiseSource

MSE, COLOURFULNESS = MetricKey("mse"), MetricKey("colourfulness")


def distance(reference, baseline=""):
    return MetricKey("colorization_fd", "toy", reference, baseline)


@pytest.fixture
def toy():
    return ToyScorer("toy", resolution=16, batch_size=4)


def grey_of(images):
    """ITU-R 601 luma of bytes, truncated, as bytes."""
    luma = 255.5 / 255 * (images.astype(np.float64) @ [0.2989, 0.587, 0.114])
    return np.floor(luma + 1e-9)[..., None].repeat(3, axis=-1).astype(np.uint8)


def test_colours_of_the_truth_are_at_no_distance(toy):
    train, test = DenseNoiseSource(size=24), DenseNoiseSource(size=20, split="test")
    scorer = split_colorization(train, test, [toy], 16)
    items = [test[i] for i in range(20)]
    true = np.stack([item["image"] for item in items])
    for part in (slice(0, 12), slice(12, 20)):
        scorer.update({"color": true[part].astype(np.float32) / 255}, items[part])
    measured = scorer.compute()
    assert abs(measured[distance("test")]) < 1e-6 and measured[MSE] == 0
    assert measured[COLOURFULNESS] == measured[MetricKey("colourfulness", baseline="truth")] > 0
    grey, reference = toy.moments(grey_of(true)), toy.reference_moments(train)
    assert measured[distance("train")] == pytest.approx(frechet_distance(toy.moments(true), reference), rel=1e-6)
    assert measured[distance("train", "grey")] == pytest.approx(frechet_distance(grey, reference), rel=1e-6)
    assert measured[MetricKey("mse", baseline="grey")] == pytest.approx(
        np.mean(((grey_of(true) / 255.0) - true / 255.0) ** 2), rel=1e-9
    )
    for name in ("train", "test"):
        for baseline in ("", "grey"):
            protocol = scorer.protocols()[distance(name, baseline)]
            assert protocol["reference"] == name and protocol["feature_network"] == "toy"
            assert protocol["reference_count"] == (24 if name == "train" else 20)
            assert protocol["scored_resolution"] == 16


def test_colours_are_scored_on_the_central_square(toy):
    rng = np.random.default_rng(0)
    items = [{"image": image(rng, size)} for size in ((16, 24), (40, 36), (16, 16), (20, 16))]
    scorer = split_colorization(DenseNoiseSource(), DenseNoiseSource(), [toy], 16)
    true = np.stack([center_crop(item, 16)["image"] for item in items])
    scorer.update({"color": true.astype(np.float32) / 255}, items)
    assert scorer.compute()[MSE] == 0
    picture = COLORIZATION.rows(scorer.shown.items, {"prediction": scorer.shown.maps})
    assert picture.shape[0] > 4 * 96


@pytest.fixture
def named(tmp_path, toy):
    """Images of several sizes with the names p0 to p8, and two lists that have p4 in common."""
    rng = np.random.default_rng(0)
    sizes = [(20, 30), (16, 16), (25, 18)] * 3
    items = [{"image": image(rng, size), "file_name": np.str_(f"p{i}")} for i, size in enumerate(sizes)]
    lists = {"eval": ["p7", "p4", "p2", "p3", "p8"], "reference": ["p6", "p4", "p0"]}
    for name, names in lists.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(names) + "\n")
    return Items(items), lists, [str(tmp_path / f"{name}.txt") for name in lists]


def test_only_the_named_images_are_colorized_in_their_order(named, toy):
    source, lists, files = named
    scorer = ListedColorization(source, *files, [toy], 2)
    assert [scorer.source[i]["file_name"] for i in range(len(scorer.source))] == lists["eval"]
    by_name = {item["file_name"]: colorization.coltran_crop(item["image"], COLTRAN_PX) for item in source.items}
    images = {name: np.stack([by_name[n] for n in names]) for name, names in lists.items()}
    first = 0
    batches = eval_batches(
        scorer.source, batch_size=2, resolution=256, transform=scorer.eval_transform, prepare=scorer.prepare
    )
    for batch in batches:
        count = int(batch["mask"].sum())
        expected = colorization.to_coltran_range(images["eval"][first : first + count])
        np.testing.assert_array_equal(batch["color"][:count], expected)
        np.testing.assert_array_equal(batch["context"][:count], colorization.coltran_grey(expected))
        truths = [scorer.source[first + i] for i in range(count)]
        scorer.update({"color": (batch["color"][:count] + 1) / 2}, truths)
        first += count
    assert first == 5
    measured = scorer.compute()
    assert measured[MSE] == 0
    expected = frechet_distance(toy.moments(images["eval"]), toy.moments(images["reference"]))
    assert measured[distance("names")] == pytest.approx(expected, rel=1e-6)
    protocol = scorer.protocols()[distance("names")]
    assert (protocol["reference"], protocol["reference_count"], protocol["scored_resolution"]) == ("names", 3, 256)


def test_lists_that_do_not_fit(named, tmp_path):
    source, _, (eval_names, reference_names) = named
    nameless = Items([{"image": item["image"]} for item in source.items])
    (tmp_path / "unknown.txt").write_text("p1\np99\n")
    cases = [
        ((source, eval_names, str(tmp_path / "unknown.txt")), "names are not in the split, the first is p99"),
        ((source, str(tmp_path / "nothing.txt"), reference_names), "nothing.txt must be a readable text file"),
        ((nameless, eval_names, reference_names), "needs images with file names; made_up has none"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message) as error:
            ListedColorization(*arguments, [], 2)
        assert "\n" not in str(error.value)
