import jax
import jax.numpy as jnp
import pytest

from fsq_repro.runtime import sharding


def test_fsdp_splits_large_arrays_only_and_along_a_divisible_axis():
    mesh = sharding.make_mesh(fsdp=2)
    assert mesh.shape == {"data": 2, "fsdp": 2}
    abstract = {
        "kernel": jax.ShapeDtypeStruct((3, 256, 100), jnp.float32),
        "odd": jax.ShapeDtypeStruct((255, 129), jnp.float32),
        "bias": jax.ShapeDtypeStruct((256,), jnp.float32),
    }
    specs = jax.tree.map(
        lambda s: tuple(s.spec), sharding.state_sharding(abstract, mesh), is_leaf=lambda x: hasattr(x, "spec")
    )
    assert specs == {"kernel": (None, "fsdp", None), "odd": (), "bias": ()}


def test_without_fsdp_all_is_replicated():
    specs = sharding.state_sharding(jax.ShapeDtypeStruct((256, 256), jnp.float32), sharding.make_mesh())
    assert specs.spec == jax.P()


def test_fsdp_must_divide_the_devices():
    with pytest.raises(ValueError, match="mesh.fsdp = 3 must divide the number of devices, 4"):
        sharding.make_mesh(fsdp=3)
