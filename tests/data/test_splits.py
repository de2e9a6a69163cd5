"""Train, validation and test of every kind of source."""

import numpy as np
import pytest
from PIL import Image

from fsq_repro.data import photos, scenes
from fsq_repro.data.held_out import held_out
from fsq_repro.data.sources import SPLITS, make_source
from tests.data.test_dense_sources import png, write_set

CLASSES = ["a", "b", "c"]


def picture(number: int) -> np.ndarray:
    return np.full((8, 8, 3), number, np.uint8)


def write_folder(root, *splits):
    for k, split in enumerate(splits):
        for i in range(30):
            file = root / split / CLASSES[i // 10] / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(60 * k + i)).save(file)


def write_tfds(root, labelled: bool = True, **sizes: int):
    """A set `numbers` with splits of these sizes, ordered by class; the labels of test are -1 if not `labelled`."""
    import tensorflow_datasets as tfds

    features = {
        "image": tfds.features.Image(encoding_format="png"),
        "label": tfds.features.ClassLabel(names=CLASSES),
    }
    examples = {
        split: [
            {"image": png(picture(60 * k + i)), "label": -1 if split == "test" and not labelled else 3 * i // size}
            for i in range(size)
        ]
        for k, (split, size) in enumerate(sizes.items())
    }
    write_set(root, "numbers", "1.0.0", features, examples)


@pytest.fixture(autouse=True)
def roots(tmp_path, monkeypatch):
    monkeypatch.setenv("FSQ_REPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setattr(photos, "TRAIN_CROPS", 120)
    monkeypatch.setattr(photos, "TEST_CROPS", 24)
    monkeypatch.setattr(scenes, "NUM_SCENES", {"train": 6, "validation": 3, "test": 3})
    return tmp_path


def open_folder(tmp_path, *splits):
    write_folder(tmp_path / "pictures", *splits)
    return f"folder:{tmp_path / 'pictures'}"


def open_tfds(tmp_path, **sizes):
    write_tfds(tmp_path / "tfds", **sizes)
    return "numbers"


KINDS = {  # name of a source -> (what makes it, sizes of the splits)
    "photos": (lambda _: "photos", (110, 10, 24)),
    "scenes": (lambda _: "scenes", (6, 3, 3)),
    "folder": (lambda root: open_folder(root, ""), (26, 3, 1)),
    "folder, train and test": (lambda root: open_folder(root, "train", "test"), (27, 3, 30)),
    "folder, train and val": (lambda root: open_folder(root, "train", "val"), (27, 3, 30)),
    "folder, all": (lambda root: open_folder(root, "train", "val", "test"), (30, 30, 30)),
    "TFDS, train and test": (lambda root: open_tfds(root, train=50, test=10), (45, 5, 10)),
    "TFDS, all": (lambda root: open_tfds(root, train=50, validation=9, test=10), (50, 9, 10)),
}


def images(source) -> list[bytes]:
    return [source[i]["image"].tobytes() for i in range(len(source))]


@pytest.mark.parametrize("kind", KINDS)
def test_splits_share_nothing_and_stay_as_they_are(kind, roots):
    make, sizes = KINDS[kind]
    name = make(roots)
    sources = [make_source(name, split, 32) for split in SPLITS]
    assert tuple(map(len, sources)) == sizes and [s.split for s in sources] == list(SPLITS)
    found = [images(source) for source in sources]
    assert len({*found[0], *found[1], *found[2]}) == sum(sizes)
    assert [images(make_source(name, split, 32)) for split in SPLITS] == found
    assert len({source.class_names for source in sources}) == 1
    assert len({(source.split, source.fingerprint) for source in sources}) == 3


@pytest.mark.parametrize("sizes", [{}, {"test": 4, "labelled": False}])
def test_without_a_labelled_test_split_it_is_the_validation_split(sizes, roots):
    """As `imagenet2012`, whose test labels are -1: published tables are of its validation split."""
    name = open_tfds(roots, train=30, validation=7, **sizes)
    train, validation, test = (make_source(name, split, 32) for split in SPLITS)
    assert len(train) == 30 and images(validation) == images(test) and len(test) == 7
    assert all(test[i]["label"] >= 0 for i in range(7))


def test_held_out_items_are_of_all_classes_and_keep_their_labels(roots):
    source = make_source(open_tfds(roots, train=51, test=6), "validation", 32)
    labels = [int(source[i]["label"]) for i in range(len(source))]
    assert labels == [3 * int(source[i]["image"][0, 0, 0]) // 51 for i in range(len(source))]
    assert labels == sorted(labels) and set(labels) == {0, 1, 2}


def test_a_set_without_the_split_is_refused(roots):
    name = open_tfds(roots, train=30)
    assert len(make_source(name, "train", 32)) == 30
    for split in ("validation", "test"):
        with pytest.raises(ValueError, match=f"TFDS set 'numbers' has no {split} split, only: train"):
            make_source(name, split, 32)


@pytest.mark.parametrize("total", [1, 2, 9, 10, 50_000])
def test_held_out(total):
    kept, held = held_out(total)
    assert sorted([*kept, *held]) == list(range(total)) and len(held) == max(1, round(total / 10))
    again = held_out(total)
    np.testing.assert_array_equal(held, again[1])
