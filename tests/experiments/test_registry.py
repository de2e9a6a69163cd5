"""Every kind of experiment, by the one contract: it is built in shapes, and what it says of itself holds together."""

import jax
import numpy as np
import pytest

from fsq_repro.data.choice import chosen_indices
from fsq_repro.errors import UserError
from fsq_repro.experiments import registry
from fsq_repro.experiments.experiment import build_experiment
from fsq_repro.experiments.kind import Kind
from fsq_repro.factories import common, label_autoencoder
from fsq_repro.profiling.abstract import build_abstract
from fsq_repro.runtime.run_dir import RunDir
from tests.tiny import (
    NO_DATA,
    DenseNoiseSource,
    NoiseSource,
    make_dense_noise,
    save_untrained,
    save_untrained_uvim,
    tiny_config,
    tiny_stage2,
    tiny_uvim,
)


def config_of(name: str, stage1: str = ""):
    """A tiny config of a kind and that of its stage I."""
    return {
        "autoencoder": lambda: (tiny_config(), None),
        "maskgit": lambda: (tiny_stage2(stage1), tiny_config()),
        "uvim_stage1": lambda: (tiny_uvim(1), None),
        "uvim_stage2": lambda: (tiny_uvim(2, stage1=stage1), tiny_uvim(1)),
    }[name]()


@pytest.fixture
def noise(monkeypatch, tmp_path):
    source = lambda name, split, resolution: NoiseSource(32, resolution, split=split)  # noqa: E731
    monkeypatch.setattr(common, "make_source", source)
    monkeypatch.setattr(label_autoencoder, "make_dense_source", make_dense_noise)
    monkeypatch.setenv("FSQ_REPRO_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", registry.KINDS)
def test_in_shapes_a_kind_is_what_it_is_in_arrays(name, noise, tmp_path, monkeypatch):
    """Batch, frozen networks and facts of the abstract experiment are those of the one that trains."""
    _, stage1 = config_of(name)
    if stage1 is not None:
        save = save_untrained if stage1.trainer == "autoencoder" else save_untrained_uvim
        save(tmp_path / "stage1", stage1)
    config, _ = config_of(name, str(tmp_path / "stage1"))
    kind = registry.kind_of(config)
    experiment = build_experiment(config, tmp_path / "run")
    abstract = build_abstract(config_of(name)[0], stage1)

    def shapes(tree):
        return jax.tree.map(lambda x: (x.shape, str(x.dtype)), tree)

    batch = next(experiment.data_iterator)
    assert shapes(batch) == shapes(abstract.batch)
    for more in experiment.evaluation_batches():
        assert shapes({k: v for k, v in more.items() if k != "mask"}) == shapes(batch)
    assert shapes(experiment.trainer.load_frozen()) == shapes(abstract.frozen)
    assert experiment.facts["num_tokens"] == abstract.tokens == kind.num_tokens(experiment.trainer)
    parameters = sum(x.size for x in jax.tree.leaves(abstract.state.params))
    assert experiment.facts["parameters"] == parameters > 0
    assert experiment.facts["stage"] == (2 if kind.needs else 1) and ("stage1" in experiment.facts) == bool(kind.needs)
    assert experiment.loop_config == abstract.loop_config
    assert not (tmp_path / "run").exists()

    run = RunDir(tmp_path / "run")
    run.update_record(**experiment.facts)
    for source in (NoiseSource, DenseNoiseSource):  # a validation image more, as the hash would tell
        fingerprint = property(lambda s: str(s.split == "validation"), lambda s, value: None)
        monkeypatch.setattr(source, "fingerprint", fingerprint)
    build_experiment(config, run)  # nothing has been trained yet
    (run.checkpoints / "4").mkdir(parents=True)
    with pytest.raises(UserError, match="the data of .* have changed .*validation split:  -> True"):
        build_experiment(config, run)


@pytest.mark.parametrize("name", registry.KINDS)
def test_an_iterator_needs_no_data_before_its_first_batch(name):
    config, _ = config_of(name)
    kind = registry.kind_of(config)
    kind.train_iterator(config, kind.build_task(config), NO_DATA).get_state()


def test_what_a_stage2_needs_is_a_kind_that_needs_nothing():
    needed = {kind.needs.trainer for kind in registry.KINDS.values() if kind.needs}
    assert needed == {"autoencoder", "uvim_stage1"} and not any(registry.KINDS[name].needs for name in needed)


@pytest.mark.parametrize("build", [lambda c, path: build_abstract(c), build_experiment])
def test_an_unknown_trainer_gets_one_sentence(build, tmp_path):
    config = tiny_config()
    config.trainer = "diffusion"
    sentence = r"^trainer = 'diffusion' is not one of autoencoder, maskgit, uvim_stage1, uvim_stage2$"
    with pytest.raises(ValueError, match=sentence):
        build(config, tmp_path)


def test_a_fifth_kind_is_a_class_and_a_registry_line(monkeypatch, noise, tmp_path):
    """It trains on grey images; trained in shapes and arrays without a change elsewhere."""

    class GreyKind(type(registry.KINDS["autoencoder"])):
        def build_task(self, config):
            return "grey"

        def train_iterator(self, config, task, items):
            assert task == "grey"
            iterator = super().train_iterator(config, None, items)
            return ({**batch, "image": np.repeat(batch["image"][..., :1], 3, -1)} for batch in iterator)

    monkeypatch.setitem(registry.KINDS, "grey", GreyKind())
    config = tiny_config()
    config.trainer = "grey"
    image = next(build_experiment(config, tmp_path / "run").data_iterator)["image"]
    assert image.shape == build_abstract(config).batch["image"].shape
    np.testing.assert_array_equal(image[..., 0], image[..., 2])


def test_a_run_of_another_config_is_not_continued(noise, tmp_path):
    config = tiny_config()
    RunDir(tmp_path / "run").write_config(config)
    config.quantizer.levels = (5, 5, 5)
    with pytest.raises(UserError, match="quantizer.levels"):
        build_experiment(config, tmp_path / "run")


def test_a_kind_that_leaves_something_out_is_refused():
    class Half(Kind):
        def build_trainer(self, config, stage1): ...

    with pytest.raises(TypeError, match="abstract"):
        Half()


@pytest.mark.parametrize("name", ["autoencoder", "maskgit"])
def test_the_check_during_training_sees_items_from_all_over_the_split(name, noise, tmp_path):
    """The first ones of an ordered source would be of one class."""
    stage1 = save_untrained(tmp_path / "stage1", tiny_config())
    config, _ = config_of(name, str(stage1))
    config.eval.batches, config.eval.batch_size = 2, 4
    batches = list(build_experiment(config, tmp_path / "run").evaluation_batches())
    assert [len(b["mask"]) for b in batches] == [4, 4] and all(b["mask"].all() for b in batches)
    labels = np.concatenate([b["label"] for b in batches])
    rows = chosen_indices(32, 8)
    np.testing.assert_array_equal(labels, rows % 2)
    if name == "autoencoder":
        images = np.concatenate([b["image"] for b in batches])
        expected = np.stack([NoiseSource(32)[int(i)]["image"] for i in rows]) / np.float32(255)
        np.testing.assert_allclose(images, expected, atol=1e-6)
