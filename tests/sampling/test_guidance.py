"""Guidance: the formula, one network call on pairs of rows, and nothing at all for weight 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.sampling.guidance import guide, guide_step, guided_logits, is_unguided

pytestmark = pytest.mark.usefixtures("strict_dtypes")
B, S, K, NULL = 6, 3, 5, 4
TABLE = np.random.default_rng(0).standard_normal((NULL + 1, K + 1, K)).astype(np.float32)  # (label, token, code)
TOKENS = np.random.default_rng(1).integers(0, K + 1, (B, S)).astype(np.int32)
LABELS = np.arange(B, dtype=np.int32) % NULL


class CountingNetwork:
    """Logits from a table by label and token; remembers the batch sizes of its calls."""

    def __init__(self):
        self.batches = []

    def __call__(self, tokens_BxS, labels_B):
        self.batches.append(len(tokens_BxS))
        return jnp.asarray(TABLE)[labels_B[:, None], tokens_BxS]


def expected(weight):
    conditional, unconditional = TABLE[LABELS[:, None], TOKENS].astype(np.float64), TABLE[NULL][TOKENS]
    return (1 + weight) * conditional - weight * unconditional


@pytest.mark.parametrize("weight", [0.1, 1, 2.5, np.float32(0.2)])
def test_one_call_on_twice_the_batch_gives_the_formula(weight):
    network = CountingNetwork()
    logits = guide(network, weight, NULL)(jnp.asarray(TOKENS), jnp.asarray(LABELS))
    assert network.batches == [2 * B]
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, expected(float(weight)), atol=1e-5)


@pytest.mark.parametrize("zero", [0, 0.0, np.float32(0)])
def test_weight_zero_is_the_network_itself(zero):
    network = CountingNetwork()
    assert guide(network, zero, NULL) is network
    guide(network, zero, NULL)(jnp.asarray(TOKENS), jnp.asarray(LABELS))
    assert network.batches == [B]
    assert guide_step(network, zero, NULL) is network
    assert is_unguided(zero)
    assert not is_unguided(jnp.float32(zero))  # an array: its value is not looked at


def test_the_weight_may_be_traced():
    network = CountingNetwork()

    @jax.jit
    def logits(weight):
        return guide(network, weight, NULL)(jnp.asarray(TOKENS), jnp.asarray(LABELS))

    for weight in (0.0, 0.3):  # one program serves a sweep
        np.testing.assert_allclose(logits(jnp.float32(weight)), expected(weight), atol=1e-5)
    assert network.batches == [2 * B]


def test_guidance_pushes_away_from_the_unconditional_prediction():
    conditional, unconditional = jnp.log(jnp.array([0.6, 0.4])), jnp.log(jnp.array([0.5, 0.5]))
    p = jax.nn.softmax(guided_logits(conditional, unconditional, 1.0))
    np.testing.assert_allclose(p, [0.36 / 0.52, 0.16 / 0.52], rtol=1e-5)  # p_c^2 / p_0, normalised


def test_pairs_stay_on_their_device():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.NamedSharding(mesh, jax.P("data"))
    tokens, labels = jnp.zeros((8, S), jnp.int32), jnp.zeros(8, jnp.int32)
    program = jax.jit(guide(CountingNetwork(), 0.2, NULL), in_shardings=(split, split), out_shardings=split)
    text = program.lower(tokens, labels).compile().as_text()
    assert not [c for c in ("all-gather", "all-to-all", "all-reduce", "collective-permute") if c in text]


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_refusals(weight):
    with pytest.raises(ValueError, match=f"finite and at least 0, got {weight}"):
        guide(CountingNetwork(), weight, NULL)
    with pytest.raises(ValueError, match=f"finite and at least 0, got {weight}"):
        guide_step(CountingNetwork(), weight, NULL)
