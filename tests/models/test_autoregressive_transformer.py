"""The autoregressive transformer: causality, its cache, and its kinship with the masked one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from fsq_repro.models.autoregressive_transformer import AutoregressiveTransformer, init_cache
from fsq_repro.models.masked_transformer import MaskedTransformer

K, CLASSES, S, B = 10, 3, 6, 4
SIZES = {"width": 16, "num_layers": 2, "num_heads": 2, "mlp_width": 32, "dropout": 0.1}
Tiny = functools.partial(AutoregressiveTransformer, K, CLASSES, S, **SIZES)


def noisy_params(model):
    """Initial parameters plus noise, so that no path through the network is too weak to be seen."""
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((B, S), jnp.int32), jnp.zeros(B, jnp.int32))["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: x + 0.3 * rng.standard_normal(x.shape).astype(np.float32), params)


@pytest.fixture(scope="module")
def params():
    return noisy_params(Tiny())


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(1)
    return rng.integers(0, K, size=(B, S)).astype(np.int32), np.array([0, 1, 2, CLASSES], np.int32)


def run(model, params, tokens, labels):
    """The model's answer, compiled (op by op takes several times as long)."""
    return np.asarray(jax.jit(model.apply)({"params": params}, tokens, labels))


def test_logits_see_exactly_the_class_and_earlier_tokens(params, batch):
    tokens, labels = batch
    apply = jax.jit(lambda tokens, labels: Tiny().apply({"params": params}, tokens, labels))
    logits = np.asarray(apply(tokens, labels))
    assert (logits.shape, logits.dtype) == ((B, S, K + CLASSES + 1), np.float32)
    for i in range(S):
        other = tokens.copy()
        other[:, i] = (other[:, i] + 1) % K
        changed = np.asarray(apply(other, labels))
        np.testing.assert_array_equal(changed[:, : i + 1], logits[:, : i + 1])
        assert np.all(np.abs(changed - logits)[:, i + 1 :].max(axis=-1) > 1e-4)
    changed = np.asarray(apply(tokens, (labels + 1) % (CLASSES + 1)))
    assert np.all(np.abs(changed - logits).max(axis=-1) > 1e-4)


def decode(model, params, cache, ids_BxS):
    """Logits (B, S, V) of all positions, one `decode_step` each, in a scan."""

    def step(cache, inputs):
        ids_B, position = inputs
        variables = {"params": params, "cache": cache}
        logits, changed = model.apply(variables, ids_B, position, method="decode_step", mutable=["cache"])
        return changed["cache"], logits

    cache, logits_SxBxV = jax.lax.scan(step, cache, (ids_BxS.T, jnp.arange(S)))
    return cache, logits_SxBxV.transpose(1, 0, 2)


@pytest.mark.parametrize("remat", [False, True])
def test_cached_steps_equal_the_uncached_network(params, batch, remat):
    model = Tiny(remat=remat)
    tokens, labels = batch
    ids = np.concatenate([K + labels[:, None], tokens[:, :-1]], axis=1)
    steps = jax.jit(functools.partial(decode, model))
    used, logits = steps(params, init_cache(model, B), ids)
    np.testing.assert_allclose(logits, run(model, params, tokens, labels), rtol=1e-5, atol=1e-5)
    _, again = steps(params, used, ids)  # what an earlier sequence left in the cache is not seen
    np.testing.assert_array_equal(again, logits)


def test_cache_is_zeros_of_the_compute_dtype():
    cache = init_cache(Tiny(dtype=jnp.bfloat16), 5)
    shapes = {k: (v.shape, v.dtype) for k, v in flatten_dict(cache, sep="/").items()}
    names = [f"TransformerLayer_{i}/Attention_0/self_attention/{kind}" for i in range(2) for kind in ("keys", "values")]
    assert shapes == {name: ((5, S, 2, 8), jnp.bfloat16) for name in names}
    assert not any(np.any(x) for x in jax.tree.leaves(cache))


def test_bfloat16_steps_give_float32_logits(params, batch):
    model = Tiny(dtype=jnp.bfloat16)
    tokens, labels = batch
    ids = np.concatenate([K + labels[:, None], tokens[:, :-1]], axis=1)
    _, logits = jax.jit(functools.partial(decode, model))(params, init_cache(model, B), ids)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, run(Tiny(), params, tokens, labels), atol=0.3)


def test_parameters_are_the_masked_ones_with_one_position_fewer():
    def shapes(model):
        inputs = jnp.zeros((1, S), jnp.int32), jnp.zeros(1, jnp.int32)
        variables = jax.eval_shape(lambda: model.init(jax.random.key(0), *inputs))
        assert set(variables) == {"params"}
        return {k: v.shape for k, v in flatten_dict(variables["params"], sep="/").items()}

    ours, masked = shapes(Tiny()), shapes(MaskedTransformer(K, CLASSES, S, **SIZES))
    positions = "Embed_0/position_embeddings/embedding"
    assert (ours.pop(positions), masked.pop(positions)) == ((S, 16), (S + 1, 16))
    assert ours == masked


def test_one_layer_equals_the_masked_network_on_each_prefix(params, batch):
    """In one layer the last position of a prefix sees all of it with or without the causal mask."""
    params = {k: v for k, v in params.items() if k != "TransformerLayer_1"}
    tokens, labels = batch
    logits = run(Tiny(num_layers=1), params, tokens, labels)
    ids = np.concatenate([K + labels[:, None], tokens[:, :-1]], axis=1)
    for length in (2, 4, S):
        embed = dict(params["Embed_0"])
        embed["position_embeddings"] = {"embedding": embed["position_embeddings"]["embedding"][:length]}
        masked = MaskedTransformer(K, CLASSES, length - 1, **(SIZES | {"num_layers": 1}))
        variables = {"params": params | {"Embed_0": embed}}
        apply = jax.jit(functools.partial(masked.apply, num_positions=length, train=False, method="network"))
        expected = apply(variables, ids[:, :length])[:, -1]
        np.testing.assert_allclose(logits[:, length - 1], expected, rtol=1e-5, atol=1e-5)


def test_attention_with_dropout_is_causal_too(params, batch):
    def apply(key, dropout):
        return Tiny(dropout=dropout).apply({"params": params}, *batch, train=True, rngs={"dropout": key})

    apply = jax.jit(apply, static_argnums=1)
    logits = run(Tiny(), params, *batch)
    almost_none = apply(jax.random.key(0), 1e-9)  # a rate that float32 rounds to "keep always"
    np.testing.assert_allclose(almost_none, logits, rtol=1e-5, atol=1e-5)
    first, second = apply(jax.random.key(0), 0.1), apply(jax.random.key(1), 0.1)
    assert np.all(np.abs(first - second).max(axis=-1) > 1e-3)  # at every position
