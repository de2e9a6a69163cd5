"""FLOPs against hand counts, XLA's own and counted products; collectives of programs whose communication is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.profiling.program_costs import matrix_flops, read_collectives
from fsq_repro.runtime import sharding

M, K, N = 8, 64, 32
X, W = jnp.zeros((M, K)), jnp.zeros((K, N))
PRODUCT = 2 * M * K * N


def flops(f, *args) -> int:
    return matrix_flops(jax.make_jaxpr(f)(*args))


def loss(w, x):
    return jnp.sum(jnp.tanh(x @ w))


@pytest.mark.parametrize(
    ("f", "args", "expected"),
    [
        (loss, (W, X), PRODUCT),
        (jax.grad(loss), (W, X), 2 * PRODUCT),  # forward, and for w
        (jax.grad(loss, argnums=(0, 1)), (W, X), 3 * PRODUCT),  # and for x
        (jax.value_and_grad(jax.checkpoint(loss)), (W, X), 3 * PRODUCT),  # forward twice
        (jax.jit(lambda x, w: jnp.einsum("bmk,bkn->bmn", x, w)), (jnp.stack([X] * 3), jnp.stack([W] * 3)), 3 * PRODUCT),
        (lambda w, x: jax.lax.map(lambda row: row @ w, x), (W, X), PRODUCT),  # a loop of M rounds
        (lambda w, x: jax.grad(lambda w: jnp.sum(jax.lax.map(lambda r: r @ w, x)))(w), (W, X), 2 * PRODUCT),
        (lambda w, x: jax.lax.cond(x[0, 0] > 0, lambda: x @ w, lambda: 2 * x @ w + x @ w), (W, X), 2 * PRODUCT),
        (lambda w, x: (x @ w, jax.jit(loss)(w, x)), (W, X), PRODUCT),  # the same product twice: XLA merges them
        (lambda w, x: (x @ w, jax.value_and_grad(loss)(w, x)), (W, X), 2 * PRODUCT),
        (lambda w, x: (x @ w, jax.lax.stop_gradient(x) @ w), (W, X), PRODUCT),
        (lambda w, x: (x @ w, (x + 1) @ w, x @ (w * 2)), (W, X), 3 * PRODUCT),
        (lambda x: jnp.cumsum(x), (X,), 0),
    ],
)
def test_flops_by_hand(f, args, expected):
    assert flops(f, *args) == expected


def test_xla_counts_the_same_without_a_loop_and_one_round_of_a_loop():
    def product(w, x):
        return x @ w

    def loop(w, x):
        return jax.lax.map(lambda row: row @ w, x)

    for f, rounds in ((product, 1), (loop, M)):
        by_xla = jax.jit(f).lower(W, X).cost_analysis()["flops"]
        assert flops(f, W, X) / rounds == pytest.approx(by_xla, rel=0.1)


def test_products_in_a_loop_of_unknown_length_are_refused():
    def f(x):
        return jax.lax.while_loop(lambda x: jnp.sum(x) < 1, lambda x: x @ x, x)

    with pytest.raises(ValueError, match="loop of unknown length"):
        flops(f, jnp.zeros((4, 4)))


@pytest.mark.parametrize(
    ("strides", "padding", "lhs_dilation", "rhs_dilation", "groups"),
    [
        ((1, 1), "SAME", (1, 1), (1, 1), 1),
        ((2, 2), "VALID", (1, 1), (1, 1), 1),
        ((1, 1), ((2, 1), (1, 3)), (2, 3), (1, 1), 1),  # as the gradient of a strided convolution
        ((2, 1), "SAME", (1, 1), (2, 2), 2),
    ],
)
def test_flops_of_convolutions_are_twice_the_products_that_count(strides, padding, lhs_dilation, rhs_dilation, groups):
    """The result for ones is, for each output, its number of products."""
    x, kernel = jnp.ones((3, 7, 6, 4)), jnp.ones((3, 2, 4 // groups, 10))
    f = functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=strides,
        padding=padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    assert flops(f, x, kernel) == 2 * int(np.sum(f(x, kernel)))


def test_collectives_by_kind_as_often_as_they_run():
    mesh = sharding.make_mesh()
    rows = sharding.batch_sharding(mesh).spec

    def device(x, rounds):  # x float32 (2, 16) on each of 4 devices
        def body(carry, _):
            return jax.lax.psum(carry, "data") / 4, None

        x, _ = jax.lax.scan(body, x, None, length=5)
        whole = jax.lax.all_gather(x, "data", tiled=True)
        x += jax.lax.ppermute(x, "data", [(i, (i + 1) % 4) for i in range(4)]) + jnp.sum(whole)
        return jax.lax.fori_loop(0, rounds, lambda _, x: jax.lax.pmax(x, "data") * 0.5, x)

    f = jax.shard_map(device, mesh=mesh, in_specs=(rows, jax.P()), out_specs=rows, check_vma=False)
    hlo = jax.jit(f).lower(jnp.zeros((8, 16)), 3).compile().as_text()
    found = read_collectives(hlo)
    array = 2 * 16 * 4
    assert found["bytes"] == {"all-reduce": (5 + 1) * array, "all-gather": 4 * array, "collective-permute": array}
    assert found["loops_counted_once"] == 1


def test_one_device_communicates_nothing():
    hlo = jax.jit(jax.grad(loss)).lower(W, X).compile().as_text()
    assert read_collectives(hlo)["bytes"] == {}
