"""Samplers by name: refusals, and one more that is added by a class and a line."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import tradeoff_maskgit
from fsq_repro.factories import maskgit
from fsq_repro.sampling.parallel_decoding import parallel_decode, sample_keys
from fsq_repro.sampling.registry import SAMPLERS, make_sampler


def logits_fn(tokens_BxS, labels_B):
    """A table of logits of each position, moved by the label."""
    table_SxK = jax.random.normal(jax.random.key(7), (tokens_BxS.shape[1], 5))
    return jnp.broadcast_to(table_SxK, (len(labels_B), *table_SxK.shape)) * (1.0 + labels_B[:, None, None])


def test_the_parallel_sampler_is_parallel_decoding():
    sampler = make_sampler("parallel", num_steps=3, choice_temperature=1.5)
    keys, labels = sample_keys(jax.random.key(0), jnp.arange(4)), jnp.arange(4)
    expected = parallel_decode(logits_fn, keys, labels, num_tokens=9, mask_id=5, num_steps=3, choice_temperature=1.5)
    np.testing.assert_array_equal(sampler(logits_fn, keys, labels, 9, 5), expected)
    assert sampler.protocol() == {"sampler": "parallel, 3 steps, cosine", "choice_temperature": 1.5}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "halton", "num_steps": 3}, "sampler.name = 'halton' is not one of parallel"),
        ({"name": "parallel", "num_steps": 3}, "needs the fields choice_temperature, num_steps of sampler"),
        ({"name": "parallel", "num_steps": 3, "choice_temperature": 1.0, "order": "x"}, "but the config has .*order"),
    ],
)
def test_what_no_sampler_has_is_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        make_sampler(**fields)


def test_one_more_sampler_is_a_class_and_a_line(monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class FixedOrder:
        """Tokens one after the other, in an order of its own, the likeliest each."""

        stride: int

        def __call__(self, logits_fn, keys_B, labels_B, num_tokens, mask_id):
            tokens_BxS = jnp.full((len(labels_B), num_tokens), mask_id, jnp.int32)
            for i in (np.arange(num_tokens) * self.stride % num_tokens).tolist():
                tokens_BxS = tokens_BxS.at[:, i].set(jnp.argmax(logits_fn(tokens_BxS, labels_B)[:, i], axis=-1))
            return tokens_BxS

        def protocol(self):
            return {"sampler": f"fixed order, stride {self.stride}"}

    monkeypatch.setitem(SAMPLERS, "fixed", FixedOrder)
    config = tradeoff_maskgit.get_config("quantizer=fsq,bits=8,scale=smoke")
    with config.unlocked():
        config.sampler = {"name": "fixed", "stride": 5, "guidance_weight": 0.0}
    generator = maskgit.build_generator(config, grid=4)
    assert generator.sampler_protocol() == {"sampler": "fixed order, stride 5"}
    params = generator.model.init(jax.random.key(0), jnp.zeros((1, 16), jnp.int32), jnp.zeros(1, jnp.int32))["params"]
    tokens = generator.sample(params, jax.random.key(0), jnp.arange(2), jnp.zeros(2, jnp.int32))
    assert tokens.shape == (2, 16) and int(tokens.min()) >= 0 and int(tokens.max()) < generator.model.codebook_size
