"""big_vision's variant of Adafactor, which trains both stages of UViM.

Follows google-research/big_vision (big_vision/optax.py). Second moments are factored and their decay is capped, updates
are not clipped, momentum is kept in bfloat16 and not debiased. One schedule from 0 to 1 and back to 0 multiplies
everything, weight decay too; the learning rate and its multipliers of parameter groups scale only the gradient's part:
-schedule * (learning_rate * multiplier * update + weight_decay * kernel).
"""

import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import optax


def scale_by_adafactor() -> optax.GradientTransformation:
    """Gradients -> updates of about unit scale, before learning rate and sign. Its `update` needs the params.

    Second moments are factored where at least two dimensions have 32 entries. optax rounds the momentum of 0.9 to
    bfloat16, 0.8984, in the product with what is kept.
    """

    def beta2(step, exponent):
        return jnp.minimum(0.95, 1.0 - (jnp.asarray(step, jnp.float32) + 1.0) ** -exponent)

    return optax.chain(
        optax.scale_by_factored_rms(decay_rate=0.8, min_dim_size_to_factor=32, epsilon=1e-30, decay_rate_fn=beta2),
        optax.ema(0.9, debias=False, accumulator_dtype=jnp.bfloat16),
    )


def scale_groups(multipliers: tuple[tuple[str, float], ...]) -> optax.GradientTransformation:
    """Multiplies the update of each parameter by the factor of the first pattern that matches its whole name.

    `multipliers` are pairs (regular expression, factor); names are as "encoder/encoderblock_0/LayerNorm_0/scale". The
    updates of parameters that no pattern matches stay as they are.

    Raises ValueError at `init` where a pattern is not the first match of any parameter.
    """

    def group(path: Any, _: Any) -> int:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return next((i for i, (pattern, _) in enumerate(multipliers) if re.fullmatch(pattern, name)), len(multipliers))

    def groups(params: Any) -> Any:
        labels = jax.tree_util.tree_map_with_path(group, params)
        if unused := set(range(len(multipliers))) - set(jax.tree.leaves(labels)):
            pattern = multipliers[min(unused)][0]
            raise ValueError(f"multipliers has the pattern {pattern!r}, but it must match some parameter first.")
        return labels

    scales = [optax.scale(factor) for _, factor in multipliers]
    return optax.partition(dict(enumerate([*scales, optax.identity()])), groups)


def kernels(params: Any) -> Any:
    """Tree of booleans, True for the parameters called `kernel`: what weight decay acts on."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def build(
    learning_rate: float,
    *,
    steps: int,
    warmup_steps: int,
    weight_decay: float,
    gradient_clip: float = 0.0,
    multipliers: tuple[tuple[str, float], ...] = (),
) -> optax.GradientTransformation:
    """The published optimiser, for a Linen tree of params; its `update` needs the params.

    The schedule rises linearly over `warmup_steps` and reaches 0 after `steps`. `gradient_clip` is the largest global
    norm of the gradient, 0 does not clip; `multipliers` as of `scale_groups`.

    Raises ValueError where one of them is out of range.
    """
    if not (learning_rate > 0 and math.isfinite(learning_rate)):
        raise ValueError(f"learning_rate is {learning_rate}, but must be a finite number above 0.")
    for name, value in (("weight_decay", weight_decay), ("gradient_clip", gradient_clip)):
        if not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"{name} is {value}, but must be a finite number of at least 0.")
    if not 0 <= warmup_steps < steps:
        raise ValueError(f"warmup_steps is {warmup_steps}, but must be in 0..{steps - 1} (below steps).")
    for pattern, factor in multipliers:
        if not (factor > 0 and math.isfinite(factor)):
            raise ValueError(f"multipliers has {factor} for {pattern!r}, but must have finite numbers above 0.")
    return optax.chain(
        optax.clip_by_global_norm(gradient_clip) if gradient_clip else optax.identity(),
        scale_by_adafactor(),
        optax.scale(learning_rate),
        scale_groups(multipliers),
        optax.add_decayed_weights(weight_decay, mask=kernels),
        optax.scale_by_schedule(optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup_steps, steps)),
        optax.scale(-1.0),
    )
