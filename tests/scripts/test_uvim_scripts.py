"""UViM's scripts as a user calls them: predictions of own pictures, comparisons, and bad input."""

import json
import pathlib

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from PIL import Image

from fsq_repro.errors import UserError
from fsq_repro.runtime.checkpoints import Checkpoints
from fsq_repro.trainers import loop
from tests.inference.test_label_predictor import random_depth_runs
from tests.scripts.processes import run_all


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return random_depth_runs(tmp_path_factory.getbasetemp())


def picture(path: pathlib.Path, size: tuple[int, int]) -> str:
    pixels = np.random.default_rng(size).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(path)
    return str(path)


def test_predictions_and_comparisons_are_written(tmp_path, runs):
    out, edges = tmp_path / "out", tmp_path / "edges.png"
    files = [picture(tmp_path / "in" / "wide.png", (31, 12)), picture(tmp_path / "in" / "high.jpg", (9, 20))]
    results = run_all(
        {
            # Flags may stand behind the pictures.
            "predict": ["scripts/predict.py", f"--workdir={runs[1]}", *files, f"--out={out}"],
            "compare": ["scripts/compare.py", f"--runs={runs[1]}", f"--out={edges}", "--images=3"],
        },
        tmp_path,
    )
    assert all(code == 0 for code, _ in results.values()), results
    assert Image.open(edges).size[1] > 3 * 96
    printed = results["predict"][1]
    for name, (height, width) in (("wide", (12, 31)), ("high", (20, 9))):
        depth = np.load(out / f"{name}_depth.npy")
        assert depth.shape == (height, width) and depth.dtype == np.float32 and (depth > 0).all()
        assert Image.open(out / f"{name}_depth.png").size == (width, height)
        assert f"{name}_depth.npy" in printed
    assert len(list(out.iterdir())) == 4


TINY = {"data.resolution": 16, "model.patch_size": 4, "model.width": 32, "model.mlp_width": 32, "model.num_heads": 2}
STAGE1 = TINY | {"model.code_grid": 2, "quantizer.levels": "(5,5,3)"}
STAGE2 = TINY | {"model.num_layers": 1, "quantizer.levels": "(5,5,3)", "task.bins": 8}


def train(task: str, stage: int, workdir: pathlib.Path, fields: dict) -> list[str]:
    config = f"--config=configs/uvim_{task}.py:stage={stage},quantizer=fsq,scale=smoke"
    return ["scripts/train.py", config, f"--workdir={workdir}", *(f"--config.{k}={v}" for k, v in fields.items())]


def test_bad_input_ends_with_one_sentence_and_changes_nothing(tmp_path, runs):
    stage1, stage2 = runs
    out, fresh, full = tmp_path / "out", tmp_path / "fresh", tmp_path / "full"
    good, small = picture(tmp_path / "a" / "x.png", (9, 8)), picture(tmp_path / "b" / "x.png", (9, 3))
    text = tmp_path / "text.png"
    text.write_text("no picture")
    predict = ["scripts/predict.py", f"--workdir={stage2}", f"--out={out}"]
    compare = ["scripts/compare.py", f"--out={out}"]
    missing = {"stage1": stage1, "model.encoder_init": tmp_path / "L_16.npz"}
    nyu = {"data.source": "nyu_depth_v2", "data.crop": "eigen"}
    few = {"task.num_classes": 4, "task.num_instances": 2}
    cases = {
        "no picture": (predict, "no picture is given; name one or more"),
        "unreadable": ([*predict, good, str(text)], f"{text} cannot be read as an image"),
        "no such file": ([*predict, str(tmp_path / "z.png")], "z.png cannot be read as an image"),
        "smaller than a patch": ([*predict, small], "has 3 x 9 pixels, but must have at least 4 x 4"),
        "one name": ([*predict, good, small], "two pictures have the name x"),
        "stage 1": ([*predict, f"--workdir={stage1}", good], "predictions need one of 'uvim_stage2'"),
        "no run": ([*predict, f"--workdir={fresh}", good], "is not a run directory"),
        "averaged weights": (["scripts/evaluate.py", f"--workdir={stage2}", "--weights=ema"], "--weights=raw is"),
        "compared twice": ([*compare, f"--runs={stage2},{stage2}"], "two runs of one quantizer and context"),
        "no labels": (train("depth", 1, fresh, {"data.source": "photos"}), "needs scenes or nyu_depth_v2"),
        "not prepared": (train("depth", 1, fresh, nyu), "prepare it with: python scripts"),
        "no encoder": (train("depth", 2, fresh, STAGE2 | missing), "There is no AugReg file"),
        "more segments": (train("panoptic", 1, full, STAGE1 | few), "num_instances must be at least"),
    }
    before = {p: p.read_bytes() for run in runs for p in run.rglob("*") if p.is_file()}
    results = run_all({name: argv for name, (argv, _) in cases.items()}, tmp_path)
    for name, (_, message) in cases.items():
        code, printed = results[name]
        assert code == 2 and "Traceback" not in printed, (name, printed)
        (sentence,) = [line for line in printed.splitlines() if line.startswith("error: ")]
        assert message in sentence, (name, sentence)
    assert not fresh.exists() and not out.exists()
    assert before == {p: p.read_bytes() for run in runs for p in run.rglob("*") if p.is_file()}
    # Only with the first batch can the number of segments be known: the run has begun, and says that it failed.
    assert json.loads((full / "record.json").read_text())["status"] == "failed"
    assert Checkpoints(full / "checkpoints", create=False).latest_step() is None


@struct.dataclass
class Counted:
    step: jax.Array
    params: dict


class CountingTrainer:
    """Learns nothing."""

    def init_state(self, rng):
        return Counted(step=jnp.zeros((), jnp.int32), params={"w": jnp.zeros(2)})

    def load_frozen(self):
        return {}

    def train_step(self, state, frozen, batch):
        return state.replace(step=state.step + 1), {"loss": jnp.mean(batch["x"])}

    def make_evaluator(self, mesh):
        return lambda state, batches: ({"seen": len(list(batches))}, {})


@pytest.mark.parametrize("where", ["training", "validation"])
def test_a_batch_that_cannot_be_made_loses_nothing(tmp_path, where):
    """The sixth batch is bad, or the validation after step 6: one sentence, and the checkpoint and metrics stay."""

    def refuse(batch):
        if batch["x"][0] == 5:
            raise ValueError("num_instances must be at least 7.")
        return batch

    items = grain.MapDataset.source([{"x": np.full(4, i, np.float32)} for i in range(8)])
    training, validation = (items.map(refuse), items) if where == "training" else (items, items.map(refuse))
    config = loop.LoopConfig(seed=0, steps=8, batch_size=4, log_every=1, eval_every=6, checkpoint_every=2)
    with pytest.raises(UserError, match=r"^num_instances must be at least 7\.$"):
        loop.train(
            CountingTrainer(),
            iter(training.to_iter_dataset()),
            lambda: iter(validation.to_iter_dataset()),
            tmp_path,
            config,
        )
    last = 4 if where == "training" else 6
    assert Checkpoints(tmp_path / "checkpoints", create=False).latest_step() == last
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, last + 1))
