import numpy as np
import pytest

from fsq_repro.data import raycast, scenes
from fsq_repro.data.scenes import SEMANTIC_NAMES, SOLIDS, Scenes
from fsq_repro.data.sources import SPLITS

GOLDEN_DEPTH = [
    4.981591,
    4.942284,
    4.903593,
    4.865502,
    5.13288,
    5.299908,
    5.255439,
    5.091674,
    2.573493,
    3.788206,
    3.788206,
    2.400043,
    2.183085,
    2.183085,
    2.183085,
    2.183085,
]  # metres, every 16th pixel of training scene 0 at 64 px
GOLDEN_PIXELS = [
    149,
    153,
    129,
    176,
    180,
    152,
    153,
    156,
    132,
    182,
    82,
    101,
    79,
    149,
    63,
    143,
    129,
    181,
    219,
    189,
    165,
    232,
    201,
    175,
    208,
    179,
    156,
]  # every 24th pixel

WHITE = raycast.Material(np.full((2, 3), 0.8), "plain", 1.0, 0.0)


def room_with(*solids, eye=(2.0, 1.0, 0.5), lamp=(2.0, 2.2, 1.0)):
    """A 4 x 2.5 x 6 m room seen straight ahead, with a field of view of 90 degrees."""
    return raycast.Scene(
        room=(4.0, 2.5, 6.0),
        eye=eye,
        axes=((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
        tangent=1.0,
        lamp=lamp,
        surfaces=(WHITE,) * 6,
        solids=solids,
        noise=np.zeros((64, 64), np.float32),
    )


def solid(kind, **changes):
    place = dict(x=2.0, z=3.5, half=(0.5, 0.5), height=1.0, turn=(1.0, 0.0), material=WHITE)
    return raycast.Solid(kind, **(place | changes))


@pytest.fixture(scope="module")
def sizes(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FSQ_REPRO_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(scenes, "NUM_SCENES", {"train": 16})
        yield


@pytest.fixture(scope="module")
def train(sizes):
    return Scenes("train", 48)


def test_depth_of_the_empty_room_by_hand():
    # Pixel centres of an 8 px picture lie at +-1/8, 3/8, 5/8, 7/8 of the half width, which is 1 m a metre ahead.
    _, depth, surface = raycast.render(room_with(), 8)
    ahead = (2 * (np.arange(8) + 0.5) / 8 - 1).repeat(8).reshape(8, 8)
    down, right = ahead, ahead.T
    with np.errstate(divide="ignore"):
        exits = np.stack([np.where(down > 0, 1.0 / down, 1.5 / -down), 2.0 / np.abs(right), np.full((8, 8), 5.5)])
    np.testing.assert_allclose(depth, exits.min(axis=0), rtol=1e-12)
    assert surface[7, 3] == raycast.FLOOR and surface[0, 3] == raycast.CEILING
    assert surface[4, 0] == raycast.LEFT and surface[4, 7] == raycast.RIGHT and surface[4, 4] == raycast.BACK


@pytest.mark.parametrize("kind", SOLIDS)
def test_hits_lie_on_the_solid_and_nothing_lies_before_them(kind):
    """Marches along rays in small steps with the solid's inside test: an oracle that knows no quadratic equation."""
    angle = 0.6
    thing = solid(kind, half=(0.5, 0.3 if kind == "box" else 0.5), turn=(np.cos(angle), np.sin(angle)))

    def inside(p):
        x, z = p[..., 0] - thing.x, p[..., 2] - thing.z
        x, z = x * np.cos(angle) - z * np.sin(angle), x * np.sin(angle) + z * np.cos(angle)
        y, r = p[..., 1], np.sqrt(x * x + z * z)
        if kind == "sphere":
            return x * x + (y - 0.5) ** 2 + z * z < 0.25
        if kind == "box":
            return (np.abs(x) < 0.5) & (np.abs(z) < 0.3) & (y > 0) & (y < 1)
        return (y > 0) & (y < 1) & (r < (0.5 if kind == "cylinder" else 0.5 * (1 - y)))

    rng = np.random.default_rng(0)
    origin = np.array([2.3, 1.6, 0.4])
    target = np.array([2.0, 0.5, 3.5]) + rng.uniform(-0.8, 0.8, (400, 3))
    rays = target - origin
    hit = raycast.hit_solid(thing, tuple(origin), tuple(rays.T))
    steps = np.linspace(0, 2, 4001)
    within = inside(origin + steps[None, :, None] * rays[:, None, :])
    marched = np.where(within.any(axis=1), steps[within.argmax(axis=1)], np.inf)
    # Rays that only graze the solid, or that leave the room below the floor, may differ.
    entry = origin[1] + np.minimum(hit, marched) * rays[:, 1]
    clear = (within.sum(axis=1) > 3) & (entry > 0.01) | (within.sum(axis=1) == 0)
    missed = within.sum(axis=1) == 0
    assert clear.sum() > 200 and 30 < missed.sum() < 370
    np.testing.assert_allclose(hit[clear & ~missed], marched[clear & ~missed], atol=1e-3)
    grazed = np.isfinite(hit[missed]).mean()
    assert grazed < 0.02


def test_a_solid_casts_a_shadow_away_from_the_lamp():
    thing = solid("sphere", x=2.0, z=2.5, half=(0.3, 0.3), height=0.6)
    lamp = (0.3, 2.0, 2.5)  # on the left, so the shadow falls to the right
    with_solid, _, surface = raycast.render(room_with(thing, lamp=lamp), 64)
    floor = surface == raycast.FLOOR
    empty, _, _ = raycast.render(room_with(lamp=lamp), 64)
    darker = floor & (with_solid.mean(-1) < 0.75 * empty.mean(-1))
    columns = np.nonzero(darker)[1]
    assert darker.sum() > 15 and columns.mean() > 36


def test_nearer_solids_hide_farther_ones():
    near, far = solid("box", z=2.5, height=1.2), solid("sphere", z=4.5)
    item = scenes.render_item(room_with(far, near), 32)
    assert set(np.unique(item["semantics"])) <= {1, 2, 3, SEMANTIC_NAMES.index("box")}
    assert set(np.unique(item["instances"])) == {0, 1}  # the hidden sphere has no number
    assert item["label"] == SOLIDS.index("box")
    assert item["depth"][18, 16] == pytest.approx(1.5, abs=1e-6)  # front face at z = 2.0, camera at 0.5


def test_depth_is_along_the_camera_axis():
    """A wall square to the axis has one depth, however oblique the ray."""
    _, depth, surface = raycast.render(room_with(), 32)
    np.testing.assert_allclose(depth[surface == raycast.BACK], 5.5, rtol=1e-12)


def test_items(train):
    for i in range(len(train)):
        item = train[i]
        assert {k: (v.dtype.name, v.shape) for k, v in item.items()} == {
            "image": ("uint8", (48, 48, 3)),
            "depth": ("float32", (48, 48)),
            "semantics": ("int32", (48, 48)),
            "instances": ("int32", (48, 48)),
            "label": ("int32", ()),
        }
        assert item["depth"].min() > 0.1 and item["depth"].max() < 10
        assert (item["semantics"] > 0).all()
        np.testing.assert_array_equal(item["instances"] > 0, np.isin(item["semantics"], scenes.THINGS))
        areas = np.bincount(item["instances"].ravel())[1:]
        assert 1 <= len(areas) <= scenes.MAX_INSTANCES
        assert (areas > 0).all() and (np.diff(areas) <= 0).all()  # numbered from 1, largest first
        largest = item["semantics"][item["instances"] == 1]
        assert len(np.unique(largest)) == 1 and SEMANTIC_NAMES[largest[0]] == train.class_names[item["label"]]


def test_scenes_agree_between_machines():
    item = scenes.render_item(scenes.make_scene(scenes.SEED, "train", 0), 64)
    np.testing.assert_allclose(item["depth"][8::16, 8::16].ravel(), GOLDEN_DEPTH, rtol=0, atol=1e-5)
    np.testing.assert_allclose(item["image"][8::24, 8::24].ravel(), GOLDEN_PIXELS, atol=1)


def test_scenes_follow_from_seed_split_and_index(train, monkeypatch):
    monkeypatch.setattr(scenes, "NUM_SCENES", dict.fromkeys(SPLITS, 3))
    shorter, validation, test = (Scenes(split, 48) for split in SPLITS)
    for i in range(3):
        for key, value in shorter[i].items():
            np.testing.assert_array_equal(value, train[i][key])
        for one, other in ((train, validation), (train, test), (validation, test)):
            assert (one[i]["depth"] != other[i]["depth"]).mean() > 0.9


def test_every_scene_shows_a_solid():
    for i in range(100):
        _, _, surface = raycast.render(scenes.make_scene(scenes.SEED, "test", i), 24)
        assert surface.max() >= raycast.FIRST_SOLID
