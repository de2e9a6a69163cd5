"""Checkpoints: damage is told in one sentence that names the newest intact one, and paths that orbax cannot have."""

import pathlib
import shutil

import flax.struct
import grain
import jax
import jax.numpy as jnp
import pytest

from fsq_repro.errors import UserError
from fsq_repro.runtime.checkpoints import Checkpoints, restore_arrays
from tests.trainers.test_loop import assert_same


@flax.struct.dataclass
class State:
    step: jax.Array
    params: dict[str, jax.Array]
    rng: jax.Array


def init_state(key: jax.Array) -> State:
    """One array that lies in a file of its own and small ones that share theirs."""
    return State(jnp.int32(0), {"kernel": jax.random.normal(key, (40, 50)), "bias": jnp.ones(3)}, key)


def state_of(step: int) -> State:
    return init_state(jax.random.key(step)).replace(step=jnp.int32(step))


def iterator(position: int = 0) -> grain.DatasetIterator:
    items = iter(grain.MapDataset.range(10).to_iter_dataset())
    items.set_state({"next_index": position})
    return items


def abstract() -> State:
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.eval_shape(init_state, jax.random.key(0))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> pathlib.Path:
    """Checkpoints of steps 3 and 4, at those positions of the data."""
    directory = tmp_path_factory.mktemp("run") / "checkpoints"
    checkpoints = Checkpoints(directory)
    for step in (3, 4):
        checkpoints.save(step, state_of(step), iterator(step))
    checkpoints.close()
    return directory


def cut(path: pathlib.Path, keep: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


DAMAGE = {
    "empty": lambda path: cut(path, 0),
    "truncated": lambda path: cut(path, 0.5),
    "shortened": lambda path: cut(path, 0.98),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_told_or_does_no_harm(saved, tmp_path, kind):
    """Each file of the last checkpoint in turn; some hold nothing that is needed."""
    told = 0
    for file in sorted(path.relative_to(saved) for path in (saved / "4").rglob("*") if path.is_file()):
        directory, data = tmp_path / str(file).replace("/", "-"), iterator()
        shutil.copytree(saved, directory)
        DAMAGE[kind](directory / file)
        checkpoints = Checkpoints(directory)
        try:
            state = checkpoints.resume(abstract(), data)
        except UserError as e:
            told += 1
            assert f"the checkpoint of step 4 in {directory} cannot be read (" in str(e), file
            assert str(e).endswith("; the newest intact one is of step 3: --checkpoint=3 takes it"), file
            assert "\n" not in str(e), file
            state = checkpoints.resume(abstract(), data, step=3)
            assert_same(state, state_of(3))
            assert data.get_state() == {"next_index": 3} and checkpoints.steps == [3], file
            assert (directory / "4.damaged").is_dir(), file
            checkpoints.save(4, state_of(4), iterator(4))  # training comes by again
            assert checkpoints.steps == [3, 4], file
            assert_same(checkpoints.restore(abstract()), state_of(4))
        else:
            assert_same(state, state_of(4))
            assert data.get_state() == {"next_index": 4}, file
        checkpoints.close()
    assert told >= 5


@pytest.mark.parametrize("item", ["state", "data", "state/d", "state/ocdbt.process_0"])
def test_a_missing_item_is_told_to_all_who_need_it(saved, tmp_path, item):
    shutil.copytree(saved, tmp_path / "c")
    shutil.rmtree(tmp_path / "c" / "4" / item)
    with pytest.raises(UserError, match=r"step 4 in \S+ cannot be read \(.*: --checkpoint=3 takes it"):
        Checkpoints(tmp_path / "c").resume(abstract(), iterator())
    if item == "data":  # evaluation and inference have no use for it
        assert int(restore_arrays(tmp_path / "c", init_state).step) == 4
        return
    with pytest.raises(UserError, match=r"step 4 in \S+ cannot be read \(.*: --checkpoint=3 takes it"):
        restore_arrays(tmp_path / "c", init_state)
    assert_same(restore_arrays(tmp_path / "c", init_state, step=3), state_of(3))
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["3", "4"]  # only training sets aside


def test_nothing_is_set_aside_that_can_be_read(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "c")
    with pytest.raises(UserError, match=r"^--checkpoint=3 would go back behind the checkpoint of step 4 in .* intact"):
        Checkpoints(tmp_path / "c").resume(abstract(), iterator(), step=3)
    with pytest.raises(UserError, match=r"no checkpoint of step 2 in .*; there are \[3, 4\]"):
        Checkpoints(tmp_path / "c").resume(abstract(), iterator(), step=2)


def test_where_none_is_intact(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "c")
    for step in "34":
        (tmp_path / "c" / step / "state" / "_METADATA").write_bytes(b"")
    with pytest.raises(UserError, match=r"step 4 in .* cannot be read \(.*; there is no other that is intact"):
        Checkpoints(tmp_path / "c").resume(abstract(), iterator())


@pytest.mark.parametrize("name", ["a[1]", "[!x]", "st*r", "**", "what?", "back\\slash", "end\\"])
@pytest.mark.parametrize("below", ["", "deep/er"])
def test_a_path_that_orbax_cannot_have_is_refused(tmp_path, name, below):
    with pytest.raises(UserError, match=r"^checkpoints cannot be saved in .*: its path must not have the character"):
        Checkpoints(tmp_path / name / below)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a b", "ü", "%41", "#x", "a:b", "{x}", "$HOME", "-x", "new\nline", "~", "a]"])
def test_other_paths_hold_checkpoints(tmp_path, name):
    checkpoints = Checkpoints(tmp_path / name)
    checkpoints.save(3, state_of(3), iterator(3))
    assert_same(checkpoints.restore(abstract()), state_of(3))
    checkpoints.close()
