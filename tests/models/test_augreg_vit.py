"""Reading AugReg ViTs: names, values, and position embeddings on another grid."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from fsq_repro.models.augreg_vit import load_augreg_vit, resample_positions
from fsq_repro.models.code_predictor import CodePredictor

D, HEADS, MLP, LAYERS, PATCH = 8, 2, 12, 2, 4


def file_arrays():
    """A tiny ViT of a 3x3 grid as its AugReg file has it, float64, every array random."""
    shapes = {
        "cls": (1, 1, D),
        "embedding/kernel": (PATCH, PATCH, 3, D),
        "embedding/bias": (D,),
        "Transformer/posembed_input/pos_embedding": (1, 1 + 9, D),
        "Transformer/encoder_norm/scale": (D,),
        "Transformer/encoder_norm/bias": (D,),
        "pre_logits/kernel": (D, D),
        "pre_logits/bias": (D,),
        "head/kernel": (D, 21843),
        "head/bias": (21843,),
    }
    for i in range(LAYERS):
        block = f"Transformer/encoderblock_{i}"
        for norm in ("LayerNorm_0", "LayerNorm_2"):
            shapes |= {f"{block}/{norm}/scale": (D,), f"{block}/{norm}/bias": (D,)}
        for dense, (fan_in, fan_out) in {"Dense_0": (D, MLP), "Dense_1": (MLP, D)}.items():
            shapes[f"{block}/MlpBlock_3/{dense}/kernel"] = (fan_in, fan_out)
            shapes[f"{block}/MlpBlock_3/{dense}/bias"] = (fan_out,)
        attention = f"{block}/MultiHeadDotProductAttention_1"
        for name in ("query", "key", "value"):
            shapes[f"{attention}/{name}/kernel"] = (D, HEADS, D // HEADS)
            shapes[f"{attention}/{name}/bias"] = (HEADS, D // HEADS)
        shapes |= {f"{attention}/out/kernel": (HEADS, D // HEADS, D), f"{attention}/out/bias": (D,)}
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def save(path, arrays):
    np.savez(path, **arrays)
    return path


def model_params(grid=3, **fields):
    sizes = {"width": D, "num_layers": LAYERS, "num_heads": HEADS, "mlp_width": MLP, "patch_size": PATCH} | fields
    model = CodePredictor(16, 4, grid * sizes["patch_size"], **sizes)
    images = jnp.zeros((1, model.image_size, model.image_size, 3))
    return model, jax.eval_shape(lambda: model.init(jax.random.key(0), images, jnp.zeros((1, 4), jnp.int32)))["params"]


@pytest.fixture(scope="module")
def augreg(tmp_path_factory):
    arrays = file_arrays()
    return save(tmp_path_factory.mktemp("augreg") / "vit.npz", arrays), arrays


def test_every_array_lands_at_its_parameter(augreg):
    path, arrays = augreg
    _, params = model_params()
    loaded = flatten_dict(load_augreg_vit(path, params), sep="/")
    expected = {
        "EmbedPatches/kernel": "embedding/kernel",
        "EmbedPatches/bias": "embedding/bias",
        "encoder/encoder_norm/scale": "Transformer/encoder_norm/scale",
        "encoder/encoder_norm/bias": "Transformer/encoder_norm/bias",
    }
    for name in arrays:
        if name.startswith("Transformer/encoderblock"):
            ours = name.replace("Transformer", "encoder").replace("LayerNorm_2", "LayerNorm_1")
            ours = ours.replace("MlpBlock_3", "MlpBlock_0").replace("Attention_1", "Attention_0")
            expected[ours] = name
    positions = loaded.pop("pos_embedding_encoder")
    np.testing.assert_array_equal(positions, np.float32(arrays["Transformer/posembed_input/pos_embedding"][:, 1:]))
    assert set(loaded) == set(expected)
    for ours, name in expected.items():
        assert loaded[ours].dtype == np.float32
        np.testing.assert_array_equal(loaded[ours], np.float32(arrays[name]), ours)

    shapes = {name: x.shape for name, x in flatten_dict(params, sep="/").items() if not name.startswith("decoder/")}
    assert shapes.pop("pos_embedding_decoder") and shapes.pop("pos_embedding_encoder") == positions.shape
    assert shapes == {name: x.shape for name, x in loaded.items()}


def vit_features(images_BxHxWx3, arrays, positions_1xTxD):
    """The ViT without its class token, in float64, written from the file's names."""

    def layer_norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * arrays[f"{name}/scale"] + arrays[f"{name}/bias"]

    def gelu(x):
        return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    B, side, _, _ = images_BxHxWx3.shape
    grid = side // PATCH
    x = np.zeros((B, grid**2, D))
    for i in range(grid):
        for j in range(grid):
            patch = images_BxHxWx3[:, i * PATCH : (i + 1) * PATCH, j * PATCH : (j + 1) * PATCH]
            x[:, i * grid + j] = np.tensordot(patch, arrays["embedding/kernel"], 3) + arrays["embedding/bias"]
    x = x + positions_1xTxD
    for i in range(LAYERS):
        block = f"Transformer/encoderblock_{i}"
        y, attention = layer_norm(x, f"{block}/LayerNorm_0"), f"{block}/MultiHeadDotProductAttention_1"
        q, k, v = (
            np.einsum("btd,dhe->bhte", y, arrays[f"{attention}/{n}/kernel"]) + arrays[f"{attention}/{n}/bias"][:, None]
            for n in ("query", "key", "value")
        )
        weights = np.exp(q @ k.swapaxes(-1, -2) / np.sqrt(D // HEADS))
        heads = weights / weights.sum(-1, keepdims=True) @ v
        x = x + np.einsum("bhte,hed->btd", heads, arrays[f"{attention}/out/kernel"]) + arrays[f"{attention}/out/bias"]
        y, mlp = layer_norm(x, f"{block}/LayerNorm_2"), f"{block}/MlpBlock_3"
        y = gelu(y @ arrays[f"{mlp}/Dense_0/kernel"] + arrays[f"{mlp}/Dense_0/bias"])
        x = x + y @ arrays[f"{mlp}/Dense_1/kernel"] + arrays[f"{mlp}/Dense_1/bias"]
    return layer_norm(x, "Transformer/encoder_norm")


def test_the_loaded_encoder_computes_the_vit_on_another_grid(augreg):
    path, arrays = augreg
    model, params = model_params(grid=5)
    images = np.random.default_rng(1).uniform(-1, 1, (2, 20, 20, 3)).astype(np.float32)
    loaded = load_augreg_vit(path, params)
    rest = {"decoder": {}, "pos_embedding_decoder": np.zeros((1, 4, D), np.float32)}
    memory = jax.jit(lambda p: model.apply({"params": p}, images, method="encode"))(rest | loaded)
    positions = align_corners(arrays["Transformer/posembed_input/pos_embedding"], 5)
    np.testing.assert_allclose(memory, vit_features(images, arrays, positions), rtol=1e-4, atol=1e-4)


def align_corners(positions_1xNxD, new):
    """Bilinear from grid to grid with corners on corners, in float64, as two matrices of weights."""
    grid = positions_1xNxD[0, 1:]
    old = round(np.sqrt(len(grid)))
    at = np.linspace(0, old - 1, new)
    weights = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(old)[None]))  # (new, old)
    return np.einsum("ia,jb,abd->ijd", weights, weights, grid.reshape(old, old, -1)).reshape(1, new * new, -1)


@pytest.mark.parametrize("old, new", [(14, 32), (24, 32), (8, 26), (16, 30), (3, 2), (7, 7), (2, 1)])
def test_positions_are_resampled_with_corners_on_corners(old, new):
    positions = np.random.default_rng(2).standard_normal((1, 1 + old**2, 5)).astype(np.float32)
    resampled = resample_positions(positions, new**2)
    assert (resampled.shape, resampled.dtype) == ((1, new**2, 5), np.float32)
    np.testing.assert_allclose(resampled, align_corners(positions.astype(np.float64), new), atol=1e-5)


@pytest.mark.parametrize("tokens, patches", [(9, 9), (1, 4), (10, 8)])
def test_positions_without_class_token_or_square_grid_are_refused(tokens, patches):
    with pytest.raises(ValueError, match=rf"shape \(1, {tokens}, 5\) and are wanted for {patches} patches, but"):
        resample_positions(np.zeros((1, tokens, 5), np.float32), patches)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"num_layers": 3}, "holds a ViT of 2 encoder blocks, but the model's num_layers is 3"),
        ({"num_layers": 1}, "holds a ViT of 2 encoder blocks, but the model's num_layers is 1"),
        ({"mlp_width": 24}, r"MlpBlock_3/Dense_\d/\w+ of the shape \(.*12.*\), but the model needs \(.*24.*\)"),
        ({"num_heads": 4}, r"Attention_1/\w+/\w+ of the shape .*, but the model needs .*4, 2"),
        ({"patch_size": 2}, r"embedding/kernel of the shape \(4, 4, 3, 8\), but the model needs \(2, 2, 3, 8\)"),
    ],
)
def test_a_vit_of_other_sizes_is_refused(augreg, fields, message):
    _, params = model_params(**fields)
    with pytest.raises(ValueError, match=message):
        load_augreg_vit(augreg[0], params)


def test_another_width_is_refused(augreg):
    _, params = model_params(width=16)
    with pytest.raises(ValueError, match=r"vit.npz has .* of the shape .*8.*, but the model needs .*16"):
        load_augreg_vit(augreg[0], params)
    positions = {"EmbedPatches": {}, "encoder": {"encoderblock_0": {}, "encoderblock_1": {}}}
    positions["pos_embedding_encoder"] = jax.ShapeDtypeStruct((1, 9, 16), jnp.float32)
    with pytest.raises(ValueError, match=r"pos_embedding of the shape \(1, 10, 8\), but .* needs \(1, positions, 16\)"):
        load_augreg_vit(augreg[0], positions)


def test_files_that_are_no_augreg_vit_are_refused(augreg, tmp_path):
    _, params = model_params()
    with pytest.raises(ValueError, match="There is no AugReg file .*missing.npz"):
        load_augreg_vit(tmp_path / "missing.npz", params)
    text = tmp_path / "text.npz"
    text.write_text("not an archive")
    with pytest.raises(ValueError, match="text.npz cannot be read as an .npz file: File is not a zip file"):
        load_augreg_vit(text, params)
    name = "Transformer/encoderblock_1/LayerNorm_2/bias"
    holed = save(tmp_path / "holed.npz", {k: v for k, v in augreg[1].items() if k != name})
    with pytest.raises(ValueError, match=rf"holed.npz has no array {name}, which must be there for the model's \(8,\)"):
        load_augreg_vit(holed, params)
    words = save(tmp_path / "words.npz", augreg[1] | {name: np.full(8, "many")})
    with pytest.raises(ValueError, match=rf"words.npz has {name} as <U4, but the model needs floats"):
        load_augreg_vit(words, params)


def test_damaged_files_give_arrays_or_one_sentence(augreg, tmp_path):
    _, params = model_params()
    whole = pathlib.Path(augreg[0]).read_bytes()
    refused = 0
    for i in [*range(0, len(whole), len(whole) // 12), *range(len(whole) - 60, len(whole), 12)]:
        (tmp_path / "bad.npz").write_bytes(whole[:i] + bytes([whole[i] ^ 0x55]) + whole[i + 1 :])
        try:
            load_augreg_vit(tmp_path / "bad.npz", params)
        except ValueError as e:
            assert "bad.npz" in str(e) and str(e).isprintable()
            refused += 1
    assert refused >= 4
