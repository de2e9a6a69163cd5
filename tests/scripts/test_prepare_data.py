"""`prepare_data.py` and `benchmark_data.py` as a user calls them, on a tiny prepared TFDS set."""

import importlib.util
import re

import numpy as np
import pytest

from tests.data.test_dense_sources import png, write_set
from tests.scripts.processes import run_all


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    import tensorflow_datasets as tfds

    root = tmp_path_factory.mktemp("prepare")
    images = np.random.default_rng(0).integers(0, 256, (40, 12, 18, 3), np.uint8)
    features = {"image": tfds.features.Image(encoding_format="png")}
    write_set(root / "tfds", "my_pictures", "1.0.0", features, [{"image": png(image)} for image in images])
    prepare, benchmark = "scripts/prepare_data.py", "scripts/benchmark_data.py"
    colours = "--config=configs/uvim_colorization.py:stage=1,scale=smoke"
    cases = {
        "ready": [prepare, "--data=my_pictures", f"--data_dir={root / 'tfds'}"],
        "imagenet": [prepare, "--data=tfds:imagenet2012", f"--data_dir={root / 'none'}"],
        "photos": [prepare, "--data=photos", "--manual_dir=tars"],
        "cost": [benchmark, colours, "--config.data.source=my_pictures", "--batches=4", "--images_per_s=1e8"],
        "no rate": [benchmark, colours, "--images_per_s=0"],
        "tokens": [benchmark, "--config=configs/tradeoff_maskgit.py:scale=smoke"],
    }
    return run_all(cases, root), root


def refusal(output):
    code, text = output
    assert code == 2 and "Traceback" not in text
    (line,) = [line for line in text.splitlines() if line.startswith("error: ")]
    return line


def test_a_prepared_set_is_left_alone_and_opened(outputs):
    code, text = outputs[0]["ready"]
    assert code == 0, text
    assert "my_pictures is prepared already" in text and f"TFDS_DATA_DIR={outputs[1] / 'tfds'}" in text
    for split in ("train", "validation"):
        assert f"my_pictures {split}: 40 images, first 12 x 18 pixels, classes: 1" in text


def test_what_to_download_is_said_before_the_refusal(outputs):
    line, text = refusal(outputs[0]["imagenet"]), outputs[0]["imagenet"][1]
    folder = outputs[1] / "none" / "downloads" / "manual"
    for fact in ("ILSVRC2012_img_train.tar (148 GB), ILSVRC2012_img_val.tar (7 GB)", f"into {folder}", "167 GB in "):
        assert fact in text
    if importlib.util.find_spec("tensorflow"):
        assert f"ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar in {folder}" in line
    else:
        assert "needs TensorFlow: run make tfds, or pip install -r requirements-tfds.txt" in line
    assert not (outputs[1] / "none").exists()
    assert "--manual_dir = 'tars' is for TFDS sets only, not for --data=photos" in refusal(outputs[0]["photos"])


def test_cost_of_a_pipeline(outputs):
    code, text = outputs[0]["cost"]
    assert code == 0, text
    rates = {
        name: float(rate.replace(",", ""))
        for name, rate in re.findall(r"^  (\S.*?) {2,}([\d,]+) images/s", text, re.MULTILINE)
    }
    assert rates.keys() == {"read, decode", "augment, batch", "prepare", "all"}
    parts = sum(1 / rate for name, rate in rates.items() if name != "all")
    assert 1 / rates["all"] == pytest.approx(parts, rel=0.01)
    needed = re.search(
        r"100,000,000 images/s need (\d+) workers, one core each; data.num_workers = 0 is too small", text
    )
    assert float(needed[1]) == pytest.approx(1e8 / rates["all"], rel=0.01)
    assert f"give --config.data.num_workers={needed[1]}; this machine has only" in text


def test_costs_that_make_no_sense(outputs):
    assert "--images_per_s = 0.0 must be a positive number" in refusal(outputs[0]["no rate"])
    assert "data.crop = 'none' makes stage II train on tokens" in refusal(outputs[0]["tokens"])
