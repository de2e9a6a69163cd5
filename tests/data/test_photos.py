import hashlib

import numpy as np
import pytest
from PIL import Image

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
    assert digests == ["f4b955acb7ae590b", "790ee51921394a47", "7e4cc9b950532b46"]


@pytest.mark.slow
def test_the_whole_set_is_the_same_on_every_machine(tmp_path, monkeypatch):
    """What `make reproduce` trains and evaluates on."""
    monkeypatch.setenv("FSQ_REPRO_CACHE", str(tmp_path))
    monkeypatch.setattr(photos, "TRAIN_CROPS", TRAIN_CROPS)
    monkeypatch.setattr(photos, "TEST_CROPS", TEST_CROPS)
    digests = [hashlib.sha256(images_of(Photos(s, 32)).tobytes()).hexdigest() for s in SPLITS]
    assert digests == [
        "463ebe5da2f5799c8b506495049fa69ffef09e65d3d46b7f307b6fdbbd14d7bb",
        "42dbeee50bba392d1696f2b6010053a0a73374494f1775a12b9a13933d8e85f5",
        "02297db0f7087d36ab201007695428155e2bbc767c0d246cda959e558a2510b8",
    ]


def test_items(train):
    item = train[13]
    assert item["image"].shape == (32, 32, 3) and item["image"].dtype == np.uint8
    assert item["label"].dtype == np.int32 and item["label"] == 1
    assert train.num_classes == len(train.class_names) == 12 and train.class_names[1] == "brick"
    counts = np.bincount([train[i]["label"] for i in range(len(train))])
    assert (counts == 18).all()


@pytest.mark.parametrize("label", range(len(photos.PHOTOGRAPHS)))
@pytest.mark.parametrize("resolution", [32, 128])
def test_training_and_test_share_no_pixel(label, resolution):
    photograph = photos.load_photograph(photos.PHOTOGRAPHS[label])
    size = photograph.height, photograph.width
    cells = photos.cells_for_test(label, *size)
    seen = {}
    for region in ("train", "test"):
        rng = np.random.default_rng(label)
        seen[region] = np.zeros(size, bool)
        for _ in range(300):
            top, left, bottom, right = photos.draw_box(rng, region, cells, size, resolution)
            assert 0 <= top < bottom <= size[0] and bottom - top == right - left and 0 <= left < right <= size[1]
            seen[region][top:bottom, left:right] = True
    assert not (seen["train"] & seen["test"]).any()
    # Both regions are used well: 25% of the pixels are test's.
    assert seen["test"].mean() > 0.15 and seen["train"].mean() > 0.4


def test_crops_have_texture(train):
    grey = images_of(train).astype(np.float64) @ [0.299, 0.587, 0.114]
    deviation = grey.reshape(-1, 4, 8, 4, 8).std(axis=(2, 4))
    # Half a grey level of room: Pillow rounds luma to integers.
    assert ((deviation > photos.FLAT_STD - 0.5).mean(axis=(1, 2)) >= 0.5).all()


def test_mostly_flat():
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    half = noise.copy()
    half[:16] = 90
    mostly = half.copy()
    mostly[16:24, :8] = 90
    assert not photos.mostly_flat(Image.fromarray(noise))
    assert not photos.mostly_flat(Image.fromarray(half))
    assert photos.mostly_flat(Image.fromarray(mostly))


@pytest.mark.parametrize("resolution", [16, 64, 128])
def test_other_resolutions(resolution, sizes, monkeypatch):
    monkeypatch.setattr(photos, "TEST_CROPS", 12)
    crops = images_of(Photos("test", resolution))
    assert crops.shape == (12, resolution, resolution, 3)
    assert len(np.unique(crops.reshape(12, -1), axis=0)) == 12


def test_large_crops_are_fewer(sizes):
    assert TRAIN_CROPS == 24_000 and TEST_CROPS == 2_560
    assert len(Photos("train", 64)) == 108 and len(Photos("train", 16)) == 216


def test_no_image_of_test_is_in_another_split(train):
    """By the bytes of the pixels; train and validation together are the crops outside the cells of test."""
    found = {split: [image.tobytes() for image in images_of(Photos(split, 32))] for split in SPLITS}
    assert not set(found["test"]) & {*found["train"], *found["validation"]}
    assert not set(found["train"]) & set(found["validation"])
    assert [len(found[split]) for split in SPLITS] == [216, 24, 120]


@pytest.mark.parametrize("resolution", [40, 50])
def test_labels_go_round_the_photographs_in_every_split(resolution, sizes, monkeypatch):
    """Also where the crops are no multiple of the photographs."""
    monkeypatch.setattr(photos, "cached_arrays", lambda name, key, specs, fill: {"image": np.arange(key["size"])})
    train, validation = (Photos(split, resolution) for split in ("train", "validation"))
    indices = [int(s[i]["image"]) for s in (train, validation) for i in range(len(s))]
    assert sorted(indices) == list(range(240 * 32 // resolution)) and len(validation) > 0
    for source in (train, validation):
        assert all(source[i]["image"] % 12 == source[i]["label"] for i in range(len(source)))
