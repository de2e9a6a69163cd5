import subprocess
import sys

import pytest
from PIL import Image

from tests.conftest import ROOT


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    monkeypatch.setenv("FSQ_REPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    return lambda *flags: subprocess.run(
        [sys.executable, "scripts/prepare_data.py", *flags], cwd=ROOT, capture_output=True, text=True
    )


def test_a_folder_is_checked(prepare, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(20):
        Image.new("RGB", (9, 9), (i, 0, 0)).save(pictures / f"{i}.png")
    (pictures / "broken.png").write_text("no image")
    result = prepare(f"--data=folder:{pictures}")
    assert result.returncode == 0, result.stderr
    assert "broken.png" in result.stderr
    assert "1 unreadable image" in result.stdout and "train: 1" in result.stdout


@pytest.mark.parametrize(
    "name, message",
    [("folder:/no/where", "there is no folder /no/where"), ("nonsense", "must be photos, scenes, folder:PATH")],
)
def test_bad_names_end_in_one_sentence(prepare, name, message):
    result = prepare(f"--data={name}")
    assert result.returncode == 2
    assert message in result.stderr and "Traceback" not in result.stderr
