import dataclasses
import json
import re
import sys
import time

import grain
import numpy as np
import pytest
from absl import flags

from fsq_repro.data import transforms
from fsq_repro.data.pipeline import Augmentation, eval_batches, train_iterator

PLAIN = Augmentation(flip=False)
EIGHT = dict(batch_size=8, resolution=8)


class Numbered:
    """Items whose label is their index; images tell left from right."""

    name, split, num_classes, class_names = "numbered", "train", 1, ("all",)

    def __init__(self, size, dense=False):
        self.size = size
        self.dense = dense

    def __len__(self):
        return self.size

    def __getitem__(self, i):
        columns = np.broadcast_to(np.arange(8), (8, 8))
        image = np.stack([columns * 10, np.full((8, 8), i % 256), columns.T], -1).astype(np.uint8)
        item = {"image": image, "label": np.int32(i)}
        if self.dense:
            item |= {"depth": (columns / 2).astype(np.float32), "semantics": columns.astype(np.int32)}
            item |= {"instances": (columns + 1).astype(np.int32)}
            item |= {"crowd": columns % 2 == 0, "file_name": np.str_("x" * (i + 1))}
        return item


def batches(count, source=None, **changes):
    settings = dict(batch_size=4, resolution=8, seed=0, augmentation=PLAIN) | changes
    iterator = train_iterator(source or Numbered(24), **settings)
    return [next(iterator) for _ in range(count)]


def labels(bs):
    return np.concatenate([b["label"] for b in bs]).tolist()


def assert_same(a, b):
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys()
        for key in x:
            np.testing.assert_array_equal(x[key], y[key])


def test_batches():
    (batch,) = batches(1)
    assert {k: (v.dtype.name, v.shape) for k, v in batch.items()} == {
        "image": ("float32", (4, 8, 8, 3)),
        "label": ("int32", (4,)),
    }
    np.testing.assert_array_equal(batch["image"][:, 0, 3, 0], np.full(4, np.float32(30) / 255))
    np.testing.assert_array_equal(batch["image"][:, 0, 0, 1], batch["label"].astype(np.float32) / 255)


def test_deterministic_for_a_seed():
    augmented = dict(augmentation=Augmentation(flip=True, crop="random_resized"))
    assert_same(batches(9, **augmented), batches(9, **augmented))
    assert labels(batches(6, seed=0)) != labels(batches(6, seed=1))


def test_every_epoch_has_every_item_once_in_a_new_order():
    order = np.array(labels(batches(12))).reshape(2, 24)
    np.testing.assert_array_equal(np.sort(order), np.tile(np.arange(24), (2, 1)))
    assert (order[0] != order[1]).any() and (order[0] != np.arange(24)).any()


def test_two_processes_share_the_source():
    shares = [labels(batches(3, process_index=p, process_count=2)) for p in range(2)]
    assert sorted(shares[0] + shares[1]) == list(range(24))


def test_too_many_processes_are_refused():
    with pytest.raises(ValueError, match="3 items, too few for 4 processes"):
        batches(1, source=Numbered(3), process_count=4)


@pytest.mark.parametrize("position", [0, 2, 8])  # start, mid-epoch, second epoch
def test_resuming_gives_the_same_batches(position, tmp_path):
    settings = dict(batch_size=4, resolution=8, seed=3, augmentation=Augmentation(flip=True, crop="random_resized"))
    iterator = train_iterator(Numbered(24), **settings)
    for _ in range(position):
        next(iterator)
    state = json.loads(json.dumps(iterator.get_state()))
    (tmp_path / "data").mkdir()
    grain.checkpoint.CheckpointHandler().save(tmp_path / "data", iterator)
    expected = [next(iterator) for _ in range(5)]

    by_state = train_iterator(Numbered(24), **settings)
    by_state.set_state(state)
    assert_same([next(by_state) for _ in range(5)], expected)
    by_handler = train_iterator(Numbered(24), **settings)
    grain.checkpoint.CheckpointHandler().restore(tmp_path / "data", by_handler)
    assert_same([next(by_handler) for _ in range(5)], expected)


@pytest.fixture
def parsed_flags(monkeypatch):
    """grain's workers read absl flags, which scripts have parsed."""
    monkeypatch.setattr(sys, "argv", ["test"])
    flags.FLAGS(sys.argv)


def drawn(position, tmp_path, count, **settings):
    """Batches from a saved position on, None for the start, and the position after them."""
    iterator, handler = train_iterator(Numbered(24), **settings), grain.checkpoint.CheckpointHandler()
    if position:
        handler.restore(position, iterator)
    found = [next(iterator) for _ in range(count)]
    after = tmp_path / f"{time.monotonic_ns()}"
    after.mkdir()
    handler.save(after, iterator)
    iterator.close()
    return found, after


def test_a_run_goes_on_with_any_number_of_workers(parsed_flags, tmp_path):
    """An unbroken run's batches, in their order, of the second of two processes over three epochs."""
    augmented = dict(augmentation=Augmentation(flip=True, crop="random_resized"), process_index=1, process_count=2)
    settings = dict(batch_size=4, resolution=8, seed=3, **augmented)
    whole, end = drawn(None, tmp_path, 9, **settings)
    parts, position = [], None
    for num_workers, count in ((0, 2), (2, 3), (1, 4)):
        found, position = drawn(position, tmp_path, count, num_workers=num_workers, **settings)
        parts += found
    assert_same(parts, whole)
    (file,) = position.glob("*.json")
    assert file.read_text() == (end / file.name).read_text()


@pytest.mark.parametrize("num_workers", [0, 1, 2])
@pytest.mark.parametrize("position", [0, 1, 4])
def test_positions_that_grain_saved_itself_are_understood(num_workers, position):
    """As they stood in checkpoints of runs with workers: a position for each."""
    shares = [len(range(worker, position, num_workers)) for worker in range(num_workers)]
    saved = {"next_index_in_cycle": 0, "iterators_in_use_states": [{"next_index": share} for share in shares]}
    iterator = train_iterator(Numbered(24), batch_size=4, resolution=8, seed=0, augmentation=PLAIN)
    iterator.set_state(saved if num_workers else {"next_index": position})
    assert_same([next(iterator)], batches(position + 1)[-1:])


def test_flips_half_of_the_items_and_all_their_keys():
    bs = batches(100, source=Numbered(24, dense=True), augmentation=Augmentation(flip=True))
    flipped = np.concatenate([b["image"][:, 0, 0, 0] > 0 for b in bs])
    assert 0.4 < flipped.mean() < 0.6
    for b in bs:
        columns = np.round(b["image"][..., 0] * 25.5)
        np.testing.assert_array_equal(b["semantics"], columns)
        np.testing.assert_array_equal(b["instances"], columns + 1)
        np.testing.assert_array_equal(b["depth"], columns / 2)
        np.testing.assert_array_equal(b["crowd"], columns % 2 == 0)
        assert "file_name" not in b
        assert b["depth"].dtype == np.float32 and b["semantics"].dtype == b["instances"].dtype == np.int32
    # An item's augmentation changes from epoch to epoch.
    by_label = {}
    for b in bs:
        for label, flip in zip(b["label"], b["image"][:, 0, 0, 0] > 0, strict=True):
            by_label.setdefault(int(label), set()).add(bool(flip))
    assert all(flips == {True, False} for flips in by_label.values())


@pytest.mark.parametrize(
    "bad, message",
    [
        (dict(crop="center"), "'inception', not 'center'"),
        (dict(min_scale=0.0), "0.0"),
        (dict(aspect=(2.0, 1.0)), "2.0"),
    ],
)
def test_bad_augmentation(bad, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**bad)


@pytest.mark.parametrize("size", [1, 7, 8, 9, 16, 17])
@pytest.mark.parametrize("process_count", [1, 2, 3])
def test_eval_batches_cover_every_item_once(size, process_count):
    seen, counts = [], set()
    for process in range(process_count):
        passes = eval_batches(
            Numbered(size), batch_size=4, resolution=8, process_index=process, process_count=process_count
        )
        mine = list(passes)
        assert len(mine) == len(passes)
        counts.add(len(mine))
        for batch in mine:
            assert batch["image"].shape == (4, 8, 8, 3) and batch["image"].dtype == np.float32
            assert batch["mask"].shape == (4,) and batch["mask"].dtype == bool
            assert batch["label"].dtype == np.int32
            seen += batch["label"][batch["mask"]].tolist()
        assert_same(mine, list(passes))  # a second pass gives the same
    assert sorted(seen) == list(range(size))
    assert len(counts) == 1


@pytest.mark.parametrize("crop", ["random_resized", "inception"])
def test_uvim_augmentation(crop):
    """Without antialiasing a checkerboard keeps its contrast where it shrinks."""
    augmentation = Augmentation(flip=True, crop=crop, min_scale=0.05, aspect=(0.75, 1.33), antialias=False)
    y, x = np.mgrid[:64, :64]
    item = {"image": np.uint8(255 * ((x + y) % 2))[..., None].repeat(3, axis=-1), "depth": (x + y) % 2}
    values = [augmentation(item, 8, np.random.default_rng(seed))["image"] for seed in range(30)]
    assert all(v.shape == (8, 8, 3) for v in values) and len({v.tobytes() for v in values}) > 20
    smooth = dataclasses.replace(augmentation, antialias=True)
    smoothed = [smooth(item, 8, np.random.default_rng(seed))["image"] for seed in range(30)]
    assert np.mean([v.std() for v in values]) > 3 * np.mean([v.std() for v in smoothed])


def negated(batch):
    assert "mask" not in batch
    return {"negative": -batch["label"], "double": batch["image"] * 2}


def test_prepare_has_the_last_word_on_batches():
    plain, prepared = batches(3), batches(3, prepare=negated)
    for batch, other in zip(plain, prepared, strict=True):
        assert other.keys() == {"negative", "double"}
        np.testing.assert_array_equal(other["negative"], -batch["label"])
        np.testing.assert_array_equal(other["double"], batch["image"] * 2)
    evaluated = list(eval_batches(Numbered(7), batch_size=4, resolution=8, prepare=negated))
    np.testing.assert_array_equal([b["mask"] for b in evaluated], [[True] * 4, [True] * 3 + [False]])
    np.testing.assert_array_equal([b["negative"] for b in evaluated], [[0, -1, -2, -3], [-4, -5, -6, -6]])
    assert all(b["double"].shape == (4, 8, 8, 3) for b in evaluated)


def test_eval_batches_by_plain_resize():
    """Half of the columns are an edge away from the square that the evaluation crop would cut."""

    class Wide(Numbered):
        def __getitem__(self, i):
            item = super().__getitem__(i)
            return {k: v if k in ("label", "file_name") else np.concatenate([v, v], 1) for k, v in item.items()}

    (batch,) = eval_batches(Wide(3, dense=True), batch_size=3, resolution=8, transform=transforms.plain_resize)
    np.testing.assert_array_equal(batch["semantics"], np.broadcast_to([1, 3, 5, 7, 1, 3, 5, 7], (3, 8, 8)))
    # Columns 2 i and 2 i + 1 in equal parts.
    expected = np.broadcast_to(np.float32([5, 25, 45, 65, 5, 25, 45, 65]) / 255, (3, 8, 8))
    np.testing.assert_array_equal(batch["image"][..., 0], expected)
    assert batch["crowd"].dtype == bool and "file_name" not in batch


def refuse(batch):
    raise ValueError("num_instances must be at least 9 for void and 8 segments, got 8.")


class Broken(Numbered):
    def __getitem__(self, i):
        raise ValueError(f"item {i} is broken.")


def test_errors_in_batches_and_items_come_out_as_they_are():
    for make in (lambda s, **kw: batches(1, source=s, **kw), lambda s, **kw: list(eval_batches(s, **EIGHT, **kw))):
        with pytest.raises(ValueError) as error:
            make(Numbered(8), prepare=refuse)
        assert str(error.value) == "num_instances must be at least 9 for void and 8 segments, got 8."
        with pytest.raises(ValueError) as error:
            make(Broken(8))
        assert re.fullmatch(r"item \d is broken\.", str(error.value))
