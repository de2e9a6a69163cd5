"""The masked transformer against the published MaskGIT module's logits, names and parameter counts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from fsq_repro.models.masked_transformer import MaskedTransformer
from tests.conftest import load_golden

# K = 16, 4 classes, 16 tokens: the golden file's network.
Tiny = functools.partial(MaskedTransformer, 16, 4, 16, width=32, num_layers=2, num_heads=4, mlp_width=64, dropout=0.0)


def abstract_params(model):
    tokens, labels = jnp.zeros((1, model.num_tokens), jnp.int32), jnp.zeros(1, jnp.int32)
    return jax.eval_shape(lambda: model.init(jax.random.key(0), tokens, labels))["params"]


@pytest.fixture(scope="module")
def golden():
    arrays, weights = load_golden("maskgit_transformer")
    return arrays, {"params": unflatten_dict(weights, sep="/")}


@pytest.fixture(scope="module")
def batch(golden):
    """Tokens with masked ones (3, 16) and labels (3,), one of them "no class"."""
    ids = golden[0]["input_ids"]
    return np.where(ids[:, 1:] < 0, Tiny().mask_id, ids[:, 1:]), np.array([0, 3, 4], np.int32)


def run(model, variables, *inputs, **options):
    """The model's answer, compiled (op by op takes several times as long)."""
    return jax.jit(functools.partial(model.apply, **options))(variables, *inputs)


def test_parameter_names_and_shapes_are_the_published_ones(golden):
    ours = flatten_dict(abstract_params(Tiny()), sep="/")
    published = flatten_dict(golden[1]["params"], sep="/")
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in published.items()}


@pytest.mark.parametrize("codebook_size, count", [(1024, 172_457_193), (1000, 172_438_737)])
def test_parameter_count_at_paper_scale(codebook_size, count):
    params = abstract_params(MaskedTransformer(codebook_size, num_classes=1000, num_tokens=256))
    assert sum(x.size for x in jax.tree.leaves(params)) == count


def test_logits_equal_the_published_ones(golden):
    arrays, variables = golden
    model = Tiny()
    ids = np.where(arrays["input_ids"] < 0, model.mask_id, arrays["input_ids"])
    sequence = run(model, variables, ids, num_positions=ids.shape[1], train=False, method="network")
    np.testing.assert_allclose(sequence, arrays["logits"], rtol=1e-4, atol=1e-5)
    logits = run(model, variables, ids[:, 1:], ids[:, 0] - model.codebook_size)
    np.testing.assert_allclose(logits, arrays["logits"][:, 1:], rtol=1e-4, atol=1e-5)


def test_the_label_after_the_last_puts_the_mask_into_the_class_slot(golden, batch):
    tokens, labels = batch
    ids = np.concatenate([np.array([[16], [19], [20]], np.int32), tokens], axis=1)
    assert Tiny().mask_id == 20 == Tiny().vocabulary_size - 1
    sequence = run(Tiny(), golden[1], ids, num_positions=ids.shape[1], train=False, method="network")
    np.testing.assert_allclose(run(Tiny(), golden[1], tokens, labels), sequence[:, 1:], rtol=1e-5, atol=1e-5)


def test_dropout_of_nothing_changes_nothing(golden, batch):
    without = run(Tiny(dropout=0.1), golden[1], *batch, train=False)
    # A rate that float32 rounds to "keep always".
    almost_none = run(Tiny(dropout=1e-9), golden[1], *batch, train=True, rngs={"dropout": jax.random.key(0)})
    np.testing.assert_allclose(almost_none, without, rtol=1e-5, atol=1e-5)


def test_dropout_acts_at_the_published_places(golden, batch, monkeypatch):
    bernoulli, shapes = jax.random.bernoulli, []
    monkeypatch.setattr(
        jax.random, "bernoulli", lambda key, p, shape: shapes.append(tuple(shape)) or bernoulli(key, p, shape)
    )

    def drawn(model, train):
        shapes.clear()
        jax.eval_shape(
            lambda key: model.apply(golden[1], *batch, train=train, rngs={"dropout": key}), jax.random.key(0)
        )
        return list(shapes)

    vectors, probabilities = (3, 17, 32), (1, 1, 17, 17)
    # After the embeddings; in each layer on the probabilities, after the attention and after the MLP.
    assert drawn(Tiny(dropout=0.5), train=True) == [vectors] + 2 * [probabilities, vectors, vectors]
    assert drawn(Tiny(dropout=0.5), train=False) == []
    assert drawn(Tiny(dropout=0.0), train=True) == []


def test_remat_changes_neither_logits_nor_gradients(golden, batch):
    def loss(model, variables):
        logits = model.apply(variables, *batch, train=True, rngs={"dropout": jax.random.key(7)})
        return jnp.sum(jnp.sin(logits)), logits

    plain, remat = Tiny(dropout=0.3), Tiny(dropout=0.3, remat=True)
    assert "remat" in str(jax.make_jaxpr(functools.partial(loss, remat))(golden[1]))
    assert "remat" not in str(jax.make_jaxpr(functools.partial(loss, plain))(golden[1]))
    results = [jax.jit(jax.grad(functools.partial(loss, m), has_aux=True))(golden[1]) for m in (plain, remat)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *results)


def test_bfloat16_compute_keeps_float32_parameters_and_logits(golden, batch):
    model = Tiny(dtype=jnp.bfloat16)
    assert {x.dtype for x in jax.tree.leaves(abstract_params(model))} == {jnp.dtype(jnp.float32)}
    logits = run(model, golden[1], *batch)
    assert logits.dtype == jnp.float32
    assert not np.array_equal(logits, logits.astype(jnp.bfloat16).astype(jnp.float32))  # never rounded to bfloat16
    difference = np.asarray(logits - run(Tiny(), golden[1], *batch))
    assert 0 < np.abs(difference).max() < 0.1  # logits reach 4


def test_weights_start_as_the_published_truncated_normal():
    model = MaskedTransformer(16, 4, 4, width=64, num_layers=1, num_heads=4, mlp_width=256)
    inputs = jnp.zeros((1, 4), jnp.int32), jnp.zeros(1, jnp.int32)
    params = jax.jit(model.init)(jax.random.key(0), *inputs)["params"]
    for name, x in flatten_dict(params, sep="/").items():
        if name.endswith(("kernel", "embedding")):
            assert np.abs(x).max() <= 0.04, name
            if x.size >= 4096:
                assert np.std(x) == pytest.approx(0.02 * 0.8796, rel=0.05), name  # of N(0, 1) cut at 2: 0.8796
        else:
            np.testing.assert_array_equal(x, float(name.endswith("scale")), name)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"num_heads": 5}, "num_heads is 5, but must divide the width of 32"),
        ({"num_heads": 0}, "num_heads is 0"),
        ({"dropout": 1.0}, "dropout is 1.0, but must be at least 0 and below 1"),
    ],
)
def test_bad_arguments_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(
            lambda: Tiny(**fields).init(jax.random.key(0), jnp.zeros((2, 16), jnp.int32), jnp.zeros(2, jnp.int32))
        )
