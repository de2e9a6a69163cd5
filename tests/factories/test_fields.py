"""The table of what each field of each config may be."""

import itertools
import logging

import pytest
from ml_collections import ConfigDict

from fsq_repro.errors import UserError
from fsq_repro.experiments import experiment
from fsq_repro.experiments.registry import KINDS
from fsq_repro.factories import common, fields
from tests.test_configs import CONFIGS
from tests.tiny import NoiseSource, tiny_config, tiny_uvim

STAGES = ("stage=1", "stage=2")
ARGUMENTS = {
    "autoencoder": [f"quantizer={q}" for q in ("fsq", "vq", "vq_no_entropy", "vq_narrow", "ema_vq")],
    "maskgit": ["generator=masked", "generator=autoregressive", "quantizer=vq", "quantizer=ema_vq"],
    "uvim": [f"{stage},quantizer={q}" for stage in STAGES for q in ("fsq", "vq", "vq_nosplit")],
}
SCALES = {"autoencoder": ("paper", "cifar10", "cpu", "smoke"), "uvim": ("paper", "cpu", "smoke")}
SCALES["maskgit"] = SCALES["autoencoder"]


def every_config() -> list[ConfigDict]:
    found = []
    for name, module in CONFIGS.items():
        (kind,) = (kind for kind in ARGUMENTS if kind in name)
        args = itertools.product(ARGUMENTS[kind], SCALES[kind])
        found += [module.get_config(f"{arg},scale={scale}") for arg, scale in args]
    return found


def kinds() -> list[ConfigDict]:
    """A config for each trainer, quantizer and task."""
    of_kind = lambda c: (c.trainer, c.quantizer.name, c.task.name if "task" in c else "")  # noqa: E731
    return list({of_kind(c): c for c in every_config()}.values())


def changed(config: ConfigDict, name: str, value) -> ConfigDict:
    """A copy with this value in a field, of any type."""
    copy = ConfigDict(config.to_dict())
    *path, last = name.split(".")
    parent = copy
    for part in path:
        parent = parent[part]
    del parent[last]
    if value is not DELETED:
        parent[last] = value
    return copy


DELETED = object()


def assert_refused(config: ConfigDict, name: str, value):
    with pytest.raises(ValueError) as e:
        fields.check_all(changed(config, name, value))
    assert str(e.value).startswith(f"{name} = {value!r} must be ") and "\n" not in str(e.value), (name, value)


def test_each_field_of_each_config_has_a_rule_that_takes_it():
    configs = every_config()
    assert {c.trainer for c in configs} == set(KINDS) == set(fields.OF_TRAINER)
    for config in configs:
        assert fields.flat(config).keys() == fields.rules_of(config).keys()
        fields.check_all(config)


def test_no_field_takes_what_cannot_be():
    nan, inf = float("nan"), float("inf")
    for config in kinds():
        rules = fields.rules_of(config)
        for name, value in fields.flat(config).items():
            bad = [None, b"x", nan, inf, -inf, -1, -0.5, 2**31, (None,), (nan,), (-1.0,), (("x", -1.0),), ("x", "y", 3)]
            number = isinstance(value, int | float) and not isinstance(value, bool)
            bad += [True, "1"] if number else [0, 1, 0.5]
            bad += [1.5] if number and isinstance(value, int) else []
            bad += [(1, 2), ()] if not isinstance(value, tuple) else [[*value, 3], "(8, 8)"]
            for x in bad:
                if x == 2**31 and isinstance(value, float):  # a weight or a temperature has no end
                    continue
                assert not rules[name].accepts(x), (name, x)


EDGES = [  # field, what is allowed, what is not
    ("seed", (0, 2**31 - 1), (-1, 2**31)),
    ("steps", (1,), (0,)),
    ("accumulate_steps", (1,), (0, -1)),
    ("eval.batches", (1,), (0,)),
    ("eval.batch_size", (1,), (0, -8)),
    ("data.num_workers", (0, 64), (-1,)),
    ("data.resolution", (8,), (0, 7)),
    ("mesh.fsdp", (1,), (0,)),
    ("optimizer.learning_rate", (1e-9, 3), (0.0, 0, -1e-4)),
    ("optimizer.beta1", (0.0, 0.999), (1.0, 1.5, -0.1)),
    ("optimizer.beta2", (0, 0.99), (1, 1.5)),
    ("optimizer.schedule", ("constant", "cosine"), ("linear", "Cosine", "")),
    ("optimizer.warmup_steps", (0,), (-1,)),
    ("ema_decay", (0.0, 0.9999), (1.0, -0.1)),
    ("data.crop", ("none", "random_resized", "inception"), ("center", "uvim")),
    ("eval.networks", (("vgg16",), ("alexnet", "inception"), ()), (("alexnett",), "alexnet")),
    ("eval.inception_resize", ("adm", "pytorch-fid"), ("clean",)),
    ("model.channel_multipliers", ((1,), (1, 2)), ((), (0,), (1.5,))),
    ("model.dtype", ("float32", "bfloat16"), ("float16", "double")),
    ("loss.perceptual_network", ("resnet50", "lpips_alexnet"), ("vgg16",)),
    ("loss.gan", (0, 0.0, 1e3), (-0.1,)),
    ("quantizer.levels", ((3,), (8, 5, 5), (1000, 3)), ((1, 8), (1001,), (8, 2.5), (8, "5"), (True, 8))),
    ("quantizer.bound", ("paper", "corrected"), ("other",)),
    ("data.source", ("photos", "folder:x"), ("",)),
]


@pytest.mark.parametrize(("name", "allowed", "refused"), EDGES, ids=lambda x: x if isinstance(x, str) else "")
def test_where_the_ranges_end(name, allowed, refused):
    for value in allowed:
        fields.check_all(changed(tiny_config(), name, value))
    for value in refused:
        assert_refused(tiny_config(), name, value)


def test_a_missing_field_is_named_before_anything_is_built(tmp_path):
    """Also by what asks for the batch sizes first, and where a whole group is missing."""
    for config in kinds():
        for name in fields.flat(config):
            if config.trainer == "uvim_stage2" and name in fields.OF_TASK[config.task.name]:
                continue  # a stage I must be there before, and is compared with
            broken = changed(config, name, DELETED)
            with pytest.raises((UserError, ValueError)) as e:
                common.batch_sizes(broken)
                experiment.build_experiment(broken, tmp_path / "run")
            assert name.removeprefix("task.") in str(e.value) and "\n" not in str(e.value), (name, str(e.value))
    whole_group = tiny_config()
    del whole_group.eval
    with pytest.raises(
        UserError, match=r"^eval.batch_size is missing from the config; it must be a whole number >= 1$"
    ):
        common.batch_sizes(whole_group)


def test_a_field_that_nobody_reads_is_named(tmp_path):
    config = tiny_config()
    config.optimizer.learning_rat = 1.0
    with pytest.raises(ValueError, match=r"^optimizer.learning_rat = 1.0 is not a field of the trainer 'autoencoder'$"):
        experiment.build_experiment(config, tmp_path / "run")


def test_all_doors_check_before_they_build(tmp_path):
    bad = changed(tiny_config(), "optimizer.beta2", 1.5)
    for call in (
        lambda: experiment.build_experiment(bad, tmp_path / "run"),
        lambda: KINDS["autoencoder"].build_trainer(bad, None),
    ):
        with pytest.raises(ValueError, match=r"^optimizer.beta2 = 1.5 must be in \[0, 1\)$"):
            call()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("size", "told"), [(8, False), (7, True)])
def test_a_batch_larger_than_the_data_set_is_told(tmp_path, monkeypatch, caplog, size, told):
    monkeypatch.setattr(common, "make_source", lambda name, split, resolution: NoiseSource(size, split=split))
    with caplog.at_level(logging.WARNING, "fsq_repro.experiments.experiment"):
        built = experiment.build_experiment(tiny_config(), tmp_path / "run")
    words = f"noise has {size} training images, fewer than batch_size = 8: batches hold images more than once"
    assert [r.getMessage() for r in caplog.records] == [words] * told
    labels = next(built.data_iterator)["label"]
    assert labels.shape == (8,)


def test_uvim_has_the_same_doors():
    with pytest.raises(ValueError, match=r"^data.min_scale = 0.0 must be in \(0, 1\]$"):
        KINDS["uvim_stage1"].build_trainer(changed(tiny_uvim(1), "data.min_scale", 0.0), None)
