"""What a sweep is told of the data of its runs."""

import shutil

import pytest
from PIL import Image

from fsq_repro.experiments.data_hashes import data_hashes
from fsq_repro.runtime.run_dir import changed
from tests.tiny import tiny_config, tiny_uvim


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("FSQ_REPRO_CACHE", str(tmp_path / "cache"))
    for split in ("train", "validation", "test"):
        (tmp_path / "pictures" / split).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "pictures" / split / "0.png")
    return tmp_path / "pictures"


@pytest.mark.parametrize("config", [tiny_config(), tiny_uvim(1, task="colorization")], ids=["images", "uvim"])
def test_every_split_has_a_hash_wherever_the_sweep_was_started(pictures, config, caplog):
    relative, absolute = (changed(config, {"data.source": f"folder:{p}"}) for p in ("pictures", pictures))
    found = data_hashes(absolute, pictures.parent)
    assert found == data_hashes(relative, pictures.parent) and len(set(found.values())) == 3
    assert data_hashes(changed(absolute, {"seed": 7}), pictures.parent) is found  # looked at once
    assert not caplog.text
    assert data_hashes(relative, pictures) == {} and "is not known here: data.source" in caplog.text


def test_a_renamed_picture_is_seen_in_its_split(pictures):
    config = changed(tiny_config(), {"data.source": "folder:pictures"})
    elsewhere = pictures.parent / "elsewhere"
    shutil.copytree(pictures, elsewhere / "pictures")
    (elsewhere / "pictures" / "test" / "0.png").rename(elsewhere / "pictures" / "test" / "1.png")
    before, after = (data_hashes(config, root) for root in (pictures.parent, elsewhere))
    assert {split for split in before if before[split] != after[split]} == {"test"}
