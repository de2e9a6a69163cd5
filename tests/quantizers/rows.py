"""A row for every quantizer: what it does not share with all others. `test_contract.py` asks the same of each."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fsq_repro.quantizers import (
    BSQ,
    FSP,
    FSQ,
    LFQ,
    QLAE,
    AlternatedVectorQuantizer,
    DiVeQ,
    EmaRestartQuantizer,
    EmaVectorQuantizer,
    IndexBackpropagationQuantizer,
    L2VectorQuantizer,
    ProductQuantizer,
    ResidualFSQ,
    SimVectorQuantizer,
    VectorQuantizer,
)
from fsq_repro.quantizers.fsq import bound
from fsq_repro.quantizers.normalization import unit_length

SHAPE = (8, 5)  # tokens of a batch; four devices divide it
Smooth = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Row:
    """A quantizer, and what it does not share with all others.

    Attributes:
      module: at a small size.
      large: fields that make its codebook one of 2^14 codes.
      refused: settings that do not exist, as (field, value); the message starts with both.
      smooth: (z, codes, entries) -> the differentiable function of z whose gradient the codes have in training, given
        the codes of that call and what `indices_to_codes` has for its indices; equal to `smooth_atol`.
      has_loss: whether the loss in training is other than 0.
      training_codes: the state whose codebook holds the codes of a call in training, "before" or "after" its update;
        "none" where noise leads away from them, "some" where it does so for some of them.
      levels: of a quantizer of scalars; then channel 0 is the fastest digit of an index.
      ablation: of the module.
      state: names in the collection `quantizer`.
      learned: whether there are parameters that the loss or the decoder trains.
      computed: whether XLA may round the codebook differently from one program to another.
    """

    module: nn.Module
    large: dict[str, Any]
    refused: tuple[tuple[str, Any], ...]
    smooth: Smooth = lambda z, codes, entries: z
    smooth_atol: float = 1e-7
    has_loss: bool = False
    training_codes: str = "before"
    levels: tuple[int, ...] | None = None
    ablation: str = ""
    state: tuple[str, ...] = ()
    learned: bool = False
    computed: bool = False


def fsq(variant: str) -> Row:
    levels, half_width = (8, 5, 4), jnp.array([[[4.0, 2.0, 2.0]]])
    return Row(
        FSQ(levels, bound=variant),
        large={"levels": (8, 8, 8, 8, 4)},
        refused=(("levels", (8, 2, 4)), ("levels", ()), ("bound", "tanh")),
        smooth=lambda z, codes, entries: bound(z, levels, variant) / half_width,
        levels=levels,
    )


def scalar(module, smooth, **rest):
    """Row of a quantizer of scalars of 8, 5 and 4 levels, unless told otherwise; `smooth` of z alone."""
    given = {"large": {"levels": (8, 8, 8, 8, 4)}, "levels": (8, 5, 4), "refused": (("levels", (8, 1, 4)),)} | rest
    return Row(module, smooth=lambda z, codes, entries: smooth(z), **given)


def bits(module, length, **rest):
    """Row of a quantizer of 6 bits; its codes have the gradient of z brought to this length."""
    fields = {"levels": (2,) * 6, "large": {"num_bits": 14}, "has_loss": True}
    refused = (("num_bits", 31), ("entropy_group", 4), ("entropy_ratio", -1.0), *rest.pop("refused"))
    return scalar(module, lambda z: length * unit_length(z), refused=refused, **fields, **rest)


S_432 = 1 + 1 / jnp.array([[[3.0, 2.0, 1.0]]])  # the range of residual FSQ

SIZES = (("codebook_size", 0), ("codebook_size", 2**31), ("embedding_dim", 2.0))  # that no codebook has


def learned(module, **rest):
    """Row of a quantizer with a codebook of so many codes of so many channels."""
    given = {"large": {"codebook_size": 2**14}, "refused": SIZES} | rest
    return Row(module, **given)


def turned(z, codes, entries):
    """The rotation and scaling that takes each z to its code, held fixed, by a reflection at z + code and one at z."""
    u, v = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in jax.lax.stop_gradient((z, entries)))
    r = (u + v) / jnp.linalg.norm(u + v, axis=-1, keepdims=True)
    z_norm, norm = (jnp.linalg.norm(x, axis=-1, keepdims=True) for x in jax.lax.stop_gradient((z, entries)))
    out = z - 2 * jnp.sum(z * r, -1, keepdims=True) * r + 2 * jnp.sum(z * u, -1, keepdims=True) * v
    return norm / z_norm * out


def soft_choice(z, codes, entries):
    """A softmax over all inner products in place of the choice."""
    codebook = make_case("ibq")[3]["params"]["codebook"]
    return jax.nn.softmax(z @ codebook.T) @ codebook


def along_the_step(z, codes, entries):
    """A step of the length of z's distance from its code, in the direction in which the call went."""
    direction = (codes - z) / jnp.linalg.norm(codes - z, axis=-1, keepdims=True)
    return z + jnp.linalg.norm(entries - z, axis=-1, keepdims=True) * jax.lax.stop_gradient(direction)


QUANTIZERS = {
    "fsq": fsq("paper"),
    "fsq_corrected": fsq("corrected"),
    "fsq_symmetric": scalar(FSQ((8, 5, 2), bound="symmetric"), jnp.tanh, levels=(8, 5, 2), ablation="symmetric"),
    "fsq_ifsq": scalar(
        FSQ((9, 5, 3), bound="ifsq"),
        lambda z: jnp.tanh(0.8 * z),
        levels=(9, 5, 3),
        large={"levels": (9, 9, 9, 9, 5)},
        refused=(("levels", (9, 4, 3)), ("noise", True)),
        ablation="ifsq",
    ),
    "fsq_noise": scalar(
        FSQ((8, 5, 2), bound="symmetric", noise=True),
        jnp.tanh,
        levels=(8, 5, 2),
        training_codes="some",
        ablation="symmetric_noise",
    ),
    "lfq": bits(LFQ(6), 6**0.5, refused=(("entropy_temperature", 0.0),)),
    "bsq": bits(BSQ(6), 6**-0.5, refused=(("inverse_temperature", 0.0), ("gradient", "none"))),
    "qlae": scalar(
        QLAE((8, 5, 4)),
        lambda z: z,
        refused=(("levels", (8, 1, 4)), ("codebook_cost", -1.0)),
        has_loss=True,
        learned=True,
    ),
    "residual_fsq": scalar(
        ResidualFSQ((4, 3, 2)),
        lambda z: S_432 * jnp.tanh(z / S_432),
        levels=None,
        large={"stage_levels": (8, 8, 2)},
        refused=(("stage_levels", (8, 1, 4)), ("num_stages", 0)),
    ),
    "fsp": scalar(
        FSP((8, 5, 4)),
        lambda z: 3**0.5 * jnp.tanh(z),
        refused=(("levels", (8, 1, 4)), ("distribution", "none"), ("quantize_rate", 2.0)),
        has_loss=True,
        training_codes="none",
    ),
    "fsp_inverse": scalar(FSP((8, 5, 4), "sigmoid", inverse=True), lambda z: z, has_loss=True, training_codes="none"),
    "vq": learned(
        VectorQuantizer(64, 6),
        refused=(*SIZES, ("commitment_cost", -1.0), ("entropy_temperature", 0.0), ("gradient", "none")),
        has_loss=True,
        ablation="narrow",
        learned=True,
    ),
    "vq_rotation": learned(
        VectorQuantizer(64, 6, gradient="rotation"),
        smooth=turned,
        smooth_atol=2e-6,
        has_loss=True,
        ablation="narrow_rotation",
        learned=True,
    ),
    "l2_vq": learned(
        L2VectorQuantizer(64, 6),
        smooth=lambda z, codes, entries: z / jnp.linalg.norm(z, axis=-1, keepdims=True),
        has_loss=True,
        learned=True,
        computed=True,
    ),
    "vq_affine_sync": learned(
        VectorQuantizer(64, 6, affine_lr=10.0, sync_nu=0.2, entropy_ratio=0.0),
        refused=(*SIZES, ("affine_lr", -1.0), ("sync_nu", float("nan"))),
        has_loss=True,
        ablation="narrow_no_entropy_affine_sync",
        learned=True,
        computed=True,
    ),
    "simvq": learned(
        SimVectorQuantizer(64, 6),
        refused=(*SIZES, ("codebook_cost", -1.0), ("gradient", "none")),
        has_loss=True,
        state=("frozen_codebook",),
        learned=True,
        computed=True,
    ),
    "ibq": learned(
        IndexBackpropagationQuantizer(64, 6),
        refused=(*SIZES, ("propagated_cost", -1.0), ("entropy_temperature", 0.0)),
        smooth=soft_choice,
        smooth_atol=1e-5,
        has_loss=True,
        learned=True,
    ),
    "diveq": learned(
        DiVeQ(64, 6, restart_every=3),
        refused=(*SIZES, ("noise", -1.0), ("restart_every", 2.0)),
        smooth=along_the_step,
        smooth_atol=1e-5,
        training_codes="none",
        state=("offset", "steps", "uses"),
        learned=True,
        computed=True,
    ),
    "alternated_vq": learned(
        AlternatedVectorQuantizer(64, 6, codebook_lr=20.0, commitment_cost=0.25),
        refused=(*SIZES, ("codebook_lr", -1.0), ("gradient", "none")),
        has_loss=True,
        training_codes="after",
        state=("codebook",),
        computed=True,
    ),
    "product": Row(
        ProductQuantizer(VectorQuantizer(16, 3), groups=2),
        large={"quantizer": VectorQuantizer(2**14, 6), "groups": 2},
        refused=(("groups", 0), ("groups", 8)),
        has_loss=True,
        ablation="narrow",
        learned=True,
    ),
    "product_ema_restart": Row(
        ProductQuantizer(EmaRestartQuantizer(8, 3, min_count=0.5), groups=2),
        large={"quantizer": EmaRestartQuantizer(2**14, 6)},
        refused=(("groups", 2.0),),
        has_loss=True,
        state=("parts_0", "parts_1"),
    ),
    "ema_restart": learned(
        EmaRestartQuantizer(32, 6, min_count=0.5),
        refused=(
            *SIZES,
            ("momentum", 1.0),
            ("min_count", -0.1),
            ("smoothing", -1.0),
            ("kmeans_rounds", -1),
            ("gradient", "none"),
        ),
        has_loss=True,
        state=("codebook", "counts", "sums"),
    ),
    "ema_restart_kmeans": learned(
        EmaRestartQuantizer(32, 6, min_count=0.5, reset=True, smoothing=1e-5, kmeans_rounds=3, gradient="rotation"),
        smooth=turned,
        smooth_atol=2e-6,
        has_loss=True,
        state=("codebook", "counts", "sums"),
        ablation="reset_smoothed_kmeans_rotation",
    ),
    "ema_vq": learned(
        EmaVectorQuantizer(64, 6),
        refused=(*SIZES, ("momentum", 1.0), ("min_count", -0.1), ("gradient", "none")),
        smooth=lambda z, codes, entries: jax.nn.standardize(z, axis=-1),
        state=("counts", "dictionary"),
        computed=True,
    ),
}


def apply(module, variables, z, train, **options):
    return module.apply(variables, z, train=train, rngs={"quantizer": jax.random.key(2)}, **options)


@functools.partial(jax.jit, static_argnums=0)
def step(module, variables, z, weights, loss_weight):
    """A training step: (`Quantized`, state after, gradients for parameters and z of sum(codes weights) + loss)."""

    def objective(params, z):
        quantized, updated = apply(module, variables | {"params": params}, z, True, mutable=["quantizer"])
        return jnp.sum(quantized.codes * weights) + loss_weight * quantized.loss, (quantized, updated)

    gradients, (quantized, updated) = jax.grad(objective, (0, 1), has_aux=True)(variables.get("params", {}), z)
    return quantized, updated.get("quantizer", {}), gradients


def weights_like(z):
    return jax.random.normal(jax.random.key(3), z.shape)


@functools.cache
def make_case(name):
    module = QUANTIZERS[name].module
    z = np.random.default_rng(0).normal(0, 1.5, (*SHAPE, module.num_channels)).astype(jnp.bfloat16).astype(np.float32)
    init = jax.jit(lambda key, z: module.init(key, z, train=True))
    variables, z = init(jax.random.key(1), z), jnp.asarray(z)
    state = step(module, variables, 0.9 * z, weights_like(z), 0.0)[1]
    return QUANTIZERS[name], module, z, variables | ({"quantizer": state} if state else {})
