"""Which weights are in use: the average wherever a table, a picture or a token of stage II comes from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.factories import autoencoder as autoencoder_factory
from fsq_repro.factories import maskgit as maskgit_factory
from fsq_repro.inference.tokenizer import load_stage1_tokenizer, load_tokenizer
from fsq_repro.runtime import sharding
from tests.tiny import save_untrained, tiny_config, tiny_stage2

IMAGES = np.random.default_rng(0).random((4, 16, 16, 3), np.float32)


def scaled(state, ema: float, raw: float):
    """The state with other weights in each of its two sets."""
    return state.replace(
        params=jax.tree.map(lambda p: raw * p, state.params), ema_params=jax.tree.map(lambda p: ema * p, state.params)
    )


@pytest.fixture(scope="module")
def stage1(tmp_path_factory):
    """An autoencoder whose average and whose last weights differ, and its state."""
    config = tiny_config()
    trainer = autoencoder_factory.build_trainer(config)
    state = scaled(jax.jit(trainer.init_state)(jax.random.key(0)), 1.5, 0.5)
    path = save_untrained(tmp_path_factory.mktemp("stage1") / "run", config, state)
    return path, trainer, state


def test_the_tokenizer_codes_and_decodes_with_the_average(stage1):
    path, trainer, state = stage1
    found = {}
    for weights, params in (("ema", state.ema_params), ("raw", state.params)):
        tokenizer = load_tokenizer(path, weights=weights)
        variables = {"params": params}
        reconstruction, quantized = trainer.model.apply(variables, IMAGES, train=False)
        found[weights] = np.asarray(tokenizer.encode(IMAGES))
        np.testing.assert_array_equal(found[weights], quantized.indices)
        np.testing.assert_allclose(tokenizer.decode(found[weights]), jnp.clip(reconstruction, 0, 1), atol=1e-5)
    assert (found["ema"] != found["raw"]).any()
    np.testing.assert_array_equal(load_tokenizer(path).encode(IMAGES), found["ema"])


def test_stage2_is_given_the_tokens_of_the_average(stage1):
    path, _, state = stage1
    tokenizer = load_stage1_tokenizer(tiny_stage2(path))
    jax.tree.map(np.testing.assert_array_equal, tokenizer.variables["params"], state.ema_params)


def test_the_check_during_training_sees_the_average_alone(stage1):
    """Weights that are not finite would show in every number."""
    path, trainer, state = stage1
    mesh = sharding.make_mesh()
    batch = {"image": np.tile(IMAGES, (2, 1, 1, 1)), "mask": np.ones(8, bool)}
    found = trainer.make_evaluator(mesh)(broken(state), [batch])[0]
    reconstruction = trainer.model.apply({"params": state.ema_params}, IMAGES, train=False)[0]
    mse = np.mean(np.square(np.clip(reconstruction, 0, 1) - IMAGES))
    np.testing.assert_allclose(found["validation/mse"], mse, rtol=1e-4)

    generator = maskgit_factory.build_trainer(tiny_stage2(path), load_tokenizer(path))
    second = jax.jit(generator.init_state)(jax.random.key(0))
    tokens = np.random.default_rng(0).integers(0, 240, (8, 16), dtype=np.int32)
    batch = {"tokens": tokens, "label": np.zeros(8, np.int32), "mask": np.ones(8, bool)}
    evaluate = generator.make_evaluator(mesh)
    scalars, pictures = evaluate(broken(second), [batch])
    assert np.isfinite(list(scalars.values())).all()
    np.testing.assert_array_equal(pictures["samples"], evaluate(second, [batch])[1]["samples"])


def broken(state):
    return state.replace(params=jax.tree.map(lambda p: p * np.nan, state.params))
