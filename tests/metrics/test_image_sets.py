"""Sets of images: the same bytes from folders, .npz files and data sources; what is converted and what is refused."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from fsq_repro.data.folder import Folder
from fsq_repro.data.image_reader import on_white, read_image
from fsq_repro.metrics import image_sets
from fsq_repro.metrics.image_sets import NpzImages, SourceImages
from fsq_repro.metrics.set_comparison import open_side
from tests.data.image_files import save
from tests.tiny import NoiseSource


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("FSQ_REPRO_CACHE", str(tmp_path_factory.mktemp("cache")))


def drawn(n=5, height=6, width=9, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, channels), dtype=np.uint8)


def write_folder(path, images, suffix=".png"):
    path.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image.squeeze()).save(path / f"{i:03d}{suffix}")
    return path


def read(images, batch_size=2):
    batches = list(images.batches(batch_size))
    assert [len(b) for b in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert all(b.dtype == np.uint8 for b in batches)
    return np.concatenate(batches)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_folder_and_an_npz_give_the_same_images_in_order(tmp_path, batch_size, save):
    x = drawn()
    folder = open_side(write_folder(tmp_path / "pictures", x))
    save(tmp_path / "x.npz", x, np.arange(5))  # arr_1: labels, as the ADM suite's samples have
    npz = open_side(tmp_path / "x.npz")
    for images in (folder, npz):
        assert (len(images), images.size, images.converted) == (5, (6, 9), {})
        np.testing.assert_array_equal(read(images, batch_size), x)
        np.testing.assert_array_equal(read(images, batch_size), x)  # as often as wanted


def test_sub_folders_are_searched_and_other_files_left_alone(tmp_path):
    x = drawn(4)
    root = write_folder(tmp_path / "pictures", x[:2])
    (root / "b").mkdir()
    (root / "a.txt").write_text("no image")
    Image.fromarray(x[2]).save(root / "b" / "0.PNG")
    Image.fromarray(x[3]).save(root / "b" / "1.ppm")
    np.testing.assert_array_equal(read(open_side(root)), x)


def test_other_pixels_become_rgb(tmp_path):
    """In a folder and in an .npz alike."""
    x, grey, rgba = drawn(1), drawn(2, channels=1), drawn(1, channels=4)
    root = write_folder(tmp_path / "mixed", [x[0], *grey, rgba[0]])
    images = open_side(root)
    assert images.converted == {"grey": 2, "RGBA": 1}
    np.testing.assert_array_equal(read(images), np.concatenate([x, grey.repeat(3, axis=-1), on_white(rgba)]))

    for name, array, kind in [("grey", grey, "grey"), ("rgba", drawn(2, channels=4), "RGBA")]:
        np.savez(tmp_path / f"{name}.npz", array)
        npz = NpzImages(tmp_path / f"{name}.npz")
        assert npz.converted == {kind: 2}
        np.testing.assert_array_equal(read(npz), read(open_side(write_folder(tmp_path / name, array))))

    palette = Image.fromarray(x[0]).quantize(8)
    palette.save(tmp_path / "mixed" / "palette.png")
    images = open_side(root)
    assert images.converted == {"grey": 2, "RGBA": 1, "palette": 1}
    np.testing.assert_array_equal(read(images)[-1], np.asarray(palette.convert("RGB")))


def test_a_source_is_cropped_to_the_resolution():
    source = NoiseSource(7, 8, split="train")
    images = SourceImages(source, 8)
    assert (len(images), images.size) == (7, (8, 8))
    np.testing.assert_array_equal(read(images, 3), np.stack([source[i]["image"] for i in range(7)]))


def test_refused_folders(tmp_path):
    x = drawn(3)
    mixed = write_folder(tmp_path / "mixed", [x[0], x[1], x[2][:, :5]])
    with pytest.raises(ValueError, match=r"of one size, \S+000.png has 6 x 9 pixels and \S+002.png 6 x 5"):
        open_side(mixed)
    with pytest.raises(ValueError, match="lonely must hold at least two images, it holds 1"):
        open_side(write_folder(tmp_path / "lonely", x[:1]))
    with pytest.raises(ValueError, match="empty must hold at least two images, it holds none"):
        open_side(write_folder(tmp_path / "empty", []))


def test_a_folder_is_the_same_set_for_every_tool(tmp_path):
    """Links, hidden names, unreadable and odd images: a data source and a set have the same bytes in the same order."""
    root = tmp_path / "pictures" / "test"
    kinds = {"a/rgb": drawn(1)[0], "a/grey": drawn(1, channels=1)[0], "b/alpha": drawn(1, channels=4)[0]}
    kinds |= {"b/deep": np.arange(54, dtype=np.uint16).reshape(6, 9) * 999, "c": drawn(1, seed=1)[0]}
    for name, pixels in kinds.items():
        save(root / f"{name}.png", pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    save(root / "turned.jpg", drawn(1, 9, 6)[0], exif=exif)
    save(tmp_path / "elsewhere" / "d.png", drawn(1, seed=2)[0])
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "round").symlink_to(root)
    save(root / ".trash" / "1.png", drawn(1)[0])
    save(root / ".hidden.png", drawn(1)[0])
    Image.new("F", (9, 6)).save(root / "float.tif")
    (root / "text.png").write_text("no image")
    save(tmp_path / "pictures" / "train" / "a" / "1.png", drawn(1)[0])

    images, source = open_side(root), Folder(tmp_path / "pictures", "test")
    assert (len(images), images.size, images.unreadable) == (7, (6, 9), 2)
    assert images.converted == {"grey": 1, "RGBA": 1, "16-bit": 1}
    of_source = SourceImages(source, 6)
    assert (len(of_source), of_source.unreadable) == (7, 2)
    np.testing.assert_array_equal(read(images), np.stack([source[i]["image"] for i in range(7)]))
    assert read(images)[3].tolist() == source[3]["image"].tolist() == read_image(root / "b" / "deep.png").tolist()


def test_unreadable_files_are_named_counted_and_left_out(tmp_path, caplog):
    root = write_folder(tmp_path / "pictures", drawn(4, 40, 40))
    content = (root / "001.png").read_bytes()
    (root / "001.png").write_bytes(content[: len(content) // 2])
    (root / "002.png").write_text("no image")
    images = open_side(root)
    assert len(images) == 2 and images.unreadable == 2
    np.testing.assert_array_equal(read(images), drawn(4, 40, 40)[[0, 3]])
    told = [r.getMessage() for r in caplog.records]
    assert [name for name in ("001.png", "002.png") if any(f"left out: {root / name} (" in t for t in told)] == [
        "001.png",
        "002.png",
    ]
    assert told[-1] == f"2 of 4 images below {root} cannot be read and are left out"
    (root / "000.png").write_text("nor this")
    with pytest.raises(ValueError, match="pictures must hold at least two images, it holds 1"):
        open_side(root)


def test_refused_npz_files(tmp_path, monkeypatch):
    def saved(array, name="arr_0"):
        np.savez(tmp_path / "x.npz", **{name: array})
        return tmp_path / "x.npz"

    with pytest.raises(ValueError, match="there is no file .*nothing.npz"):
        open_side(tmp_path / "nothing.npz")
    with pytest.raises(ValueError, match=r"must hold images \(arr_0\) or statistics \(mu and sigma\), it holds images"):
        open_side(saved(drawn(), "images"))
    with pytest.raises(ValueError, match=r"uint8 \(N, H, W, C\).* got float32 \(5, 6, 9, 3\)"):
        open_side(saved(drawn().astype(np.float32)))
    with pytest.raises(ValueError, match=r"1, 3 or 4 channels, got uint8 \(5, 3, 6, 9\)"):
        open_side(saved(drawn().transpose(0, 3, 1, 2)))
    with pytest.raises(ValueError, match=r"got uint8 \(5, 6, 9, 3\) in Fortran order"):
        open_side(saved(np.asfortranarray(drawn())))
    with pytest.raises(ValueError, match=r"got uint8 \(6, 9, 3\)"):
        open_side(saved(drawn()[0]))
    with pytest.raises(ValueError, match="at least two images, it holds 1"):
        open_side(saved(drawn(1)))
    with pytest.raises(ValueError, match="no readable array arr_0: it holds Python objects"):
        open_side(saved(np.array([{}], dtype=object)))
    monkeypatch.setattr(image_sets, "MAX_PIXELS", 53)
    with pytest.raises(ValueError, match=r"images in \S+x.npz must have at most 53 pixels, they have \(6, 9\)"):
        open_side(saved(drawn()))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_truncated_and_damaged_npz_files(tmp_path, save):
    path = tmp_path / "x.npz"
    save(path, drawn(20))
    content = path.read_bytes()
    for share in (0, 0.01, 0.5, 0.99):
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(ValueError, match="x.npz cannot be read as an .npz file"):
            open_side(path)
    damaged = bytearray(content)
    damaged[len(content) // 2] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="x.npz cannot be read as an .npz file"):
        read(open_side(path))


def test_an_array_that_ends_early(tmp_path):
    np.savez(tmp_path / "whole.npz", drawn(20))
    with zipfile.ZipFile(tmp_path / "whole.npz") as whole, zipfile.ZipFile(tmp_path / "short.npz", "w") as short:
        short.writestr("arr_0.npy", whole.read("arr_0.npy")[:-100])
    with pytest.raises(ValueError, match="no readable array arr_0: it ends before its last value"):
        read(open_side(tmp_path / "short.npz"))
