"""Dry runs of tiny configs against the real thing: counts, bytes, communication, estimates."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from fsq_repro.errors import UserError
from fsq_repro.factories import autoencoder as autoencoder_factory
from fsq_repro.factories import label_autoencoder as label_autoencoder_factory
from fsq_repro.inference.label_coder import LabelCoder
from fsq_repro.inference.tokenizer import Tokenizer
from fsq_repro.profiling.abstract import build_abstract
from fsq_repro.profiling.accelerators import ACCELERATORS
from fsq_repro.profiling.dry_run import dry_run
from fsq_repro.runtime import run_dir, sharding
from fsq_repro.trainers.label_autoencoder import variables_of
from tests.tiny import random_uvim_state, tiny_config, tiny_stage2, tiny_uvim


def mesh_of(devices: int, fsdp: int = 1):
    return sharding.make_mesh(fsdp, jax.devices()[:devices])


def run(config, devices=4, fsdp=1, *, stage1=None, compile_step=False):
    return dry_run(build_abstract(config, stage1), mesh_of(devices, fsdp), utilisation=0.5, compile_step=compile_step)


def shapes(tree):
    return jax.tree.map(lambda x: (x.shape, str(x.dtype)), tree)


def raw(x):
    return jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x


def test_counts_and_bytes_are_those_of_the_real_state(monkeypatch):
    """With every term of the loss that has parameters, on 4 devices with FSDP of 2, also for small arrays."""
    monkeypatch.setattr(sharding, "SMALL", 64)
    config = tiny_config("quantizer=ema_vq,bits=6", gan=True)
    found = run(config, fsdp=2, compile_step=True)
    trainer, mesh = autoencoder_factory.build_trainer(config), mesh_of(4, 2)
    abstract = jax.eval_shape(trainer.init_state, jax.random.key(0))
    state = jax.jit(trainer.init_state, out_shardings=sharding.state_sharding(abstract, mesh))(jax.random.key(0))

    def count(tree):
        return sum(x.size for x in jax.tree.leaves(tree))

    def on_first(*trees):
        return sum(raw(x).addressable_data(0).nbytes for x in jax.tree.leaves(trees))

    assert found["parameters"]["encoder"] == count(state.params["encoder"])
    of_discriminator = sum(v for k, v in found["parameters"].items() if k.startswith("discriminator/"))
    assert of_discriminator == count(state.discriminator_params) > 0
    assert sum(found["parameters"].values()) == of_discriminator + count(state.params)
    assert found["memory"]["params"] == on_first(state.params, state.discriminator_params)
    assert found["memory"]["optimizer"] == on_first(state.opt_state, state.discriminator_opt_state)
    assert found["memory"]["other_state"] == on_first(state.ema_params, state.quantizer_state, state.rng, state.step)
    assert found["checkpoint_bytes"] == sum(raw(x).nbytes for x in jax.tree.leaves(state)) > 1.5 * on_first(state)
    images, labels = 8 // 4 * 16 * 16 * 3 * 4, 8 // 4 * 4
    assert found["memory"]["batch"] == images + labels and found["memory"]["frozen"] == 0
    assert found["compiled"]["arguments"] == sum(found["memory"].values()) - labels  # which the step does not look at
    assert (found["tokens_per_example"], found["tokens_per_step"]) == (16, 128)
    # Networks are gathered once, gradients summed as without FSDP, activations stay where they are.
    collectives = found["compiled"]["collectives"]["bytes"]
    networks = sum(x.nbytes for x in jax.tree.leaves([getattr(state, name) for name in sharding.NETWORKS]))
    assert 0.9 * networks < collectives.pop("all-gather") < networks + 4 * 8 * 16  # the indices, for their metrics
    assert collectives.keys() == {"all-reduce"}
    json.dumps(found)


def collectives_of(arg):
    """All-reduced bytes less those of the parameters, and the other collectives."""
    found = run(tiny_config(arg), compile_step=True)
    assert found["compiled"]["collectives"]["loops_counted_once"] == 0
    others = dict(found["compiled"]["collectives"]["bytes"])
    return others.pop("all-reduce") - 4 * sum(found["parameters"].values()), others


def test_data_parallel_sums_the_gradients_and_nothing_of_fsqs_codebook():
    (rest, others), (rest_of_larger, others_of_larger) = (collectives_of(f"quantizer=fsq,bits={b}") for b in (4, 16))
    assert (rest, others) == (4 * 2**4, {})  # how often the batch has each code: few codes, many tokens
    assert 0 < rest_of_larger < 200  # scalars
    assert 0 < sum(others_of_larger.values()) <= 4 * 8 * 16  # the indices, which are sorted
    rest_of_vq, _ = collectives_of("quantizer=vq,bits=16")
    assert rest_of_vq >= 4 * 2**16  # the entropy term's mean over the global batch


def test_one_device_communicates_nothing_and_computes_the_same():
    config = tiny_config(gan=True)  # two losses share a network's forward pass
    one, four = run(config, 1, compile_step=True), run(config, 4)
    assert one["compiled"]["collectives"]["bytes"] == {} and one["compiled"]["temporaries"] > 0
    assert one["flops_per_step"] == four["flops_per_step"] and one["flops"] == 8 * one["flops_per_step"]
    assert 0.9 < one["flops_per_step"] / one["compiled"]["flops"] < 1  # XLA's has elementwise operations too


def test_fsdp_divides_parameters_and_optimiser(monkeypatch):
    monkeypatch.setattr(sharding, "SMALL", 1)
    memory = {n: run(tiny_config(), n, n)["memory"] for n in (1, 2, 4)}
    for n in (2, 4):
        for part in ("params", "optimizer"):
            assert memory[n][part] == pytest.approx(memory[1][part] / n, rel=0.02)
    assert run(tiny_config(), 4)["memory"]["params"] == memory[1]["params"]  # data-parallel: whole on each


def test_a_batch_that_the_devices_do_not_divide_is_refused_before_tracing(monkeypatch):
    config = tiny_config()
    config.batch_size = 6
    experiment = build_abstract(config)
    monkeypatch.setattr(type(experiment.trainer), "train_step", None)
    with pytest.raises(ValueError, match=r"^batch_size = 6 must be a multiple of the 4 devices$"):
        dry_run(experiment, mesh_of(4), utilisation=0.5)


@pytest.mark.parametrize("utilisation", [0.0, 1.1, float("nan")])
def test_a_bad_utilisation_is_refused(utilisation):
    with pytest.raises(ValueError, match="utilisation = .* must be in"):
        dry_run(build_abstract(tiny_config()), mesh_of(4), utilisation=utilisation)


def test_an_unknown_trainer_is_refused():
    config = tiny_config()
    config.trainer = "diffusion"
    with pytest.raises(ValueError, match="trainer = 'diffusion' is not one of autoencoder, maskgit"):
        build_abstract(config)


def test_maskgit_needs_the_config_of_stage1_only(tmp_path):
    """Its step, which encodes, is traced with the shapes that a trained tokenizer's arrays have."""
    stage1 = tiny_config("quantizer=vq,bits=6")
    stage1.data.crop = "random_resized"
    trainer = autoencoder_factory.build_trainer(stage1)
    state = jax.jit(trainer.init_state)(jax.random.key(0))
    variables = {"params": state.ema_params, "quantizer": state.quantizer_state}
    tokenizer = Tokenizer(trainer.model, variables, step=0, resolution=16)

    config = tiny_stage2("", "quantizer=vq,bits=6")
    config.data.crop = "random_resized"
    experiment = build_abstract(config, stage1)
    abstract = experiment.trainer.tokenizer
    assert abstract.grid == tokenizer.grid and shapes(experiment.frozen) == shapes(tokenizer.variables)
    found = run(config, stage1=stage1)
    assert found["memory"]["frozen"] == sum(x.nbytes for x in jax.tree.leaves(tokenizer.variables))
    config.data.crop = "none"
    of_tokens = run(config, stage1=stage1)
    assert of_tokens["memory"]["frozen"] == 0 and of_tokens["memory"]["batch"] == (8 // 4) * (16 + 1) * 4
    assert of_tokens["flops"] < found["flops"]

    run_dir.RunDir(tmp_path).write_config(stage1)  # or stage I's run directory, trained or not
    config.stage1 = str(tmp_path)
    assert run(config) == of_tokens
    config.quantizer.codebook_size = 32
    with pytest.raises(UserError, match="has codebook size 64, the config has 32"):
        build_abstract(config)


@pytest.mark.parametrize("task", ["depth", "colorization", "panoptic"])
def test_both_stages_of_uvim(task):
    stage1, config = (tiny_uvim(stage, "quantizer=vq", task=task) for stage in (1, 2))
    trainer = label_autoencoder_factory.build_trainer(stage1)
    state = random_uvim_state(trainer)
    first, second = run(stage1), run(config, stage1=stage1)
    assert sum(first["parameters"].values()) == sum(x.size for x in jax.tree.leaves(state.params))
    coder = LabelCoder(trainer.model, trainer.task, variables_of(state), step=0)
    assert shapes(build_abstract(config, stage1).frozen) == shapes(coder.variables)
    assert second["memory"]["frozen"] == sum(np.asarray(x).nbytes for x in jax.tree.leaves(coder.variables))
    assert first["tokens_per_example"] == second["tokens_per_example"] == 4
    assert first["memory"]["batch"] == second["memory"]["batch"] > 0


def test_estimates_follow_from_the_flops():
    config = tiny_config()
    config.steps = 1000
    two, four = run(config, 2), run(config, 4)
    for accelerator, e, e4 in zip(ACCELERATORS, two["estimates"], four["estimates"], strict=True):
        rate = 0.5 * accelerator.float32_flops
        assert e["accelerator"] == dataclasses.asdict(accelerator) and e["fits"] is None
        assert e["device_hours"] * 3600 * rate == pytest.approx(1000 * two["flops_per_step"])
        assert e["step_seconds"] * 2 * rate == pytest.approx(two["flops_per_step"])
        assert e["images_per_second"] == pytest.approx(8 / e["step_seconds"])
        assert (e4["device_hours"], e4["images_per_second"]) == pytest.approx(
            (e["device_hours"], 2 * e["images_per_second"])
        )
    config.model.dtype = "bfloat16"
    faster = run(config, 2)["estimates"]
    ratios = {
        e["accelerator"]["name"]: f["device_hours"] / e["device_hours"]
        for e, f in zip(two["estimates"], faster, strict=True)
    }
    assert ratios["TPU v4"] == pytest.approx(1) and ratios["A100 80GB"] == pytest.approx(0.5)
