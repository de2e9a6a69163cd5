"""What the tokenizer takes: bytes or floats in [0, 1], and indices of its codebook; all else is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.data.images import to_unit_float
from fsq_repro.inference.tokenizer import load_tokenizer
from tests.tiny import save_untrained, tiny_config

BYTES = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
UNIT = to_unit_float(BYTES)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(save_untrained(tmp_path_factory.mktemp("runs") / "run", tiny_config()))


@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_bytes_are_the_floats_that_they_stand_for(tokenizer, as_array):
    expected = np.asarray(tokenizer.encode(UNIT))
    np.testing.assert_array_equal(tokenizer.encode(as_array(BYTES)), expected)
    np.testing.assert_array_equal(tokenizer.reconstruct(as_array(BYTES))[1], expected)


BAD_IMAGES = {
    "-1 .. 1": (2 * UNIT - 1, "reach from -1 to 1"),
    "0 .. 255": (BYTES.astype(np.float32), "reach from 0 to 255"),
    "0 .. 255 in bfloat16": (jnp.asarray(BYTES, jnp.bfloat16), "to 255"),
    "a single pixel": (np.where(np.arange(16)[:, None, None] == 3, 1.01, UNIT), "to 1.01"),
    "nan": (UNIT * np.nan, "reach from nan to nan"),
    "int32": (BYTES.astype(np.int32), "dtype int32"),
    "bool": (BYTES > 7, "dtype bool"),
    "one image": (UNIT[0], "the shape (16, 16, 3)"),
    "channels first": (UNIT.transpose(0, 3, 1, 2), "the shape (4, 3, 16, 16)"),
}


@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
@pytest.mark.parametrize("name", BAD_IMAGES)
def test_other_images_are_refused(tokenizer, name, as_array):
    images, words = BAD_IMAGES[name]
    for method in (tokenizer.encode, tokenizer.reconstruct):
        with pytest.raises(ValueError) as e:
            method(as_array(images))
        assert words in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
@pytest.mark.parametrize("bad", [-1, "codebook_size", 2**30])
def test_indices_of_no_code_are_refused(tokenizer, bad, as_array):
    last = tokenizer.codebook_size - 1
    indices = np.zeros((4, 4, 4), np.int32)
    indices[2, 1, 3] = last
    tokenizer.decode(as_array(indices))
    indices[1, 2, 3] = last + 1 if bad == "codebook_size" else bad
    with pytest.raises(ValueError, match=rf"must be in 0 \.\. {last}, but reach from"):
        tokenizer.decode(as_array(indices))
    with pytest.raises(ValueError, match="dtype float32, but must be whole numbers"):
        tokenizer.decode(as_array(np.zeros((4, 4, 4), np.float32)))
    with pytest.raises(ValueError, match=r"the shape \(4, 16\)"):
        tokenizer.decode(as_array(np.zeros((4, 16), np.int32)))


def test_in_a_jitted_function_only_the_dtype_is_known(tokenizer):
    expected = tokenizer.encode(UNIT)
    np.testing.assert_array_equal(jax.jit(tokenizer.encode)(BYTES), expected)
    assert jax.jit(tokenizer.decode)(expected).shape == UNIT.shape
    with pytest.raises(ValueError, match="dtype int32"):
        jax.jit(tokenizer.encode)(BYTES.astype(np.int32))
