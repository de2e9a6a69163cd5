"""Products of quantizers: the published values, equal to the parts one by one, one index for all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from fsq_repro.quantizers import FSQ, make_quantizer, quantizer_label
from fsq_repro.quantizers.ema_vq import EmaVectorQuantizer
from fsq_repro.quantizers.product import ProductQuantizer
from fsq_repro.quantizers.vq import VectorQuantizer
from tests.conftest import load_cases

pytestmark = pytest.mark.usefixtures("strict_dtypes")

GOLDEN = load_cases("quantizers_product_vq")
Z, W, CODEBOOKS = (GOLDEN[""][name] for name in ("z", "w", "codebooks"))
VARIABLES = {"params": {f"parts_{g}": {"codebook": codebook} for g, codebook in enumerate(CODEBOOKS)}}


def test_published_values_and_gradients():
    want = GOLDEN["vqtorch"]
    part = VectorQuantizer(16, 4, commitment_cost=0.2, codebook_cost=0.8, entropy_ratio=0.0)
    module = ProductQuantizer(part, groups=3)

    @jax.jit
    def step(params, z):
        def objective(params, z):
            quantized = module.apply({"params": params}, z, train=True)
            return jnp.sum(quantized.codes * W) + quantized.loss, quantized

        gradients, quantized = jax.grad(objective, (0, 1), has_aux=True)(params, z)
        return quantized, *gradients, module.apply({"params": params}, quantized.indices, method="indices_to_codes")

    quantized, grads, dz, decoded = step(VARIABLES["params"], Z)
    digits = want["indices_with_offset"] - 16 * np.arange(3)
    np.testing.assert_array_equal(digits, GOLDEN["separate"]["indices"])
    np.testing.assert_array_equal(quantized.indices, digits @ 16 ** np.arange(3))
    np.testing.assert_allclose(quantized.codes, want["codes"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(decoded, GOLDEN["separate"]["decoded"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(quantized.loss, want["loss"], rtol=1e-5)
    np.testing.assert_allclose(dz, want["grad_z"], rtol=1e-5, atol=1e-5)
    for g in range(3):  # a codebook that all groups share would get one gradient
        got = grads[f"parts_{g}"]["codebook"]
        np.testing.assert_allclose(got, want["grad_codebooks"][g], rtol=1e-5, atol=1e-5)


def test_equals_its_parts_one_by_one_with_their_own_state():
    part = EmaVectorQuantizer(8, 4, momentum=0.5, commitment_cost=1.0, splitting=False)
    module = ProductQuantizer(part, groups=3)
    keys = {"params": jax.random.key(0), "quantizer": jax.random.key(1)}
    variables = jax.jit(lambda z: module.init(keys, z, train=True))(Z)
    one = jax.jit(lambda v, z: part.apply(v, z, train=True, mutable=["quantizer"]))

    @jax.jit
    def in_two_parts(variables):
        outputs = [module.apply(variables, z, train=True, mutable=["batch"])[1] for z in Z]
        batch = jax.tree.map(jnp.add, *outputs)["batch"]
        return module.apply(variables, batch, method="update", mutable=["quantizer"])

    quantized, after = jax.jit(lambda v, z: module.apply(v, z, train=True, mutable=["quantizer"]))(variables, Z)
    metrics, after_parts = in_two_parts(variables)
    losses, ratios = [], []
    for g in range(3):
        state = variables["quantizer"][f"parts_{g}"]
        alone, updated = one({"quantizer": state}, Z[..., 4 * g : 4 * (g + 1)])
        np.testing.assert_array_equal(alone.codes, quantized.codes[..., 4 * g : 4 * (g + 1)])
        for both in (after, after_parts):
            got = both["quantizer"][f"parts_{g}"]
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, updated["quantizer"])
        losses.append(alone.loss)
        ratios.append(alone.metrics["zeros_ratio"])
    np.testing.assert_allclose(quantized.loss, np.mean(losses), rtol=1e-6)
    np.testing.assert_allclose(quantized.metrics["zeros_ratio"], np.mean(ratios), rtol=1e-6)
    np.testing.assert_allclose(metrics["zeros_ratio"], np.mean(ratios), rtol=1e-6)
    states = variables["quantizer"]
    assert not np.array_equal(states["parts_0"]["dictionary"], states["parts_1"]["dictionary"])


def test_fsq_is_the_product_of_its_channels():
    module, z = ProductQuantizer(FSQ((5,)), groups=3), jax.random.normal(jax.random.key(0), (7, 3))
    whole, product = jax.jit(lambda z: [m.apply({}, z, train=False) for m in (FSQ((5, 5, 5)), module)])(z)
    np.testing.assert_array_equal(whole.indices, product.indices)
    np.testing.assert_array_equal(whole.codes, product.codes)
    assert module.levels == (5, 5, 5)


def test_a_config_names_the_part():
    fields = {"name": "vq", "codebook_size": 16, "embedding_dim": 4, "entropy_ratio": 0.0}
    config = ConfigDict({"name": "product", "groups": 3, "quantizer": fields})
    assert make_quantizer(**config) == ProductQuantizer(VectorQuantizer(16, 4, entropy_ratio=0.0), groups=3)
    assert quantizer_label(**config) == "product_vq_narrow_no_entropy"
    with pytest.raises(ValueError, match="quantizer.size is not a field of quantizer 'vq'"):
        make_quantizer("product", groups=3, quantizer=fields | {"size": 3})


def test_too_many_codes_for_one_index_are_refused():
    module = ProductQuantizer(VectorQuantizer(2**8, 4), groups=4)
    with pytest.raises(ValueError, match=r"groups is 4, 256\^4 codes, but int32 indices allow less than 2\^31"):
        module.init(jax.random.key(0), jnp.zeros((1, 16)), train=False)


@pytest.mark.parametrize("groups", [0, 1.5])
def test_impossible_groups_are_refused_before_anything_is_counted(groups):
    with pytest.raises(ValueError, match=f"^groups is {groups}, but must be an integer of at least 1"):
        _ = ProductQuantizer(VectorQuantizer(16, 3), groups=groups).num_channels
