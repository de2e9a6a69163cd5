"""The scripts as a user calls them: SIGKILL and resume, bad input, two processes."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import time

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from fsq_repro.data.pipeline import Augmentation, train_iterator
from fsq_repro.data.sources import make_source
from fsq_repro.factories import autoencoder as autoencoder_factory
from fsq_repro.inference.tokenizer import load_tokenizer
from fsq_repro.metrics.table import MetricKey
from fsq_repro.runtime.checkpoints import Checkpoints
from fsq_repro.runtime.run_dir import RunDir, read_metrics
from tests.scripts.processes import Fork, command, environment, finish, run_all, run_script, start
from tests.tiny import save_untrained, tiny_config
from tests.trainers.test_loop import assert_same

CONFIG = "configs/tradeoff_autoencoder.py"
# As tests.tiny, on the command line.
TINY = {
    "model.channel_multipliers": "(1,)",
    "data.resolution": "16",
    "batch_size": "8",
    "loss.perceptual": "0.0",
    "optimizer.warmup_steps": "0",
    "eval.batch_size": "8",
    "eval_every": "1000",
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(40):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        coarse.resize((24, 20), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    (folder / "broken.png").write_text("no image")
    return folder


def train_command(
    workdir: pathlib.Path, data: pathlib.Path, arg: str = "quantizer=fsq,bits=6", **overrides: str
) -> list[str]:
    fields = TINY | {"data.source": f"folder:{data}"} | {k.replace("__", "."): v for k, v in overrides.items()}
    return command(
        "train",
        f"--config={CONFIG}:{arg},scale=smoke",
        f"--workdir={workdir}",
        *(f"--config.{k}={v}" for k, v in fields.items()),
    )


def final_state(path: pathlib.Path, config: ConfigDict):
    trainer = autoencoder_factory.build_trainer(config)
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        jax.eval_shape(trainer.init_state, jax.random.key(0)),
    )
    return Checkpoints(path / "checkpoints", create=False).restore(abstract)


def test_sigkill_and_resume_equals_an_unbroken_run_bitwise(tmp_path, pictures):
    """Params, discriminator, EMA, both optimisers and the order of the data."""
    schedule = {"steps": "40", "checkpoint_every": "10"}
    whole = train_command(tmp_path / "whole", pictures, **schedule)
    finish(start(whole, environment(tmp_path)))  # in a process of its own, as a user would

    resumed = train_command(tmp_path / "killed", pictures, **schedule)
    killed = Fork(resumed[1:], tmp_path)
    run = RunDir(tmp_path / "killed")
    recorded = lambda: json.loads((run.path / "record.json").read_text()).get("wall_time_s", 0)  # noqa: E731
    while not ((run.checkpoints / "10").exists() and recorded()):
        assert killed.poll() is None, killed.output()
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    until_killed = recorded()
    assert Checkpoints(tmp_path / "killed" / "checkpoints", create=False).latest_step() < 40
    output = run_script(resumed, tmp_path)
    assert "resumed from step" in output and output.count(f"left out: {pictures}/broken.png (its format is") == 1
    assert recorded() > until_killed > 0  # the time of both parts
    record = (run.path / "record.json").read_bytes()
    run_script(resumed, tmp_path)  # finds it finished
    assert (run.path / "record.json").read_bytes() == record

    config = tiny_config("quantizer=fsq,bits=6", gan=True)
    config.optimizer.warmup_steps, config.steps = 0, 40
    assert_same(final_state(tmp_path / "whole", config), final_state(tmp_path / "killed", config))
    positions = [
        [p.read_text() for p in sorted((tmp_path / run / "checkpoints" / "40" / "data").rglob("*.json"))]
        for run in ("whole", "killed")
    ]
    assert positions[0] == positions[1] and positions[0]

    # The same run through the other doors.
    tokenizer = load_tokenizer(tmp_path / "whole")
    images = np.random.default_rng(0).random((4, 16, 16, 3), np.float32)
    indices = tokenizer.encode(images)
    assert indices.shape == (4, 4, 4) and indices.dtype == np.int32 and tokenizer.codebook_size == 64
    reconstruction, again = tokenizer.reconstruct(images)
    np.testing.assert_array_equal(indices, again)
    np.testing.assert_allclose(tokenizer.decode(indices), reconstruction, atol=1e-6)
    raw = load_tokenizer(tmp_path / "whole", weights="raw", step=30)
    assert raw.step == 30

    output = run_script(command("evaluate", f"--workdir={tmp_path / 'whole'}"), tmp_path)
    assert output.count(f"left out: {pictures}/broken.png (") == output.count("1 of 41 images below") == 1
    record = json.loads((tmp_path / "whole" / "record.json").read_text())
    measured = read_metrics(record)
    distances = {MetricKey("reconstruction_fd", "alexnet", name) for name in ("train", "test")}
    assert distances | {MetricKey(name) for name in ("psnr", "ssim", "usage", "entropy_bits")} <= measured.keys()
    assert all(m.protocol["samples"] and m.protocol["weights"] == "ema" for m in measured.values())
    tokens = measured[MetricKey("tokens")]
    assert tokens.value == 16 * tokens.protocol["samples"]
    assert [len(h) for h in record["level_histograms"]] == [8, 8] and record["status"] == "finished"
    assert (tmp_path / "whole" / "samples" / "evaluation.png").exists()


def check_refusals(cases: dict[str, tuple[list[str], str]], tmp_path: pathlib.Path):
    """Each command, on two devices, ends with code 2 and one sentence that holds the words."""
    results = run_all({name: argv[1:] for name, (argv, _) in cases.items()}, tmp_path, devices=2)
    for name, (code, output) in results.items():
        assert code == 2, (name, output)
        assert "Traceback" not in output and cases[name][1] in output, (name, output)
        assert sum(line.startswith("error: ") for line in output.splitlines()) == 1, (name, output)


def test_bad_input_ends_with_one_sentence_and_changes_nothing(tmp_path, pictures):
    done, tampered = tmp_path / "done", tmp_path / "tampered"
    run_script(train_command(done, pictures, steps="1", loss__gan="0.0"), tmp_path)
    shutil.copytree(done, tampered)
    config = json.loads((tampered / "config.json").read_text())
    config["config"]["quantizer"]["levels"] = [5, 5, 5]
    (tampered / "config.json").write_text(json.dumps(config))
    empty = tmp_path / "empty"
    empty.mkdir()

    fresh = tmp_path / "fresh"
    cases = {
        "unknown config key": (train_command(fresh, pictures, optimizer__learningrate="1"), "learningrate"),
        "unknown argument": (train_command(fresh, pictures, arg="quantiser=fsq"), "quantizer, bits, scale"),
        "value not allowed": (train_command(fresh, pictures, arg="bits=7"), "bits='7'"),
        "level of 1": (train_command(fresh, pictures, quantizer__levels="(8,1)"), "(8, 1)"),
        "level not an integer": (train_command(fresh, pictures, quantizer__levels="(8,2.5)"), "2.5"),
        "missing folder": (train_command(fresh, tmp_path / "nowhere"), "nowhere"),
        "resolution": (train_command(fresh, pictures, data__resolution="18"), "data.resolution = 18"),
        "batch over devices": (
            train_command(fresh, pictures, batch_size="7"),
            "batch_size = 7 must be a multiple of the 2",
        ),
        "microbatches": (train_command(fresh, pictures, accumulate_steps="3"), "accumulate_steps = 3 must divide"),
        "changed architecture": (
            train_command(done, pictures, steps="2", loss__gan="0.0", quantizer__levels="(5,5,5)"),
            "quantizer.levels",
        ),
        "codebook mismatch": (command("evaluate", f"--workdir={tampered}"), "does not fit the config"),
        "no run": (command("evaluate", f"--workdir={empty}"), "not a run directory"),
        "no checkpoint of that step": (command("evaluate", f"--workdir={done}", "--checkpoint=7"), "step 7"),
        "no sweep": (command("sweep", "--sweep=configs/sweeps/x.py", f"--workdir={fresh}"), "does not exist"),
    }
    before = {p: p.read_bytes() for d in (done, tampered) for p in d.rglob("*") if p.is_file()}
    check_refusals(cases, tmp_path)
    assert not fresh.exists()
    assert before == {p: p.read_bytes() for d in (done, tampered) for p in d.rglob("*") if p.is_file()}


STAGE2 = {
    "data.resolution": "16",
    "data.num_classes": "1",  # a folder without sub-folders
    "steps": "2",
    "batch_size": "8",
    "model.num_layers": "1",
    "optimizer.warmup_steps": "0",
    "eval.batch_size": "8",
    "eval.samples": "16",
    "eval.reference_images": "16",
    "eval.coder_images": "4",
    "eval.picture_labels": "(0,)",
    "eval_every": "1000",
}


def stage2_command(workdir: pathlib.Path, stage1: pathlib.Path, data: pathlib.Path, **overrides: str) -> list[str]:
    fields = STAGE2 | {"stage1": str(stage1), "data.source": f"folder:{data}"}
    fields |= {k.replace("__", "."): v for k, v in overrides.items()}
    return command(
        "train",
        "--config=configs/tradeoff_maskgit.py:quantizer=fsq,bits=6,scale=smoke",
        f"--workdir={workdir}",
        *(f"--config.{k}={v}" for k, v in fields.items()),
    )


def test_stage2_trains_evaluates_and_samples_and_bad_input_changes_nothing(tmp_path, pictures):
    stage1 = save_untrained(tmp_path / "stage1", tiny_config("quantizer=fsq,bits=6"))
    run, grid, samples = tmp_path / "run", tmp_path / "grid.png", tmp_path / "samples.npz"
    run_script(stage2_command(run, stage1, pictures), tmp_path)
    run_script(command("evaluate", f"--workdir={run}"), tmp_path)
    record = json.loads((run / "record.json").read_text())
    keys = {MetricKey(name) for name in ("compression_bits", "coder_bits", "usage")}
    keys |= {
        MetricKey("sampling_fd", "alexnet", "train"),
        MetricKey("precision", "alexnet"),
        MetricKey("recall", "alexnet"),
    }
    measured = read_metrics(record)
    assert keys <= measured.keys() and record["stage1"]["run"] == "stage1" and record["stage"] == 2
    assert all(m.protocol["checkpoint"] == 2 for m in measured.values())
    assert (run / "samples" / "classes.png").exists()
    sample = ("sample", f"--workdir={run}", "--per_label=3")
    run_script(command(*sample, "--labels=0", f"--out={grid}", f"--npz={samples}"), tmp_path)
    with np.load(samples) as f:  # what the ADM suite reads
        assert f["arr_0"].shape == (3, 16, 16, 3) and f["arr_0"].dtype == np.uint8
        assert f["arr_1"].tolist() == [0, 0, 0] and f["arr_1"].dtype == np.int64
    assert Image.open(grid).size[0] > 3 * 96

    empty = tmp_path / "empty"
    shutil.copytree(stage1, empty)
    shutil.rmtree(empty / "checkpoints")
    reseeded = tiny_config("quantizer=fsq,bits=6")
    reseeded.seed = 1
    other = save_untrained(tmp_path / "other", reseeded)
    fresh, nothing = tmp_path / "fresh", tmp_path / "nothing.png"
    cases = {
        "stage 1 without checkpoint": (stage2_command(fresh, empty, pictures), "there is no checkpoint in"),
        "other codebook": (stage2_command(fresh, stage1, pictures, quantizer__levels="(8,6,5)"), "codebook size 64"),
        "other resolution": (stage2_command(fresh, stage1, pictures, data__resolution="32"), "data.resolution 16"),
        "other autoencoder": (stage2_command(run, other, pictures), "holds other weights"),
        "no label": (command(*sample, "--labels=", f"--out={nothing}"), "--labels= must be whole numbers"),
        "label out of range": (command(*sample, "--labels=0,1", f"--out={nothing}"), "label 1 is out of range"),
    }
    before = {p: p.read_bytes() for d in (run, stage1, empty) for p in d.rglob("*") if p.is_file()}
    check_refusals(cases, tmp_path)
    assert not fresh.exists() and not nothing.exists()
    assert before == {p: p.read_bytes() for d in (run, stage1, empty) for p in d.rglob("*") if p.is_file()}


HOSTS = {
    "steps": "20",
    "checkpoint_every": "5",
    "log_every": "1",
    "accumulate_steps": "2",
    "mesh.fsdp": "2",
    "model.filters": "64",  # arrays that FSDP splits
    "model.num_res_blocks": "0",  # but two of them: each gather is a round trip
    "loss.gan": "0.0",
}


def start_two(workdir: pathlib.Path, data: pathlib.Path) -> tuple[Fork, Fork]:
    """Two processes of two devices each on localhost that train one run."""
    with socket.socket() as s:
        s.bind(("localhost", 0))
        told = {"JAX_COORDINATOR_ADDRESS": f"localhost:{s.getsockname()[1]}", "JAX_NUM_PROCESSES": "2"}
    argv = train_command(workdir, data, **HOSTS)[1:]
    first, second = (Fork(argv, workdir.parent, devices=2, **told, JAX_PROCESS_ID=str(i)) for i in range(2))
    return first, second


def assert_all_end(forks: tuple[Fork, Fork], code: int = 0) -> None:
    for fork in forks:
        assert fork.wait() == code, fork.output()


def steps_saved(workdir: pathlib.Path) -> list[int]:
    return sorted(int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdecimal())


def test_two_processes_train_as_one_and_survive_kill_and_preemption(tmp_path, pictures, monkeypatch):
    """Two processes of two devices each, with FSDP and accumulation: SIGKILL of one, SIGTERM to one, one device."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert_all_end(start_two(whole, pictures))

    first, second = start_two(parts, pictures)
    while not steps_saved(parts):
        assert first.poll() is None and second.poll() is None, first.output() + second.output()
        time.sleep(0.01)
    os.kill(second.pid, signal.SIGKILL)
    died = time.monotonic()
    assert second.wait() == -signal.SIGKILL
    assert first.wait() == 1 and time.monotonic() - died < 30, first.output()
    lines = first.output().splitlines()
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    assert "another process died; the same command" in lines[-1]

    forks = start_two(parts, pictures)
    while not all("resumed from step" in fork.output() for fork in forks):
        assert all(fork.poll() is None for fork in forks), [fork.output() for fork in forks]
        time.sleep(0.01)
    os.kill(forks[1].pid, signal.SIGTERM)
    assert_all_end(forks, code=130)
    (step,) = {int(re.search(r"by a signal after step (\d+)", fork.output())[1]) for fork in forks}
    assert 5 < step == steps_saved(parts)[-1] < 20

    assert_all_end(start_two(parts, pictures))

    config = tiny_config("quantizer=fsq,bits=6")
    config.optimizer.warmup_steps, config.steps = 0, 20
    config.model.filters, config.model.num_res_blocks = 64, 0
    assert_same(final_state(whole, config), final_state(parts, config))
    metrics = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    losses = [m["loss"] for m in metrics if "loss" in m]

    # The same steps in this process, on one device without microbatches, on the batches that the two had together.
    trainer = autoencoder_factory.build_trainer(config)
    monkeypatch.setenv("FSQ_REPRO_CACHE", str(tmp_path))
    source = make_source(f"folder:{pictures}", "train", 16)
    shares = [
        train_iterator(
            source,
            batch_size=4,
            resolution=16,
            seed=config.seed,
            augmentation=Augmentation(flip=True),
            process_index=i,
            process_count=2,
        )
        for i in range(2)
    ]
    state, expected = jax.jit(trainer.init_state)(jax.random.key(config.seed)), []
    train_step = jax.jit(trainer.train_step)
    for _ in range(20):
        images = np.concatenate([next(share)["image"] for share in shares])
        state, metrics = train_step(state, {}, {"image": images})
        expected.append(float(metrics["loss"]))
    np.testing.assert_allclose(losses, expected, rtol=1e-3)
    assert expected[-1] < 0.95 * expected[0]
