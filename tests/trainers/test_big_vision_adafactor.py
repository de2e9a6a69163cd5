"""big_vision's Adafactor: the published scaling over ten steps, and the order of the parts behind it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.trainers import big_vision_adafactor as adafactor
from tests.conftest import ROOT, golden_weights

SHAPES = {"kernel": (40, 48), "small": (8, 8), "bias": (48,)}
SMALL = {"steps": 12, "warmup_steps": 4, "weight_decay": 0.01}


def draw(prefix):
    return {name: golden_weights({f"{prefix}/{name}": shape})[f"{prefix}/{name}"] for name, shape in SHAPES.items()}


def run(optimizer, params, gradients):
    """The updates of each step at constant params, and the last state."""
    state, step, updates = optimizer.init(params), jax.jit(optimizer.update), []
    for g in gradients:
        u, state = step(g, state, params)
        updates.append(u)
    return updates, state


GRADIENTS = [draw(f"opt/grad{k}") for k in range(10)]


@functools.cache
def scaled(clip=0.0):
    """Updates of the scaling part alone; with `clip`, of gradients cut to that global norm."""
    gradients = GRADIENTS
    if clip:
        norms = [np.sqrt(sum(np.sum(x.astype(np.float64) ** 2) for x in g.values())) for g in gradients]
        gradients = [
            {k: (x * min(1.0, clip / norm)).astype(np.float32) for k, x in g.items()}
            for g, norm in zip(gradients, norms, strict=True)
        ]
    return run(adafactor.scale_by_adafactor(), draw("opt"), gradients)[0]


def test_ten_steps_equal_the_published_ones():
    """Not compiled: XLA may leave out a rounding of the bfloat16 momentum, see the next test."""
    optimizer, params = adafactor.scale_by_adafactor(), draw("opt")
    state = optimizer.init(params)
    with np.load(ROOT / "tests" / "golden" / "uvim_adafactor.npz") as published:
        for k, gradients in enumerate(GRADIENTS):
            updates, state = optimizer.update(gradients, state, params)
            for name, update in updates.items():
                np.testing.assert_allclose(update, published[f"update{k}/{name}"], rtol=1e-6, err_msg=f"{k} {name}")


def test_scaling_equals_float64_numpy_before_and_after_the_cap():
    """beta2 = 1 - t^-0.8 reaches 0.95 after 42 steps; optax rounds the 0.9 of a bfloat16 momentum to bfloat16."""
    rng = np.random.default_rng(0)
    shapes = {"kernel": (32, 33), "small": (5,)}
    gradients = [{k: rng.normal(size=shape).astype(np.float32) for k, shape in shapes.items()} for _ in range(60)]
    params = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    updates, (state, _) = run(adafactor.scale_by_adafactor(), params, gradients)
    decay = float(jnp.bfloat16(0.9))
    rows, columns, second, momentum = np.zeros(32), np.zeros(33), np.zeros(5), {"kernel": 0.0, "small": 0.0}
    for t, (g, update) in enumerate(zip(gradients, updates, strict=True), 1):
        beta2 = min(0.95, 1 - t**-0.8)
        assert (beta2 == 0.95) == (t >= 43)
        square = g["kernel"].astype(np.float64) ** 2
        rows = beta2 * rows + (1 - beta2) * square.mean(1)
        columns = beta2 * columns + (1 - beta2) * square.mean(0)
        second = beta2 * second + (1 - beta2) * g["small"].astype(np.float64) ** 2
        second_moments = {"kernel": np.outer(rows, columns) / rows.mean(), "small": second}
        for name, v in second_moments.items():
            momentum[name] = decay * momentum[name] + 0.1 * g[name] / np.sqrt(v)
            np.testing.assert_allclose(update[name], momentum[name], rtol=0.01, atol=0.005)
    for ours, expected in ((state.v_row["kernel"], rows), (state.v_col["kernel"], columns), (state.v["small"], second)):
        np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_state_is_factored_and_momentum_is_bfloat16():
    state = adafactor.scale_by_adafactor().init(draw("opt"))
    factored, ema = state
    assert factored.v_row["kernel"].shape == (40,) and factored.v_col["kernel"].shape == (48,)
    assert factored.v["kernel"].shape == (1,) and factored.v["small"].shape == (8, 8)
    assert {x.dtype for x in jax.tree.leaves(ema.ema)} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_order_of_the_parts(clip):
    """Decay is on kernels only and scaled by the schedule alone, neither by the learning rate nor by a multiplier."""
    params = draw("opt")
    optimizer = adafactor.build(3e-3, gradient_clip=clip, multipliers=(("ker.*", 0.1), ("kernel|bias", 0.5)), **SMALL)
    for t, (ours, scaling) in enumerate(zip(run(optimizer, params, GRADIENTS)[0], scaled(clip), strict=True)):
        schedule = t / 4 if t < 4 else 0.5 * (1 + np.cos(np.pi * (t - 4) / 8))
        for name, factor, decay in (("kernel", 0.1, 0.01), ("small", 1.0, 0.0), ("bias", 0.5, 0.0)):
            expected = -schedule * (3e-3 * factor * np.asarray(scaling[name]) + decay * params[name])
            np.testing.assert_allclose(ours[name], expected, rtol=1e-5, atol=1e-8)


def test_clipping_acts_only_above_the_norm():
    # The second moment of the first step cancels a common factor, that of later ones does not.
    first, second = scaled(0.0), scaled(0.5)
    np.testing.assert_allclose(first[0]["bias"], second[0]["bias"], rtol=1e-4)
    assert not np.allclose(first[1]["bias"], second[1]["bias"], rtol=1e-3)
    params = draw("opt")
    free, clipped = (run(adafactor.build(1.0, gradient_clip=c, **SMALL), params, GRADIENTS[:3])[0] for c in (0.0, 1e3))
    jax.tree.map(np.testing.assert_array_equal, free, clipped)


def test_nested_names_are_matched_whole():
    params = {"encoder": {"block": {"kernel": np.ones(2)}}, "encoder_head": {"kernel": np.ones(2)}}
    scale = adafactor.scale_groups((("encoder/.*", 0.25),))
    updates, _ = scale.update(params, scale.init(params))
    np.testing.assert_array_equal(updates["encoder"]["block"]["kernel"], 0.25)
    np.testing.assert_array_equal(updates["encoder_head"]["kernel"], 1)
    assert adafactor.kernels(params | {"bias": np.ones(2)}) == {
        "encoder": {"block": {"kernel": True}},
        "encoder_head": {"kernel": True},
        "bias": False,
    }


@pytest.mark.parametrize(
    "change, match",
    [
        ({"learning_rate": 0.0}, "learning_rate is 0.0, but"),
        ({"learning_rate": float("nan")}, "learning_rate is nan, but"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0, but"),
        ({"gradient_clip": float("inf")}, "gradient_clip is inf, but"),
        ({"warmup_steps": 12}, r"warmup_steps is 12, but must be in 0\.\.11"),
        ({"multipliers": ((".*", 0.0),)}, r"multipliers has 0.0 for '\.\*', but"),
        ({"multipliers": (("encodr.*", 0.1),)}, r"pattern 'encodr\.\*', but it must match"),
        ({"multipliers": ((".*", 0.1), ("bias", 0.5))}, "pattern 'bias', but it must match some parameter first"),
    ],
)
def test_bad_arguments(change, match):
    arguments = {"learning_rate": 1e-3, **SMALL, **change}
    with pytest.raises(ValueError, match=match):
        adafactor.build(**arguments).init(draw("opt"))
