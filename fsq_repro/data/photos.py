"""Source `photos`: textured crops of the real photographs that the scikit-image wheel ships. Label = photograph.

Taken are the photographs named in `PHOTOGRAPHS`, micrograph and astronomical images included: they are what a lens
drew. Left out are drawings, computed pictures and writing, the right half of the stereo pair (almost a copy of the
left), the small microaneurysms, and cell, clock_motion, moon and retina, which are mostly flat. Nothing is downloaded.

Test shares no pixel with the other splits: each photograph is cut into a grid of 4 x 4 cells, of which one in every row
and column (25%, drawn from the seed) belongs to test. A test crop lies inside one such cell, a training crop touches
none of them. Validation is a tenth of the training crops taken out, see `held_out`: they overlap with training crops,
and a few equal one (2 of 2,400 at 32 px). Crops are squares at a random place with a side uniform between the
resolution and the side of a cell (about a quarter of the photograph), reduced to the resolution with antialiasing
(Pillow, bicubic); where a cell is smaller than the resolution the crop has the cell's side and is enlarged.

Mostly flat crops (sky, black background) are left out, since they would occupy a handful of codes and blur what the
quantizers are compared on: a crop is cut into 4 x 4 patches, and drawn again when more than half of them have a
standard deviation of luma below 5 grey levels. Every photograph gives the same number of crops (plus or minus one).

Only integer arithmetic decides a pixel (Philox draws, Pillow's fixed-point resampling, integer variances), so the
crops are the same on every machine.
"""

import importlib.util
import pathlib

import numpy as np
from PIL import Image

from fsq_repro.data.cache import cached_arrays, fingerprint
from fsq_repro.data.held_out import held_out
from fsq_repro.progress import track

PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "rocket.jpg",
)
VERSION = 2  # raise when a crop changes
SEED = 2309
GRID = 4
PATCHES = 4  # patches along a crop's side
FLAT_STD = 5  # grey levels
MAX_DRAWS = 2000  # per crop; only a photograph without texture comes near
TRAIN_CROPS = 24_000  # with those of validation, at up to 32 px; fewer above: a set stays below 300 MB up to 128 px
TEST_CROPS = 2_560

Box = tuple[int, int, int, int]  # top, left, bottom, right


def load_photograph(file_name: str) -> Image.Image:
    """Returns a photograph of the scikit-image wheel as RGB (grey ones with three equal channels)."""
    package = importlib.util.find_spec("skimage")  # located, not imported: that would cost half a second
    path = pathlib.Path(package.submodule_search_locations[0]) / "data" / file_name
    with Image.open(path) as image:
        return image.convert("RGB")


def cells_for_test(label: int, height: int, width: int) -> list[Box]:
    """Returns the cells of photograph `label` that belong to test: one in every row and column of the grid."""
    columns = np.random.Generator(np.random.Philox(key=[SEED, label])).permutation(GRID)
    return [
        (height * r // GRID, width * c // GRID, height * (r + 1) // GRID, width * (c + 1) // GRID)
        for r, c in enumerate(columns)
    ]


def draw_box(rng: np.random.Generator, region: str, cells: list[Box], size: tuple[int, int], resolution: int) -> Box:
    """Draws a square crop: inside one of the `cells` ("test"), or clear of all of them ("train")."""
    height, width = size
    largest = min(height, width) // GRID
    side = int(rng.integers(min(resolution, largest), largest, endpoint=True))
    if region == "test":
        top, left, bottom, right = cells[rng.integers(len(cells))]
        y = int(rng.integers(top, bottom - side, endpoint=True))
        x = int(rng.integers(left, right - side, endpoint=True))
        return y, x, y + side, x + side
    while True:
        y = int(rng.integers(height - side, endpoint=True))
        x = int(rng.integers(width - side, endpoint=True))
        if not any(y < b and t < y + side and x < r and l < x + side for t, l, b, r in cells):
            return y, x, y + side, x + side


def mostly_flat(crop: Image.Image) -> bool:
    """Tells whether more than half of the crop's 4 x 4 patches have a luma deviation below `FLAT_STD`."""
    p = crop.width // PATCHES
    patches = np.asarray(crop.convert("L"), np.int64)[: p * PATCHES, : p * PATCHES].reshape(PATCHES, p, PATCHES, p)
    n = p * p
    scaled_variance = n * (patches**2).sum((1, 3)) - patches.sum((1, 3)) ** 2  # n^2 times the variance
    return 2 * int((scaled_variance < (n * FLAT_STD) ** 2).sum()) > PATCHES**2


class Photos:
    """Random-access crops: `image` uint8 (resolution, resolution, 3), `label` int32 (); item i has label i mod 12."""

    name = "photos"
    class_names = tuple(pathlib.Path(file_name).stem for file_name in PHOTOGRAPHS)
    num_classes = len(PHOTOGRAPHS)

    def __init__(self, split: str, resolution: int):
        """Opens the crops of a split, making them on first use."""
        self.split = split
        self._region = "test" if split == "test" else "train"
        size = TEST_CROPS if split == "test" else TRAIN_CROPS * 32 // max(resolution, 32)
        key = dict(version=VERSION, photographs=PHOTOGRAPHS, seed=SEED, resolution=resolution, size=size)
        key |= {"region": self._region}
        specs = {"image": ((size, resolution, resolution, 3), "uint8")}
        self._images = cached_arrays(f"photos-{self._region}-{resolution}px", key, specs, self._fill)["image"]
        if split == "test":
            self._indices = np.arange(size)
        else:
            # Whole rounds over the photographs, so that item i of either split has label i mod 12.
            train, validation = held_out(-(-size // self.num_classes))
            rounds_R = train if split == "train" else validation
            indices_N = (rounds_R[:, None] * self.num_classes + np.arange(self.num_classes)).ravel()
            self._indices = indices_N[indices_N < size]
        self.fingerprint = fingerprint(key, self._indices.tolist())

    def _fill(self, arrays: dict[str, np.ndarray]) -> None:
        images = arrays["image"]
        resolution = images.shape[1]
        for label in track(range(self.num_classes), f"cutting photos, {self._region}"):
            photograph = load_photograph(PHOTOGRAPHS[label])
            size = photograph.height, photograph.width
            cells = cells_for_test(label, *size)
            stream = 2000 if self._region == "test" else 1000
            rng = np.random.Generator(np.random.Philox(key=[SEED, stream + label]))
            for i in range(label, len(images), self.num_classes):
                for _ in range(MAX_DRAWS):
                    top, left, bottom, right = draw_box(rng, self._region, cells, size, resolution)
                    # Cut first: resampling with a box would let pixels from outside the crop in.
                    crop = photograph.crop((left, top, right, bottom))
                    crop = crop.resize((resolution, resolution), Image.Resampling.BICUBIC)
                    if not mostly_flat(crop):
                        break
                else:
                    raise RuntimeError(f"{PHOTOGRAPHS[label]} has no textured {self._region} crop at {resolution} px.")
                images[i] = np.asarray(crop)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {"image": np.asarray(self._images[self._indices[index]]), "label": np.int32(index % self.num_classes)}
