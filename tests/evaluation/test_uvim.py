"""Evaluation of UViM's runs: what is recorded, and that it is the whole split, whatever the batches."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from fsq_repro.data import dense_labels
from fsq_repro.errors import UserError
from fsq_repro.evaluation import uvim
from fsq_repro.factories import label_autoencoder as label_autoencoder_factory
from fsq_repro.factories import scorers
from fsq_repro.metrics.table import CODEBOOK_USAGE, MetricKey
from fsq_repro.runtime.run_dir import RunDir, read_metrics
from tests.evaluation.test_maskgit import ToyScorer
from tests.inference.test_label_predictor import random_depth_runs
from tests.tiny import DenseNoiseSource, tiny_uvim

IMAGES = 30  # no multiple of a batch
USAGE = {MetricKey(name) for name in CODEBOOK_USAGE}
RMSE, PQ, MSE = map(MetricKey, ("rmse", "pq", "mse"))


class NamedNoise(DenseNoiseSource):
    def __getitem__(self, index):
        return super().__getitem__(index) | {"file_name": np.str_(f"p{index}")}


def make_source(labels, name, split, resolution, **_):
    return NamedNoise(IMAGES, resolution, split)


@pytest.fixture(autouse=True)
def made_up_data(monkeypatch):
    monkeypatch.setattr(label_autoencoder_factory, "make_dense_source", make_source)
    monkeypatch.setattr(scorers, "Scorer", ToyScorer)


class PerfectCoder:
    """Stands for `LabelCoder`: outputs are the labels, and an image's codes are four pixels of its blue channel."""

    def __init__(self, config, levels=(5, 5, 3), step=8):
        self.fingerprint = "of the perfect weights"
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
        run = RunDir(tmp_path / "run")
        run.write_config(config)
        run.update_record(run="run")
        monkeypatch.setattr(uvim, "load_label_coder", lambda run, step: PerfectCoder(config, **coder))
        record = uvim.evaluate_run(run, networks=["toy"] if task == "colorization" else None)
        assert record == run.record == json.loads((run.path / "record.json").read_text())
        return run, record

    return evaluate


def items():
    source = make_source("", "", "test", 16)
    return [source[i] for i in range(IMAGES)]


def test_perfect_depth_and_its_protocols(perfect):
    run, record = perfect("depth")
    measured = read_metrics(record)
    depth = np.stack([item["depth"] for item in items()])
    centres = dense_labels.bins_to_depth(dense_labels.depth_to_bins(depth, 8), 8)
    # The first row has no depth.
    expected = np.sqrt(np.mean((centres - depth)[:, 1:].astype(np.float64) ** 2, axis=(1, 2))).mean()
    assert measured[RMSE].value == pytest.approx(expected, rel=1e-6)
    assert measured[MetricKey("images")].value == IMAGES
    assert measured[MetricKey("rmse", baseline="mean_depth")].value > 3 * expected
    shared = {"data": "scenes", "resolution": 16, "split": "test", "crop": "none", "images": IMAGES}
    shared |= {"weights": "raw", "checkpoint": 8}
    for key, m in measured.items():
        assert m.protocol == shared | ({"training_images": 16} if key.baseline else {})
    assert (run.samples / "evaluation.png").exists()


def test_usage_is_that_of_the_whole_split(perfect):
    _, record = perfect("depth")
    contexts = np.stack([item["image"] for item in items()]).astype(np.float32) / 127.5 - 1
    codes = codes_of(contexts)
    measured = read_metrics(record)
    assert measured.keys() >= USAGE
    assert measured[MetricKey("tokens")].value == 4 * IMAGES
    assert measured[MetricKey("codes_used")].value == len(np.unique(codes))
    digits = [codes % 5, codes // 5 % 5, codes // 25]  # the first level is the fastest
    expected = [np.bincount(d.ravel(), minlength=n).tolist() for d, n in zip(digits, (5, 5, 3), strict=True)]
    assert record["level_histograms"] == expected and len(record["saturation"]) == 3


def test_perfect_segments_of_a_learned_codebook(perfect):
    _, record = perfect("panoptic", levels=None)
    measured = read_metrics(record)
    assert measured[PQ].value == 1 and measured[MetricKey("images")].value == IMAGES
    assert measured[MetricKey("pq", baseline="majority_map")].protocol["training_images"] == 16
    assert "crop" not in measured[PQ].protocol and "level_histograms" not in record


def distance(reference, baseline=""):
    return MetricKey("colorization_fd", "toy", reference, baseline)


def test_perfect_colours(perfect):
    run, record = perfect("colorization")
    measured = read_metrics(record)
    assert measured[MSE].value < 1e-12 and abs(measured[distance("test")].value) < 1e-6
    assert measured[distance("train")].value > 1e-6 < measured[distance("test", "grey")].value
    assert measured[distance("train")].protocol["reference_count"] == IMAGES
    assert measured[MSE].protocol["images"] == IMAGES and "feature_network" not in measured[MSE].protocol
    # What the evaluation was told is not taken for what the run was trained with.
    assert run.config.eval.networks == RunDir(run.path).config.eval.networks == ("alexnet",)


def test_listed_colours(perfect, tmp_path):
    def name_lists(config):
        for name, numbers in (("eval_names", range(20, 9, -1)), ("reference_names", range(5))):
            (tmp_path / f"{name}.txt").write_text("".join(f"p{i}\n" for i in numbers))
            config.eval[name] = str(tmp_path / f"{name}.txt")

    _, record = perfect("colorization", name_lists)
    measured = read_metrics(record)
    protocol = measured[distance("names")].protocol
    assert (protocol["images"], protocol["reference_count"], protocol["list"]) == (11, 5, "eval_names.txt")
    assert measured[MetricKey("tokens")].value == 44
    # 16 px enlarged to 256: the model's resolution loses nothing, its range is ColTran's.
    assert measured[MSE].value < 1e-12 < measured[MetricKey("mse", baseline="grey")].value


def test_metrics_of_another_checkpoint_stand_beside_those_of_the_last(perfect):
    run, record = perfect("panoptic", step=4)
    measured, other = read_metrics(record), MetricKey("pq", weights="raw", step=4)
    assert measured and all((key.weights, key.step) == ("raw", 4) for key in measured)
    assert MetricKey("pq", baseline="majority_map", weights="raw", step=4) in measured
    assert measured[other].protocol["checkpoint"] == 4
    assert "level_histograms" not in record and (run.samples / "evaluation@raw,4.png").exists()
    _, record = perfect("panoptic")
    both = read_metrics(record)
    assert both[PQ].value == both[other].value and record["level_histograms"]


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
    run, _ = perfect("depth")
    with pytest.raises(UserError, match="^--weights=ema is not kept by UViM's trainers; --weights=raw is$"):
        uvim.evaluate_run(run, weights="ema")


def values(record, **at):
    """Of the checkpoint that the fields `at` of the keys tell, under the keys without them."""
    wanted = {"weights": "", "step": None} | at
    return {
        dataclasses.replace(key, weights="", step=None): m.value
        for key, m in read_metrics(record).items()
        if (key.weights, key.step) == (wanted["weights"], wanted["step"])
    }


def test_both_stages_whatever_the_batches(tmp_path, tmp_path_factory):
    """Random weights, codes drawn at temperature 1; then again in other batches, stage I moved to another place."""
    stage1, stage2 = tmp_path / "stage1", tmp_path / "stage2"
    for path, to in zip(random_depth_runs(tmp_path_factory.getbasetemp()), (stage1, stage2), strict=True):
        shutil.copytree(path, to)

    def edit(path, **changes):
        config = RunDir(path).config
        config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
        RunDir(path).write_config(config)

    edit(stage2, sampler__temperature=1.0, stage1=str(stage1))
    first = uvim.evaluate_run(RunDir(stage1))
    second = uvim.evaluate_run(RunDir(stage2))
    assert first["evaluated"]["weights"] == second["stage1"]["fingerprint"] and "weights" not in second["evaluated"]
    assert first["evaluated"]["data_hashes"] == second["evaluated"]["data_hashes"] == {"train": "", "test": ""}
    assert first["level_histograms"] and values(first)[MetricKey("tokens")] == 4 * IMAGES
    # An oracle that is given the labels, and a predictor that is not, each with weights that mean nothing.
    assert 0.5 < values(first)[RMSE] != values(second)[RMSE] > 0.5
    oracle, predicted = read_metrics(first), read_metrics(second)
    assert {key: predicted[key] for key in USAGE} == {key: oracle[key] for key in USAGE}
    sampler = {"sampler": "autoregressive", "temperature": 1.0, "seed": 0}
    assert sampler.items() <= predicted[RMSE].protocol.items() and "level_histograms" not in second
    assert "sampler" not in predicted[MetricKey("rmse", baseline="mean_depth")].protocol
    assert "sampler" not in oracle[RMSE].protocol

    # Longer runs, so that the metrics get keys of their own.
    edit(stage1, eval__batch_size=12, steps=16)
    edit(stage2, eval__batch_size=12, steps=16, stage1="nowhere")
    again = uvim.evaluate_run(RunDir(stage1), weights="raw")
    assert values(again, weights="raw", step=8) == values(first)
    again = uvim.evaluate_run(RunDir(stage2), stage1=str(stage1))
    shown = values(again, weights="raw", step=8)
    assert shown == {key: value for key, value in values(second).items() if key in shown} and RMSE in shown
