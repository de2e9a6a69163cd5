import logging
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from fsq_repro.data import folder, image_folder
from fsq_repro.data.folder import Folder
from fsq_repro.data.image_folder import check_images, image_names, warn_once
from fsq_repro.data.image_reader import UnreadableImage, read_image
from fsq_repro.data.sources import SPLITS
from tests.data.image_files import drawn, write_png


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FSQ_REPRO_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "pictures"
    path.mkdir()
    return path


def save(path, value=100, size=(20, 10), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode in ("L", "I;16") else (value, *[0] * (len(mode) - 1))).save(path, **options)


def values(source):
    return sorted(int(source[i]["image"][0, 0, 0]) for i in range(len(source)))


def splits_of(root):
    return [Folder(root, split) for split in SPLITS]


def values_of_all(root):
    return sorted(value for source in splits_of(root) for value in values(source))


def test_classes_are_the_first_sub_folders(root):
    for i in range(30):
        save(root / ("cats" if i % 2 else "dogs") / "more" / f"{i}.png", i)
    train, validation, test = splits_of(root)
    for source in (train, validation, test):
        assert source.class_names == ("cats", "dogs") and source.num_classes == 2 and len(source) >= 1
    assert values_of_all(root) == list(range(30))
    for i in range(len(train)):
        item = train[i]
        assert item["image"].shape == (10, 20, 3) and item["image"].dtype == np.uint8
        assert item["label"].dtype == np.int32 and item["label"] == 1 - item["image"][0, 0, 0] % 2


def test_few_images_change_sides_when_others_come(root):
    """None between test and the rest, and the limit of validation moves a little."""
    for i in range(100):
        save(root / f"{i}.png", i)
    before = [set(values(source)) for source in splits_of(root)]
    assert 1 <= len(before[2]) <= 12 and len(before[1]) == round(0.1 * (100 - len(before[2])))
    for i in range(100, 200):
        save(root / f"{i}.png", i)
    train, validation, test = (set(values(source)) for source in splits_of(root))
    assert test & set(range(100)) == before[2]
    assert len(before[0] & train) >= 80 and len(validation) == round(0.1 * (200 - len(test)))


def write_splits(root, *names, count=20):
    """`count` images of two classes below each name; their values tell the split."""
    for k, name in enumerate(names):
        for i in range(count):
            save(root / name / "ab"[i % 2] / f"{i}.png", 50 * k + i)


@pytest.mark.parametrize(
    ("names", "sizes"),
    [
        (("train", "test"), (18, 2, 20)),
        (("Train", "TEST"), (18, 2, 20)),
        (("train", "val"), (18, 2, 20)),
        (("train", "validation"), (18, 2, 20)),
        (("train", "valid"), (18, 2, 20)),
        (("train", "VALID", "test"), (20, 20, 20)),
        (("train", "validation", "test"), (20, 20, 20)),
        (("TRAIN", "Val", "Test"), (20, 20, 20)),
        (("train",), (17, 2, 1)),
    ],
)
def test_split_folders(root, names, sizes, caplog):
    """They are never classes, and what lies beside the training folder is left out, not silently."""
    write_splits(root, *names)
    save(root / "other" / "c" / "1.png", 200)
    save(root / "1.png", 201)
    sources = splits_of(root)
    assert caplog.text.count(f"2 images of {root} that lie beside its folder for training are left out") == 1
    assert tuple(map(len, sources)) == sizes
    assert all(source.class_names == ("a", "b") for source in sources)
    assert values_of_all(root) == sorted(50 * k + i for k in range(len(names)) for i in range(20))
    if len(names) > 1:
        assert values(sources[2]) == [50 * (len(names) - 1) + i for i in range(20)]  # the last folder as it is


@pytest.mark.parametrize("name", ["test", "val", "Validation"])
def test_a_split_folder_beside_classes_is_no_class(root, name):
    for i in range(20):
        save(root / "ab"[i % 2] / f"{i}.png", i)
    write_splits(root, name, count=3)
    train, validation, test = splits_of(root)
    assert (len(train), len(validation), len(test)) == (18, 2, 3) and test.class_names == ("a", "b")


def test_all_splits_share_the_classes(root):
    save(root / "train" / "b" / "1.png", 1)
    save(root / "train" / "b" / "2.png", 2)
    save(root / "test" / "a" / "3.png", 3)
    train, validation, test = splits_of(root)
    assert train.class_names == validation.class_names == test.class_names == ("a", "b")
    assert (train[0]["label"], validation[0]["label"], test[0]["label"]) == (1, 1, 0)


def test_links_are_followed_and_hidden_names_left_out(root, tmp_path):
    for i in range(20):
        save(tmp_path / "elsewhere" / f"{i}.png", i)
    (root / "train").mkdir()
    (root / "train" / "a").symlink_to(tmp_path / "elsewhere")
    (root / "train" / "round").symlink_to(root)
    (root / "train" / "nowhere").symlink_to(tmp_path / "gone")
    (root / "train" / "itself").symlink_to(root / "train" / "itself")
    (root / "train" / "itself.png").symlink_to("itself.png")
    (root / "train" / "folder.png").mkdir()
    save(root / "train" / ".trash" / "1.png", 100)
    save(root / ".cache" / "test" / "2.png", 101)
    assert values_of_all(root) == list(range(20))
    assert Folder(root, "train").class_names == ("a",)


def test_images_of_one_size_are_decoded_once(root, monkeypatch):
    """And again when a file changes; each process finds what was decoded before."""
    rng = np.random.default_rng(0)
    for _ in range(2):
        for i in range(6):
            Image.fromarray(rng.integers(0, 256, (10, 20, 3), np.uint8)).save(root / f"{i}.png")
        expected = {read_image(root / f"{i}.png").tobytes() for i in range(6)}
        splits_of(root)
        with monkeypatch.context() as patch:
            patch.setattr(folder, "read_image", None)
            assert {source[i]["image"].tobytes() for source in splits_of(root) for i in range(len(source))} == expected


@pytest.mark.parametrize("limit, sizes", [(10**9, [(20, 10), (10, 20)]), (599, [(20, 10)])])
def test_images_of_several_sizes_or_too_large_are_read_from_their_files(root, limit, sizes, monkeypatch):
    monkeypatch.setattr(folder, "MAX_PIXEL_BYTES", limit)
    for i in range(20):
        save(root / f"{i}.png", i, size=sizes[i % len(sizes)])
    assert values_of_all(root) == list(range(20))
    assert not list((root.parent / "cache").glob("folder-train-*"))
    train = Folder(root, "train")
    assert {train[i]["image"].shape for i in range(len(train))} == {(height, width, 3) for width, height in sizes}


def test_unreadable_files_are_named_once_counted_and_left_out(root, caplog):
    for i in range(10):
        save(root / f"{i}.png", i)
    (root / "text.png").write_text("no image")
    save(root / "whole.jpg", size=(64, 64))
    cut = (root / "whole.jpg").read_bytes()
    (root / "whole.jpg").unlink()
    (root / "cut.jpg").write_bytes(cut[: len(cut) // 2])
    (root / "notes.txt").write_text("not an image, and not called one")
    with caplog.at_level(logging.WARNING, logger="fsq_repro"):
        train, validation, test = splits_of(root)
    assert train.num_unreadable == validation.num_unreadable == test.num_unreadable == 2
    assert values_of_all(root) == list(range(10))
    for name in ("text.png", "cut.jpg"):
        assert caplog.text.count(f"left out: {root / name}") == 1
    assert caplog.text.count("2 of 12 images") == 1 and "notes.txt" not in caplog.text
    warn_once.cache_clear()  # as in another process, which finds the verdicts in the cache
    with caplog.at_level(logging.WARNING, logger="fsq_repro"):
        splits_of(root)
    assert caplog.text.count(f"left out: {root / 'cut.jpg'} (") == 2


def test_a_mended_file_comes_back(root):
    for i in range(5):
        save(root / f"{i}.png", i)
    (root / "5.png").write_text("broken")
    assert Folder(root, "train").num_unreadable == 1
    save(root / "5.png", 5)
    train = Folder(root, "train")
    assert train.num_unreadable == 0
    assert values_of_all(root) == list(range(6))


def test_pictures_of_other_formats_are_counted(root, caplog):
    for i in range(5):
        save(root / f"{i}.png", i)
        (root / "a").mkdir(exist_ok=True)
        (root / "a" / f"{i}.HEIC").write_text("a picture of a phone")
    (root / "x.gif").write_text("an animation")
    (root / "labels.csv").write_text("no picture")
    assert values_of_all(root) == list(range(5))
    assert [r.getMessage() for r in caplog.records] == [
        f"pictures of other formats below {root} are left out: 1 .gif, 5 .heic"
    ]


def test_folders_without_images(root, tmp_path):
    with pytest.raises(ValueError, match=f"folder:{root}' holds no image"):
        Folder(root, "train")
    (root / "broken.png").write_text("broken")
    with pytest.raises(ValueError, match="has 0 readable images"):
        Folder(root, "train")
    (root / "broken.png").unlink()
    save(root / "only.png")
    assert len(Folder(root, "test")) == 1
    with pytest.raises(ValueError, match="has 1 readable images, none of them for train"):
        Folder(root, "train")
    with pytest.raises(FileNotFoundError, match=f"there is no folder {tmp_path}/nowhere"):
        Folder(tmp_path / "nowhere", "train")


def test_a_healthy_folder_stays_as_it_was_bit_by_bit(root, monkeypatch):
    """Pixels, order, splits, labels and fingerprints: recorded metrics and caches hang on them."""
    monkeypatch.chdir(root.parent)
    pixels = {}
    for i, name in enumerate(
        f"{split}/{label}/{n}.png" for split in ("Train", "test") for label in "ba" for n in range(9)
    ):
        path, pixels[name] = root / name, drawn(i, 5, 4)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path, pixels[name])
        os.utime(path, ns=(0, 10**18 + i))
    validation = ["Train/a/0.png", "Train/b/0.png"]
    expected = {
        "train": ("5f244a7aa186", sorted(n for n in pixels if n.startswith("Train") and n not in validation)),
        "validation": ("530a8434c410", validation),
        "test": ("ee9dac2445ae", sorted(n for n in pixels if n.startswith("test"))),
    }
    for split, (fingerprint, names) in expected.items():
        source = Folder("pictures", split)
        assert (source.fingerprint, source.class_names, len(source)) == (fingerprint, ("a", "b"), len(names))
        for i, name in enumerate(names):
            np.testing.assert_array_equal(source[i]["image"], pixels[name])
            assert source[i]["label"] == int("/b/" in name)
    assert source.class_counts == {"train": {0: 8, 1: 8}, "validation": {0: 1, 1: 1}, "test": {0: 9, 1: 9}}


NOT_UTF_8 = os.fsdecode(b"caf\xe9")


def test_names_that_are_no_utf_8(root, caplog, tmp_path):
    for i in range(20):
        save(root / NOT_UTF_8 / f"{NOT_UTF_8}{i}.png", i)
    (root / NOT_UTF_8 / f"{NOT_UTF_8}.jpg").write_text("no image")
    train, validation, test = splits_of(root)
    assert values_of_all(root) == list(range(20)) and train.class_names == ("caf\\xe9",)
    warning = next(r.getMessage() for r in caplog.records if "left out: " in r.getMessage())
    assert r"caf\xe9/caf\xe9.jpg" in warning and warning.isascii()
    assert Folder(root, "train").fingerprint == train.fingerprint
    with pytest.raises(FileNotFoundError) as e:
        Folder(tmp_path / f"no {NOT_UTF_8}", "train")
    assert str(e.value).isascii() and str(e.value).count(r"no caf\xe9") == 2


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"0.png": 3}', '{"0.png": [1, 2, null, null, null]}', "\0"]
)
def test_a_damaged_file_of_verdicts_is_made_again(root, content):
    for i in range(5):
        save(root / f"{i}.png", i)
    names = image_names(root)
    verdicts = check_images(root, names)
    (file,) = (root.parent / "cache").glob("images-*.json")
    whole = file.read_text()
    file.write_text(content)
    assert check_images(root, names) == verdicts and list(verdicts) == names and file.read_text() == whole
    cut = whole[: len(whole) // 2]
    file.write_text(cut)
    assert check_images(root, names) == verdicts and file.read_text() == whole


def test_verdicts_of_other_names_stay(root, monkeypatch):
    """A folder is checked as a whole by one tool and in parts by another."""
    for i in range(4):
        save(root / f"{i}.png", i)
    check_images(root, ["0.png", "1.png"])
    check_images(root, ["2.png", "3.png"])
    monkeypatch.setattr(image_folder, "read_image_and_kind", None)
    assert [v.size for v in check_images(root, image_names(root)).values()] == [(10, 20)] * 4


def test_what_the_disk_refused_is_tried_again(root, monkeypatch):
    for i in range(3):
        save(root / f"{i}.png", i)
    read = image_folder.read_image_and_kind

    def refuse(path):
        if path.name == "1.png":
            raise UnreadableImage(path, "Input/output error", lasting=False)
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(image_folder, "read_image_and_kind", refuse)
        assert [v.unreadable for v in check_images(root, image_names(root)).values()] == [
            None,
            "Input/output error",
            None,
        ]
    assert [v.unreadable for v in check_images(root, image_names(root)).values()] == [None, None, None]


def test_a_cache_that_cannot_be_written_costs_time_alone(root, monkeypatch, caplog):
    save(root / "0.png")
    blocked = root.parent / "file"
    blocked.write_text("")
    monkeypatch.setenv("FSQ_REPRO_CACHE", str(blocked / "cache"))
    assert check_images(root, image_names(root))["0.png"].unreadable is None
    assert "cannot be written (Not a directory): the images will be checked again" in caplog.text
    assert "damaged" not in caplog.text


def test_a_folder_that_cannot_be_listed_is_named(root, monkeypatch):
    save(root / "a" / "0.png")
    scandir = os.scandir

    def refuse(path):
        if pathlib.Path(path).name == "a":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(image_folder.os, "scandir", refuse)
    with pytest.raises(ValueError, match=f"the folder {root}/a cannot be listed: Permission denied"):
        Folder(root, "train")
