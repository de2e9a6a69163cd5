"""The NNX modules give what the Linen ones give, under NNX's own transformations."""

import dataclasses
import importlib.util
import pathlib
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fsq_repro.quantizers import QUANTIZERS, make_quantizer, suggest
from fsq_repro.quantizers import nnx as wrapped

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "nnx_autoencoder.py"


def make(kind):
    linen = make_quantizer(kind, **suggest(codebook_size=256, kind=kind))
    fields = {f.name: getattr(linen, f.name) for f in dataclasses.fields(linen) if f.name not in ("parent", "name")}
    return getattr(wrapped, type(linen).__name__)(**fields, rngs=nnx.Rngs(0))


def arrays(variables):
    """Nested dict of arrays, copies."""
    return jax.tree.map(jnp.copy, nnx.to_pure_dict(nnx.state(variables)))


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_outputs_gradients_and_state_are_those_of_linen(kind):
    module, twin = make(kind), make(kind)
    linen, key = module.linen_module, twin.rngs.quantizer()  # what the module draws in its first step
    variables = {"params": arrays(module.params), "quantizer": arrays(module.state)}
    z = jax.random.normal(jax.random.key(1), (6, 3, linen.num_channels))

    @nnx.jit
    def step(module, z):
        def objective(module, z):
            quantized = module(z, train=True)
            return jnp.sum(jnp.sin(quantized.codes)) + quantized.loss, quantized

        grads = nnx.grad(objective, argnums=(nnx.DiffState(0, nnx.Param), 1), has_aux=True)
        return grads(module, z)

    @jax.jit
    def linen_step(variables, z):
        def objective(params, z):
            all_variables = variables | {"params": params}
            rngs = {"quantizer": key}
            quantized, updated = linen.apply(all_variables, z, train=True, mutable=["quantizer"], rngs=rngs)
            return jnp.sum(jnp.sin(quantized.codes)) + quantized.loss, (quantized, updated)

        return jax.grad(objective, (0, 1), has_aux=True)(variables["params"], z)

    (param_grads, z_grad), quantized = step(module, z)
    (want_param_grads, want_z_grad), (want, updated) = linen_step(variables, z)
    jax.tree.map(np.testing.assert_array_equal, quantized, want)
    np.testing.assert_allclose(z_grad, want_z_grad, rtol=1e-5, atol=1e-6)
    got_param_grads = nnx.to_pure_dict(param_grads).get("params", {})
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got_param_grads, want_param_grads)
    jax.tree.map(np.testing.assert_array_equal, arrays(module.state), updated.get("quantizer", {}))
    if kind == "ema_vq":
        assert not np.array_equal(module.state["counts"], variables["quantizer"]["counts"])


@pytest.mark.parametrize("kind", ["fsq", "ema_vq"])
def test_evaluation_and_decoding(kind):
    module = make(kind)
    without_key = nnx.Not(nnx.RngKey)  # which is no array to NumPy
    state = nnx.to_pure_dict(jax.tree.map(jnp.copy, nnx.state(module, without_key)))
    z = jax.random.normal(jax.random.key(1), (6, module.num_channels))

    @nnx.jit
    def run(module, z):
        quantized = module(z, train=False)
        return quantized, module.indices_to_codes(quantized.indices), module.codes_to_indices(quantized.codes)

    quantized, codes, indices = run(module, z)
    np.testing.assert_array_equal(quantized.codes, codes)
    np.testing.assert_array_equal(quantized.indices, indices)
    assert module.codebook_size == {"fsq": 240, "ema_vq": 256}[kind] and np.max(indices) < module.codebook_size
    assert module.levels == {"fsq": (8, 6, 5), "ema_vq": None}[kind]
    after = nnx.to_pure_dict(nnx.state(module, without_key))  # with the count of random draws
    jax.tree.map(np.testing.assert_array_equal, after, state)


def test_classes_are_found_by_name_and_pickled():
    module = make("fsq")
    assert type(module) is wrapped.FSQ and wrapped.FSQ.__name__ == "FSQ"
    assert pickle.loads(pickle.dumps(wrapped.FSQ)) is wrapped.FSQ
    with pytest.raises(AttributeError, match="has no attribute 'NoQuantizer'"):
        _ = wrapped.NoQuantizer


def test_the_example_trains():
    spec = importlib.util.spec_from_file_location("nnx_autoencoder", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    errors = example.main(steps=40)
    assert errors[0] > 0.4 and errors[-1] < 0.2
