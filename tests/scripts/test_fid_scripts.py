"""`fid.py` and `reference_stats.py` as a user calls them, on AlexNet: figures, protocol, names, and bad input."""

import hashlib
import json
import re

import numpy as np
import pytest
from PIL import Image

from fsq_repro.data.choice import chosen_indices
from fsq_repro.data.folder import Folder
from fsq_repro.data.images import to_unit_float
from fsq_repro.metrics.frechet import Moments, frechet_distance
from fsq_repro.metrics.precision_recall import precision_recall
from fsq_repro.models.feature_networks import load_feature_network
from fsq_repro.models.inception import expected_shapes
from tests.data.image_files import save
from tests.golden import make_inception
from tests.models.test_torch_files import write_legacy
from tests.scripts.processes import command, environment, finish, run_all, start


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder of 40 images and 30 samples of another kind as a folder and as an .npz, two of them grey."""
    root = tmp_path_factory.mktemp("sets")
    rng = np.random.default_rng(0)
    samples = rng.integers(0, 256, (30, 20, 20, 3), dtype=np.uint8)
    samples[:2] = samples[:2, ..., :1]
    for name in ("pictures", "samples", "mixed", "lonely"):
        (root / name).mkdir()
    for i in range(40):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        coarse.resize((16, 16), Image.Resampling.BICUBIC).save(root / "pictures" / f"{i:02d}.png")
    for i, sample in enumerate(samples):
        Image.fromarray(sample[..., 0] if i < 2 else sample).save(root / "samples" / f"{i:02d}.png")
    np.savez(root / "samples.npz", samples)
    Image.new("RGB", (4, 4)).save(root / "mixed" / "0.png")
    Image.new("RGB", (4, 5)).save(root / "mixed" / "1.png")
    Image.new("RGB", (4, 4)).save(root / "lonely" / "0.png")
    (root / "truncated.npz").write_bytes((root / "samples.npz").read_bytes()[:-50])
    np.savez(root / "foreign.npz", labels=np.arange(3))
    return root


def test_sets_and_reference_files(root, tmp_path, monkeypatch):
    fid, stats = "scripts/fid.py", "scripts/reference_stats.py"
    alexnet, out = "--features=alexnet", root / "stats" / "ref.npz"
    data = [f"--data=folder:{root / 'pictures'}", "--resolution=16"]
    outputs = run_all(
        {
            "stats": [stats, *data, alexnet, f"--out={out}", "--images=10", "--batch_size=16"],
            "text": [fid, f"{root / 'pictures'}", f"{root / 'samples'}", alexnet, "--batch_size=16"],
            "json": [fid, f"{root / 'pictures'}", f"{root / 'samples.npz'}", alexnet, "--json", "--precision_recall"],
        },
        tmp_path,
    )
    assert {code for code, _ in outputs.values()} == {0}, outputs

    network = load_feature_network("alexnet")
    monkeypatch.setenv("FSQ_REPRO_CACHE", str(tmp_path))
    pictures = Folder(root / "pictures", "train")
    train = np.stack([pictures[i]["image"] for i in range(len(pictures))])
    every = np.stack([np.asarray(Image.open(p)) for p in sorted((root / "pictures").iterdir())])
    with np.load(root / "samples.npz") as file:
        samples = file["arr_0"]
    x, moments = {}, {}
    for name, images in {"train": train, "all": every, "samples": samples}.items():
        x[name], moments[name] = np.asarray(network.apply(network.params, to_unit_float(images))), Moments()
        moments[name].update(x[name])

    result = json.loads(outputs["json"][1][outputs["json"][1].index("{\n") :])
    assert result["name"] == "FD-alexnet-30"
    assert result["value"] == pytest.approx(frechet_distance(moments["all"], moments["samples"]), rel=1e-4)
    figures = result["figures"]
    assert (figures["precision"], figures["recall"]) == precision_recall(x["all"], x["samples"])
    assert (result["reference"]["count"], result["samples"]["count"]) == (40, 30)
    protocol = result["protocol"]
    assert protocol["feature_network"] == "alexnet" and protocol["feature_file_sha256"] == network.file_hash
    assert protocol["resize"] == network.resize and {"jax", "pillow"} <= protocol["versions"].keys()

    text = outputs["text"][1]
    printed = re.search(r"^FD-alexnet-30 +(\S+)$", text, re.MULTILINE)[1]
    assert float(printed) == pytest.approx(result["value"], rel=1e-4)  # of the folder as of the .npz
    assert "40 images of 16 x 16 pixels" in text and "30 images of 20 x 20 pixels" in text
    assert text.count("images that are not RGB are made so, transparency is laid on white: 2 grey") == 1
    assert result["samples"]["pixels_sha256"] in text and "feature_network      alexnet" in text and "jax 0." in text
    assert "FID" not in text

    with np.load(out) as file:
        assert set(file.files) == {"mu", "sigma", "arr_0", "count", "protocol"}
        assert file["count"] == len(train) and file["arr_0"].shape == (10, 16, 16, 3)
        np.testing.assert_array_equal(file["arr_0"], train[chosen_indices(len(train), 10)])
        np.testing.assert_allclose(file["mu"], moments["train"].mean, rtol=1e-4, atol=1e-5)
        written = json.loads(str(file["protocol"]))
    assert written["split"] == "train" and written["resolution"] == 16 and written["feature_network"] == "alexnet"

    outputs = run_all(
        {
            "file second": [fid, f"{root / 'samples'}", f"{out}", alexnet, "--json"],
            "two files": [fid, f"{out}", f"{out}", "--json"],
        },
        tmp_path,
    )
    assert {code for code, _ in outputs.values()} == {0}, outputs
    results = {name: json.loads(text[text.index("{\n") :]) for name, (_, text) in outputs.items()}
    result = results["file second"]
    assert result["name"] == "FD-alexnet-30" and result["reference"]["count"] == len(train)
    assert result["value"] == pytest.approx(frechet_distance(moments["train"], moments["samples"]), rel=1e-4)
    result = results["two files"]
    assert result["name"] == f"FD-alexnet-{len(train)}"
    assert abs(result["value"]) < 1e-5 * np.trace(moments["train"].covariance)


def test_the_same_files_are_at_a_distance_of_0(tmp_path):
    """As a split of a data source and as a folder, whatever their kind; unreadable ones are named by both tools."""
    root, rng = tmp_path / "pictures", np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    for i in range(12):
        x = rng.integers(0, 256, (16, 16, 4), dtype=np.uint8)
        image, options = ((Image.fromarray(x), {}), (Image.fromarray(x[..., :3]), {"exif": exif}))[i % 2]
        save(root / "test" / "ab"[i % 3 > 0] / f"{i}.png", np.asarray(image), **options)
        save(root / "train" / f"{i}.png", x[..., :3])
    save(root / "test" / "deep.png", rng.integers(0, 2**16, (16, 16), dtype=np.uint16))
    (root / "test" / "text.png").write_text("no image")
    ref, network = tmp_path / "ref.npz", "--features=alexnet"
    data = [f"--data=folder:{root}", "--split=test", "--resolution=16", f"--out={ref}", "--images=0"]
    told = rf"left out: {root}/test/text.png (its format is unknown, or its header is damaged)"
    for argv, counted in (
        (
            ["scripts/reference_stats.py", *data, network],
            "13 images, 256 features, 0 images kept, 1 unreadable files left",
        ),
        (
            ["scripts/fid.py", str(ref), str(root / "test"), network],
            "13 images of 16 x 16 pixels, 1 unreadable files left",
        ),
    ):
        code, output = run_all({"run": argv}, tmp_path)["run"]
        assert code == 0 and output.count(told) == 1 and counted in output, output
    assert abs(float(re.search(r"^FD-alexnet-13 +(\S+)$", output, re.MULTILINE)[1])) < 1e-3
    assert json.loads(str(np.load(ref)["protocol"]))["unreadable"] == 1
    assert json.loads(str(np.load(ref)["protocol"]))["pixels_sha256"] in output


@pytest.mark.slow
def test_inceptions_distance_of_two_sets_equals_pytorch_fids(tmp_path):
    for name, images in zip("ab", make_inception.draw_sets(), strict=True):
        np.savez(tmp_path / f"{name}.npz", images)
    weights = write_legacy(tmp_path / "seeded.pth", make_inception.draw_weights(expected_shapes()))
    sets = [str(tmp_path / f"{name}.npz") for name in "ab"]
    argv = [*sets, "--features=inception", f"--weights={weights}", "--resize=pytorch-fid", "--json"]
    optimized = environment(tmp_path) | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    output = finish(start(command("fid", *argv), optimized), timeout=600)
    result = json.JSONDecoder().raw_decode(output[output.index("{\n") :])[0]
    with np.load(make_inception.FOLDER / "inception.npz") as golden:
        assert result["value"] == pytest.approx(float(golden["fid"]), rel=1e-3)
    # Weights of one's own give nothing that may be called FID.
    assert result["name"] == "FD-inception-256" and "sFD-inception-256" in result["figures"]
    assert output.count("their distances cannot be compared with published FIDs") == 1
    assert 1 <= result["figures"]["inception_score"] <= 1008
    assert result["protocol"]["feature_file_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_bad_input_ends_in_one_sentence_and_nothing_else(root, tmp_path):
    good, network = str(root / "samples.npz"), "--features=alexnet"
    folder = f"--data=folder:{root / 'pictures'}"

    def fid(*arguments):
        return ["scripts/fid.py", *map(str, arguments)]

    def stats(*arguments):
        return ["scripts/reference_stats.py", "--resolution=16", f"--out={root / 'no.npz'}", *arguments]

    cases = {
        "one set": (fid(good, network), "1 sets are given, but two are compared"),
        "no network": (fid(good, good), "a feature network must be named to compare images"),
        "mixed": (fid(good, root / "mixed", network), "must hold images of one size"),
        "lonely": (fid(root / "lonely", good, network), "must hold at least two images, it holds 1"),
        "missing": (fid(good, root / "nothing", network), "there is no file"),
        "truncated": (fid(good, root / "truncated.npz", network), "truncated.npz cannot be read as an .npz file"),
        "foreign": (fid(root / "foreign.npz", good, network), "must hold images (arr_0) or statistics (mu and sigma)"),
        "no weights": (fid(good, good, "--features=inception"), "inception needs its weight file"),
        "other resize": (fid(good, good, network, "--resize=clean"), "alexnet has a resize of its own"),
        "unknown network": (
            fid(good, good, "--features=resnet"),
            "should be one of <inception|efficientnet|alexnet|vgg16>",
        ),
        "stats without weights": (stats(folder, "--features=inception"), "inception needs its weight file"),
        "no data": (stats("--data=folder:/no/where", network), "there is no folder /no/where"),
        "one image": (stats(folder, network, "--images=1"), "must be 0 or at least 2"),
        "other file": (stats(folder, network, "--out=ref.npy"), "flag --out=ref.npy: the name must end in .npz"),
        "out is a folder": (stats(folder, network, f"--out={root}/"), "must end in .npz"),
        "out in /proc": (stats(folder, network, "--out=/proc/x.npz"), "no file can be written in /proc"),
    }
    outputs = run_all({name: argv for name, (argv, _) in cases.items()}, tmp_path)
    for name, (_, message) in cases.items():
        code, output = outputs[name]
        assert code == 2 and message in output, (name, output)
        assert [line.startswith("error: ") for line in output.splitlines()] == [True], (name, output)
    assert not (root / "no.npz").exists()
