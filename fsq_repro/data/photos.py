"""Source `photos`: square crops of ten photographs in the wheels of scikit-image and matplotlib. Label = photograph.

Taken are photographs that show things, at scales at which they can be told: faces, a cat, coins, a motorcycle. Left out
are textures (brick, grass, gravel), drawings, computed pictures and writing, the right half of the stereo pair (almost
a copy of the left), and cell, clock_motion, microaneurysms, moon and retina, which are mostly flat. Nothing is
downloaded.

Test shares no pixel with the other splits: one end of each photograph, `TEST_SHARE` of its length, belongs to test, the
rest to training. Validation is a tenth of the training crops taken out, see `held_out`: they overlap with training
crops. A crop is a square at a random place of its part. Its side has a density proportional to 1 / side between a sixth
of the photograph's shorter side (or the resolution, if that is more) and the largest square that fits into the test
part; it is reduced to the resolution with antialiasing (Pillow, bicubic), or enlarged where no square is large enough.
Every photograph gives the same number of crops (plus or minus one).

Only integer arithmetic decides a pixel (Philox draws, Pillow's fixed-point resampling), so the crops are the same on
every machine.
"""

import importlib.util
import pathlib

import numpy as np
from PIL import Image

from fsq_repro.data.cache import cached_arrays, fingerprint
from fsq_repro.data.held_out import held_out
from fsq_repro.progress import track

# File -> the end that belongs to test, chosen by hand so that both parts show something.
PHOTOGRAPHS = {
    "skimage/data/astronaut.png": "top",
    "skimage/data/camera.png": "top",
    "skimage/data/chelsea.png": "right",
    "skimage/data/coffee.png": "right",
    "skimage/data/coins.png": "right",
    "matplotlib/mpl-data/sample_data/grace_hopper.jpg": "bottom",
    "skimage/data/hubble_deep_field.jpg": "left",
    "skimage/data/ihc.png": "bottom",
    "skimage/data/motorcycle_left.png": "right",
    "skimage/data/rocket.jpg": "left",
}
VERSION = 3  # raise when a crop changes
SEED = 2309
TEST_SHARE = (9, 20)  # of the length of a photograph, as a fraction
TRAIN_CROPS = 12_000  # with those of validation, at up to 32 px; fewer above: a set stays below 150 MB up to 128 px
TEST_CROPS = 2_560

Box = tuple[int, int, int, int]  # top, left, bottom, right


def load_photograph(name: str) -> Image.Image:
    """Returns one of `PHOTOGRAPHS` as RGB (grey ones with three equal channels)."""
    package, _, file = name.partition("/")
    found = importlib.util.find_spec(package)  # located, not imported: that would cost half a second
    with Image.open(pathlib.Path(found.submodule_search_locations[0]) / file) as image:
        return image.convert("RGB")


def parts(test_end: str, height: int, width: int) -> dict[str, Box]:
    """Divides a photograph whose end "top", "bottom", "left" or "right" belongs to test into "train" and "test"."""
    numerator, denominator = TEST_SHARE
    length = height if test_end in ("top", "bottom") else width
    # Where the photograph is cut, from the top or from the left.
    cut = length * (numerator if test_end in ("top", "left") else denominator - numerator) // denominator
    if test_end in ("top", "bottom"):
        first, second = (0, 0, cut, width), (cut, 0, height, width)
    else:
        first, second = (0, 0, height, cut), (0, cut, height, width)
    test, train = (first, second) if test_end in ("top", "left") else (second, first)
    return {"train": train, "test": test}


def draw_box(rng: np.random.Generator, part: Box, smallest: int, largest: int) -> Box:
    """Draws a square inside `part` whose side is `smallest` to `largest` pixels with a density of 1 / side."""
    while True:
        side = int(rng.integers(smallest, largest, endpoint=True))
        if rng.integers(side) < smallest:
            break
    top, left, bottom, right = part
    y = int(rng.integers(top, bottom - side, endpoint=True))
    x = int(rng.integers(left, right - side, endpoint=True))
    return y, x, y + side, x + side


class Photos:
    """Random-access crops: `image` uint8 (resolution, resolution, 3), `label` int32 (); item i has label i mod 10."""

    name = "photos"
    class_names = tuple(pathlib.PurePath(name).stem for name in PHOTOGRAPHS)
    num_classes = len(PHOTOGRAPHS)

    def __init__(self, split: str, resolution: int):
        """Opens the crops of a split, making them on first use."""
        self.split = split
        self._region = "test" if split == "test" else "train"
        size = TEST_CROPS if split == "test" else TRAIN_CROPS * 32 // max(resolution, 32)
        key = dict(version=VERSION, photographs=list(PHOTOGRAPHS.items()), seed=SEED, resolution=resolution, size=size)
        key |= {"region": self._region}
        specs = {"image": ((size, resolution, resolution, 3), "uint8")}
        self._images = cached_arrays(f"photos-{self._region}-{resolution}px", key, specs, self._fill)["image"]
        if split == "test":
            self._indices = np.arange(size)
        else:
            # Whole rounds over the photographs, so that item i of either split has label i mod 10.
            train, validation = held_out(-(-size // self.num_classes))
            rounds_R = train if split == "train" else validation
            indices_N = (rounds_R[:, None] * self.num_classes + np.arange(self.num_classes)).ravel()
            self._indices = indices_N[indices_N < size]
        self.fingerprint = fingerprint(key, self._indices.tolist())

    def _fill(self, arrays: dict[str, np.ndarray]) -> None:
        images = arrays["image"]
        resolution = images.shape[1]
        files = enumerate(PHOTOGRAPHS.items())
        for label, (name, test_end) in track(list(files), f"cutting photos, {self._region}"):
            photograph = load_photograph(name)
            height, width = photograph.height, photograph.width
            boxes = parts(test_end, height, width)
            top, left, bottom, right = boxes["test"]
            largest = min(bottom - top, right - left)
            smallest = min(max(min(height, width) // 6, resolution), largest)
            stream = 2000 if self._region == "test" else 1000
            rng = np.random.Generator(np.random.Philox(key=[SEED, stream + label]))
            for i in range(label, len(images), self.num_classes):
                top, left, bottom, right = draw_box(rng, boxes[self._region], smallest, largest)
                # Cut first: resampling with a box would let pixels from outside the crop in.
                crop = photograph.crop((left, top, right, bottom))
                images[i] = np.asarray(crop.resize((resolution, resolution), Image.Resampling.BICUBIC))

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {"image": np.asarray(self._images[self._indices[index]]), "label": np.int32(index % self.num_classes)}
