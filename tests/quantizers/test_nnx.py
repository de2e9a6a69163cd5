"""The NNX modules give what the Linen ones give, under NNX's own transformations."""

import importlib.util
import pathlib
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fsq_repro.quantizers import QUANTIZERS
from fsq_repro.quantizers import nnx as wrapped

TINY = {"levels": (5, 4), "stage_levels": (3, 2), "num_bits": 4, "codebook_size": 16, "embedding_dim": 4}
EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "nnx_autoencoder.py"


def make(kind):
    fields = {k: v for k, v in TINY.items() if k in QUANTIZERS[kind].__dataclass_fields__}
    return getattr(wrapped, QUANTIZERS[kind].__name__)(**fields, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_outputs_gradients_and_state_are_those_of_linen(kind):
    module, twin = make(kind), make(kind)
    linen, key = module.linen_module, twin.rngs.quantizer()  # what the module draws in its first step
    state_names = {"params": module.params, "quantizer": module.state}
    variables = {c: {k: v[...] for k, v in tree.items()} for c, tree in state_names.items()}
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
    assert set(module.state) == set(updated.get("quantizer", {}))
    for name, value in updated.get("quantizer", {}).items():
        np.testing.assert_array_equal(module.state[name][...], value)
        assert not np.array_equal(value, variables["quantizer"][name])


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
    assert module.codebook_size == {"fsq": 20, "ema_vq": 16}[kind] and np.max(indices) < module.codebook_size
    assert module.levels == {"fsq": (5, 4), "ema_vq": None}[kind]
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
