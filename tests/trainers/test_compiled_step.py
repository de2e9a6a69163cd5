"""Loop, benchmark and dry run compile one program."""

import re

import jax
import pytest

from fsq_repro.data.pipeline import Augmentation, train_iterator
from fsq_repro.factories import common
from fsq_repro.factories.autoencoder import build_trainer
from fsq_repro.profiling.abstract import build_abstract
from fsq_repro.profiling.benchmark import measure_step
from fsq_repro.profiling.dry_run import dry_run
from fsq_repro.runtime import sharding
from fsq_repro.trainers import compiled_step, loop
from tests.tiny import NoiseSource, tiny_config


class LoweredError(Exception):
    """Instead of compiling; has the program's text."""


@pytest.fixture
def text_of(monkeypatch):
    """The StableHLO text of the first program that a call compiles ahead of time."""

    def compile_step(self, compiler_options=None):
        raise LoweredError(self.as_text())

    monkeypatch.setattr(jax.stages.Lowered, "compile", compile_step)

    def text(function, *args, **kwargs):
        with pytest.raises(LoweredError) as e:
            function(*args, **kwargs)
        return str(e.value)

    return text


def with_constants_in_place(text: str) -> str:
    """The text with each constant where it is used: a replayed trace has the same ones, defined in another order."""
    constants, lines = {}, []
    for line in text.splitlines():
        if line.lstrip().startswith("func.func"):
            constants.clear()
        if found := re.match(r"\s*(%cs?t?(?:_\d+)?) = stablehlo\.constant (.*)", line):
            constants[found[1]] = found[2]
        else:
            lines.append(re.sub(r"%cs?t?(?:_\d+)?\b", lambda m: constants.get(m[0], m[0]), line))
    return "\n".join(lines)


def iterator():
    return train_iterator(NoiseSource(), batch_size=8, resolution=16, seed=0, augmentation=Augmentation())


@pytest.mark.parametrize("fsdp", [1, 2])
@pytest.mark.parametrize("quantizer", ["fsq,bits=8", "ema_vq,bits=6"])
def test_loop_benchmark_and_dry_run_have_one_program(text_of, tmp_path, monkeypatch, quantizer, fsdp):
    monkeypatch.setattr(sharding, "SMALL", 64)
    config = tiny_config(f"quantizer={quantizer}")
    config.mesh.fsdp = fsdp
    trainer, loop_config = build_trainer(config), common.build_loop(config)

    trained = text_of(loop.train, trainer, iterator(), list, tmp_path, loop_config)
    assert ("sharding_constraint" in trained or "@Sharding" in trained) == (fsdp > 1)  # the gathering
    assert text_of(measure_step, trainer, iterator(), loop_config, 1) == trained
    experiment = build_abstract(config)
    other = sharding.make_mesh(1, jax.devices()[:1])
    assert text_of(dry_run, experiment, other, utilisation=0.5) != trained  # traced with another layout first
    replayed = text_of(dry_run, experiment, sharding.make_mesh(fsdp), utilisation=0.5)
    assert with_constants_in_place(replayed) == with_constants_in_place(trained)


def test_the_initial_state_lies_where_the_program_wants_it(monkeypatch):
    monkeypatch.setattr(sharding, "SMALL", 64)
    trainer, mesh, key = build_trainer(tiny_config()), sharding.make_mesh(2), jax.random.key(0)
    placed = compiled_step.place_state(jax.eval_shape(trainer.init_state, key), mesh)
    state = compiled_step.init_state(trainer.init_state, key, mesh)
    for x, shape in zip(jax.tree.leaves(state), jax.tree.leaves(placed), strict=True):
        assert x.shape == shape.shape and x.sharding.is_equivalent_to(shape.sharding, x.ndim)
    assert any("fsdp" in x.sharding.spec for x in jax.tree.leaves(placed))
