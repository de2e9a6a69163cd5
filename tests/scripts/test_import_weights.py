"""The import script as a user calls it: published files to runs that are evaluated and predict, and bad input."""

import json
import pathlib
from types import SimpleNamespace

import jax
import numpy as np

from fsq_repro.conversion.published_weights import import_run, published_tree
from fsq_repro.factories import code_predictor as code_predictor_factory
from fsq_repro.factories import label_autoencoder as label_autoencoder_factory
from fsq_repro.metrics.table import MetricKey
from fsq_repro.runtime.run_dir import RunDir, read_metrics
from tests.conftest import golden_weights
from tests.scripts.processes import run_all
from tests.scripts.test_uvim_scripts import picture
from tests.tiny import tiny_uvim

# As tests.tiny.tiny_uvim, on the command line.
FIELDS = {
    "data.resolution": 16,
    "batch_size": 8,
    "model.patch_size": 4,
    "model.width": 32,
    "model.mlp_width": 32,
    "model.num_heads": 2,
    "quantizer.codebook_size": 64,
    "quantizer.embedding_dim": 8,
    "task.bins": 8,
    "optimizer.warmup_steps": 2,
    "eval.batch_size": 8,
    "data.num_workers": 2,
}


def arguments(stage: int, file: pathlib.Path, workdir: pathlib.Path, **fields) -> list[str]:
    config = f"--config=configs/uvim_depth.py:stage={stage},quantizer=vq,scale=smoke"
    sizes = FIELDS | ({"model.code_grid": 2} if stage == 1 else {"model.num_layers": 1}) | fields
    overrides = [f"--config.{name}={value}" for name, value in sizes.items()]
    return ["scripts/import_weights.py", config, f"--file={file}", f"--workdir={workdir}", *overrides]


def publish(trainer, file: pathlib.Path) -> pathlib.Path:
    """A file of weights for this trainer, as big_vision publishes them."""
    shapes = published_tree(jax.eval_shape(trainer.init_state, jax.random.key(0)))
    weights = golden_weights({name: x.shape for name, x in shapes.items()})
    if "state/counts" in weights:
        weights["state/counts"] = np.ones_like(weights["state/counts"])
    np.savez(file, **weights)
    return file


def test_published_weights_are_evaluated_and_predict_and_bad_input_writes_nothing(tmp_path):
    stage1, stage2, new, out = (tmp_path / name for name in ("stage1", "stage2", "new", "out"))
    config = tiny_uvim(1, "quantizer=vq")
    trainer = label_autoencoder_factory.build_trainer(config)
    first = publish(trainer, tmp_path / "I.npz")
    import_run(config, first, stage1)
    stage2_trainer = code_predictor_factory.build_trainer(
        tiny_uvim(2, "quantizer=vq"), SimpleNamespace(model=trainer.model, task=trainer.task)
    )
    second = publish(stage2_trainer, tmp_path / "II.npz")

    bad = {
        "no flag": (arguments(1, first, new)[:2], "--file"),
        "no file": (arguments(1, tmp_path / "none", new), "there is no weight file"),
        "other weights": (arguments(1, second, new), "does not fit the config: it has none of the model's"),
        "other sizes": (arguments(1, first, new, **{"task.bins": 9}), "does not fit the config: behind the prefix ''"),
        "no stage I": (arguments(2, second, new), "stage1 is empty; give stage I's run directory"),
        "taken": (arguments(1, first, stage1), "exists already; an import needs"),
    }
    before = {p: p.read_bytes() for p in stage1.rglob("*") if p.is_file()}
    good = {"good": arguments(2, second, stage2, stage1=stage1)}
    results = run_all(good | {name: argv for name, (argv, _) in bad.items()}, tmp_path)
    for name, (_, message) in bad.items():
        code, printed = results[name]
        assert code == 2 and "Traceback" not in printed, (name, printed)
        (sentence,) = [line for line in printed.splitlines() if line.startswith("error: ")]
        assert message in sentence, (name, sentence)
    assert not new.exists() and before == {p: p.read_bytes() for p in stage1.rglob("*") if p.is_file()}

    code, printed = results["good"]
    assert code == 0 and "Traceback" not in printed, printed
    record = RunDir(stage2).record
    assert f"SHA-256 {record['imported']['sha256']}" in printed
    assert f"evaluate with: python scripts/evaluate.py --workdir={stage2}" in printed
    assert record["imported"]["file"] == "II.npz" and record["stage1"]["run"] == "stage1"
    origin = json.loads((stage2 / "config.json").read_text())
    assert origin["file"].startswith("configs/uvim_depth.py:stage=2") and f"--file={second}" in origin["command"]

    (tmp_path / "use").mkdir()
    use = {
        "evaluate": ["scripts/evaluate.py", f"--workdir={stage2}"],
        "predict": [
            *("scripts/predict.py", f"--workdir={stage2}", f"--out={out}"),
            picture(tmp_path / "a.png", (9, 8)),
        ],
    }
    results = run_all(use, tmp_path / "use")
    assert all(code == 0 for code, _ in results.values()), results
    assert np.isfinite(read_metrics(RunDir(stage2).record)[MetricKey("rmse")].value)
    assert np.load(out / "a_depth.npy").shape == (8, 9)
