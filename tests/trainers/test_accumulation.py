"""Gradient accumulation: a step on microbatches is that on the batch wherever the loss is a mean over examples."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fsq_repro.errors import UserError
from fsq_repro.experiments.experiment import build_experiment
from fsq_repro.factories import autoencoder as autoencoder_factory
from fsq_repro.factories import code_predictor as code_predictor_factory
from fsq_repro.factories import label_autoencoder as label_autoencoder_factory
from fsq_repro.factories import maskgit as maskgit_factory
from fsq_repro.inference.label_coder import load_label_coder
from fsq_repro.inference.tokenizer import load_tokenizer
from fsq_repro.profiling.abstract import build_abstract
from fsq_repro.profiling.dry_run import dry_run
from fsq_repro.runtime import sharding
from fsq_repro.trainers.accumulation import accumulate, check_division, codebook_statistics
from fsq_repro.trainers.generators import AutoregressiveGenerator
from tests.tiny import (
    random_uvim_state,
    save_untrained,
    save_untrained_uvim,
    tiny_config,
    tiny_stage2,
    tiny_uvim,
)
from tests.trainers import test_maskgit
from tests.trainers.test_label_autoencoder import batch as dense_batch
from tests.trainers.test_label_autoencoder import flat


def test_microbatches_take_every_example_once_and_leave_no_device_out():
    seen = []

    def function(batch, number):
        seen.append(batch["x"].shape)
        return {"mean": jnp.mean(batch["x"]), "number": number.astype(float) * 1.0}, batch["y"]

    batch = {"x": jnp.arange(12.0), "y": jnp.arange(12), "none": None}
    means, sums = jax.jit(lambda batch: accumulate(lambda b, i: function(b, jnp.asarray(i)), batch, 3))(batch)
    assert means == {"mean": 5.5, "number": 1.0} and set(seen) == {(4,)}
    np.testing.assert_array_equal(sums, [0 + 1 + 2, 3 + 4 + 5, 6 + 7 + 8, 9 + 10 + 11])  # devices keep their examples
    assert accumulate(lambda b, i: (b, i), batch, 1) == (batch, 0)


def test_statistics_of_microbatches_add_up_but_for_the_tokens_which_are_the_firsts():
    left = [{"batch": {"quantizer": {"counts": jnp.ones(2), "tokens": jnp.full(2, i + 1.0)}}} for i in range(3)]
    parts = [codebook_statistics(left[number], number) for number in range(3)]
    total = jax.tree.map(lambda *x: sum(x), *parts)["quantizer"]
    np.testing.assert_array_equal(total["counts"], [3, 3])
    np.testing.assert_array_equal(total["tokens"], [1, 1])
    assert codebook_statistics({}, 0) == {}


def images() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"image": rng.random((8, 16, 16, 3), np.float32), "label": rng.integers(0, 2, 8, dtype=np.int32)}


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Untrained stages I: of MaskGIT, and of UViM."""
    root = tmp_path_factory.mktemp("stage1")
    return save_untrained(root / "maskgit", tiny_config()), save_untrained_uvim(root / "uvim", tiny_uvim(1))


def with_sgd(trainer, accumulate_steps: int):
    """The parameters' change is the gradient, and nothing is drawn inside of the network."""
    return dataclasses.replace(trainer, accumulate_steps=accumulate_steps, optimizer=optax.sgd(1.0))


def autoencoder(arg, roots):
    trainer = autoencoder_factory.build_trainer(tiny_config(arg, gan="fsq" in arg))
    return trainer, {}, images(), None


def maskgit(arg, roots, *, crop="none"):
    config = tiny_stage2(roots[0], f"quantizer=fsq,bits=8,generator={arg}")
    config.model.dropout, config.label_drop, config.data.crop = 0.0, 0.5, crop
    trainer = maskgit_factory.build_trainer(config, load_tokenizer(roots[0]))
    return trainer, trainer.load_frozen(), images() | test_maskgit.batch(), None


def uvim_stage1(arg, roots):
    trainer = label_autoencoder_factory.build_trainer(tiny_uvim(1, arg))
    assert trainer.model.code_dropout
    return trainer, {}, dense_batch(trainer.task), random_uvim_state(trainer)


def uvim_stage2(arg, roots):
    coder = load_label_coder(roots[1])
    trainer = code_predictor_factory.build_trainer(tiny_uvim(2, arg, stage1=roots[1]), coder)
    return trainer, trainer.load_frozen(), dense_batch(coder.task), random_uvim_state(trainer)


def first_state(trainer, state=None):
    """The initial state, with the parameters and the dictionary of `state` if it is given."""
    fresh = jax.jit(with_sgd(trainer, 1).init_state)(jax.random.key(0))
    if state is None:
        return fresh
    given = {name: getattr(state, name) for name in ("params", "quantizer_state") if hasattr(state, name)}
    return fresh.replace(**given)


def one_step(trainer, accumulate_steps, state, frozen, batch):
    """State after a step on one device, and metrics."""
    return jax.jit(with_sgd(trainer, accumulate_steps).train_step)(state, frozen, batch)


def change(before, after, field):
    return flat(getattr(after, field)) - flat(getattr(before, field))


# Figures of a whole batch: how much of the codebook it uses, and the share of its masked tokens that were right.
OF_MICROBATCHES = {"quantizer/usage", "quantizer/perplexity", "masked_accuracy"}


@pytest.mark.parametrize(
    ("build", "arg"),
    [
        (autoencoder, "quantizer=fsq,bits=8"),  # with GAN and R1
        (autoencoder, "quantizer=ema_vq,bits=6"),
        (functools.partial(maskgit, crop="random_resized"), "masked"),  # encoding in the step
        (maskgit, "autoregressive"),
        (uvim_stage1, "quantizer=fsq"),
        (uvim_stage1, "quantizer=vq"),
        (uvim_stage2, "quantizer=fsq"),
    ],
)
def test_a_step_of_microbatches_is_the_step_on_the_batch(roots, build, arg):
    """Gradients of all networks, what is drawn for an example, a dictionary's update and splitting, metrics."""
    trainer, frozen, batch, state = build(arg, roots)
    before = first_state(trainer, state)
    one, of_batch = one_step(trainer, 1, before, frozen, batch)
    four, of_parts = one_step(trainer, 4, before, frozen, batch)
    fields = ["params"] + ["discriminator_params"] * bool(getattr(before, "discriminator_params", {}))
    for field in fields:
        expected, found = change(before, one, field), change(before, four, field)
        assert np.linalg.norm(found - expected) <= 1e-4 * np.linalg.norm(expected) > 0, field
    assert of_batch.keys() == of_parts.keys()
    for name in of_batch.keys() - OF_MICROBATCHES:
        np.testing.assert_allclose(of_parts[name], of_batch[name], rtol=1e-4, atol=1e-6, err_msg=name)
    if "vq" in arg:
        ours, theirs = (x.quantizer_state["quantizer"] for x in (four, one))
        np.testing.assert_array_equal(ours["counts"], theirs["counts"])
        np.testing.assert_allclose(ours["dictionary"], theirs["dictionary"], rtol=1e-5, atol=1e-5)
        assert np.any(theirs["counts"] != before.quantizer_state["quantizer"]["counts"])


def test_vqs_entropy_term_is_that_of_the_microbatches():
    trainer, _, batch, _ = autoencoder("quantizer=vq,bits=6", ())
    name = "quantizer/entropy_loss"
    state = first_state(trainer)
    found = one_step(trainer, 2, state, {}, batch)[1][name]
    halves = [one_step(trainer, 1, state, {}, {"image": batch["image"][i::2]})[1][name] for i in range(2)]
    np.testing.assert_allclose(found, np.mean(halves), rtol=1e-5)
    assert halves[0] != halves[1]


def test_dropout_draws_for_each_microbatch_anew(roots):
    """The mean square of a draw of each microbatch is the square of the mean where all draw the same."""

    class Drawing(AutoregressiveGenerator):
        def loss(self, params, tokens_BxS, labels_B, predicted_BxS, dropout_key):
            draw = jax.random.uniform(dropout_key)
            return draw * optax.global_norm(params), {"draw": draw, "square": draw**2}

    trainer, _, batch, _ = maskgit("autoregressive", roots)
    fields = {f.name: getattr(trainer.generator, f.name) for f in dataclasses.fields(trainer.generator)}
    trainer = dataclasses.replace(trainer, generator=Drawing(**fields))
    state = first_state(trainer)
    for steps, same in ((1, True), (4, False)):
        metrics = one_step(trainer, steps, state, {}, batch)[1]
        assert np.isclose(metrics["square"], metrics["draw"] ** 2, rtol=1e-5) == same


def test_the_batch_stays_on_its_devices(monkeypatch):
    """Collectives: FSDP's parameters once, gradients in each microbatch; the images, 196,608 bytes, never."""
    monkeypatch.setattr(sharding, "SMALL", 64)
    config = tiny_config("quantizer=fsq,bits=8")
    bytes_of = {}
    for steps in (1, 2):
        config.batch_size, config.accumulate_steps = 64, steps
        found = dry_run(build_abstract(config), sharding.make_mesh(2), utilisation=0.5)  # data x fsdp = 2 x 2
        bytes_of[steps] = found["compiled"]["collectives"]["bytes"]
    assert found["compiled"]["collectives"]["loops_counted_once"] == 0
    assert bytes_of[1].keys() == bytes_of[2].keys()
    assert all(bytes_of[2][kind] <= 2 * bytes_of[1][kind] for kind in bytes_of[1]), bytes_of
    assert bytes_of[2]["all-gather"] == bytes_of[1]["all-gather"], bytes_of


def test_division_is_checked_before_anything_is_built(tmp_path):
    config = tiny_config()
    for change, words in (
        ({"batch_size": 6}, "batch_size = 6 must be a multiple of the 4 devices"),
        (
            {"accumulate_steps": 3},
            "accumulate_steps = 3 must divide the 2 examples that each of the 4 devices has of batch_size = 8",
        ),
        ({"accumulate_steps": 0}, "accumulate_steps = 0 must be a whole number >= 1"),
        ({"eval.batch_size": 6}, "eval.batch_size = 6 must be a multiple of the 4 devices"),
        ({"mesh.fsdp": 3}, "mesh.fsdp = 3 must divide the number of devices, 4"),
    ):
        bad = config.copy_and_resolve_references()
        bad.update_from_flattened_dict(change)
        bad.data.source = "folder:/nowhere"  # which would be refused next
        with pytest.raises((ValueError, UserError), match=words):
            build_experiment(bad, tmp_path / "run")
    check_division(24, 3, 8)
    config.accumulate_steps = 4
    with pytest.raises(ValueError, match="accumulate_steps = 4"):
        dry_run(build_abstract(config), sharding.make_mesh(), utilisation=0.5)
