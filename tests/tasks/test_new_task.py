"""A new task is one class and one line in the registry: surface normals, whose x changes its sign in a mirror."""

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from fsq_repro.data import scenes
from fsq_repro.data.images import to_uint8
from fsq_repro.evaluation import uvim
from fsq_repro.factories import label_autoencoder as label_autoencoder_factory
from fsq_repro.files import atomic_path
from fsq_repro.inference.label_coder import load_label_coder
from fsq_repro.metrics.table import MetricKey
from fsq_repro.runtime.run_dir import RunDir, read_metrics
from fsq_repro.tasks.base import Evaluation, Shown, Task, mean_by_image, stacked
from fsq_repro.tasks.registry import TASKS
from fsq_repro.trainers import loop
from fsq_repro.visualization.dense_pictures import titled_rows
from fsq_repro.visualization.grids import save_png
from tests.tiny import tiny_uvim

TRAIN, TEST = 16, 12


def normals_of(depth_HxW):
    """Normals of the surface that a depth map shows, x right, y down, z into the scene; float32 (H, W, 3)."""
    down, right = np.gradient(depth_HxW)
    normals_HxWx3 = np.stack([right, down, -np.ones_like(right)], -1)
    return normals_HxWx3 / np.linalg.norm(normals_HxWx3, axis=-1, keepdims=True)


class NormalsSource:
    """A source with depth, and `normals` besides."""

    def __init__(self, source):
        self._source, self.name = source, source.name
        self.split, self.fingerprint = source.split, f"normals of {source.fingerprint}"

    def __len__(self):
        return len(self._source)

    def __getitem__(self, index):
        item = self._source[index]
        return item | {"normals": normals_of(item["depth"])}


@dataclasses.dataclass(frozen=True)
class NormalsTask(Task):
    name = "normals"
    needs = ("depth",)
    has_classes = False
    labels = (("normals", 3),)

    def labelled(self, source):
        return NormalsSource(source)

    def flip(self, item):
        item = super().flip(item)
        return item | {"normals": item["normals"] * np.float32([-1, 1, 1])}

    def prepare(self, batch):
        return {"context": self.context(batch["image"]), "normals": batch["normals"]}

    def loss(self, outputs, batch):
        loss_B = mean_by_image(jnp.square(outputs["normals"] - batch["normals"]))
        return loss_B, {"normals": loss_B}

    def predict(self, outputs):
        return {"normals": outputs["normals"]}

    def rows(self, items, columns):
        pictures = {title: to_uint8(stacked(maps, "normals") / 2 + 0.5) for title, maps in columns.items()}
        return titled_rows({"input": stacked(items, "image")} | pictures)

    def write(self, stem, maps):
        files = [f"{stem}_normals.png", f"{stem}_normals.npy"]
        save_png(files[0], to_uint8(maps["normals"] / 2 + 0.5))
        with atomic_path(files[1]) as temporary, open(temporary, "wb") as f:
            np.save(f, maps["normals"])
        return files

    def evaluation(self, data):
        return Evaluation(NormalsScorer(), data.test, self, {"unit": "unit vectors"})


class NormalsScorer:
    def __init__(self):
        self.shown, self._errors, self._flat = Shown(), [], []

    def update(self, maps, truths):
        self.shown.add(truths, maps)
        true = stacked(truths, "normals")
        self._errors += [np.mean((maps["normals"] - true) ** 2, axis=(1, 2, 3))]
        self._flat += [np.mean((true - [0, 0, -1]) ** 2, axis=(1, 2, 3))]

    def compute(self):
        return {
            MetricKey("mse"): float(np.concatenate(self._errors).mean()),
            MetricKey("mse", baseline="mean_map"): float(np.concatenate(self._flat).mean()),
        }

    def protocols(self):
        return {MetricKey("mse", baseline="mean_map"): {"map": "a wall in front"}}


@pytest.fixture
def config(monkeypatch, tmp_path):
    monkeypatch.setenv("FSQ_REPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(scenes, "NUM_SCENES", {"train": TRAIN, "validation": 4, "test": TEST})
    monkeypatch.setitem(TASKS, "normals", NormalsTask)  # the one line
    config = tiny_uvim(1)
    config.task = ConfigDict({"name": "normals"})
    config.steps, config.optimizer.warmup_steps = 2, 1
    return config


def test_training_mirrors_the_map_and_negates_x(config):
    """Each item of two epochs is one of the source's, as it is or mirrored; then its normals are the mirror's own."""
    task, source = (
        label_autoencoder_factory.build_task(config.task),
        label_autoencoder_factory.build_source(config, "train"),
    )
    expected = {}
    for item in (source[i] for i in range(TRAIN)):
        for image, depth in ((item["image"], item["depth"]), (item["image"][:, ::-1], item["depth"][:, ::-1])):
            context = image.astype(np.float32) / 255 * 2 - 1
            expected[context.tobytes()] = (normals_of(depth), image is item["image"])
    iterator = label_autoencoder_factory.build_train_iterator(config, task, source)
    seen = []
    for batch in itertools.islice(iterator, 2 * TRAIN // config.batch_size):
        shapes = task.prepared_shapes(config.batch_size, config.data.resolution)
        assert {k: (x.shape, x.dtype) for k, x in batch.items()} == {k: (x.shape, x.dtype) for k, x in shapes.items()}
        for context, normals in zip(batch["context"], batch["normals"], strict=True):
            true, as_it_is = expected[context.tobytes()]
            assert np.abs(true[..., 0]).max() > 0.05
            np.testing.assert_array_equal(normals, true)
            seen.append(as_it_is)
    assert len(seen) == 2 * TRAIN and 0 < sum(seen) < len(seen)


def test_stage1_is_trained_evaluated_and_its_prediction_written(config, tmp_path):
    run = RunDir(tmp_path / "run")
    run.write_config(config)
    run.update_record(run="run")
    trainer = label_autoencoder_factory.build_trainer(config)
    sources = {split: label_autoencoder_factory.build_source(config, split) for split in ("train", "test")}
    iterator = label_autoencoder_factory.build_train_iterator(config, trainer.task, sources["train"])
    batches = label_autoencoder_factory.build_eval_batches(config, trainer.task, sources["test"])
    steps = loop.LoopConfig(seed=0, steps=2, batch_size=8, log_every=1, eval_every=2, checkpoint_every=2)
    state = loop.train(trainer, iterator, lambda: batches, run.path, steps)
    assert int(state.step) == 2 and "validation/normals" in (run.path / "metrics.jsonl").read_text()

    record = uvim.evaluate_run(run)
    measured = read_metrics(record)
    coder = load_label_coder(run)
    true = stacked([sources["test"][i] for i in range(TEST)], "normals")
    predicted = np.concatenate(
        [coder.reconstruct({k: b[k] for k in ("context", "normals")})[0]["normals"] for b in batches]
    )
    ours, flat = MetricKey("mse"), MetricKey("mse", baseline="mean_map")
    assert measured[ours].value == pytest.approx(np.mean((predicted[:TEST] - true) ** 2), rel=1e-5)
    assert measured[ours].protocol["unit"] == "unit vectors" and measured[ours].protocol["images"] == TEST
    assert measured[flat].protocol == measured[ours].protocol | {"map": "a wall in front"}
    assert measured[MetricKey("tokens")].value == 4 * TEST and record["level_histograms"]
    assert (run.samples / "evaluation.png").exists()

    maps = coder.task.resized({"normals": predicted[0]}, (32, 48))
    np.testing.assert_array_equal(maps["normals"], predicted[0].repeat(2, axis=0).repeat(3, axis=1))
    picture, data = coder.task.write(tmp_path / "a", maps)
    np.testing.assert_array_equal(np.load(data), maps["normals"])
    assert (tmp_path / "a_normals.png").exists() and picture.endswith("a_normals.png")
