"""Checkpoints of the train state and of the data iterator's position (orbax's CheckpointManager behind one door)."""

import hashlib
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp

from fsq_repro.errors import UserError
from fsq_repro.files import check_room
from fsq_repro.runtime import sharding


class Checkpoints:
    """Checkpoints of one run directory; a step is saved whole or not at all (orbax renames when it is complete)."""

    def __init__(self, directory: pathlib.Path, *, create: bool = True):
        # Saving is synchronous: the loop donates the state's buffers to the next step, and a save takes seconds
        # in an hour of training.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2, create=create, enable_async_checkpointing=False, read_only=not create
        )
        self._directory = pathlib.Path(directory).resolve()
        if not create and not self._directory.is_dir():
            raise UserError(f"there is no checkpoint in {self._directory}; train the run first")
        if create and jax.process_index() == 0:
            for unfinished in self._directory.glob("*.orbax-checkpoint-tmp"):  # of saves that were killed
                shutil.rmtree(unfinished, ignore_errors=True)
        handlers = {"state": ocp.StandardCheckpointHandler(), "data": grain.checkpoint.CheckpointHandler()}
        self._manager = ocp.CheckpointManager(self._directory, options=options, item_handlers=handlers)

    @property
    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def save(self, step: int, state: Any, data_iterator: Any) -> None:
        """Saves the state and where the data iterator stands (call it before the next batch is drawn)."""
        if step in self._manager.all_steps():
            return
        self.check_room(state)
        items = {"state": ocp.args.StandardSave(state), "data": grain.checkpoint.CheckpointSave(data_iterator)}
        # Not forced, orbax asks the preemption service itself, with other numbers than `StopSignal`.
        self._manager.save(step, args=ocp.args.Composite(**items), force=True)

    def check_room(self, state: Any) -> None:
        """OSError (ENOSPC) where the disk is too full for a checkpoint: orbax would leave a part of it behind."""
        size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
        # Arrays are written twice, by process and merged; a mebibyte is for the rest of the run directory.
        check_room(self._directory, 2 * size + 2**20)

    def restore(self, abstract_state: Any, *, data_iterator: Any = None, step: int | None = None) -> Any:
        """Returns the state of `step` (default: the last); moves `data_iterator`, if given, to its place.

        `abstract_state` is a pytree of `jax.ShapeDtypeStruct` with the shardings wanted, `data_iterator` a grain
        iterator over the pipeline of the save.

        Raises UserError for no such checkpoint, one of another architecture or, for an iterator, of other processes.
        """
        step = self.latest_step() if step is None else step
        if step is None:
            raise UserError(f"there is no checkpoint in {self._directory}; train the run first")
        if step not in self._manager.all_steps():
            raise UserError(f"there is no checkpoint of step {step} in {self._directory}; there are {self.steps}")
        stored, wanted = _shapes(self._manager.item_metadata(step)["state"].tree), _shapes(abstract_state)
        for name in sorted(stored.keys() | wanted.keys()):
            if stored.get(name) != wanted.get(name):
                raise UserError(
                    f"the checkpoint of step {step} in {self._directory} does not fit the config: {name} has shape "
                    f"{stored.get(name, 'nothing')} there and {wanted.get(name, 'nothing')} by the config"
                )
        items = {"state": ocp.args.StandardRestore(abstract_state)}
        if data_iterator is not None:
            self._check_processes(step)
            items["data"] = grain.checkpoint.CheckpointRestore(data_iterator)
        return self._manager.restore(step, args=ocp.args.Composite(**items))["state"]

    def _check_processes(self, step: int) -> None:
        """Each process has its own position in its own part of the data."""
        names = [path.stem for path in (self._directory / str(step) / "data").glob("process_0-of-*.json")]
        if names and names != [f"process_0-of-{jax.process_count()}"]:
            raise UserError(
                f"the checkpoint of step {step} in {self._directory} was saved by {names[0].split('-')[-1]} processes, "
                f"which shared the data, and cannot be resumed by {jax.process_count()}"
            )

    def close(self) -> None:
        self._manager.close()


def restore_arrays(directory: pathlib.Path, init_state: Callable[[jax.Array], Any], step: int | None = None) -> Any:
    """The train state of a checkpoint (the last by default) as NumPy arrays of this process, for use after training.

    Only shapes are asked of the trainer's `init_state`. UserError as of `Checkpoints.restore`.
    """
    checkpoints = Checkpoints(directory, create=False)
    place = sharding.replicated(sharding.make_mesh())
    abstract = jax.tree.map(lambda x: sharding.placed(x, place), jax.eval_shape(init_state, jax.random.key(0)))
    state = checkpoints.restore(abstract, step=step)
    checkpoints.close()

    def local(x: jax.Array) -> Any:
        key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        return x if key else np.asarray(x.addressable_data(0))  # of the copies on all processes' devices, ours

    return jax.tree.map(local, state)


def fingerprint(variables: Any) -> str:
    """Twelve hexadecimal digits of a model's arrays and their names."""
    digest = hashlib.sha256()
    for path, x in jax.tree_util.tree_leaves_with_path(variables):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.asarray(x).tobytes())
    return digest.hexdigest()[:12]


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Path -> shape, paths alike for the state's dataclasses and named tuples and for orbax's dicts and lists."""
    shapes = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):  # typed keys are stored as their data
            leaf = jax.eval_shape(jax.random.key_data, leaf)
        shapes[jax.tree_util.keystr(path, simple=True, separator="/")] = tuple(leaf.shape)
    return shapes
