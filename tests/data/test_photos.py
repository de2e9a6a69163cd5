import hashlib

import numpy as np
import pytest

from fsq_repro.data import photos
from fsq_repro.data.photos import TEST_CROPS, TRAIN_CROPS, Photos
from fsq_repro.data.sources import SPLITS


@pytest.fixture(scope="module")
def sizes(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FSQ_REPRO_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(photos, "TRAIN_CROPS", 240)
        patch.setattr(photos, "TEST_CROPS", 120)
        yield patch


@pytest.fixture(scope="module")
def train(sizes):
    return Photos("train", 32)


def images_of(source):
    return np.stack([source[i]["image"] for i in range(len(source))])


def test_crops_are_the_same_on_every_machine(train):
    digests = [hashlib.sha256(images_of(Photos(s, 32)).tobytes()).hexdigest()[:16] for s in SPLITS]
    assert digests == ["d3a4093afc13b3bb", "b848038a994cfd45", "3dab7a1b566fe609"]


@pytest.mark.slow
def test_the_whole_set_is_the_same_on_every_machine(tmp_path, monkeypatch):
    """What `make reproduce` trains and evaluates on."""
    monkeypatch.setenv("FSQ_REPRO_CACHE", str(tmp_path))
    monkeypatch.setattr(photos, "TRAIN_CROPS", TRAIN_CROPS)
    monkeypatch.setattr(photos, "TEST_CROPS", TEST_CROPS)
    digests = [hashlib.sha256(images_of(Photos(s, 32)).tobytes()).hexdigest() for s in SPLITS]
    assert digests == [
        "503d8c43ecaba9635a1306714f438ec6498d0cc7915fae1dfacd8edfda1b6993",
        "e90b422b9635816182abf3d1c6b90a509c7ab38f7299189399a89679667d0c84",
        "38fbd5d1d05762b2571dd7134f3fd62f89a25560524b00d6e0ca61a61d17e09c",
    ]


def test_items(train):
    item = train[15]
    assert item["image"].shape == (32, 32, 3) and item["image"].dtype == np.uint8
    assert item["label"].dtype == np.int32 and item["label"] == 5
    assert train.num_classes == len(train.class_names) == 10 and train.class_names[5] == "grace_hopper"
    counts = np.bincount([train[i]["label"] for i in range(len(train))])
    assert counts.sum() == 220 and set(counts) == {22}


@pytest.mark.parametrize("name", photos.PHOTOGRAPHS)
def test_training_and_test_share_no_pixel(name):
    photograph = photos.load_photograph(name)
    size = photograph.height, photograph.width
    seen, shares = {}, {}
    for region, box in photos.parts(photos.PHOTOGRAPHS[name], *size).items():
        rng, seen[region] = np.random.default_rng(0), np.zeros(size, bool)
        top, left, bottom, right = box
        shares[region] = (bottom - top) * (right - left) / (size[0] * size[1])
        largest = min(bottom - top, right - left)
        for _ in range(300):
            top, left, bottom, right = photos.draw_box(rng, box, largest // 3, largest)
            assert 0 <= top < bottom <= size[0] and 0 <= left < right <= size[1]
            assert largest // 3 <= bottom - top == right - left <= largest
            seen[region][top:bottom, left:right] = True
    assert not (seen["train"] & seen["test"]).any()
    assert shares["test"] == pytest.approx(0.45, abs=0.01) and shares["train"] == pytest.approx(0.55, abs=0.01)
    # Both parts are used well.
    assert all(seen[region].mean() > 0.9 * shares[region] for region in seen)


@pytest.mark.parametrize(("end", "first"), [("top", True), ("left", True), ("bottom", False), ("right", False)])
def test_the_named_end_belongs_to_test(end, first):
    boxes = photos.parts(end, 100, 200)
    begins, other = ("test", "train") if first else ("train", "test")
    assert boxes[begins][:2] == (0, 0) and boxes[other][2:] == (100, 200)
    axis = 0 if end in ("top", "bottom") else 1
    assert boxes[begins][2 + axis] == boxes[other][axis] and boxes["test"][2:] != boxes["train"][2:]


def test_sides_are_drawn_with_a_density_of_one_over_side():
    rng = np.random.default_rng(0)
    boxes = [photos.draw_box(rng, (0, 0, 400, 300), 40, 160) for _ in range(4000)]
    sides = np.array([bottom - top for top, _, bottom, _ in boxes])
    assert sides.min() == 40 and sides.max() > 157
    assert np.mean(sides < 80) == pytest.approx(0.5, abs=0.03)  # one of two octaves
    places = np.array([[top / (400 - s), left / (300 - s)] for (top, left, *_), s in zip(boxes, sides, strict=True)])
    np.testing.assert_allclose(places.mean(axis=0), 0.5, atol=0.02)


@pytest.mark.parametrize("resolution", [16, 64, 128])
def test_other_resolutions(resolution, sizes, monkeypatch):
    monkeypatch.setattr(photos, "TEST_CROPS", 20)
    crops = images_of(Photos("test", resolution))
    assert crops.shape == (20, resolution, resolution, 3)
    assert len(np.unique(crops.reshape(20, -1), axis=0)) == 20


def test_large_crops_are_fewer(sizes):
    assert TRAIN_CROPS == 12_000 and TEST_CROPS == 2_560
    assert len(Photos("train", 64)) == 110 and len(Photos("train", 16)) == 220


def test_no_image_of_test_is_in_another_split(train):
    """By the bytes of the pixels; train and validation together are the crops outside the part of test."""
    found = {split: [image.tobytes() for image in images_of(Photos(split, 32))] for split in SPLITS}
    assert not set(found["test"]) & {*found["train"], *found["validation"]}
    assert not set(found["train"]) & set(found["validation"])
    assert [len(found[split]) for split in SPLITS] == [220, 20, 120]


@pytest.mark.parametrize("resolution", [40, 50])
def test_labels_go_round_the_photographs_in_every_split(resolution, sizes, monkeypatch):
    """Also where the crops are no multiple of the photographs."""
    monkeypatch.setattr(photos, "cached_arrays", lambda name, key, specs, fill: {"image": np.arange(key["size"])})
    train, validation = (Photos(split, resolution) for split in ("train", "validation"))
    indices = [int(s[i]["image"]) for s in (train, validation) for i in range(len(s))]
    assert sorted(indices) == list(range(240 * 32 // resolution)) and len(validation) > 0
    for source in (train, validation):
        assert all(source[i]["image"] % 10 == source[i]["label"] for i in range(len(source)))
