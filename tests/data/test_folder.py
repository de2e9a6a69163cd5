import logging

import numpy as np
import pytest
from PIL import Image

from fsq_repro.data.folder import Folder, load_image


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


def test_classes_are_the_first_sub_folders(root):
    for i in range(30):
        save(root / ("cats" if i % 2 else "dogs") / "more" / f"{i}.png", i)
    train, validation = Folder(root, "train"), Folder(root, "validation")
    assert train.class_names == validation.class_names == ("cats", "dogs") and train.num_classes == 2
    assert len(validation) >= 1 and sorted(values(train) + values(validation)) == list(range(30))
    for i in range(len(train)):
        item = train[i]
        assert item["image"].shape == (10, 20, 3) and item["image"].dtype == np.uint8
        assert item["label"].dtype == np.int32 and item["label"] == 1 - item["image"][0, 0, 0] % 2


def test_an_images_split_does_not_change_when_others_come(root):
    for i in range(60):
        save(root / f"{i}.png", i)
    before = set(values(Folder(root, "validation")))
    assert 1 <= len(before) <= 10
    for i in range(60, 120):
        save(root / f"{i}.png", i)
    assert before <= set(values(Folder(root, "validation")))


@pytest.mark.parametrize("validation_name", ["validation", "val"])
def test_split_folders(root, validation_name):
    save(root / "train" / "a" / "1.png", 1)
    save(root / "train" / "b" / "2.png", 2)
    save(root / validation_name / "b" / "3.jpg", 3)
    train, validation = Folder(root, "train"), Folder(root, "validation")
    assert values(train) == [1, 2] and len(validation) == 1
    assert train.class_names == validation.class_names == ("a", "b") and validation[0]["label"] == 1


def test_unreadable_files_are_named_once_counted_and_left_out(root, caplog):
    for i in range(10):
        save(root / f"{i}.png", i)
    (root / "text.png").write_text("no image")
    save(root / "whole.jpg", size=(64, 64))
    cut = (root / "whole.jpg").read_bytes()
    (root / "whole.jpg").unlink()
    (root / "cut.jpg").write_bytes(cut[: len(cut) // 2])
    (root / "notes.txt").write_text("not an image, and not called one")
    with caplog.at_level(logging.WARNING, logger="absl"):
        train, validation = Folder(root, "train"), Folder(root, "validation")
    assert train.num_unreadable == validation.num_unreadable == 2
    assert sorted(values(train) + values(validation)) == list(range(10))
    for name in ("text.png", "cut.jpg"):
        assert caplog.text.count(f"left out: {root / name}") == 1
    assert "2 of 12 images" in caplog.text and "notes.txt" not in caplog.text


def test_a_mended_file_comes_back(root):
    for i in range(5):
        save(root / f"{i}.png", i)
    (root / "5.png").write_text("broken")
    assert Folder(root, "train").num_unreadable == 1
    save(root / "5.png", 5)
    train = Folder(root, "train")
    assert train.num_unreadable == 0
    assert sorted(values(train) + values(Folder(root, "validation"))) == list(range(6))


def test_folders_without_images(root, tmp_path):
    with pytest.raises(ValueError, match=f"folder:{root}' holds no image"):
        Folder(root, "train")
    (root / "broken.png").write_text("broken")
    with pytest.raises(ValueError, match="has 0 readable images"):
        Folder(root, "train")
    (root / "broken.png").unlink()
    save(root / "only.png")
    assert len(Folder(root, "validation")) == 1
    with pytest.raises(ValueError, match="has 1 readable images, none of them for train"):
        Folder(root, "train")
    with pytest.raises(FileNotFoundError, match=f"there is no folder {tmp_path}/nowhere"):
        Folder(tmp_path / "nowhere", "train")


def test_all_kinds_of_images_become_rgb(root):
    save(root / "grey.png", 90, mode="L")
    save(root / "deep.png", 90 * 256 + 7, mode="I;16")
    save(root / "webp.webp", 90, lossless=True)
    Image.new("RGBA", (20, 10), (10, 20, 30, 0)).save(root / "glass.png")
    Image.new("RGBA", (20, 10), (90, 20, 30, 255)).save(root / "solid.png")
    Image.new("P", (20, 10), 0).save(root / "palette.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    save(root / "turned.jpg", 90, exif=exif)
    for name in ("grey", "deep"):
        np.testing.assert_array_equal(load_image(root / f"{name}.png"), np.full((10, 20, 3), 90))
    assert (load_image(root / "webp.webp")[..., 0] == 90).all()
    assert (load_image(root / "glass.png") == 255).all()
    np.testing.assert_array_equal(load_image(root / "solid.png")[0, 0], [90, 20, 30])
    assert load_image(root / "palette.png").shape == (10, 20, 3)
    assert load_image(root / "turned.jpg").shape == (20, 10, 3)
