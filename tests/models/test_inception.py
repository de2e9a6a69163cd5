"""FID's Inception network: pytorch-fid's outputs, a float64 oracle with the pooling quirks, resizes, weight files."""

import json
import warnings

import jax
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from fsq_repro.data.images import to_unit_float
from fsq_repro.models import inception
from fsq_repro.models.feature_networks import load_feature_network
from tests.golden import make_inception
from tests.models.numpy_networks import convolve, max_pool
from tests.models.test_torch_files import write_legacy, write_zip


@pytest.fixture(scope="module")
def golden():
    with np.load(make_inception.FOLDER / "inception.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def state():
    """The golden file's weights, by pytorch-fid's names."""
    return make_inception.draw_weights(inception.expected_shapes())


@pytest.fixture(scope="module")
def network(state, tmp_path_factory):
    """The network with these weights, by way of a file in the published file's format."""
    file = write_legacy(tmp_path_factory.mktemp("weights") / "inception.pth", state)
    with pytest.warns(UserWarning, match=r"inception.pth have SHA-256 [0-9a-f]{64}, not that of pt_inception-2015"):
        return inception.load_inception(file, "pytorch-fid")


def assert_close(ours, theirs):
    """To 1e-4 relative, and near zero to 1e-4 of the typical size."""
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).mean())


def test_outputs_equal_pytorch_fids_on_images_of_odd_sizes(network, golden):
    """The first of the four images of each size."""
    first = [images[:1] for images in make_inception.draw_images()]
    resized = np.concatenate([inception.resize_pytorch_fid(to_unit_float(image)) for image in first])
    outputs = jax.jit(inception.InceptionV3().apply)(network.params, resized)
    for name in inception.InceptionOutputs._fields:
        ours = np.asarray(getattr(outputs, name))
        assert ours.dtype == np.float32
        assert_close(ours[:, :: make_inception.EVERY], golden[name][::4])
    assert outputs.pool_3.shape == (8, 2048) and outputs.spatial.shape == (8, 17 * 17 * 7)
    assert outputs.logits.shape == (8, 1008)


def oracle(state, x):
    """(pool_3, Mixed_6d's 1x1 branch, logits) in float64, batch norm and pools written out."""

    def conv(x, name, stride=1, pad=None):
        kernel = state[f"{name}.conv.weight"].transpose(2, 3, 1, 0)
        rows, columns = (kernel.shape[0] // 2, kernel.shape[1] // 2) if pad is None else (pad, pad)
        x = convolve(np.pad(x, ((0, 0), (rows, rows), (columns, columns), (0, 0))), kernel, stride, 0)
        gamma, beta, mean, var = (state[f"{name}.bn.{f}"] for f in ("weight", "bias", "running_mean", "running_var"))
        return np.maximum((x - mean) / np.sqrt(np.float64(var) + 1e-3) * gamma + beta, 0)

    def convs(x, *names):
        for name in names:
            x = conv(x, name)
        return x

    def pool(x, reduce):
        """`reduce` over the pixels of each 3x3 window that lie within the map."""
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=np.nan)
        return reduce(sliding_window_view(padded, (3, 3), axis=(1, 2)), axis=(-2, -1))

    def concatenate(*branches):
        return np.concatenate(branches, axis=-1)

    x = conv(conv(x.astype(np.float64), "Conv2d_1a_3x3", 2, 0), "Conv2d_2a_3x3", 1, 0)
    x = conv(max_pool(conv(x, "Conv2d_2b_3x3"), 3), "Conv2d_3b_1x1")
    x = max_pool(conv(x, "Conv2d_4a_3x3", 1, 0), 3)
    for name in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        x = concatenate(
            convs(x, f"{name}.branch1x1"),
            convs(x, f"{name}.branch5x5_1", f"{name}.branch5x5_2"),
            convs(x, *(f"{name}.branch3x3dbl_{i}" for i in (1, 2, 3))),
            convs(pool(x, np.nanmean), f"{name}.branch_pool"),
        )
    x = concatenate(
        conv(x, "Mixed_6a.branch3x3", 2, 0),
        conv(convs(x, "Mixed_6a.branch3x3dbl_1", "Mixed_6a.branch3x3dbl_2"), "Mixed_6a.branch3x3dbl_3", 2, 0),
        max_pool(x, 3),
    )
    singles = {}
    for name in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        singles[name] = convs(x, f"{name}.branch1x1")
        x = concatenate(
            singles[name],
            convs(x, *(f"{name}.branch7x7_{i}" for i in (1, 2, 3))),
            convs(x, *(f"{name}.branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5))),
            convs(pool(x, np.nanmean), f"{name}.branch_pool"),
        )
    x = concatenate(
        conv(convs(x, "Mixed_7a.branch3x3_1"), "Mixed_7a.branch3x3_2", 2, 0),
        conv(convs(x, *(f"Mixed_7a.branch7x7x3_{i}" for i in (1, 2, 3))), "Mixed_7a.branch7x7x3_4", 2, 0),
        max_pool(x, 3),
    )
    for name, reduce in (("Mixed_7b", np.nanmean), ("Mixed_7c", np.nanmax)):
        y = convs(x, f"{name}.branch3x3_1")
        z = convs(x, f"{name}.branch3x3dbl_1", f"{name}.branch3x3dbl_2")
        x = concatenate(
            convs(x, f"{name}.branch1x1"),
            *(convs(y, f"{name}.branch3x3_2{i}") for i in "ab"),
            *(convs(z, f"{name}.branch3x3dbl_3{i}") for i in "ab"),
            convs(pool(x, reduce), f"{name}.branch_pool"),
        )
    pool_3 = x.mean(axis=(1, 2))
    return pool_3, singles["Mixed_6d"], pool_3 @ state["fc.weight"].T


def test_outputs_equal_a_float64_oracle(network, state):
    """At 107 px the last maps are 2x2: enough that maximum and average, with and without padding, all differ."""
    images = np.random.default_rng(0).uniform(-1, 1, (1, 107, 107, 3)).astype(np.float32)
    outputs = jax.jit(inception.InceptionV3().apply)(network.params, images)
    pool_3, branch, logits = oracle(state, images)
    assert_close(outputs.pool_3, pool_3)
    assert_close(outputs.spatial, branch[..., :7].reshape(1, -1))
    assert_close(outputs.logits, logits)


def row_of(resize, row):
    """What becomes of the rows of an image (1, n, n, 3) whose rows are all this one (n,): (299,)."""
    images = np.broadcast_to(row.astype(np.float32)[None, None, :, None], (1, len(row), len(row), 3))
    resized = np.asarray(resize(images))
    np.testing.assert_array_equal(resized, np.broadcast_to(resized[:, :1, :, :1], resized.shape))
    return resized[0, 0, :, 0]


def test_resizes_by_hand():
    """From 598 px every target pixel has two source pixels; from 2 px the source positions are multiples of 2 / 299."""
    ramp, edge = np.arange(598) / 598, np.array([0, 1])
    adm, torch = row_of(inception.resize_adm, ramp), row_of(inception.resize_pytorch_fid, ramp)
    np.testing.assert_allclose(adm, (255 * ramp[::2] - 128) / 128, atol=1e-6)  # the left one of the two
    np.testing.assert_allclose(torch, ramp[::2] + ramp[1::2] - 1, atol=1e-6)  # their mean

    adm, torch = row_of(inception.resize_adm, edge), row_of(inception.resize_pytorch_fid, edge)
    expected = [-1, (255 * 298 / 299 - 128) / 128, 127 / 128, 127 / 128]
    np.testing.assert_allclose(adm[[0, 149, 150, 298]], expected, atol=1e-6)
    np.testing.assert_allclose(torch[[0, 74, 149, 224, 298]], [-1, -1, 0, 1, 1], atol=1e-6)


def resize_oracle(images, position):
    """Bilinear to 299 px in float64; `position(i, scale)` of a target pixel's centre in the source."""
    weights = []
    for n in images.shape[1:3]:
        matrix = np.zeros((299, n))
        for i in range(299):
            at = min(max(position(i, n / 299), 0.0), n - 1.0)
            low = int(at)
            matrix[i, low] += 1 - (at - low)
            if at > low:
                matrix[i, low + 1] += at - low
        weights.append(matrix)
    return np.einsum("ih,jw,bhwc->bijc", *weights, images.astype(np.float64), optimize=True)


@pytest.mark.parametrize("height, width", [(1, 9), (33, 47), (257, 129), (299, 301), (513, 355)])
def test_resizes_equal_a_float64_oracle(height, width, strict_dtypes):
    """The tolerance is what float32 positions (those of both suites' kernels) make of noise: 1e-7 of the side."""
    images = np.random.default_rng(1).random((2, height, width, 3)).astype(np.float32)
    expected = (255 * resize_oracle(images, lambda i, scale: i * scale) - 128) / 128
    np.testing.assert_allclose(inception.resize_adm(images), expected, atol=5e-7 * max(height, width, 10))
    expected = 2 * resize_oracle(images, lambda i, scale: (i + 0.5) * scale - 0.5) - 1
    np.testing.assert_allclose(inception.resize_pytorch_fid(images), expected, atol=5e-7 * max(height, width, 10))


def test_bytes_of_299_px_pass_through_both_resizes_unchanged():
    x = np.arange(299 * 299 * 3).reshape(1, 299, 299, 3) % 256
    images = to_unit_float(x.astype(np.uint8))
    np.testing.assert_array_equal(inception.resize_adm(images), (x - 128) / 128)
    np.testing.assert_array_equal(inception.resize_pytorch_fid(images), 2 * images - 1)


def empty_state():
    """Arrays of the right names and shapes that need no memory."""
    arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in inception.expected_shapes().items()}
    return arrays | {"fc.bias": np.zeros(1008), "Mixed_5b.branch1x1.bn.num_batches_tracked": np.array(0)}


def test_names_and_shapes_are_pytorch_fids(golden):
    theirs = {name: tuple(shape) for name, shape in json.loads(str(golden["shapes"])).items()}
    expected = {k: v for k, v in theirs.items() if not k.endswith(".num_batches_tracked") and k != "fc.bias"}
    assert inception.expected_shapes() == expected
    trained = sum(int(np.prod(shape)) for name, shape in expected.items() if "running" not in name)
    assert trained == 21_785_568 + 2048 * 1008  # torchvision's network without its classifiers, and this classifier


def test_every_array_has_its_place(state, network):
    """No array is read twice or left out: the tree holds the same numbers, each array's in its own place."""
    leaves = [np.asarray(x) for x in jax.tree.leaves(network.params)]
    assert len(leaves) == len(state) == 471
    sums, expected = (sorted(float(x.sum(dtype=np.float64)) for x in xs) for xs in (leaves, state.values()))
    np.testing.assert_allclose(sums, expected, rtol=1e-9)
    kernel = network.params["params"]["Mixed_6c"]["branch7x7_2"]["conv"]["kernel"]
    np.testing.assert_array_equal(kernel, state["Mixed_6c.branch7x7_2.conv.weight"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(network.params["params"]["fc"]["kernel"], state["fc.weight"].T)


def test_files_of_other_networks_end_in_one_sentence():
    with pytest.raises(ValueError, match=r"lacks 1 arrays: fc.weight; it must be that of pytorch-fid's pt_inception-"):
        inception.inception_variables({k: v for k, v in empty_state().items() if k != "fc.weight"})
    with pytest.raises(ValueError, match=r"lacks 471 arrays: Conv2d_1a_3x3.bn.bias, .* \.\.\.; it must be"):
        inception.inception_variables({})
    with pytest.raises(ValueError, match="has, beyond those of the FID network, 1 arrays: AuxLogits.fc.weight;"):
        inception.inception_variables(empty_state() | {"AuxLogits.fc.weight": np.zeros(1)})
    with pytest.raises(
        ValueError, match=r"fc.weight has shape \(1000, 2048\), but the FID Inception network needs \(1008"
    ):
        inception.inception_variables(empty_state() | {"fc.weight": np.zeros((1000, 2048), np.float32)})


def test_loading_names_what_is_wrong_and_knows_the_published_file(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"resize is 'clean', but must be one of \['adm', 'pytorch-fid'\]"):
        load_feature_network("inception", "x.pth", "clean")
    with pytest.raises(FileNotFoundError, match="There is no weight file at 'x.pth'"):
        load_feature_network("inception", "x.pth")
    file = write_zip(tmp_path / "x.pth", {"x": np.zeros(1, np.float32)})
    monkeypatch.setattr(inception, "inception_variables", lambda state: state)
    with pytest.warns(UserWarning, match="their distances cannot be compared with published FIDs"):
        network = load_feature_network("inception", file)
    assert (network.name, network.dim, network.method) == ("inception", 2048, "adm")
    assert network.resize.startswith("adm: bilinear to 299 px as TensorFlow 1")
    monkeypatch.setattr(inception, "PUBLISHED_SHA256", network.file_hash)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_feature_network("inception", file)


def test_other_feature_networks_take_no_weight_file():
    with pytest.raises(ValueError, match="feature network 'vgg16' takes no weight file, but its path is 'x.pth'"):
        load_feature_network("vgg16", "x.pth")
    with pytest.raises(
        ValueError, match=r"is 'resnet18', but must be one of \['alexnet', 'efficientnet', 'inception', 'vgg16'\]"
    ):
        load_feature_network("resnet18")
