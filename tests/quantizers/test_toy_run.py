"""Slow: every quantizer of the contract test learns a Gaussian mixture between two linear layers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.quantizers.rows import QUANTIZERS, apply

CHANNELS, CLUSTERS, TOKENS, STEPS = 16, 64, 512, 300


def draw(key):
    centers_KxC = jax.random.normal(jax.random.key(9), (CLUSTERS, CHANNELS))
    cluster_key, noise_key = jax.random.split(key)
    x_NxC = centers_KxC[jax.random.randint(cluster_key, (TOKENS,), 0, CLUSTERS)]
    return x_NxC + 0.1 * jax.random.normal(noise_key, x_NxC.shape)


@pytest.mark.slow
@pytest.mark.parametrize("name", QUANTIZERS)
def test_the_error_falls_and_the_codebook_stays_in_use(name):
    module, optimizer = QUANTIZERS[name].module, optax.adam(1e-2)
    variables = module.init(jax.random.key(1), jnp.zeros((4, module.num_channels)), train=False)
    encoder, decoder = (
        jax.random.normal(jax.random.key(seed), shape) * shape[0] ** -0.5
        for seed, shape in ((2, (CHANNELS, module.num_channels)), (3, (module.num_channels, CHANNELS)))
    )
    params = {"quantizer": variables.get("params", {}), "encoder": encoder, "decoder": decoder}

    def loss(params, state, x_NxC):
        held = {"params": params["quantizer"], "quantizer": state}
        quantized, updated = apply(module, held, x_NxC @ params["encoder"], True, mutable=["quantizer"])
        error = jnp.mean(jnp.square(quantized.codes @ params["decoder"] - x_NxC))
        return error + quantized.loss, (error, quantized.metrics["usage"], updated.get("quantizer", state))

    def step(carry, key):
        params, state, opt_state = carry
        (_, (error, usage, state)), grads = jax.value_and_grad(loss, has_aux=True)(params, state, draw(key))
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), state, opt_state), (error, usage)

    start = params, variables.get("quantizer", {}), optimizer.init(params)
    keys = jax.random.split(jax.random.key(5), STEPS)
    (after, _, _), (errors, usages) = jax.jit(lambda start: jax.lax.scan(step, start, keys))(start)
    assert errors[-1] < 0.8 * errors[0] and usages[-1] > 0.75 * usages[0]
    # All parameters learn: a quantizer that detaches its values leaves them as they are.
    for old, new in zip(jax.tree.leaves(params), jax.tree.leaves(after), strict=True):
        assert np.abs(new - old).max() > 1e-3
