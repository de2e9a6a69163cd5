"""Every field of every config with the values that it may have: one table, checked before anything is compiled.

What several fields must be together (batch and devices, resolution and stride, labels and classes) is checked where the
objects are built.
"""

import dataclasses
import math
from collections.abc import Callable, Collection
from typing import Any

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from fsq_repro.data.dense_sources import NYU_EVAL_CROPS
from fsq_repro.losses.perceptual import LPIPS_NETWORKS
from fsq_repro.models.feature_networks import NETWORKS
from fsq_repro.models.inception import RESIZES
from fsq_repro.quantizers.digits import MAX_LEVEL
from fsq_repro.quantizers.fsq import VARIANTS
from fsq_repro.quantizers.registry import QUANTIZERS
from fsq_repro.sampling.registry import SAMPLERS
from fsq_repro.tasks.registry import TASKS

INT32 = 2**31


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a field may be: in words, behind "must be", and as a test that takes any value."""

    words: str
    accepts: Callable[[Any], bool]


Rules = dict[str, Rule]


def _is_whole(x: Any, least: int) -> bool:
    return isinstance(x, int) and not isinstance(x, bool) and least <= x < INT32


def _is_finite(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x)


def whole(least: int) -> Rule:
    return Rule(f"a whole number >= {least}", lambda x: _is_whole(x, least))


def one_of(options: Collection[str]) -> Rule:
    return Rule(f"one of {', '.join(options)}", lambda x: isinstance(x, str) and x in options)


def every(words: str, accepts: Callable[[Any], bool], least: int = 0) -> Rule:
    """A tuple of at least so many entries, each of which is accepted."""
    return Rule(words, lambda x: isinstance(x, tuple) and len(x) >= least and all(map(accepts, x)))


def _is_multiplier(x: Any) -> bool:
    return isinstance(x, tuple) and len(x) == 2 and isinstance(x[0], str) and _is_finite(x[1]) and x[1] > 0


AT_LEAST_0 = Rule("a finite number >= 0", lambda x: _is_finite(x) and x >= 0)
ABOVE_0 = Rule("a finite number above 0", lambda x: _is_finite(x) and x > 0)
SHARE = Rule("in [0, 1)", lambda x: _is_finite(x) and 0 <= x < 1)
YES_NO = Rule("True or False", lambda x: isinstance(x, bool))
TEXT = Rule("text", lambda x: isinstance(x, str))
NAME = Rule("text that is not empty", lambda x: isinstance(x, str) and bool(x))

COMMON: Rules = {
    "experiment": NAME,
    "trainer": NAME,
    "scale": NAME,
    "target_bits": whole(1),
    "seed": Rule("a whole number in 0 .. 2^31 - 1", lambda x: _is_whole(x, 0)),
    "steps": whole(1),
    "batch_size": whole(1),
    "accumulate_steps": whole(1),
    "log_every": whole(1),
    "eval_every": whole(1),
    "checkpoint_every": whole(1),
    "mesh.fsdp": whole(1),
    "quantizer.name": one_of(QUANTIZERS),
    "model.dtype": one_of(("float32", "bfloat16")),
    "optimizer.learning_rate": ABOVE_0,
    "optimizer.warmup_steps": whole(0),
    "data.source": NAME,
    "data.resolution": whole(8),
    "data.flip": YES_NO,
    "data.num_workers": whole(0),
    "eval.batch_size": whole(1),
    "eval.batches": whole(1),
}
SCORED_BY_FEATURES: Rules = {
    "eval.networks": every(f"a tuple of {', '.join(NETWORKS)}", lambda x: x in NETWORKS),
    "eval.inception": TEXT,
    "eval.inception_resize": one_of(RESIZES),
}
IMAGES: Rules = SCORED_BY_FEATURES | {
    "ema_decay": SHARE,
    "optimizer.beta1": SHARE,
    "optimizer.beta2": SHARE,
    "optimizer.schedule": one_of(("constant", "cosine")),
    "data.crop": one_of(("none", "random_resized", "inception")),
    "eval.reference_file": TEXT,
}
AUTOENCODER: Rules = {
    "model.filters": whole(1),
    "model.channel_multipliers": every("a tuple of whole numbers >= 1, at least one", lambda x: _is_whole(x, 1), 1),
    "model.num_res_blocks": whole(0),
    "model.stem_patch": whole(1),
    "model.faithful_shortcut": YES_NO,
    "discriminator.channel_multiplier": ABOVE_0,
    "loss.l2": AT_LEAST_0,
    "loss.perceptual": AT_LEAST_0,
    "loss.perceptual_network": one_of((*LPIPS_NETWORKS, "resnet50")),
    "loss.perceptual_path": TEXT,
    "loss.gan": AT_LEAST_0,
    "loss.r1": AT_LEAST_0,
}
TRANSFORMER: Rules = {
    "model.width": whole(1),
    "model.num_layers": whole(1),
    "model.num_heads": whole(1),
    "model.mlp_width": whole(1),
    "model.remat": YES_NO,
    "stage1": TEXT,
}
MASKGIT: Rules = TRANSFORMER | {
    "model.kind": one_of(("masked", "autoregressive")),
    "model.dropout": SHARE,
    "masking.min_ratio": Rule("in [0, 1]", lambda x: _is_finite(x) and 0 <= x <= 1),
    "masking.bound": one_of(("resample", "clip")),
    "label_drop": SHARE,
    "label_smoothing": SHARE,
    "optimizer.weight_decay": AT_LEAST_0,
    "optimizer.gradient_clip": AT_LEAST_0,
    "data.num_classes": whole(1),
    "sampler.name": one_of(SAMPLERS),
    "sampler.guidance_weight": AT_LEAST_0,
    "compression.alpha": ABOVE_0,
    "compression.num_groups": whole(1),
    "eval.samples": whole(4),
    "eval.reference_images": whole(4),
    "eval.coder_images": whole(1),
    "eval.guidance_weights": every("finite numbers >= 0", AT_LEAST_0.accepts),
    "eval.class_distances": YES_NO,
    "eval.class_agreement": YES_NO,
    "eval.picture_labels": every("a tuple of labels, at least one", lambda x: _is_whole(x, 0), least=1),
}
UVIM: Rules = {
    "context": YES_NO,
    "task.name": one_of(TASKS),
    "model.patch_size": whole(1),
    "optimizer.weight_decay": AT_LEAST_0,
    "optimizer.gradient_clip": AT_LEAST_0,
    "optimizer.multipliers": every("pairs (regular expression, finite number above 0)", _is_multiplier),
    "data.crop": one_of(("none", *NYU_EVAL_CROPS)),
    "data.min_scale": Rule("in (0, 1]", lambda x: _is_finite(x) and 0 < x <= 1),
    "data.aspect": Rule(
        "a range of two finite numbers above 0",
        lambda x: isinstance(x, tuple) and len(x) == 2 and all(map(ABOVE_0.accepts, x)) and x[0] <= x[1],
    ),
    "data.splits.train": TEXT,
    "data.splits.validation": TEXT,
    "data.splits.test": TEXT,
    "eval.baseline_images": whole(1),
}
UVIM_STAGE1: Rules = {
    "model.code_grid": whole(1),
    "model.width": whole(1),
    "model.encoder_depth": whole(0),
    "model.decoder_depth": whole(0),
    "model.num_heads": whole(1),
    "model.mlp_width": whole(1),
    "model.code_dropout": YES_NO,
    "model.remat": YES_NO,
}
UVIM_STAGE2: Rules = TRANSFORMER | {
    "model.token_std": ABOVE_0,
    "model.position_scale": ABOVE_0,
    "model.encoder_init": TEXT,
    "sampler.temperature": AT_LEAST_0,
}
OF_TRAINER: dict[str, Rules] = {
    "autoencoder": COMMON | IMAGES | AUTOENCODER,
    "maskgit": COMMON | IMAGES | MASKGIT,
    "uvim_stage1": COMMON | UVIM | UVIM_STAGE1,
    "uvim_stage2": COMMON | UVIM | UVIM_STAGE2,
}
LEARNED: Rules = {
    "quantizer.codebook_size": whole(1),
    "quantizer.embedding_dim": whole(1),
    "quantizer.commitment_cost": AT_LEAST_0,
}
OF_QUANTIZER: dict[str, Rules] = {
    "fsq": {
        "quantizer.levels": every(
            f"a tuple of whole numbers in 2 .. {MAX_LEVEL}, at least one",
            lambda x: _is_whole(x, 2) and x <= MAX_LEVEL,
            least=1,
        ),
        "quantizer.bound": one_of(VARIANTS),
    },
    "vq": LEARNED
    | {
        "quantizer.codebook_cost": AT_LEAST_0,
        "quantizer.entropy_ratio": AT_LEAST_0,
        "quantizer.entropy_temperature": ABOVE_0,
    },
    "ema_vq": LEARNED | {"quantizer.momentum": SHARE, "quantizer.splitting": YES_NO},
}
OF_SAMPLER: dict[str, Rules] = {"parallel": {"sampler.num_steps": whole(1), "sampler.choice_temperature": AT_LEAST_0}}
OF_TASK: dict[str, Rules] = {
    "depth": {"task.bins": whole(2)},
    "panoptic": {"task.num_classes": whole(2), "task.num_instances": whole(2), "task.min_fraction": SHARE},
    "colorization": SCORED_BY_FEATURES | {"eval.eval_names": TEXT, "eval.reference_names": TEXT},
}


def rules_of(config: ConfigDict) -> Rules:
    """Field -> rule for a config's trainer, quantizer, sampler and task; of those not in the table what all have.

    Fields are named with dots between: "eval.batches".
    """
    found = flat(config)
    rules = OF_TRAINER.get(found.get("trainer"), COMMON)
    for name, table in (("quantizer", OF_QUANTIZER), ("sampler", OF_SAMPLER), ("task", OF_TASK)):
        rules = rules | table.get(found.get(f"{name}.name"), {})
    return rules


def flat(config: ConfigDict) -> dict[str, Any]:
    """Field -> value."""
    return flatten_dict(config.to_dict(), sep=".")


def check(config: ConfigDict, *names: str) -> None:
    """ValueError where one of these fields is missing or has a value that its rule does not accept."""
    found, rules = flat(config), rules_of(config)
    for name in names:
        if name not in found:
            raise ValueError(f"{name} is missing from the config; it must be {rules[name].words}")
        if not rules[name].accepts(found[name]):
            raise ValueError(f"{name} = {found[name]!r} must be {rules[name].words}")


def check_values(config: ConfigDict) -> None:
    """`check` of all fields that the config has and its trainer knows."""
    found = flat(config)
    check(config, *(name for name in rules_of(config) if name in found))


def check_all(config: ConfigDict) -> None:
    """ValueError where a field that a new run's config needs is missing or wrong, or is not known to its trainer.

    Which fields a task or a sampler has, and which a quantizer has not, is checked where these are made.
    """
    found, rules = flat(config), rules_of(config)
    if found.get("trainer") not in OF_TRAINER:
        check_values(config)
        return
    check(config, *(name for name in rules if name in found or name == "task.name" or not name.startswith("task.")))
    if found.get("task.name", "depth") in OF_TASK:
        made = ("task.", "sampler.", "quantizer.")
        unknown = [name for name in found if name not in rules and not name.startswith(made)]
        if unknown:
            raise ValueError(f"{unknown[0]} = {found[unknown[0]]!r} is not a field of the trainer {config.trainer!r}")
