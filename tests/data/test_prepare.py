"""Building TFDS sets: what is said before, every refusal, and a tiny real set in place of the build."""

import dataclasses
import os
import pathlib

import numpy as np
import pytest

from fsq_repro.data import prepare
from fsq_repro.data.sources import SPLITS
from fsq_repro.data.tfds_source import load_builder
from tests.data.test_dense_sources import annotation, png, write_coco, write_set

GB = 10**9


def write_imagenet(root, count=4):
    import tensorflow_datasets as tfds

    rng = np.random.default_rng(0)
    features = {
        "image": tfds.features.Image(encoding_format="png"),
        "label": tfds.features.ClassLabel(names=["n01440764", "n01443537"]),
        "file_name": tfds.features.Text(),
    }
    examples = [
        {"image": png(rng.integers(0, 256, (6, 9, 3), np.uint8)), "label": i % 2, "file_name": f"{i}.JPEG"}
        for i in range(count)
    ]
    write_set(root, "imagenet2012", "5.1.0", features, examples)


class Builder:
    """Stands for TFDS' builder where there is no TensorFlow: its build writes a tiny set."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = "  put it\n  there "

    def __init__(self, root: pathlib.Path, name: str, build):
        self.root = root
        self.data_dir = os.fspath(root / name)
        self.build = build
        self.calls = []

    @property
    def info(self):
        return load_builder(os.path.dirname(os.path.relpath(self.data_dir, self.root))).info

    def is_prepared(self):
        return (pathlib.Path(self.data_dir) / "dataset_info.json").exists()

    def download_and_prepare(self, *, download_config):
        self.calls.append(download_config)
        self.build()


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty data directory, archives of a few bytes, sets of four items, and TensorFlow."""
    root = tmp_path / "tfds"
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(root))
    for name, recipe in prepare.RECIPES.items():
        archives = {archive: 10 + i for i, archive in enumerate(recipe.archives)}
        small = {"archives": archives, "splits": dict.fromkeys(recipe.splits, 4), "prepared": 50, "extracted": 0}
        monkeypatch.setitem(prepare.RECIPES, name, dataclasses.replace(recipe, **small))
    monkeypatch.setattr(prepare, "_has_tensorflow", lambda: True)
    return root


@pytest.fixture
def imagenet(root, monkeypatch):
    builder = Builder(root, "imagenet2012/5.1.0", lambda: write_imagenet(root))
    monkeypatch.setattr(prepare, "load_builder", lambda name: builder)
    return builder


def put_archives(folder, name):
    folder.mkdir(parents=True, exist_ok=True)
    for archive, size in prepare.RECIPES[name].archives.items():
        (folder / archive).write_bytes(bytes(size))


def test_build_of_imagenet(root, imagenet, tmp_path):
    said = []
    put_archives(tmp_path / "tars", "imagenet2012")
    prepare.prepare_set("imagenet2012", manual_dir=tmp_path / "tars", say=said.append)
    (config,) = imagenet.calls
    assert config.manual_dir == tmp_path / "tars"
    (plan,) = said
    for fact in (
        "ILSVRC2012_img_train.tar",
        "image-net.org/download-images",
        f"into {tmp_path / 'tars'}",
        f"in {root}",
    ):
        assert fact in plan
    for split in SPLITS:
        source = prepare.open_set("imagenet2012", split)
        assert len(source) == 4 and source[3]["image"].shape == (6, 9, 3) and source[3]["file_name"] == "3.JPEG"
    # The same command once more leaves the set alone, with or without TensorFlow and archives.
    prepare.prepare_set("imagenet2012", say=said.append)
    assert len(imagenet.calls) == 1 and "prepared already" in said[-1] and len(said) == 2


def test_build_of_coco_is_read_with_its_labels(root, monkeypatch):
    rng = np.random.default_rng(0)
    build = lambda: write_coco(root, [annotation(rng, 3) for _ in range(4)])  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "load_builder", lambda name: Builder(root, "coco/2017_panoptic/1.1.0", build))
        said = []
        prepare.prepare_set("coco/2017_panoptic", say=said.append)
    assert "by hand: nothing" in said[0] and f"in {root / 'downloads' / 'manual'} are taken instead" in said[0]
    prepare.prepare_set("coco/2017_panoptic", say=said.append)  # with the real builder
    assert "prepared already" in said[1]
    source = prepare.open_set("coco/2017_panoptic", "validation")
    assert len(source) == 4 and source[0]["semantics"].shape == source[0]["image"].shape[:2]


def test_cifar10_is_counted_by_its_own_splits(root):
    import tensorflow_datasets as tfds

    features = {
        "id": tfds.features.Text(),
        "image": tfds.features.Image(shape=(32, 32, 3), encoding_format="png"),
        "label": tfds.features.ClassLabel(num_classes=10),
    }
    rng = np.random.default_rng(0)
    examples = {
        split: [
            {"id": f"{split}_{i}", "image": png(rng.integers(0, 256, (32, 32, 3), np.uint8)), "label": i}
            for i in range(4)
        ]
        for split in ("train", "test")
    }
    write_set(root, "cifar10", "3.0.2", features, examples)
    prepare.prepare_set("cifar10", say=lambda line: None)
    assert [len(prepare.open_set("cifar10", split)) for split in SPLITS] == [3, 1, 4]


def refused(message, name="imagenet2012", **arguments):
    with pytest.raises(ValueError, match=message) as error:
        prepare.prepare_set(name, say=lambda line: None, **arguments)
    assert "\n" not in str(error.value)


def test_refused_before_anything_is_written(root, imagenet, tmp_path, monkeypatch):
    manual = tmp_path / "tars"
    refused("needs ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar in .*tars: .* --manual_dir", manual_dir=manual)
    refused(f"in {root / 'downloads' / 'manual'}: download by hand")
    put_archives(manual, "imagenet2012")
    (manual / "ILSVRC2012_img_train.tar").write_bytes(b"short")
    refused("ILSVRC2012_img_train.tar has 5 bytes and not 10: its download is incomplete", manual_dir=manual)
    (manual / "ILSVRC2012_img_train.tar").unlink()
    refused("'imagenet2012' needs ILSVRC2012_img_train.tar in", manual_dir=manual)
    put_archives(manual, "imagenet2012")
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "_has_tensorflow", lambda: False)
        refused("'imagenet2012' needs TensorFlow: run make tfds, or .* requirements-tfds.txt", manual_dir=manual)
    with monkeypatch.context() as patch:
        huge = dataclasses.replace(prepare.RECIPES["imagenet2012"], prepared=10**18)
        patch.setitem(prepare.RECIPES, "imagenet2012", huge)
        refused(r"takes about 1,000,000,000 GB in .*, where only [\d,]+ GB are free", manual_dir=manual)
    assert not imagenet.calls and not root.exists()
    root.write_text("a file in the way")
    refused(f"--data_dir={root} cannot take the TFDS set 'imagenet2012': it must be a folder or a name that is free")
    root.unlink()
    (root / "imagenet2012" / "5.1.0").mkdir(parents=True)
    refused("5.1.0 is no complete TFDS set: delete it", manual_dir=manual)
    assert not imagenet.calls


def test_a_failed_download_is_one_sentence(root, imagenet, tmp_path):
    import tensorflow_datasets as tfds

    put_archives(tmp_path, "imagenet2012")
    for error in (tfds.download.DownloadError("status 404\nfor url"), ConnectionError("no route")):

        def fail(error=error):
            raise error

        imagenet.build = fail
        refused(rf"failed \({' '.join(str(error).split())}\); complete downloads are kept", manual_dir=tmp_path)


def test_sets_of_other_sizes_are_refused(root):
    """As TFDS builds it when only the training images are in place, or half of them."""
    write_imagenet(root, count=3)
    prepare.prepare_set("imagenet2012", say=lambda line: None)
    with pytest.raises(ValueError, match="has 3 train items, not 4: delete .*imagenet2012/5.1.0 and prepare it again"):
        prepare.open_set("imagenet2012", "train")


def test_other_formats_are_refused(root, monkeypatch):
    write_imagenet(root)
    info = root / "imagenet2012" / "5.1.0" / "dataset_info.json"
    text = info.read_text()
    assert '"array_record"' in text
    info.write_text(text.replace('"array_record"', '"tfrecord"'))
    refused("was prepared in another format than array_record: choose another --data_dir, or delete it")


def test_any_other_set(root, monkeypatch, tmp_path):
    """Unknown names are refused; of known ones TFDS' own instructions are said, and the folder must not be empty."""
    refused("'picturs' must be photos, scenes, folder:PATH or a TFDS name", name="picturs")
    builder = Builder(root, "pictures/1.0.0", lambda: None)
    monkeypatch.setattr(prepare, "load_builder", lambda name: builder)
    empty = "tars, where TFDS looks for downloads by hand, is empty or no folder: put it there"
    refused(empty, "pictures", manual_dir=tmp_path / "tars")
    (tmp_path / "tars").mkdir()
    (tmp_path / "tars" / "it").touch()
    said = []
    prepare.prepare_set("pictures", manual_dir=tmp_path / "tars", say=said.append)
    assert len(builder.calls) == 1 and "pictures: put it there" in said[0]


def test_archives_that_are_there_need_no_room(root, tmp_path):
    recipe = dataclasses.replace(
        prepare.RECIPES["nyu_depth_v2"], archives={"a.zip": 5 * GB, "b.zip": 7}, extracted=2 * GB, prepared=GB
    )
    assert prepare._bytes_needed(recipe, root, tmp_path) == 8 * GB + 7
    (root / "downloads").mkdir(parents=True)
    (root / "downloads" / "as_tfds_calls_it.zip").write_bytes(bytes(7))
    assert prepare._bytes_needed(recipe, root, tmp_path) == 8 * GB


def test_recipes_are_those_of_tfds():
    """Archives and sizes as in the checksum files of the installed TFDS; the download as in its catalog."""
    import tensorflow_datasets as tfds

    folder = pathlib.Path(tfds.core.tfds_path())
    files = {
        "imagenet2012": "datasets/imagenet2012/checksums.tsv",
        "nyu_depth_v2": "datasets/nyu_depth_v2/checksums.tsv",
        "coco/2017_panoptic": "url_checksums/coco.txt",
        "cifar10": "url_checksums/cifar10.txt",
    }
    for name, file in files.items():
        lines = (folder / file).read_text().splitlines()
        sizes = {url.split("/")[-1]: int(size) for url, size, *_ in map(str.split, lines)}
        assert prepare.RECIPES[name].archives.items() <= sizes.items()
    assert sum(prepare.RECIPES["nyu_depth_v2"].archives.values()) / 2**30 == pytest.approx(31.92, abs=0.005)
    assert sum(prepare.RECIPES["coco/2017_panoptic"].archives.values()) / 2**30 == pytest.approx(19.57, abs=0.005)
