"""Published weights: full-size trees by name and shape, the golden networks from files, and files that are refused."""

import hashlib
import json
import pickle
import re
from collections import Counter
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.serialization import msgpack_serialize
from flax.traverse_util import flatten_dict, unflatten_dict

from configs import imagenet256_autoencoder, imagenet256_maskgit, tradeoff_autoencoder
from fsq_repro.conversion.published_weights import import_run, published_tree, state_fields
from fsq_repro.conversion.weight_files import linen_names, locate, read_arrays
from fsq_repro.errors import UserError
from fsq_repro.factories import autoencoder as autoencoder_factory
from fsq_repro.factories import code_predictor as code_predictor_factory
from fsq_repro.factories import common
from fsq_repro.factories import label_autoencoder as label_autoencoder_factory
from fsq_repro.factories import maskgit as maskgit_factory
from fsq_repro.inference.image_generator import load_image_generator
from fsq_repro.inference.label_coder import load_label_coder
from fsq_repro.inference.label_predictor import load_label_predictor
from fsq_repro.inference.tokenizer import load_tokenizer
from fsq_repro.models.label_autoencoder import patchify, unpatchify
from fsq_repro.runtime import run_dir
from fsq_repro.runtime.checkpoints import Checkpoints, restore_arrays
from tests.conftest import ROOT, golden_weights, load_golden
from tests.tiny import UVIM_CONFIGS, NoiseSource, tiny_config, tiny_stage2, tiny_uvim
from tests.trainers.test_loop import assert_same
from tests.trainers.test_loop import run as train

TREES = json.loads((ROOT / "tests" / "golden" / "published_trees.json").read_text())


def full_size_trainer(name: str):
    """The trainer of the config that a published tree is imported with, without its stage I."""
    if name.startswith("maskgit"):
        resolution, tokenizer = int(name[-3:]), "tokenizer" in name
        config = (imagenet256_autoencoder if tokenizer else imagenet256_maskgit).get_config("quantizer=vq")
        config.data.resolution = resolution
        if tokenizer:
            config.loss.gan = 0.0  # no discriminator is published
            return autoencoder_factory.build_trainer(config)
        return maskgit_factory.build_trainer(config, SimpleNamespace(grid=resolution // 16))
    task, stage = re.fullmatch(r"uvim_([a-z]+)_stage(\d)", name).groups()
    experiment = UVIM_CONFIGS[{"color": "colorization"}.get(task, task)]
    config = experiment.get_config(f"stage={stage},quantizer=vq")
    if stage == "1":
        return label_autoencoder_factory.build_trainer(config)
    codebook = SimpleNamespace(codebook_size=config.quantizer.codebook_size)
    task = label_autoencoder_factory.build_task(config.task)
    coder = SimpleNamespace(model=SimpleNamespace(quantizer=codebook, code_grid=16), task=task)
    return code_predictor_factory.build_trainer(config, coder)


def spec(shape):
    return jax.ShapeDtypeStruct(tuple(shape), np.float32)


# One tree is published for all of stage II: the three tasks differ in nothing there.
NAMES = [name for name in TREES if name != "uvim_stage2"] + ["uvim_panoptic_stage2"]


@pytest.mark.parametrize("name", NAMES)
def test_every_published_name_is_used_once_and_every_parameter_filled_once(name):
    published = TREES["uvim_stage2" if name.endswith("stage2") else name]
    trainer = full_size_trainer(name)
    state = jax.eval_shape(trainer.init_state, jax.random.key(0))
    prefix = "params/" if name.startswith("maskgit") else ""
    arrays = {prefix + key: spec(shape) for key, shape in published.items()} | {"step": spec(())}
    if not prefix:
        del arrays["step"]  # behind the prefix "" there may be nothing else
    place = locate(arrays, published_tree(state))
    assert place.prefix == prefix
    assert Counter(place.names.values()) == Counter(prefix + key for key in published)
    assert all(old == prefix + key for key, old in place.names.items())

    fields = state_fields(state, {key: (old, arrays[old]) for key, old in place.names.items()})
    assert fields.keys() == {"params", "ema_params", "quantizer_state"} & vars(state).keys() - (
        set() if getattr(state, "quantizer_state", {}) else {"quantizer_state"}
    )
    filled = []
    for field in fields.keys() - {"ema_params"}:
        found = flatten_dict(fields[field], sep="/")
        assert {key: x.shape for key, (_, x) in found.items()} == {
            key: x.shape for key, x in flatten_dict(getattr(state, field), sep="/").items()
        }
        filled += [old for old, _ in found.values()]
    assert Counter(filled) == Counter(prefix + key for key in published)
    assert fields.get("ema_params", fields["params"]) == fields["params"]


def older(name: str) -> str:
    """A stage-I name as pre-Linen flax numbered it."""
    for part, before in (
        ("LayerNorm_1", "LayerNorm_2"),
        ("MlpBlock_0", "MlpBlock_3"),
        ("MultiHeadDotProductAttention_0", "MultiHeadDotProductAttention_1"),
        ("/encoder/", "/Encoder/"),
        ("/decoder/", "/Decoder/"),
    ):
        name = name.replace(part, before)
    return name


def test_older_names_are_those_of_today():
    published = TREES["uvim_depth_stage1"]
    names = {older(name): name for name in published}
    assert len(names) == len(published) and len(names.keys() - published.keys()) > 200
    wanted = {name: spec(shape) for name, shape in published.items()}
    place = locate({before: wanted[name] for before, name in names.items()}, wanted)
    assert {before: name for name, before in place.names.items()} == names
    assert linen_names(["a/Dense_1/x", "a/Dense_10/x", "a/Conv_0/x", "b/Dense_1/x"]) == {
        "a/Dense_0/x": "a/Dense_1/x",
        "a/Dense_1/x": "a/Dense_10/x",
        "a/Conv_0/x": "a/Conv_0/x",
        "b/Dense_0/x": "b/Dense_1/x",
    }
    assert linen_names(["Encoder/x", "encoder/x"]) == {}


WANTED = {"a/kernel": spec((2, 3)), "a/bias": spec((3,)), "b/kernel": spec((4,)), "b/bias": spec((4,)), "c": spec((5,))}


def test_a_tree_that_does_not_fit_is_refused_with_names_shapes_and_counts():
    far = {"x": spec((1,)), "y/z": spec((1,))}
    with pytest.raises(ValueError, match=r"none of the model's 5 names \(a/kernel, a/bias, b/kernel, ...\), but 2 oth"):
        locate(far, WANTED)
    below = {f"ema/{name}": x for name, x in WANTED.items()}
    assert locate(far | below, WANTED).prefix == "ema/"
    with pytest.raises(ValueError, match="more than once, behind 'ema/', 'params/'; keep one"):
        locate(below | {f"params/{name}": x for name, x in WANTED.items()}, WANTED)
    # The nearest place is told: 'ema/' has more of the names than 'params/'.
    wrong = {"ema/a/kernel": spec((3, 2)), "ema/d": spec(()), "ema/c": jax.ShapeDtypeStruct((5,), np.int32)}
    arrays = (
        {name: x for name, x in below.items() if not name.startswith("ema/b")} | wrong | {"params/a/bias": spec((3,))}
    )
    with pytest.raises(ValueError) as refusal:
        locate(arrays, WANTED)
    assert str(refusal.value) == (
        "behind the prefix 'ema/', 2 of 5 names missing (b/kernel, b/bias); 1 surplus (d); "
        "2 of another shape or type (a/kernel is float32 (3, 2) there and (2, 3) by the config, "
        "c is int32 (5,) there and (5,) by the config)"
    )


# ---- Whole imports, of the networks that the golden outputs were measured on


def save_msgpack(path, tree, **around):
    path.write_bytes(msgpack_serialize(around | {"params": unflatten_dict(tree, sep="/")}))
    return path


def golden_tokenizer():
    config = tradeoff_autoencoder.get_config("quantizer=vq,scale=smoke")
    config.quantizer.codebook_size, config.quantizer.embedding_dim = 64, 16
    config.model.channel_multipliers, config.model.num_res_blocks, config.model.stem_patch = (1, 1, 2, 2, 4), 2, 1
    config.loss.gan = config.loss.perceptual = 0.0
    arrays, weights = load_golden("maskgit_autoencoder")
    weights["quantizer/codebook"] *= 8  # as it was measured
    return config, arrays, weights


def golden_uvim(stage: int, stage1=""):
    config = tiny_uvim(stage, "quantizer=vq", stage1=stage1)
    config.quantizer.codebook_size, config.quantizer.embedding_dim = 16, 32
    config.data.resolution, config.model.patch_size = 32, 8
    config.model.num_heads, config.model.mlp_width = 4, 64
    if stage == 1:
        config.model.decoder_depth = 2
    else:
        config.model.num_layers = 2
    return config


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory):
    """An imported tokenizer of 4x4 tokens of 16 codes, from a train state: (directory, config, weights, file)."""
    root = tmp_path_factory.mktemp("tiny")
    config = tiny_config("quantizer=vq,bits=4")
    shapes = jax.eval_shape(autoencoder_factory.build_trainer(config).init_state, jax.random.key(0))
    weights = golden_weights({name: x.shape for name, x in published_tree(shapes).items()})
    target = {"target": {"params": unflatten_dict(weights, sep="/")}}
    file = root / "checkpoint"
    file.write_bytes(msgpack_serialize({"optimizer": target, "step": 7, "note": "no array", "scale": np.float32(1)}))
    import_run(config, file, root / "run", command=["import"])
    return root / "run", config, weights, file


def test_the_imported_state_is_the_file_and_else_that_of_a_new_run(tiny_run):
    path, config, weights, file = tiny_run
    trainer = autoencoder_factory.build_trainer(config)
    state = restore_arrays(path / "checkpoints", trainer.init_state)
    for params in (state.params, state.ema_params):
        found = flatten_dict(params, sep="/")
        assert found.keys() == weights.keys()
        for name, x in found.items():
            np.testing.assert_array_equal(x, weights[name], err_msg=name)
    assert int(state.step) == config.steps
    fields = {"step": jnp.int32(0), "params": (), "ema_params": ()}
    new = jax.jit(trainer.init_state)(jax.random.key(config.seed))
    assert_same(state.replace(**fields), new.replace(**fields))

    record = run_dir.RunDir(path).record
    assert (record["status"], record["steps"], record["run"], record["stage"]) == ("finished", 8, "run", 1)
    assert record["parameters"] == sum(x.size for x in weights.values())
    imported = record["imported"]
    assert imported["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest() and imported["file"] == "checkpoint"
    assert imported["prefix"] == "optimizer/target/params/" and imported["arrays"] == len(weights)
    assert imported["older_names"] == 0 and imported["not_used"] == ["note", "scale", "step"]
    assert imported["from_the_file"] == ["ema_params", "params"]
    assert "opt_state" in imported["as_in_a_new_run"] and "params" not in imported["as_in_a_new_run"]
    stored = json.loads((path / "config.json").read_text())
    assert stored["config"] == run_dir.config_as_json(config) and stored["command"] == ["import"]
    assert sorted(p.name for p in path.parent.iterdir()) == ["checkpoint", "run"]  # nothing is left behind


def test_training_goes_on_from_an_import(tiny_run, tmp_path):
    path, config, weights, file = tiny_run
    config = config.copy_and_resolve_references()
    import_run(config, file, tmp_path / "run")
    config.steps = 10
    run_dir.RunDir(tmp_path / "run").check_resumable(config)
    state = train(tmp_path / "run", config)
    assert int(state.step) == 10
    leaves = jax.tree_util.tree_leaves_with_path(state.opt_state)
    assert {int(x) for path, x in leaves if "count" in jax.tree_util.keystr(path)} == {2}
    assert Checkpoints(tmp_path / "run" / "checkpoints", create=False).steps == [8, 10]
    moved = flatten_dict(state.params, sep="/")["decoder/Conv_0/kernel"] - weights["decoder/Conv_0/kernel"]
    assert 0 < np.abs(moved).max() < 0.1


def test_the_position_in_the_data_does_not_depend_on_the_source():
    config = tiny_config()
    assert (
        common.build_train_iterator(config, [{}]).get_state()
        == common.build_train_iterator(config, NoiseSource()).get_state()
    )


def test_maskgits_tokenizer_from_msgpack(tmp_path):
    config, arrays, weights = golden_tokenizer()
    import_run(config, save_msgpack(tmp_path / "file", weights), tmp_path / "run")
    tokenizer = load_tokenizer(tmp_path / "run")
    reconstruction, indices = tokenizer.reconstruct(arrays["image"])
    np.testing.assert_array_equal(indices, arrays["indices"])
    np.testing.assert_allclose(reconstruction, arrays["reconstruction"].clip(0, 1), rtol=1e-4, atol=1e-4)


def test_maskgits_transformer_from_msgpack(tmp_path, tiny_run):
    arrays, weights = load_golden("maskgit_transformer")
    config = tiny_stage2(tiny_run[0], "quantizer=vq,bits=4")
    config.model.width, config.model.num_layers, config.model.num_heads, config.model.mlp_width = 32, 2, 4, 64
    config.data.num_classes = 4
    config.quantizer.codebook_size = 16
    import_run(config, save_msgpack(tmp_path / "file", weights), tmp_path / "run")
    image_generator = load_image_generator(tmp_path / "run")
    model = image_generator.generator.model
    ids = np.where(arrays["input_ids"] < 0, model.mask_id, arrays["input_ids"])
    logits = jax.jit(image_generator.generator.logits)(
        image_generator.params, ids[:, 1:], ids[:, 0] - model.codebook_size
    )
    expected = arrays["logits"][:, 1:, : model.codebook_size]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    stage1 = run_dir.RunDir(tmp_path / "run").record["stage1"]
    assert stage1["run"] == "run" and stage1["fingerprint"] == load_tokenizer(tiny_run[0]).fingerprint


def test_both_stages_of_uvim_from_npz(tmp_path):
    arrays, weights = load_golden("uvim_stage1")
    state = {"state/dictionary": arrays["dictionary_sums"], "state/counts": arrays["counts"]}
    tree = {f"params/{name}": x for name, x in weights.items()} | state
    np.savez(tmp_path / "stage1.npz", **{older(name): x for name, x in tree.items()})
    stage1 = tmp_path / "stage1"
    record = import_run(golden_uvim(1), tmp_path / "stage1.npz", stage1)
    assert record["imported"]["older_names"] == sum(older(name) != name for name in tree) > 0
    assert record["imported"]["from_the_file"] == ["params", "quantizer_state"]
    coder = load_label_coder(stage1)
    one_hot = np.eye(8, dtype=np.float32)[arrays["labels"]].swapaxes(2, 3)
    labels = {"depth": unpatchify(jnp.asarray(one_hot), (4, 4))}
    call = jax.jit(lambda variables, *inputs: coder.model.apply(variables, *inputs, train=False))
    logits, quantized = call(coder.variables, labels, arrays["context"])
    np.testing.assert_array_equal(quantized.indices, arrays["code"])
    np.testing.assert_allclose(patchify(logits["depth"], 8), arrays["logits"], rtol=1e-4, atol=1e-4)

    arrays, weights = load_golden("uvim_stage2")
    np.savez(tmp_path / "stage2.npz", **weights)
    config = golden_uvim(2, stage1)
    import_run(config, tmp_path / "stage2.npz", tmp_path / "stage2")
    predictor = load_label_predictor(tmp_path / "stage2")
    model = predictor.trainer.model
    call = jax.jit(lambda params, *inputs: model.apply({"params": params}, *inputs))
    logits = call(predictor.params, arrays["image"], arrays["codes"] - 1)
    np.testing.assert_allclose(logits, arrays["logits"], rtol=1e-4, atol=1e-5)

    # The files are not each other's, and stage II needs its stage I.
    with pytest.raises(UserError, match=r"stage1.npz does not fit the config: .* missing .* surplus"):
        import_run(config, tmp_path / "stage1.npz", tmp_path / "no")
    with pytest.raises(UserError, match=r"stage2.npz does not fit the config: it has none of the model's \d+ names"):
        import_run(golden_uvim(1), tmp_path / "stage2.npz", tmp_path / "no")
    config.stage1 = ""
    with pytest.raises(UserError, match="stage1 is empty"):
        import_run(config, tmp_path / "stage2.npz", tmp_path / "no")
    assert not (tmp_path / "no").exists()


class Opened:
    """Leaves a trace when it is unpickled."""

    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


def test_bad_files_and_directories_are_refused_before_anything_is_written(tmp_path, tiny_run):
    path, config, weights, file = tiny_run
    good, npz = file.read_bytes(), tmp_path / "npz"
    with open(npz, "wb") as f:
        np.savez(f, **weights)
    whole = npz.read_bytes()
    foreign, object_npz = tmp_path / "foreign.npz", tmp_path / "objects.npz"
    np.savez(foreign, arr_0=np.zeros((2, 2)), mu=np.zeros(3))
    np.savez(object_npz, **{"encoder/Conv_0/kernel": np.array(Opened(), object)})
    other = config.copy_and_resolve_references()
    other.model.filters = 64
    unreadable = "is no .npz file and no whole msgpack of flax either"
    cases = {
        "truncated msgpack": (good[: len(good) // 2], unreadable),
        "truncated npz": (whole[: len(whole) // 2], "is a truncated or damaged .npz file"),
        "damaged npz": (whole[:2000] + bytes(1000) + whole[3000:], "is a truncated or damaged .npz file"),
        "text": (b"no weights", unreadable),
        "empty": (b"", unreadable),
        "a list": (msgpack_serialize([1, 2]), unreadable + r" \(TypeError: it holds a list\)"),
        "a pickle": (pickle.dumps(Opened()), unreadable),
        "pickled arrays": (object_npz.read_bytes(), "is a truncated or damaged .npz file"),
        "foreign": (foreign.read_bytes(), r"has none of the model's \d+ names .* but 2 others \(arr_0, mu\)"),
    }
    new = tmp_path / "new"
    for content, message in cases.values():
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(UserError, match=message) as refusal:
            import_run(config, tmp_path / "file", new)
        assert "\n" not in str(refusal.value) and "file" in str(refusal.value)
    with pytest.raises(UserError, match=r"of another shape .*Conv_0/kernel is float32 \(3, 3, .*, 32\) there"):
        import_run(other, file, new)
    with pytest.raises(UserError, match="there is no weight file"):
        import_run(config, tmp_path / "none", new)
    assert not new.exists()

    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    for taken in (path, file):
        with pytest.raises(UserError, match="exists already; an import needs a directory that is new or empty"):
            import_run(config, file, taken)
    assert before == {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    assert read_arrays(npz)[0].keys() == weights.keys()


def test_a_failing_import_leaves_nothing(tmp_path, tiny_run, monkeypatch):
    _, config, _, file = tiny_run
    monkeypatch.setattr(Checkpoints, "save", lambda *a: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space left"):
        import_run(config, file, tmp_path / "run")
    assert not list(tmp_path.iterdir())
