"""A small folder is evaluated or refused before training: what is accepted has enough images, to the last one."""

from collections import Counter
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from fsq_repro.data.folder import Folder
from fsq_repro.evaluation import autoencoder, maskgit
from fsq_repro.experiments.experiment import build_experiment
from fsq_repro.factories import scorers
from fsq_repro.factories.split_sizes import check_split_sizes
from fsq_repro.runtime.checkpoints import Checkpoints
from fsq_repro.runtime.run_dir import RunDir, read_metrics
from tests.data.image_files import drawn, save
from tests.evaluation.test_maskgit import ToyScorer
from tests.tiny import save_untrained, tiny_config, tiny_stage2


@pytest.fixture(autouse=True)
def toy(tmp_path, monkeypatch):
    monkeypatch.setattr(scorers, "Scorer", ToyScorer)
    monkeypatch.setenv("FSQ_REPRO_CACHE", str(tmp_path / "cache"))


def stage1_config(folder=""):
    config = tiny_config()
    config.eval.networks, config.data.source = ("toy",), f"folder:{folder}"
    return config


def stage2_config(stage1, folder=""):
    config = tiny_stage2(stage1)
    config.eval.networks, config.data.source = ("toy",), f"folder:{folder}"
    config.eval.class_agreement, config.eval.samples, config.eval.coder_images = True, 8, 1
    return config


def source_of(**splits):
    """`splits`: images of each class."""
    counts = {split: Counter(dict(enumerate(images))) for split, images in splits.items()}
    return SimpleNamespace(name="folder:x", num_classes=2, class_names=("a", "b"), class_counts=counts)


def write(root, **splits):
    for split, images in splits.items():
        for label, count in zip("ab", images, strict=True):
            for i in range(count):
                save(root / split / label / f"{i}.png", drawn(10 * i + "ab".index(label), 20, 20))
    return root


@pytest.mark.parametrize("count", range(12, 41, 4))
def test_a_folder_without_splits_has_what_it_needs_or_is_refused_with_the_numbers(tmp_path, count):
    for i in range(count):
        save(tmp_path / "pictures" / f"{i}.png", drawn(i, 16, 16))
    sizes = [len(Folder(tmp_path / "pictures", split)) for split in ("train", "validation", "test")]
    source, config = Folder(tmp_path / "pictures", "train"), stage1_config()
    if sizes[2] >= 2:
        check_split_sizes(config, source)
    else:
        found = "{} for train, {} for validation, {} for test".format(*sizes)
        with pytest.raises(ValueError, match=rf"has {found}, but .* needs at least 2 for train and 2 for test: add im"):
            check_split_sizes(config, source)
    config.eval.networks = ()
    check_split_sizes(config, source)


@pytest.mark.parametrize(
    ("train", "changes", "message"),
    [
        ([2, 1], {}, "has 3 for train, 1 for validation, 1 for test, but .* at least 4 for train and 1 for test"),
        ([4, 0], {"class_agreement": False}, r"picture_labels = \(0, 1\) needs at least 1 .* 'folder:x' has 0 of 'b'"),
        ([4, 1], {"class_distances": True}, "class_distances = True needs at least 2 .* 'folder:x' has 1 of 'b'"),
        ([4, 0], {"picture_labels": (0,)}, "class_agreement = True needs training images of two classes"),
        ([3, 1], {}, None),
        ([4, 2], {"class_distances": True}, None),
        ([4, 0], {"picture_labels": (0,), "class_agreement": False}, None),
        ([1, 0], {"networks": ()}, None),
    ],
)
def test_what_the_evaluation_of_samples_needs(train, changes, message):
    config, source = stage2_config(""), source_of(train=train, validation=[1, 0], test=[0, 1])
    config.eval.update(changes)
    if message is None:
        check_split_sizes(config, source)
    else:
        with pytest.raises(ValueError, match=message):
            check_split_sizes(config, source)


def test_the_smallest_folder_that_stage_1_accepts_is_evaluated(tmp_path):
    """With batches that are larger than all images; one image less and nothing is begun."""
    root = write(tmp_path / "pictures", train=[1, 1], val=[1, 0], test=[1, 1])
    config = stage1_config(root)
    assert next(build_experiment(config, tmp_path / "run").data_iterator)["image"].shape == (8, 16, 16, 3)
    run = RunDir(save_untrained(tmp_path / "run", config))
    measured = read_metrics(autoencoder.evaluate_run(run))
    assert all(np.isfinite(m.value) for m in measured.values()) and "reconstruction_fd" in {k.metric for k in measured}
    (root / "test" / "b" / "0.png").unlink()
    with pytest.raises(ValueError, match="has 2 for train, 1 for validation, 1 for test, but"):
        build_experiment(config, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_the_smallest_folder_that_stage_2_accepts_is_evaluated(tmp_path):
    root = write(tmp_path / "pictures", train=[3, 1], val=[1, 0], test=[0, 1])
    config = stage2_config(save_untrained(tmp_path / "stage1", stage1_config(root)), root)
    experiment = build_experiment(config, tmp_path / "run")
    assert next(experiment.data_iterator)["tokens"].shape == (8, 16)
    run = RunDir(tmp_path / "run")
    run.write_config(config)
    run.update_record(**experiment.facts, run="run")
    state = jax.jit(experiment.trainer.init_state)(jax.random.key(0)).replace(step=jax.numpy.int32(config.steps))
    checkpoints = Checkpoints(run.checkpoints)
    checkpoints.save(config.steps, state, experiment.data_iterator)
    checkpoints.close()
    measured = read_metrics(maskgit.evaluate_run(run))
    assert all(np.isfinite(m.value) for m in measured.values())
    assert {"sampling_fd", "precision", "class_agreement"} <= {key.metric for key in measured}
    (root / "train" / "a" / "0.png").unlink()
    with pytest.raises(ValueError, match="has 3 for train, 1 for validation, 1 for test, but"):
        build_experiment(config, tmp_path / "new")
