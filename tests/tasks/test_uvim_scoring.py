"""Scorers of UViM's tasks: perfect predictions, native sizes, baselines beside NumPy, and lists of images."""

import dataclasses

import numpy as np
import pytest

from fsq_repro.data import dense_labels
from fsq_repro.data.transforms import center_crop
from fsq_repro.metrics import colorization
from fsq_repro.metrics.frechet import frechet_distance
from fsq_repro.metrics.panoptic_quality import PanopticQuality
from fsq_repro.tasks.colorization_scoring import COLTRAN_PX, ListedColorization, split_colorization
from fsq_repro.tasks.uvim_scoring import DepthScorer, PanopticScorer, compare_rows
from tests.evaluation.test_maskgit import ToyScorer
from tests.tiny import DenseNoiseSource

SIZES = [(16, 24), (24, 8), (8, 8), (8, 16)]  # multiples of the model's 8 x 8


@dataclasses.dataclass
class Items:
    """A source made of a list."""

    items: list[dict]
    name: str = "made_up"
    num_semantics: int = 4
    things: tuple[int, ...] = (1, 2)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def enlarged(map_8x8, size):
    return np.kron(map_8x8, np.ones((size[0] // 8, size[1] // 8), map_8x8.dtype))


def image(rng, size=(8, 8)):
    return rng.integers(0, 256, (*size, 3), dtype=np.uint8)


def depth_items(rng, count, size=(8, 8)):
    """A quarter of the pixels, the first among them, were not measured or are beyond 10 m."""
    depths = rng.uniform(0.1, 9.9, (count, *size)).astype(np.float32)
    lost = rng.random(depths.shape) < 0.25
    lost[:, 0, 0] = True
    depths[lost] = rng.choice(np.float32([0, 10, 12]), lost.sum())
    return [{"image": image(rng, size), "depth": depth} for depth in depths]


def rmse(predictions, depths):
    """Per image over its valid pixels, then averaged over images that have some."""
    errors = []
    for prediction, depth in zip(predictions, depths, strict=True):
        squares = [(p - d) ** 2 for p, d in zip(prediction.ravel(), depth.ravel(), strict=True) if 0.001 < d < 10]
        errors += [np.sqrt(np.mean(np.float64(squares)))] if squares else []
    return np.mean(errors)


def test_depth_of_the_right_bins_errs_by_their_centres_only():
    rng = np.random.default_rng(0)
    items = depth_items(rng, 5)
    scorer = DepthScorer(Items(items), (8, 8), 5)
    true = np.stack([item["depth"] for item in items])
    predicted = dense_labels.bins_to_depth(dense_labels.depth_to_bins(true, 32), 32)
    scorer.update({"depth": predicted}, items)
    figures = scorer.compute()
    assert 0.01 < figures["rmse"] == pytest.approx(rmse(predicted, true), rel=1e-6)
    assert figures["rmse"] < 9.999 / 32 / 2 and figures["images"] == 5


def test_depth_is_scored_at_the_size_of_each_truth():
    rng = np.random.default_rng(0)
    predicted = rng.uniform(0.1, 9.9, (4, 8, 8)).astype(np.float32)
    truths = [
        {"image": image(rng, size), "depth": enlarged(depth, size)}
        for depth, size in zip(predicted, SIZES, strict=True)
    ]
    scorer = DepthScorer(Items(depth_items(rng, 3)), SIZES[0], 3)
    scorer.update({"depth": predicted[:3]}, truths[:3])
    scorer.update({"depth": predicted[3:]}, truths[3:])
    figures = scorer.compute()
    assert figures["rmse"] == 0 and figures["delta1"] == 1 and figures["images"] == 4
    assert "rmse@mean_map" not in figures  # the training maps have another size
    scorer.update({"depth": predicted[:1]}, truths[1:2])
    assert scorer.compute()["rmse"] > 0.1
    assert scorer.picture().shape[0] > 5 * 96 and scorer.picture().dtype == np.uint8


def test_depth_baselines_equal_their_definition():
    """Means over the valid pixels of the training images that are looked at: every other one here."""
    rng = np.random.default_rng(0)
    train, items = depth_items(rng, 8), depth_items(rng, 3)
    for item in train:
        item["depth"][3, 5] = 0  # valid nowhere, so that the map has the mean there
    scorer = DepthScorer(Items(train), (8, 8), 4)
    true = np.stack([item["depth"] for item in items])
    scorer.update({"depth": np.ones_like(true)}, items)

    seen = np.stack([train[i]["depth"] for i in (0, 2, 4, 6)])
    valid = (seen > 0.001) & (seen < 10)
    mean = np.mean(seen[valid], dtype=np.float64)
    mean_map = np.full((8, 8), mean)
    for y, x in np.ndindex(8, 8):
        if valid[:, y, x].any():
            mean_map[y, x] = np.mean(seen[:, y, x][valid[:, y, x]], dtype=np.float64)
    assert mean_map[3, 5] == mean_map[0, 0] == mean
    figures = scorer.compute()
    assert figures["rmse@mean_depth"] == pytest.approx(rmse(np.full_like(true, mean), true), rel=1e-6)
    assert figures["rmse@mean_map"] == pytest.approx(rmse(np.stack([mean_map] * 3), true), rel=1e-6)
    assert figures["rmse@mean_map"] != pytest.approx(figures["rmse@mean_depth"], rel=1e-3)
    protocol = {"training_images": 4}
    assert scorer.protocols() == {"rmse@mean_depth": protocol, "rmse@mean_map": protocol}
    all_of_them = DepthScorer(Items(train), (8, 8), 100)
    all_of_them.update({"depth": true}, items)
    assert all_of_them.protocols()["rmse@mean_map"] == {"training_images": 8}


def test_depth_without_a_valid_pixel_is_skipped_and_counted():
    rng = np.random.default_rng(0)
    items = depth_items(rng, 4)
    items[1]["depth"] = np.zeros((8, 8), np.float32)
    predicted = np.full((4, 8, 8), 2, np.float32)
    scorer = DepthScorer(Items([items[1], *depth_items(rng, 2)]), (8, 8), 3)
    scorer.update({"depth": predicted}, items)
    figures = scorer.compute()
    assert (figures["images"], figures["images_skipped"]) == (3, 1)
    assert figures["rmse"] == pytest.approx(rmse(predicted, [item["depth"] for item in items]), rel=1e-6)
    assert np.isfinite(figures["rmse@mean_map"]) and scorer.picture().any()


def panoptic_maps(rng, count):
    """Blocks of 4 x 4 pixels, each with a class and a number; class 0 is void."""
    blocks = np.ones((4, 4), np.int32)
    classes, numbers = rng.integers(0, 4, (count, 2, 2)), 1 + np.arange(4).reshape(2, 2)
    semantics = np.stack([np.kron(c, blocks) for c in classes])
    return semantics, np.where(semantics == 0, 0, np.kron(numbers, blocks))


def panoptic_items(rng, semantics, instances, sizes):
    return [
        {"image": image(rng, size), "semantics": enlarged(s, size), "instances": enlarged(i, size)}
        for s, i, size in zip(semantics, instances, sizes, strict=True)
    ]


def test_panoptic_is_scored_at_the_size_of_each_truth():
    rng = np.random.default_rng(0)
    semantics, instances = panoptic_maps(rng, 4)
    items = panoptic_items(rng, semantics, instances, SIZES)
    scorer = PanopticScorer(Items(items), 4, 8)
    scorer.update({"semantics": semantics, "instances": instances}, items)
    figures = scorer.compute()
    assert figures["pq"] == figures["sq"] == figures["rq"] == figures["pq_things"] == figures["pq_stuff"] == 1
    assert figures["images"] == 4 and figures["pq@majority_map"] < 0.9
    assert scorer.picture().shape[0] > 4 * 96
    scorer.update({"semantics": semantics[:1], "instances": instances[:1]}, items[1:2])
    assert scorer.compute()["pq"] < 1


def test_crowds_reach_the_metric():
    """Half of a crowd found as one segment is no mistake; of a single thing it is one, and the thing is missed."""
    semantics = np.full((1, 8, 8), 1, np.int32)
    semantics[:, :, 4:] = 3
    instances = np.where(semantics == 1, 5, 6)
    found = {"semantics": np.where(np.arange(8)[:, None] < 4, semantics, 0), "instances": instances}
    found["semantics"][:, :, 4:] = 3
    (item,) = panoptic_items(np.random.default_rng(0), semantics, instances, [(16, 24)])
    scores = []
    for crowd in (item["semantics"] == 1, np.zeros((16, 24), bool)):
        scorer = PanopticScorer(Items([item]), 1, 8)
        scorer.update(found, [item | {"crowd": crowd}])
        scores.append(scorer.compute()["pq"])
    assert scores == [1, 0.5]


def test_majority_map_equals_its_definition():
    rng = np.random.default_rng(0)
    train = panoptic_items(rng, *panoptic_maps(rng, 10), [(16, 24), (8, 8)] * 5)
    semantics, instances = panoptic_maps(rng, 5)
    items = panoptic_items(rng, semantics, instances, [*SIZES, (8, 8)])
    scorer = PanopticScorer(Items(train), 5, 8)
    scorer.update({"semantics": 0 * semantics, "instances": instances}, items)

    counts = np.zeros((8, 8, 4), int)
    for item in train[::2]:  # 5 of 10
        for y, x in np.ndindex(8, 8):
            counts[y, x, item["semantics"][2 * y, 3 * x]] += 1
    counts[..., 0] = 0  # void does not vote
    majority = np.argmax(counts, axis=-1)
    expected = PanopticQuality(4, (1, 2))
    for item in items:
        size = item["semantics"].shape
        guess = [[majority[y * 8 // size[0], x * 8 // size[1]] for x in range(size[1])] for y in range(size[0])]
        true = item["semantics"][None], item["instances"][None]
        expected.update(np.array([guess]), np.zeros((1, *size), int), *true)
    figures = scorer.compute()
    assert 0 < figures["pq@majority_map"] == expected.compute()["pq"]
    assert figures["pq"] == 0 and scorer.protocols() == {"pq@majority_map": {"training_images": 5}}


@pytest.mark.parametrize("task", ["depth", "panoptic", "colorization"])
def test_compared_runs_have_a_column_each(task):
    items = [DenseNoiseSource()[i] for i in range(3)]
    maps = [item | {"color": item["image"]} for item in items]
    one, two = (compare_rows(task, items, {title: maps for title in titles}) for titles in ("A", "AB"))
    column = two.shape[1] - one.shape[1]
    assert column > 96 and one.shape[0] == two.shape[0] > 3 * 96
    # The same maps: the second column, below its title, is the first one again.
    np.testing.assert_array_equal(two[30:, -column:], two[30:, -2 * column : -column])


@pytest.fixture
def toy():
    return ToyScorer("toy", resolution=16, batch_size=4)


def grey_of(images):
    """ITU-R 601 luma of bytes, truncated, as bytes."""
    luma = 255.5 / 255 * (images.astype(np.float64) @ [0.2989, 0.587, 0.114])
    return np.floor(luma + 1e-9)[..., None].repeat(3, axis=-1).astype(np.uint8)


def test_colours_of_the_truth_are_at_no_distance(toy):
    train, validation = DenseNoiseSource(size=24), DenseNoiseSource(size=20, split="validation")
    scorer = split_colorization(train, validation, [toy], 16)
    items = [validation[i] for i in range(20)]
    true = np.stack([item["image"] for item in items])
    for part in (slice(0, 12), slice(12, 20)):
        scorer.update({"color": true[part].astype(np.float32) / 255}, items[part])
    figures = scorer.compute()
    assert abs(figures["cfd_toy_validation"]) < 1e-6 and figures["mse"] == 0
    assert figures["colourfulness"] == figures["colourfulness@truth"] > 0
    grey, reference = toy.moments(grey_of(true)), toy.reference_moments(train)
    assert figures["cfd_toy_train"] == pytest.approx(frechet_distance(toy.moments(true), reference), rel=1e-6)
    assert figures["cfd_toy_train@grey"] == pytest.approx(frechet_distance(grey, reference), rel=1e-6)
    assert figures["mse@grey"] == pytest.approx(np.mean(((grey_of(true) / 255.0) - true / 255.0) ** 2), rel=1e-9)
    for name in ("train", "validation"):
        for suffix in ("", "@grey"):
            protocol = scorer.protocols()[f"cfd_toy_{name}{suffix}"]
            assert protocol["reference"] == name and protocol["feature_network"] == "toy"
            assert protocol["reference_count"] == (24 if name == "train" else 20)
            assert protocol["scored_resolution"] == 16


def test_colours_are_scored_on_the_central_square(toy):
    rng = np.random.default_rng(0)
    items = [{"image": image(rng, size)} for size in ((16, 24), (40, 36), (16, 16), (20, 16))]
    scorer = split_colorization(DenseNoiseSource(), DenseNoiseSource(), [toy], 16)
    true = np.stack([center_crop(item, 16)["image"] for item in items])
    scorer.update({"color": true.astype(np.float32) / 255}, items)
    assert scorer.compute()["mse"] == 0 and scorer.picture().shape[0] > 4 * 96


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
    for batch in scorer.batches(COLTRAN_PX):
        count = int(batch["mask"].sum())
        expected = colorization.to_coltran_range(images["eval"][first : first + count])
        np.testing.assert_array_equal(batch["color"][:count], expected)
        np.testing.assert_array_equal(batch["context"][:count], colorization.coltran_grey(expected))
        truths = [scorer.source[first + i] for i in range(count)]
        scorer.update({"color": (batch["color"][:count] + 1) / 2}, truths)
        first += count
    assert first == 5
    figures = scorer.compute()
    assert figures["mse"] == 0
    expected = frechet_distance(toy.moments(images["eval"]), toy.moments(images["reference"]))
    assert figures["cfd_toy_names"] == pytest.approx(expected, rel=1e-6)
    protocol = scorer.protocols()["cfd_toy_names"]
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
