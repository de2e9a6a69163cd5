"""Published weights as run directories of this project: MaskGIT's checkpoints and UViM's `.npz` files.

Our modules have the published parameters' names, so an array of the file goes to the parameter of its name. Published:

- MaskGIT, google-research/maskgit: `{tokenizer,maskgit}_imagenet{256,512}_checkpoint`, flax msgpack of {"params": ...}.
  The tokenizer's codebook is a parameter.
- UViM, google-research/big_vision `configs/proj/uvim`: `{panoptic,color,depth}_stage{I,II}_params.npz`, names joined by
  "/". Stage I has `params/...` and the codebook's `state/dictionary` and `state/counts`, stage II parameters alone.

Names may have anything in front that makes all of them fit, such as `params/` or `opt/target/`, and may be the older
ones that big_vision's own loaders (`models/proj/uvim/{vit,vtt}.py`) still rename, see `weight_files.linen_names`.
"""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from fsq_repro.conversion.weight_files import locate, read_arrays
from fsq_repro.errors import UserError, explained
from fsq_repro.experiments.registry import kind_of
from fsq_repro.factories import fields as config_fields
from fsq_repro.files import atomic_directory
from fsq_repro.runtime.checkpoints import Checkpoints, check_path
from fsq_repro.runtime.run_dir import RunDir

NO_DATA = [{}]  # an iterator's position before the first batch is the same for all sources


def published_tree(state: Any) -> dict[str, Any]:
    """{published name: array} of a train state of any trainer, or of its shapes."""
    codebook = getattr(state, "quantizer_state", {})
    tree = {"params": state.params, "state": codebook["quantizer"]} if codebook else state.params
    return flatten_dict(tree, sep="/")


def state_fields(state: Any, tree: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `published_tree`: the state's fields that a published tree fills, averaged parameters too."""
    nested = unflatten_dict(dict(tree), sep="/")
    fields = {"params": nested}
    if getattr(state, "quantizer_state", {}):
        fields = {"params": nested["params"], "quantizer_state": {"quantizer": nested["state"]}}
    return fields | ({"ema_params": fields["params"]} if hasattr(state, "ema_params") else {})


def import_run(config: Any, weights: str | os.PathLike, path: str | os.PathLike, **origin: Any) -> dict:
    """Makes a finished run of published weights; all is checked before anything is written.

    The checkpoint is of step `config.steps`. Averaged parameters are the file's too. The rest of the state (optimiser,
    discriminator, position in the data) is that of a new run: training goes on from it with a higher `config.steps`.

    Args:
      config: as resolved, of any trainer; those of stage II name stage I's run directory.
      weights: the file, see `read_arrays`.
      path: the run directory, which must not exist or be empty; it appears whole or not at all.
      **origin: what else `config.json` says, see `RunDir.write_config`.

    Returns the record; `imported` says where the weights came from.

    Raises UserError for a run directory that exists, a config that cannot be built, no stage I, an unreadable file, or
    one whose names or shapes are not the config's.
    """
    path = RunDir(path).path.absolute()
    check_path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"--workdir={path} exists already; an import needs a directory that is new or empty")
    with explained():
        arrays, sha256 = read_arrays(weights)
        kind = kind_of(config)
        config_fields.check_all(config)
        trainer = kind.build_trainer(config, kind.load_stage1(config))
        facts = kind.facts(config, trainer)
        data_iterator = kind.train_iterator(config, kind.build_task(config), NO_DATA)
        shapes = jax.eval_shape(trainer.init_state, jax.random.key(0))
        try:
            place = locate(arrays, published_tree(shapes))
        except ValueError as e:
            raise ValueError(f"the weight file {weights} does not fit the config: {e}") from None
    tree = {name: np.asarray(arrays[old], np.float32) for name, old in place.names.items()}
    fields = state_fields(shapes, tree)
    # Under jit only what is returned is computed: there are no initial parameters beside the file's.
    rest = jax.jit(lambda key: trainer.init_state(key).replace(**dict.fromkeys(fields)))(jax.random.key(config.seed))
    state = rest.replace(step=jnp.int32(config.steps), **fields)
    imported = {
        "file": pathlib.Path(weights).name,
        "sha256": sha256,
        "prefix": place.prefix,
        "arrays": len(tree),
        "older_names": sum(old != place.prefix + name for name, old in place.names.items()),
        "not_used": sorted({old.split("/")[0] for old in arrays.keys() - set(place.names.values())}),
        "from_the_file": sorted(fields),
        "as_in_a_new_run": sorted({f.name for f in dataclasses.fields(state)} - fields.keys() - {"step"}),
        "note": "steps, batch_size, seed and data are the config's; the file does not tell those of its training",
    }
    with atomic_directory(path) as temporary:
        run = RunDir(temporary)
        run.write_config(config, **origin)
        with contextlib.closing(Checkpoints(run.checkpoints)) as checkpoints:
            checkpoints.save(config.steps, state, data_iterator)
        facts |= {"run": path.name, "sweep": "", "imported": imported}
        return run.update_record(status="finished", **facts)
