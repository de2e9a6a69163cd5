"""Chunked nearest codeword and entropy term against float64 NumPy and autodiff, on devices, their memory."""

import contextlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from fsq_repro.quantizers import nearest
from fsq_repro.quantizers.vq import VectorQuantizer

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def oracle(x_NxD, e_KxD, temperature):
    """Float64: distances, the entropy loss and its gradients with respect to x and e."""
    d_NxK = (x_NxD**2).sum(1)[:, None] - 2 * x_NxD @ e_KxD.T + (e_KxD**2).sum(1)
    a_NxK = -d_NxK / temperature
    a_NxK -= a_NxK.max(1, keepdims=True)
    log_p = a_NxK - np.log(np.exp(a_NxK).sum(1, keepdims=True))
    p = np.exp(log_p)
    mean_p = p.mean(0)
    loss = -(p * log_p).sum(1).mean() + (mean_p * np.log(mean_p + 1e-5)).sum()
    # dloss/dp of both terms, through the softmax, then through the distances
    dp = (-(log_p + 1) + np.log(mean_p + 1e-5) + mean_p / (mean_p + 1e-5)) / len(x_NxD)
    da = p * (dp - (p * dp).sum(1, keepdims=True))
    dd = -da / temperature
    dx = 2 * (dd.sum(1)[:, None] * x_NxD - dd @ e_KxD)
    de = 2 * (dd.sum(0)[:, None] * e_KxD - dd.T @ x_NxD)
    return d_NxK, loss, dx, de


def plain_entropy(x_NxD, e_KxD, temperature):
    """The entropy term in one piece, for autodiff to differentiate."""
    d_NxK = jnp.sum(jnp.square(x_NxD[:, None] - e_KxD[None]), axis=2)
    log_p_NxK = jax.nn.log_softmax(-d_NxK / temperature)
    p_NxK = jnp.exp(log_p_NxK)
    mean_p_K = jnp.mean(p_NxK, axis=0)
    return -jnp.mean(jnp.sum(p_NxK * log_p_NxK, axis=1)) + jnp.sum(mean_p_K * jnp.log(mean_p_K + 1e-5))


def draw(N, K, D):
    rng = np.random.default_rng(0)
    return (rng.normal(0, 0.3, (n, D)).astype(np.float32) for n in (N, K))


def values_and_gradients(temperature, weight=1.0):
    """Jitted (x, e) -> ((weighted entropy term, indices), (gradients for x and e))."""

    def weighted(x_NxD, e_KxD):
        indices_N, loss = nearest.nearest_codes_and_entropy(x_NxD, e_KxD, temperature)
        return weight * loss, indices_N

    return jax.jit(jax.value_and_grad(weighted, (0, 1), has_aux=True))


# One chunk, several, one token a chunk, padded chunks, tokens that four devices do not divide, codes without divisors.
SIZES = [(1000, 64, 2**25), (2048, 2048, 2**18), (8, 64, 1), (1000, 64, 64 * 96), (999, 64, 64 * 96), (300, 97, 970)]


@pytest.mark.parametrize(("N", "K", "chunk"), [*SIZES, (50, 1, 7)])
def test_values_and_gradients_equal_float64(monkeypatch, N, K, chunk):
    monkeypatch.setattr(nearest, "CPU_CHUNK_ELEMENTS", chunk)
    x_NxD, e_KxD = draw(N, K, 8)
    d_NxK, loss, dx, de = oracle(x_NxD.astype(np.float64), e_KxD.astype(np.float64), 0.05)
    indices = np.asarray(jax.jit(nearest.nearest_codes)(x_NxD, e_KxD))
    two = np.partition(np.pad(d_NxK, [(0, 0), (0, 1)], constant_values=np.inf), 1, axis=1)
    clear = two[:, 1] - two[:, 0] > 1e-5
    assert indices.dtype == np.int32 and clear.mean() > 0.99
    np.testing.assert_array_equal(indices[clear], d_NxK.argmin(1)[clear])
    (got, got_indices), (got_dx, got_de) = values_and_gradients(0.05, weight=3.0)(x_NxD, e_KxD)
    np.testing.assert_array_equal(got_indices, indices)
    np.testing.assert_allclose(got, 3 * loss, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got_dx, 3 * dx, atol=2e-5 * np.abs(3 * dx).max() + 1e-8)
    np.testing.assert_allclose(got_de, 3 * de, atol=2e-5 * np.abs(3 * de).max() + 1e-8)


def test_gradients_equal_autodiff():
    x_NxD, e_KxD = draw(256, 32, 4)
    want = jax.jit(jax.grad(lambda x, e: plain_entropy(x, e, 0.1), (0, 1)))(x_NxD, e_KxD)
    _, got = values_and_gradients(0.1)(x_NxD, e_KxD)
    checkpointed = jax.checkpoint(lambda x, e: nearest.nearest_codes_and_entropy(x, e, 0.1)[1])
    again = jax.jit(jax.grad(checkpointed, (0, 1)))(x_NxD, e_KxD)
    for g, a, w in zip(got, again, want, strict=True):
        np.testing.assert_allclose(g, w, atol=1e-5 * np.abs(w).max())
        np.testing.assert_allclose(a, w, atol=1e-5 * np.abs(w).max())


def test_by_inner_product(monkeypatch):
    """Indices, entropy term and gradients, in chunks."""
    monkeypatch.setattr(nearest, "CPU_CHUNK_ELEMENTS", 32 * 20)
    x_NxD, e_KxD = draw(250, 32, 4)

    def plain(x_NxD, e_KxD):
        log_p_NxK = jax.nn.log_softmax(x_NxD @ e_KxD.T / 0.1)
        p_NxK = jnp.exp(log_p_NxK)
        mean_p_K = jnp.mean(p_NxK, axis=0)
        return -jnp.mean(jnp.sum(p_NxK * log_p_NxK, axis=1)) + jnp.sum(mean_p_K * jnp.log(mean_p_K + 1e-5))

    def chunked(x_NxD, e_KxD):
        return nearest.nearest_codes_and_entropy(x_NxD, e_KxD, 0.1, True)[::-1]

    (got, indices), gradients = jax.jit(jax.value_and_grad(chunked, (0, 1), has_aux=True))(x_NxD, e_KxD)
    want, want_gradients = jax.jit(jax.value_and_grad(plain, (0, 1)))(x_NxD, e_KxD)
    np.testing.assert_array_equal(indices, (x_NxD @ e_KxD.T).argmax(1))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    for g, w in zip(gradients, want_gradients, strict=True):
        np.testing.assert_allclose(g, w, atol=1e-5 * np.abs(w).max())


def test_oracle_equals_finite_differences():
    x_NxD, e_KxD = (a.astype(np.float64) for a in draw(5, 7, 2))
    _, _, dx, de = oracle(x_NxD, e_KxD, 0.2)
    for values, gradient in ((x_NxD, dx), (e_KxD, de)):
        for index in np.ndindex(values.shape):
            losses = []
            for step in (1e-6, -2e-6):
                values[index] += step
                losses.append(oracle(x_NxD, e_KxD, 0.2)[1])
            values[index] += 1e-6
            np.testing.assert_allclose((losses[0] - losses[1]) / 2e-6, gradient[index], rtol=1e-5, atol=1e-8)


@pytest.fixture
def mesh():
    return jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])


def split(mesh, x, e):
    """Puts x over the devices and the codebook on each of them."""
    return jax.device_put(x, NamedSharding(mesh, P("data"))), jax.device_put(e, NamedSharding(mesh, P()))


@pytest.mark.parametrize("told", [True, False])
def test_one_and_four_devices_give_the_same(monkeypatch, mesh, told):
    """Whether or not the mesh is told as in the training step."""
    monkeypatch.setattr(nearest, "CPU_CHUNK_ELEMENTS", 64 * 20)
    x_NxD, e_KxD = draw(1000, 64, 8)
    (loss_1, indices_1), gradients_1 = values_and_gradients(0.05)(x_NxD, e_KxD)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh) if told else contextlib.nullcontext():
        (loss_4, indices_4), gradients_4 = values_and_gradients(0.05)(*split(mesh, x_NxD, e_KxD))
    np.testing.assert_array_equal(indices_1, indices_4)
    np.testing.assert_allclose(loss_1, loss_4, rtol=1e-6)
    for one, four in zip(gradients_1, gradients_4, strict=True):
        np.testing.assert_allclose(one, four, atol=1e-6 * np.abs(one).max())


def test_devices_exchange_nothing_in_a_loop(monkeypatch, mesh):
    """A codebook's gradient has as many bytes as the codebook: once a step is enough."""
    monkeypatch.setattr(nearest, "CPU_CHUNK_ELEMENTS", 64 * 20)
    arrays = split(mesh, *draw(1000, 64, 8))
    collective = re.compile(r" (all-\w+|reduce-scatter|collective-permute)\(")
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # as `trainers.compiled_step` does
        search, training = jax.jit(nearest.nearest_codes).lower(*arrays), values_and_gradients(0.05).lower(*arrays)
    assert not collective.search(search.compile().as_text())
    hlo = training.compile().as_text()
    computations = dict(re.findall(r"^(?:ENTRY )?%?([\w.-]+) \(.*?\{\n(.*?)^\}", hlo, re.MULTILINE | re.DOTALL))
    bodies = re.findall(r" while\(.*body=%?([\w.-]+)", hlo)
    assert len(bodies) == 2
    assert not [line for body in bodies for line in computations[body].splitlines() if collective.search(line)]
    assert {m[1] for m in collective.finditer(hlo)} == {"all-reduce"}


@pytest.mark.parametrize("chunk", [2**25, 12])
def test_ties_go_to_the_lowest_index(monkeypatch, chunk):
    monkeypatch.setattr(nearest, "CPU_CHUNK_ELEMENTS", chunk)
    codebook = jnp.array([[3.0], [1.0], [-1.0], [1.0]])
    tokens = jnp.array([[0.0], [1.0], [2.0], [9.0], [-1.0], [0.5], [1.0]])
    np.testing.assert_array_equal(nearest.nearest_codes(tokens, codebook), [1, 1, 0, 0, 2, 1, 1])


@pytest.mark.parametrize("K", [1, 2, 63, 64, 97, 130, 256])
def test_ties_within_and_across_blocks(K):
    """Integers are exact in float32: many equal distances, and the indices are those of NumPy's argmin."""
    rng = np.random.default_rng(K)
    x_NxD, e_KxD = (rng.integers(-2, 3, (n, 2)).astype(np.float32) for n in (200, K))
    want = np.square(x_NxD[:, None] - e_KxD).sum(2).argmin(1)
    np.testing.assert_array_equal(jax.jit(nearest.nearest_codes)(x_NxD, e_KxD), want)


@pytest.mark.parametrize("K", [1, 97, 256])
def test_indices_of_nan_and_infinity_are_in_range(K):
    x_NxD, e_KxD = draw(6, K, 2)
    x_NxD[1, 0], x_NxD[2], x_NxD[3] = np.nan, np.nan, np.inf
    want = np.argmin(np.square(x_NxD[:, None] - e_KxD).sum(2), axis=1)
    got = np.asarray(jax.jit(nearest.nearest_codes)(x_NxD, e_KxD))
    np.testing.assert_array_equal(np.delete(got, 3), np.delete(want, 3))
    assert 0 <= got[3] < K
    e_KxD[K // 2] = np.nan
    got = np.asarray(jax.jit(nearest.nearest_codes)(x_NxD, e_KxD))
    np.testing.assert_array_equal(got[[0, 4, 5]], K // 2)
    indices, loss = jax.jit(nearest.nearest_codes_and_entropy, static_argnums=2)(x_NxD, e_KxD, 0.1)
    assert np.min(indices) >= 0 and np.max(indices) < K and np.isnan(loss)


def test_temporaries_of_the_largest_codebook():
    """The full table would be 32 GiB. Compiled only, never run."""

    def loss(codebook, z):
        quantized = VectorQuantizer(2**16, 256).apply({"params": {"codebook": codebook}}, z, train=True)
        return quantized.loss + jnp.sum(quantized.codes)

    shapes = [jax.ShapeDtypeStruct((n, 256), jnp.float32) for n in (2**16, 131_072)]
    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(*shapes).compile()
    # Of it 384 MiB are the tokens' gradients, and 256 MiB the codebook's, one sum for each of four devices.
    assert compiled.memory_analysis().temp_size_in_bytes < 1.5 * 2**30
