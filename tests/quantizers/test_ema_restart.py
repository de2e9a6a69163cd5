"""Running averages with restarts: the steps of Jukebox and vector-quantize-pytorch, with their random tokens."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.quantizers.ema_restart import EmaRestartQuantizer
from fsq_repro.quantizers.running_codebook import draw_tokens, kmeans
from tests.conftest import load_cases

pytestmark = pytest.mark.usefixtures("strict_dtypes")

GOLDEN = load_cases("quantizers_ema_restart")
Z, CODEBOOK = GOLDEN[""]["z"], GOLDEN[""]["codebook"]


@functools.partial(jax.jit, static_argnums=0)
def step(module, state, z, tokens, w):
    """One training step with given tokens to restart from: (`Quantized`, state after, gradient for z)."""

    def objective(z):
        quantized, left = module.apply(
            {"quantizer": state}, z, train=True, mutable=["batch"], rngs={"quantizer": jax.random.key(0)}
        )
        return jnp.sum(quantized.codes * w) + quantized.loss, (quantized, left["batch"])

    dz, (quantized, batch) = jax.grad(objective, has_aux=True)(z)
    batch = batch | {"tokens": tokens}
    _, updated = module.apply({"quantizer": state}, batch, method="update", mutable=["quantizer"])
    return quantized, updated["quantizer"], dz


def check(quantized, state, want, **names):
    np.testing.assert_array_equal(quantized.indices, want["indices"])
    np.testing.assert_allclose(quantized.codes, want["codes"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(quantized.loss, want["loss"], rtol=1e-5, atol=1e-5)
    for ours, theirs in names.items():
        np.testing.assert_allclose(state[ours], want[theirs], rtol=1e-5, atol=1e-5)


def test_published_step_of_jukebox():
    want = GOLDEN["jukebox"]
    state = {"codebook": CODEBOOK, "sums": want["sum_before"], "counts": want["count_before"]}
    tokens = Z.reshape(-1, 5)[want["permutation"][:16]]
    quantized, after, dz = step(EmaRestartQuantizer(16, 5), state, Z, tokens, GOLDEN[""]["w"])
    check(quantized, after, want, codebook="codebook_after", sums="sum_after", counts="count_after")
    np.testing.assert_allclose(dz, want["grad_z"], rtol=1e-5, atol=1e-5)
    dead = after["counts"] < 1
    assert dead.sum() == 1
    np.testing.assert_array_equal(after["codebook"][dead], tokens[dead])


def test_published_step_of_lucidrains():
    """There the first dead code takes the first token, and so on."""
    want = GOLDEN["lucidrains"]
    state = {"codebook": CODEBOOK, "sums": want["sum_before"], "counts": want["count_before"]}
    module = EmaRestartQuantizer(16, 5, momentum=0.8, reset=True, smoothing=1e-5, commitment_cost=0.25)
    batch_counts = np.bincount(want["indices"].reshape(-1), minlength=16)
    dead = 0.8 * want["count_before"] + 0.2 * batch_counts < 1
    tokens = np.full((16, 5), np.nan, np.float32)  # no live code takes one
    tokens[dead] = Z.reshape(-1, 5)[want["permutation"][: dead.sum()]]
    quantized, after, dz = step(module, state, Z, tokens, GOLDEN[""]["w"])
    assert 1 <= dead.sum() < 16
    check(quantized, after, want, codebook="codebook_after", counts="count_after")
    np.testing.assert_allclose(after["sums"], want["sum_after"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dz, want["grad_z"], rtol=1e-5, atol=1e-5)


def test_three_published_steps_without_restarts():
    module = EmaRestartQuantizer(16, 5, momentum=0.8, min_count=0.0, smoothing=1e-5, commitment_cost=0.25)
    state = {"codebook": CODEBOOK, "sums": CODEBOOK, "counts": np.ones(16, np.float32)}
    tokens = np.full((16, 5), np.nan, np.float32)
    for want in (GOLDEN[f"ema_only_step{i}"] for i in (1, 2, 3)):
        quantized, state, _ = step(module, state, want["z"], tokens, np.zeros_like(Z))
        check(quantized, state, want, codebook="codebook_after", sums="sum_after", counts="count_after")


def test_published_step_with_rotation():
    golden = load_cases("quantizers_rotation")
    want, shared = golden["vq_ema_step"], golden[""]
    fields = {"momentum": 0.99, "min_count": 0.0, "smoothing": 1e-5, "commitment_cost": 0.25, "gradient": "rotation"}
    state = {"codebook": shared["codebook"], "sums": shared["codebook"], "counts": np.ones(16, np.float32)}
    quantized, after, dz = step(
        EmaRestartQuantizer(16, 5, **fields), state, shared["z"], shared["codebook"], shared["w"]
    )
    check(quantized, after, want, codebook="codebook_after", sums="embed_avg_after", counts="cluster_size_after")
    np.testing.assert_allclose(dz, want["grad_z"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rounds", [1, 10])
def test_published_kmeans(rounds):
    want, name = GOLDEN["kmeans"], f"means_{rounds}_round{'s' if rounds > 1 else ''}"
    means = jax.jit(kmeans, static_argnums=2)(want["z"], want["z"][want["start_rows"]], rounds)
    np.testing.assert_allclose(means, want[name], rtol=1e-5, atol=1e-5)


@functools.partial(jax.jit, static_argnums=0)
def train(module, state, z, key):
    quantized, updated = module.apply(
        {"quantizer": state}, z, train=True, mutable=["quantizer"], rngs={"quantizer": jax.random.key(key)}
    )
    return quantized, updated["quantizer"]


@pytest.mark.parametrize("reset", [False, True])
def test_dead_codes_become_tokens_of_this_batch_after_the_update(reset):
    """The order matters: a restart before an update that overwrites it would never happen."""
    module = EmaRestartQuantizer(16, 5, momentum=0.5, reset=reset)
    variables = jax.jit(lambda z: module.init(jax.random.key(0), z, train=True))(Z)
    _, first = train(module, variables["quantizer"], Z, 1)
    tokens = {tuple(token) for token in Z.reshape(-1, 5)}
    assert {tuple(code) for code in np.asarray(first["codebook"])} < tokens
    assert len(np.unique(first["codebook"], axis=0)) == 16
    np.testing.assert_array_equal(first["counts"], np.ones(16))
    z = np.repeat(2 * Z[:, :4], 5, axis=1)  # 8 other tokens, each several times, so that 8 codes at least go unused
    quantized, second = train(module, first, z, 2)
    dead = np.bincount(np.ravel(quantized.indices), minlength=16) < 1
    assert int(quantized.metrics["restarts"]) == dead.sum() >= 8
    now = {tuple(token) for token in z.reshape(-1, 5)}
    assert {tuple(code) for code in np.asarray(second["codebook"])[dead]} < now
    assert not {tuple(code) for code in np.asarray(second["codebook"])[~dead]} & now - tokens
    np.testing.assert_array_equal(second["counts"][dead], np.full(dead.sum(), 1.0 if reset else 0.5))


def test_tokens_are_drawn_from_all_of_the_batch():
    many = jnp.arange(40, dtype=jnp.float32)[:, None]
    drawn = np.asarray(
        jax.jit(jax.vmap(lambda key: draw_tokens(key, many, 8)))(jax.random.split(jax.random.key(0), 100))
    )
    assert all(len(np.unique(tokens)) == 8 for tokens in drawn)
    counts = np.bincount(drawn.astype(int).reshape(-1), minlength=40)
    assert len(counts) == 40 and counts.min() > 5 and counts.max() < 40  # 20 each, but for chance


def test_few_tokens_come_several_times_with_noise():
    few = np.arange(12, dtype=np.float32).reshape(3, 4)
    drawn = np.asarray(draw_tokens(jax.random.key(0), few, 7))
    distance = np.linalg.norm(drawn[:, None] - few, axis=-1)
    assert drawn.shape == (7, 4) and len(np.unique(drawn, axis=0)) == 7
    assert 0 < distance.min(1).max() < 0.05 and set(distance.argmin(1)) == {0, 1, 2}


def test_parts_of_a_batch_add_up():
    module = EmaRestartQuantizer(16, 5)
    state = {"codebook": CODEBOOK, "sums": CODEBOOK, "counts": np.full(16, 2.0, np.float32)}
    tokens = Z.reshape(-1, 5)[:16]
    _, whole, _ = step(module, state, Z, tokens, np.zeros_like(Z))

    @jax.jit
    def in_two(state):
        halves = [
            module.apply({"quantizer": state}, z, train=True, mutable=["batch"], rngs={"quantizer": jax.random.key(0)})
            for z in Z
        ]
        sums = jax.tree.map(jnp.add, *(left["batch"] for _, left in halves))
        return module.apply({"quantizer": state}, sums | {"tokens": tokens}, method="update", mutable=["quantizer"])[1]

    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), in_two(state)["quantizer"], whole)
