"""The door to the perceptual losses: names, weights as arguments, and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.losses import perceptual
from fsq_repro.losses.lpips import lpips_distance


def test_the_loss_is_the_batch_mean_and_reads_only_the_weights_it_is_given():
    loss = perceptual.load_perceptual("lpips_alexnet")
    assert (loss.name, loss.network, len(loss.file_hash)) == ("lpips_alexnet", "alexnet", 64)
    x = jnp.asarray(np.random.default_rng(0).random((3, 32, 32, 3)), jnp.float32)
    both = jax.jit(lambda params: (loss(params, x, 1 - x), lpips_distance(params, x, 1 - x, "alexnet")))
    value, distances = both(loss.params)
    np.testing.assert_allclose(value, distances.mean(), rtol=1e-5)
    assert value > 0
    no_heads = loss.params | {"heads": [0 * head for head in loss.params["heads"]]}
    assert both(no_heads)[0] == 0


def test_resnet50_takes_its_weights_from_a_path(monkeypatch):
    monkeypatch.setattr(perceptual, "load_resnet50", lambda path: ({"from": path}, "hash"))
    loss = perceptual.load_perceptual("resnet50", "weights.npz")
    assert (loss.network, loss.params, loss.file_hash) == ("resnet50", {"from": "weights.npz"}, "hash")


@pytest.mark.parametrize(
    "name, path, error, message",
    [
        ("lpips", "", ValueError, "perceptual loss is 'lpips', but must be one of"),
        ("lpips_vgg16", "a.npz", ValueError, "'lpips_vgg16' takes no weight file, but its path is 'a.npz'"),
        ("resnet50", "", FileNotFoundError, "There is no ResNet-50 weight file"),
    ],
)
def test_bad_names_and_paths_are_refused(name, path, error, message):
    with pytest.raises(error, match=message):
        perceptual.load_perceptual(name, path)
