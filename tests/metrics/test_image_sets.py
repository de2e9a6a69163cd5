"""Sets of images: the same bytes from folders, .npz files and data sources; what is converted and what is refused."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from fsq_repro.metrics.image_sets import NpzImages, SourceImages
from fsq_repro.metrics.set_comparison import open_side
from tests.tiny import NoiseSource


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


def test_other_pixels_become_rgb_as_in_the_published_suites(tmp_path):
    x, grey, rgba = drawn(1), drawn(2, channels=1), drawn(1, channels=4)
    root = write_folder(tmp_path / "mixed", [x[0], *grey, rgba[0]])
    images = open_side(root)
    assert images.converted == {"grey": 2, "RGBA": 1}
    expected = np.concatenate([x, grey.repeat(3, axis=-1), rgba[..., :3]])
    np.testing.assert_array_equal(read(images), expected)

    for name, array, kind in [("grey", grey, "grey"), ("rgba", drawn(2, channels=4), "RGBA")]:
        np.savez(tmp_path / f"{name}.npz", array)
        npz = NpzImages(tmp_path / f"{name}.npz")
        assert npz.converted == {kind: 2}
        np.testing.assert_array_equal(read(npz), array[..., :3] if kind == "RGBA" else array.repeat(3, axis=-1))

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
    deep = write_folder(tmp_path / "deep", x[:1])
    Image.fromarray(np.zeros((6, 9), np.uint16)).save(deep / "deep.png")
    with pytest.raises(ValueError, match="deep.png has pixels of Pillow's mode I;16, but must be one of RGB, 1, L"):
        open_side(deep)
    foreign = write_folder(tmp_path / "foreign", x)
    (foreign / "x.png").write_text("no image")
    with pytest.raises(ValueError, match="x.png cannot be read as an image"):
        open_side(foreign)
    truncated = write_folder(tmp_path / "truncated", drawn(3, 40, 40))
    content = (truncated / "001.png").read_bytes()
    (truncated / "001.png").write_bytes(content[: len(content) // 2])
    images = open_side(truncated)  # its header is whole
    with pytest.raises(ValueError, match="001.png cannot be read as an image"):
        read(images)


def test_refused_npz_files(tmp_path):
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
    with pytest.raises(ValueError, match=r"got object \(1,\)"):
        open_side(saved(np.array([{}], dtype=object)))


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
    with pytest.raises(ValueError, match="arr_0 ends before its last image"):
        read(open_side(tmp_path / "short.npz"))
