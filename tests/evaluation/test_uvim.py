"""Evaluation of UViM's runs: what is recorded, and that it is the whole split, whatever the batches."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from fsq_repro.data import dense_labels
from fsq_repro.errors import UserError
from fsq_repro.evaluation import uvim
from fsq_repro.factories import label_autoencoder as label_autoencoder_factory
from fsq_repro.metrics import scoring
from fsq_repro.runtime import run_dir
from tests.evaluation.test_maskgit import ToyScorer
from tests.inference.test_label_predictor import random_depth_runs
from tests.tiny import DenseNoiseSource, tiny_uvim

IMAGES = 30  # no multiple of a batch
USAGE = set(uvim.USAGE)


class NamedNoise(DenseNoiseSource):
    def __getitem__(self, index):
        return super().__getitem__(index) | {"file_name": np.str_(f"p{index}")}


def make_source(task, name, split, resolution, **_):
    return NamedNoise(IMAGES, resolution, split)


@pytest.fixture(autouse=True)
def made_up_data(monkeypatch):
    monkeypatch.setattr(label_autoencoder_factory, "make_dense_source", make_source)
    monkeypatch.setattr(scoring, "Scorer", ToyScorer)


class PerfectCoder:
    """Stands for `LabelCoder`: outputs are the labels, and an image's codes are four pixels of its blue channel."""

    def __init__(self, config, levels=(5, 5, 3), step=8):
        self.task, self.levels, self.step = label_autoencoder_factory.build_task(config.task), levels, step
        self.model = SimpleNamespace(quantizer=SimpleNamespace(codebook_size=75))

    def reconstruct(self, batch):
        return self.task.predict(self.task.inputs(batch)), codes_of(batch["context"])


def codes_of(context):
    return np.rint((context[:, ::8, ::8, 2] + 1) * 127.5).astype(int).reshape(len(context), 4) % 75


@pytest.fixture
def perfect(tmp_path, monkeypatch):
    """Evaluates a made-up stage I whose weights are perfect."""

    def evaluate(task, edit=lambda config: None, **coder):
        config = tiny_uvim(1, task=task)
        edit(config)
        path = tmp_path / "run"
        run_dir.RunDir(path).write_config(config)
        run_dir.RunDir(path).update_record(run="run")
        monkeypatch.setattr(uvim, "load_label_coder", lambda path, step: PerfectCoder(config, **coder))
        record = uvim.evaluate_run(path, networks=["toy"] if task == "colorization" else None)
        assert record == json.loads((path / "record.json").read_text())
        return path, record

    return evaluate


def items():
    source = make_source("", "", "validation", 16)
    return [source[i] for i in range(IMAGES)]


def test_perfect_depth_and_its_protocols(perfect):
    path, record = perfect("depth")
    figures = record["figures"]
    depth = np.stack([item["depth"] for item in items()])
    centres = dense_labels.bins_to_depth(dense_labels.depth_to_bins(depth, 8), 8)
    # The first row has no depth.
    expected = np.sqrt(np.mean((centres - depth)[:, 1:].astype(np.float64) ** 2, axis=(1, 2))).mean()
    assert figures["rmse"]["value"] == pytest.approx(expected, rel=1e-6)
    assert figures["images"]["value"] == IMAGES and figures["rmse@mean_depth"]["value"] > 3 * expected
    shared = {"data": "scenes", "resolution": 16, "split": "validation", "crop": "none", "images": IMAGES}
    shared |= {"weights": "raw", "checkpoint": 8}
    for name, figure in figures.items():
        assert figure["protocol"] == shared | ({"training_images": 16} if "@" in name else {})
    assert (path / "samples" / "evaluation.png").exists()


def test_usage_is_that_of_the_whole_split(perfect):
    _, record = perfect("depth")
    contexts = np.stack([item["image"] for item in items()]).astype(np.float32) / 127.5 - 1
    codes = codes_of(contexts)
    assert record["figures"].keys() >= USAGE
    assert record["figures"]["tokens"]["value"] == 4 * IMAGES
    assert record["figures"]["codes_used"]["value"] == len(np.unique(codes))
    digits = [codes % 5, codes // 5 % 5, codes // 25]  # the first level is the fastest
    expected = [np.bincount(d.ravel(), minlength=n).tolist() for d, n in zip(digits, (5, 5, 3), strict=True)]
    assert record["level_histograms"] == expected and len(record["saturation"]) == 3


def test_perfect_segments_of_a_learned_codebook(perfect):
    _, record = perfect("panoptic", levels=None)
    assert record["figures"]["pq"]["value"] == 1 and record["figures"]["images"]["value"] == IMAGES
    assert record["figures"]["pq@majority_map"]["protocol"]["training_images"] == 16
    assert "crop" not in record["figures"]["pq"]["protocol"] and "level_histograms" not in record


def test_perfect_colours(perfect):
    _, record = perfect("colorization")
    figures = record["figures"]
    assert figures["mse"]["value"] < 1e-12 and abs(figures["cfd_toy_validation"]["value"]) < 1e-6
    assert figures["cfd_toy_train"]["value"] > 1e-6 < figures["cfd_toy_validation@grey"]["value"]
    assert figures["cfd_toy_train"]["protocol"]["reference_count"] == IMAGES
    assert figures["mse"]["protocol"]["images"] == IMAGES and "feature_network" not in figures["mse"]["protocol"]


def test_listed_colours(perfect, tmp_path):
    def name_lists(config):
        for name, numbers in (("eval_names", range(20, 9, -1)), ("reference_names", range(5))):
            (tmp_path / f"{name}.txt").write_text("".join(f"p{i}\n" for i in numbers))
            config.eval[name] = str(tmp_path / f"{name}.txt")

    _, record = perfect("colorization", name_lists)
    figures = record["figures"]
    protocol = figures["cfd_toy_names"]["protocol"]
    assert (protocol["images"], protocol["reference_count"], protocol["list"]) == (11, 5, "eval_names.txt")
    assert figures["tokens"]["value"] == 44
    # 16 px enlarged to 256: the model's resolution loses nothing, its range is ColTran's.
    assert figures["mse"]["value"] < 1e-12 < figures["mse@grey"]["value"]


def test_figures_of_another_checkpoint_stand_beside_those_of_the_last(perfect):
    path, record = perfect("panoptic", step=4)
    assert record["figures"] and all(name.endswith("@raw,4") for name in record["figures"])
    assert record["figures"]["pq@raw,4"]["protocol"]["checkpoint"] == 4
    assert "level_histograms" not in record and (path / "samples" / "evaluation@raw,4.png").exists()
    _, both = perfect("panoptic")
    assert both["figures"]["pq"]["value"] == both["figures"]["pq@raw,4"]["value"] and both["level_histograms"]


def test_a_lost_batch_is_noticed(perfect, monkeypatch):
    whole = label_autoencoder_factory.build_eval_batches
    monkeypatch.setattr(label_autoencoder_factory, "build_eval_batches", lambda *a, **k: list(whole(*a, **k))[:-1])
    with pytest.raises(ValueError, match="saw 24 images, the split has 30"):
        perfect("depth")


def test_more_segments_than_heads_is_one_sentence(perfect):
    def too_few(config):
        config.task.num_instances = 3

    with pytest.raises(UserError, match=r"^num_instances must be at least \d for void and \d segments, got 3\.$"):
        perfect("panoptic", too_few)


def test_no_averaged_weights(perfect):
    path, _ = perfect("depth")
    with pytest.raises(UserError, match="^--weights=ema is not kept by UViM's trainers; --weights=raw is$"):
        uvim.evaluate_run(path, weights="ema")


def values(record, suffix=""):
    names = [name for name in record["figures"] if name.endswith(suffix)]
    return {name.removesuffix(suffix): record["figures"][name]["value"] for name in names}


def test_both_stages_whatever_the_batches(tmp_path, tmp_path_factory):
    """Random weights, codes drawn at temperature 1; then again in other batches, stage I moved to another place."""
    stage1, stage2 = tmp_path / "stage1", tmp_path / "stage2"
    for path, to in zip(random_depth_runs(tmp_path_factory.getbasetemp()), (stage1, stage2), strict=True):
        shutil.copytree(path, to)

    def edit(path, **changes):
        config = run_dir.RunDir(path).config
        config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
        run_dir.RunDir(path).write_config(config)

    edit(stage2, sampler__temperature=1.0, stage1=str(stage1))
    first = uvim.evaluate_run(stage1)
    second = uvim.evaluate_run(stage2)
    assert first["level_histograms"] and values(first)["tokens"] == 4 * IMAGES
    # An oracle that is given the labels, and a predictor that is not, each with weights that mean nothing.
    assert 0.5 < values(first)["rmse"] != values(second)["rmse"] > 0.5
    assert {name: second["figures"][name] for name in USAGE} == {name: first["figures"][name] for name in USAGE}
    sampler = {"sampler": "autoregressive", "temperature": 1.0, "seed": 0}
    assert sampler.items() <= second["figures"]["rmse"]["protocol"].items() and "level_histograms" not in second
    assert "sampler" not in first["figures"]["rmse"]["protocol"]

    # Longer runs, so that the figures get names of their own.
    edit(stage1, eval__batch_size=12, steps=16)
    edit(stage2, eval__batch_size=12, steps=16, stage1="nowhere")
    again = uvim.evaluate_run(stage1)
    assert values(again, "@raw,8") == values(first)
    again = uvim.evaluate_run(stage2, stage1=str(stage1))
    shown = values(again, "@raw,8")
    assert shown == {name: value for name, value in values(second).items() if name in shown} and "rmse" in shown
