import subprocess
import sys

import numpy as np
import pytest

from fsq_repro.data.image_reader import read_image
from fsq_repro.data.pipeline import eval_batches
from fsq_repro.data.sources import make_source
from fsq_repro.data.tfds_source import rgb
from tests.data.image_files import drawn, save


@pytest.fixture
def mocked_tfds():
    import tensorflow_datasets as tfds

    with tfds.testing.mock_data(num_examples=5):
        yield


@pytest.mark.parametrize("name", ["imagenet2012", "tfds:imagenet2012"])
def test_tfds_without_tensorflow(mocked_tfds, name):
    source = make_source(name, "validation", 32)
    assert source.num_classes == 1000 and source.class_names[0] == "n01440764" and source.split == "validation"
    (batch,) = eval_batches(source, batch_size=8, resolution=32)
    assert batch["image"].shape == (8, 32, 32, 3) and batch["mask"].sum() == len(source) == 5
    assert batch["label"].dtype == np.int32 and batch["label"].max() < 1000


def test_grey_tfds_images_become_rgb(mocked_tfds):
    image = make_source("mnist", "train", 32)[0]["image"]
    assert image.shape == (28, 28, 3) and image.dtype == np.uint8
    np.testing.assert_array_equal(image[..., 0], image[..., 2])


def test_transparency_of_tfds_images_is_laid_on_white_as_in_folders(tmp_path):
    pixels = drawn(0, channels=4)
    save(tmp_path / "x.png", pixels)
    np.testing.assert_array_equal(rgb(pixels), read_image(tmp_path / "x.png"))


@pytest.mark.parametrize(
    "name, message",
    [
        ("picturs", "'picturs' must be photos, scenes, folder:PATH or a TFDS name"),
        ("cifar10", "not prepared .* prepare it with: python scripts/prepare_data.py --data=cifar10"),
        ("mnist:9.9.9", "9.9.9"),
    ],
)
def test_unusable_names(name, message, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(ValueError, match=message) as error:
        make_source(name, "train", 32)
    assert "\n" not in str(error.value)


def test_unusable_arguments():
    with pytest.raises(ValueError, match="train, validation, test, not 'val'"):
        make_source("photos", "val", 32)
    with pytest.raises(ValueError, match="at least 8 pixels, not 4"):
        make_source("photos", "train", 4)
    with pytest.raises(FileNotFoundError, match="there is no folder /no/where"):
        make_source("folder:/no/where", "train", 32)


def test_embedded_data_never_asks_for_tensorflow(tmp_path, monkeypatch):
    """In a process of its own, where even an attempt to import TensorFlow or TFDS is noted."""
    monkeypatch.setenv("FSQ_REPRO_CACHE", str(tmp_path))
    program = """
import importlib.abc, sys
asked = []
class Note(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "tensorflow_datasets"):
            asked.append(name)
sys.meta_path.insert(0, Note())
from fsq_repro.data import photos, scenes, sources
from fsq_repro.data.pipeline import Augmentation, eval_batches, train_iterator
photos.TRAIN_CROPS = 24
scenes.NUM_SCENES = {"train": 24}
for name in ("photos", "scenes"):
    source = sources.make_source(name, "train", 16)
    next(train_iterator(source, batch_size=4, resolution=16, seed=0, augmentation=Augmentation()))
    list(eval_batches(source, batch_size=4, resolution=16))
assert not asked, asked
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
