"""One rule for each kind of image, over all formats that have the kind; refusal, in a sentence, of what has none."""

import io
import struct
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from fsq_repro.data import image_reader
from fsq_repro.data.image_reader import UnreadableImage, on_white, read_image, read_image_and_kind
from tests.data import image_files
from tests.data.image_files import drawn, save, turned, write_png

LOSSLESS = (".png", ".webp", ".tif", ".bmp", ".ppm")


def options(suffix):
    return {"lossless": True, "exact": True} if suffix == ".webp" else {}


@pytest.mark.parametrize("suffix", [*LOSSLESS, ".jpg"])
def test_rgb_is_given_as_it_is(tmp_path, suffix):
    for seed in range(3):
        x, path = drawn(seed, 3 + seed, 9), tmp_path / f"x{suffix}"
        save(path, x, **options(suffix))
        image, kind = read_image_and_kind(path)
        assert kind == "RGB" and image.dtype == np.uint8
        with Image.open(path) as opened:
            np.testing.assert_array_equal(image, np.asarray(opened))
        if suffix != ".jpg":
            np.testing.assert_array_equal(image, x)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".jpg"])
def test_the_orientation_is_applied(tmp_path, suffix, orientation):
    exif, path = Image.Exif(), tmp_path / f"x{suffix}"
    exif[0x0112] = orientation
    x = drawn(orientation)
    save(path, x, exif=exif, **options(suffix))
    if suffix == ".jpg":
        save(tmp_path / "plain.jpg", x)
        x = read_image(tmp_path / "plain.jpg")
    np.testing.assert_array_equal(read_image(path), turned(x, orientation))


def test_of_each_orientation_by_hand():
    """The corner that is shown at the upper left, of stored pixels [[1, 2], [3, 4]]."""
    x = np.array([[1, 2], [3, 4]])[..., None]
    shown = [turned(x, orientation).squeeze().ravel().tolist() for orientation in range(1, 9)]
    rows = ["1234", "2143", "4321", "3412", "1324", "3142", "4231", "2413"]
    assert shown == [[int(digit) for digit in row] for row in rows]


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow
def test_damaged_exif_turns_nothing(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(20):
        x, path = drawn(i), tmp_path / "x.png"
        garbage = rng.bytes(int(rng.integers(0, 60)))
        head = (b"", b"Exif\0\0", b"Exif\0\0II*\0\x08\0\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")[i % 4]
        save(path, x, exif=head + garbage)
        image = read_image(path)
        assert image.size == x.size
        if i % 4 < 2:
            np.testing.assert_array_equal(image, x)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".pgm", ".jpg"])
def test_grey_is_repeated(tmp_path, suffix):
    x, path = drawn(0, channels=1), tmp_path / f"x{suffix}"
    save(path, x)
    image, kind = read_image_and_kind(path)
    assert kind == "grey" and (image == image[..., :1]).all()
    if suffix != ".jpg":
        np.testing.assert_array_equal(image, x.repeat(3, axis=-1))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".pgm"])
def test_black_and_white(tmp_path, suffix):
    x = drawn(0, channels=1) > 127
    Image.fromarray(x[..., 0]).save(tmp_path / f"x{suffix}")
    image, kind = read_image_and_kind(tmp_path / f"x{suffix}")
    assert kind == "grey"
    np.testing.assert_array_equal(image, np.where(x, 255, 0).repeat(3, axis=-1))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_a_palette_gives_its_colours(tmp_path, suffix):
    colours, places = drawn(1, 1, 16)[0], np.random.default_rng(2).integers(0, 16, (7, 11), dtype=np.uint8)
    picture = Image.fromarray(places, "L")
    picture.putpalette(colours.tobytes())
    picture.save(tmp_path / f"x{suffix}")
    image, kind = read_image_and_kind(tmp_path / f"x{suffix}")
    assert kind == "palette"
    np.testing.assert_array_equal(image, colours[places])


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
@pytest.mark.parametrize("channels", [2, 4])
def test_transparency_is_laid_on_white(tmp_path, suffix, channels):
    for seed in range(5):
        x, path = drawn(seed, channels=channels), tmp_path / f"x{suffix}"
        x[0, :, -1], x[1, :, -1] = 0, 255
        picture = Image.fromarray(x, "LA" if channels == 2 else "RGBA")
        picture.save(path, **options(suffix))
        rgba = np.concatenate([x[..., :1].repeat(3, axis=-1), x[..., 1:]], axis=-1) if channels == 2 else x
        image, kind = read_image_and_kind(path)
        assert kind == "RGBA" and (image[0] == 255).all()
        np.testing.assert_array_equal(image[1], rgba[1, :, :3])
        np.testing.assert_allclose(image, image_files.on_white(rgba), atol=1)
        np.testing.assert_array_equal(image, on_white(rgba))  # as of arrays


def test_a_transparent_colour_is_white(tmp_path):
    x = drawn(0)
    x[2, 3] = x[0, 0] = (10, 20, 30)
    write_png(tmp_path / "rgb.png", x, transparent=(10, 20, 30))
    expected = np.where((x == (10, 20, 30)).all(-1, keepdims=True), 255, x)
    np.testing.assert_array_equal(read_image(tmp_path / "rgb.png"), expected)
    write_png(tmp_path / "grey.png", x[..., :1], transparent=(10,))
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.where(x == 10, 255, x)[..., :1].repeat(3, -1))
    deep = np.array([[[0x1234], [0x1235]]], np.uint16)
    write_png(tmp_path / "deep.png", deep, transparent=(0x1234,))
    assert read_image(tmp_path / "deep.png")[0, :, 0].tolist() == [255, 0x12]
    picture = Image.fromarray(np.array([[0, 1]], np.uint8), "L")
    picture.putpalette([9, 9, 9, 8, 7, 6])
    picture.save(tmp_path / "palette.png", transparency=0)
    assert read_image(tmp_path / "palette.png").tolist() == [[[255, 255, 255], [8, 7, 6]]]


@pytest.mark.parametrize("shape", [(3, 5, 4), (2, 3, 4, 4), (0, 5, 4), (1, 1, 1, 4)])
def test_arrays_with_alpha_are_laid_on_white(shape):
    x = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    flat = on_white(x)
    assert flat.shape == (*shape[:-1], 3) and flat.dtype == np.uint8
    np.testing.assert_allclose(flat, image_files.on_white(x), atol=1)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_of_16_bits_the_upper_byte_is_taken(tmp_path, channels):
    x = np.random.default_rng(channels).integers(0, 2**16, (7, 11, channels), dtype=np.uint16)
    if channels in (2, 4):
        x[..., -1] = 0xFFFF
    write_png(tmp_path / "x.png", x)
    upper = (x >> 8).astype(np.uint8)
    expected = upper[..., :3] if channels > 2 else upper[..., :1].repeat(3, axis=-1)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), expected)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_16_bits_of_all_formats(tmp_path, suffix):
    x = np.random.default_rng(0).integers(0, 2**16, (7, 11), dtype=np.uint16)
    Image.fromarray(x).save(tmp_path / f"x{suffix}")
    image, kind = read_image_and_kind(tmp_path / f"x{suffix}")
    assert kind == "16-bit"
    np.testing.assert_array_equal(image, (x >> 8).astype(np.uint8)[..., None].repeat(3, axis=-1))


def test_cmyk_is_converted_by_pillow(tmp_path):
    x = drawn(0, channels=4)
    Image.fromarray(x, "CMYK").save(tmp_path / "x.tif")
    image, kind = read_image_and_kind(tmp_path / "x.tif")
    assert kind == "CMYK"
    kept = (255 - x.astype(np.int64)) / 255
    np.testing.assert_allclose(image, 255 * kept[..., :3] * kept[..., 3:], atol=1)


def test_the_content_counts_not_the_name(tmp_path):
    for suffix in (".webp", ".bmp", ".gif"):
        picture = Image.fromarray(drawn(0)).convert("P" if suffix == ".gif" else "RGB")
        picture.save(tmp_path / f"x{suffix}", **options(suffix))
        (tmp_path / f"x{suffix}").rename(tmp_path / "x.jpg")
        np.testing.assert_array_equal(read_image(tmp_path / "x.jpg"), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("suffix", [".webp", ".png", ".tif"])
def test_the_first_picture_of_several_is_taken(tmp_path, suffix):
    first, *others = (Image.fromarray(drawn(seed)) for seed in range(3))
    first.save(tmp_path / f"x{suffix}", save_all=True, append_images=others, **options(suffix))
    np.testing.assert_array_equal(read_image(tmp_path / f"x{suffix}"), drawn(0))


def tiff(mode: str, value: float, tags: dict[int, int] | None = None) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (4, 3), value).save(stream, "TIFF", tiffinfo=tags or {})
    return stream.getvalue()


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 3\n%%EndComments\n(x) print\n"
REFUSED = {
    "float.tif": (lambda: tiff("F", 0.5), "it holds 32-bit floats, and nothing says which value is white"),
    "integer.tif": (lambda: tiff("I", 7), "it holds 32-bit integers, and nothing says which value is white"),
    "white is 0.tif": (lambda: tiff("I;16", 7, {262: 0}), "uses fewer bits or calls 0 white"),
    "float.ppm": (lambda: b"Pf\n2 2\n-1.0\n" + struct.pack("<4f", 0, 1, 2, 3), "it holds 32-bit floats"),
    "postscript.png": (lambda: EPS, "its format is unknown, or its header is damaged"),
    "text.png": (lambda: b"no image", "its format is unknown, or its header is damaged"),
    "empty.jpg": (lambda: b"", "its format is unknown, or its header is damaged"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_rule_is_refused(tmp_path, name):
    make, reason = REFUSED[name]
    (tmp_path / name).write_bytes(make())
    with pytest.raises(UnreadableImage, match=f"{name} cannot be read as an image: .*{reason}") as e:
        read_image(tmp_path / name)
    assert e.value.lasting and reason in e.value.reason


def test_a_transparent_colour_of_3_x_16_bits_is_refused(tmp_path):
    write_png(tmp_path / "x.png", np.full((1, 1, 3), 700, np.uint16), transparent=(700, 700, 700))
    with pytest.raises(UnreadableImage, match="a transparent colour of 3 x 16 bits"):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".ppm", ".tif"])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"x{suffix}"
    Image.new("L" if suffix == ".png" else "RGB", (2000, 1500)).save(path)
    monkeypatch.setattr(image_reader, "MAX_PIXELS", 2_999_999)
    tracemalloc.start()
    with pytest.raises(UnreadableImage, match="it has 2,000 x 1,500 pixels, more than 2,999,999 in all"):
        read_image(path)
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()
    monkeypatch.setattr(image_reader, "MAX_PIXELS", 3_000_000)
    assert read_image(path).shape == (1500, 2000, 3)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow
def test_damaged_bytes_are_refused_or_read(tmp_path, monkeypatch):
    """Cut anywhere, or with bytes changed: an array or one sentence, nothing else."""
    monkeypatch.setattr(image_reader, "MAX_PIXELS", 10**6)  # less to decode where the size was changed
    rng = np.random.default_rng(0)
    for suffix in (".png", ".jpg", ".webp", ".bmp", ".tif", ".ppm"):
        save(tmp_path / f"whole{suffix}", drawn(0, 12, 13))
        whole = (tmp_path / f"whole{suffix}").read_bytes()
        for i in range(60):
            content = bytearray(whole)
            if i % 2:
                del content[int(rng.integers(len(content))) :]
            else:
                for place in rng.integers(0, min(len(content), 120), 3):
                    content[place] = int(rng.integers(256))
            (tmp_path / f"{i}{suffix}").write_bytes(content)
            try:
                image = read_image(tmp_path / f"{i}{suffix}")
                assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[-1] == 3
            except UnreadableImage as e:
                assert "\n" not in str(e) and str(e).endswith(".")


def test_what_the_disk_refuses_is_not_the_image_s_fault(tmp_path):
    for path, reason in ((tmp_path / "no.png", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(UnreadableImage, match=f"cannot be read as an image: {reason}.") as e:
            read_image(path)
        assert not e.value.lasting
