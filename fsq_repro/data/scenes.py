"""Source `scenes`: ray-cast rooms with image, depth, semantic and instance ids; label = the solid seen most.

A scene is a room of fixed size with a patterned floor and plain walls, two to four solids (spheres, boxes, cylinders,
cones) of one colour each that stand on the floor and cast shadows from one lamp, and a camera whose place and direction
vary a little. It stands in for NYU depth and COCO panoptic where these are not at hand, and is as easy as networks
that train in minutes on one core need it.

- `image`: uint8 (h, w, 3).
- `depth`: float32 (h, w), metres along the camera's axis (not along the ray), within (0.1, 10); every pixel is valid.
- `semantics`: int32 (h, w), index into `SEMANTIC_NAMES`; void (0) never occurs.
- `instances`: int32 (h, w), 0 on floor, walls and ceiling; visible solids are numbered from 1, largest area first.
- `label`: int32 (), index into `SOLIDS`: the kind of the solid with the largest visible area.

Scene i of a split follows from (seed, split, i) alone, so sets of different sizes share their first scenes; no two
splits share a stream of random numbers.
"""

import dataclasses

import numpy as np

from fsq_repro.data import raycast
from fsq_repro.data.cache import cached_arrays, fingerprint
from fsq_repro.progress import track

SOLIDS = ("sphere", "box", "cylinder", "cone")
SEMANTIC_NAMES = ("void", "floor", "wall", "ceiling", *SOLIDS)
THINGS = tuple(SEMANTIC_NAMES.index(kind) for kind in SOLIDS)  # semantic ids that have instances
MAX_INSTANCES = 4
ROOM = (4.6, 2.7, 6.0)  # width, height, depth in metres
TANGENT = 0.6  # of half the field of view
PLACE_DRAWS = 300  # per solid; the first, with the whole floor to itself, needs a few

VERSION = 4  # raise when a scene changes
SEED = 15505
NUM_SCENES = {"train": 8_000, "validation": 1_000, "test": 1_000}
STREAMS = {"train": (0, 0), "test": (0, 1), "validation": (1, 0)}  # added to (seed, 2 * index)


def make_scene(seed: int, split: str, index: int) -> raycast.Scene:
    """Draws scene `index` of a split."""
    of_seed, of_index = STREAMS[split]
    rng = np.random.Generator(np.random.Philox(key=[seed + of_seed, 2 * index + of_index]))
    width, height, depth = ROOM
    eye = (width * rng.uniform(0.47, 0.53), 1.5, 0.7)
    axes = _camera_axes(yaw=rng.uniform(-0.05, 0.05), pitch=rng.uniform(0.23, 0.27))
    lamp = (width * rng.uniform(0.1, 0.9), height * rng.uniform(0.7, 0.9), depth * rng.uniform(0.15, 0.85))

    walls = _material(rng, ("plain",), (0.15, 0.5), saturation=0.35, gloss=0.0)
    surfaces = [walls] * raycast.FIRST_SOLID
    surfaces[raycast.FLOOR] = _material(rng, ("checker", "tiles", "planks"), (0.2, 0.6), saturation=0.5, gloss=0.15)
    surfaces[raycast.CEILING] = _material(rng, ("plain",), (1.0, 1.0), saturation=0.1, gloss=0.0)
    noise = rng.random((64, 64), np.float32)

    scene = raycast.Scene(ROOM, eye, axes, TANGENT, lamp, tuple(surfaces), solids=(), noise=noise)
    for _ in range(rng.integers(2, MAX_INSTANCES, endpoint=True)):
        solid = _draw_solid(rng, scene)
        if solid is not None:
            scene = dataclasses.replace(scene, solids=(*scene.solids, solid))
    return scene


def render_item(scene: raycast.Scene, resolution: int) -> dict[str, np.ndarray]:
    """Returns the scene's item as the module's docstring describes it."""
    image, depth, surface = raycast.render(scene, resolution)
    num_surfaces = raycast.FIRST_SOLID + len(scene.solids)
    areas = np.bincount(surface.ravel(), minlength=num_surfaces)[raycast.FIRST_SOLID :]
    by_area = np.argsort(-areas, kind="stable")
    numbers = np.zeros(num_surfaces, np.int32)
    numbers[raycast.FIRST_SOLID + by_area] = np.arange(1, len(by_area) + 1)
    room = {raycast.FLOOR: "floor", raycast.CEILING: "ceiling"}
    kinds = [room.get(i, "wall") for i in range(raycast.FIRST_SOLID)] + [solid.kind for solid in scene.solids]
    return {
        "image": image,
        "depth": depth.astype(np.float32),
        "semantics": np.array([SEMANTIC_NAMES.index(kind) for kind in kinds], np.int32)[surface],
        "instances": numbers[surface],
        "label": np.int32(SOLIDS.index(scene.solids[by_area[0]].kind)),
    }


class Scenes:
    """Random-access scenes; the module's docstring describes the items."""

    name = "scenes"
    class_names = SOLIDS
    num_classes = len(SOLIDS)
    num_semantics = len(SEMANTIC_NAMES)
    things = THINGS

    def __init__(self, split: str, resolution: int):
        """Opens the scenes of a split, rendering them on first use."""
        self.split = split
        size = NUM_SCENES[split]
        key = dict(version=VERSION, seed=SEED, split=split, resolution=resolution, size=size)
        self.fingerprint = fingerprint(key)
        shape = (size, resolution, resolution)
        specs = {
            "image": ((*shape, 3), "uint8"),
            "depth": (shape, "float32"),
            "semantics": (shape, "uint8"),
            "instances": (shape, "uint8"),
            "label": ((size,), "int32"),
        }

        def fill(arrays: dict[str, np.ndarray]) -> None:
            for i in track(range(size), f"rendering scenes, {split}"):
                for field, value in render_item(make_scene(SEED, split, i), resolution).items():
                    arrays[field][i] = value

        self._arrays = cached_arrays(f"scenes-{split}-{resolution}px", key, specs, fill)

    def __len__(self) -> int:
        return len(self._arrays["label"])

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        item = {field: np.asarray(array[index]) for field, array in self._arrays.items()}
        return item | {field: item[field].astype(np.int32) for field in ("semantics", "instances", "label")}


def _camera_axes(yaw: float, pitch: float) -> tuple[tuple[float, float, float], ...]:
    """Returns right, up and forward of a camera turned `yaw` to the right and `pitch` down (radians)."""
    (cy, cp), (sy, sp) = np.cos([yaw, pitch]), np.sin([yaw, pitch])
    right, up, forward = (cy, 0.0, -sy), (sy * sp, cp, cy * sp), (sy * cp, -sp, cy * cp)
    return tuple(tuple(float(c) for c in axis) for axis in (right, up, forward))


def _draw_solid(rng: np.random.Generator, scene: raycast.Scene) -> raycast.Solid | None:
    """Draws a solid whose middle is in view and which touches no wall and no other solid; None if no place is found."""
    kind = SOLIDS[rng.integers(len(SOLIDS))]
    radius = rng.uniform(0.3, 0.6)
    half = (radius, rng.uniform(0.3, 0.6) if kind == "box" else radius)
    height = 2 * radius if kind == "sphere" else rng.uniform(0.6, 1.4)
    angle = rng.uniform(0, np.pi)
    material = _material(rng, ("plain",), (0.08, 0.25), saturation=0.9, gloss=rng.uniform(0, 0.5))
    reach = float(np.hypot(*half)) if kind == "box" else radius
    (width, _, depth), forward = scene.room, scene.axes[2]
    for _ in range(PLACE_DRAWS):
        away, aside = rng.uniform(1.3, 4.8), rng.uniform(-0.6, 0.6)
        x = scene.eye[0] + away * (forward[0] + aside * forward[2])
        z = scene.eye[2] + away * (forward[2] - aside * forward[0])
        inside = reach < x < width - reach and reach < z < depth - reach
        clear = all((x - o.x) ** 2 + (z - o.z) ** 2 > (reach + np.hypot(*o.half)) ** 2 for o in scene.solids)
        if inside and clear and _in_view(scene, (x, height / 2, z)):
            turn = (float(np.cos(angle)), float(np.sin(angle)))
            return raycast.Solid(kind, float(x), float(z), half, float(height), turn, material)
    return None


def _in_view(scene: raycast.Scene, point: tuple[float, float, float]) -> bool:
    """Tells whether a point projects into the picture, not too near its border."""
    offset = [p - e for p, e in zip(point, scene.eye, strict=True)]
    right, up, forward = (sum(a * o for a, o in zip(axis, offset, strict=True)) for axis in scene.axes)
    return max(abs(right), abs(up)) < 0.9 * scene.tangent * forward


def _material(
    rng: np.random.Generator, patterns: tuple[str, ...], periods: tuple[float, float], saturation: float, gloss: float
) -> raycast.Material:
    """Draws a pattern and two colours, the second a darker or paler relative of the first."""
    hue, strength, value = rng.uniform(0, 6), saturation * rng.uniform(0.5, 1), rng.uniform(0.35, 0.9)
    wheel = np.clip(np.abs((hue - np.array([0, 2, 4]) + 3) % 6 - 3) - 1, 0, 1)  # 0 at the hue's own channel
    first = value * (1 - strength * wheel)
    second = first * 0.35 if value > 0.6 else 0.4 * first + 0.6
    return raycast.Material(
        np.stack([first, second]), patterns[rng.integers(len(patterns))], rng.uniform(*periods), gloss
    )
