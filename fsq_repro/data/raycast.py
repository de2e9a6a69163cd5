"""A small ray caster in NumPy for `scenes`: upright solids in a rectangular room, one lamp, hard-edged patterns.

Room coordinates are metres with x to the right, y up and z into the room; floor, ceiling and walls are the box
[0, width] x [0, height] x [0, depth]. Vectors are tuples of three component arrays (x, y, z): elementwise arithmetic
and square roots give the same bits on every machine, which matrix products do not promise.
"""

import dataclasses
import functools
import math
import operator

import numpy as np

FLOOR, CEILING, LEFT, RIGHT, BACK, FRONT = range(6)  # surfaces of the room; solid i is surface 6 + i
ROOM_NORMALS = ((0, 1, 0), (0, -1, 0), (1, 0, 0), (-1, 0, 0), (0, 0, -1), (0, 0, 1))
FIRST_SOLID = 6
SUBSAMPLES = ((-0.25, -0.25), (-0.25, 0.25), (0.25, -0.25), (0.25, 0.25))  # of a pixel, for antialiasing
LAMP_OFFSETS = ((-0.12, -0.12), (0.12, -0.12), (-0.12, 0.12), (0.12, 0.12))  # one a subsample: softens shadows
AMBIENT = 0.25
EPSILON = 2e-3  # metres that a shadow ray starts above its surface

Vector = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Material:
    """Two colours (linear RGB in [0, 1]), the pattern that mixes them, its period in metres, and how much it shines."""

    colors: np.ndarray  # (2, 3)
    pattern: str  # plain | checker | tiles | planks
    period: float
    gloss: float


@dataclasses.dataclass(frozen=True)
class Solid:
    """A solid on the floor: all but boxes are round with radius `half[0]`; a sphere's height is its diameter."""

    kind: str  # sphere | box | cylinder | cone
    x: float  # of its axis
    z: float
    half: tuple[float, float]  # width and depth
    height: float
    turn: tuple[float, float]  # cosine and sine, about y
    material: Material


@dataclasses.dataclass(frozen=True)
class Scene:
    """Everything that a picture is made from."""

    room: tuple[float, float, float]  # width, height, depth
    eye: tuple[float, float, float]
    axes: tuple[tuple[float, float, float], ...]  # camera's right, up, forward; orthonormal
    tangent: float  # of half the field of view
    lamp: tuple[float, float, float]
    surfaces: tuple[Material, ...]  # of the six surfaces of the room
    solids: tuple[Solid, ...]
    noise: np.ndarray  # (64, 64) in [0, 1): grain of all patterns


def render(scene: Scene, resolution: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Renders a scene as a square picture of `resolution` pixels a side.

    Returns:
      image: uint8 (resolution, resolution, 3), four subsamples a pixel, gamma 2.
      depth: float64 (resolution, resolution), metres along the camera's axis, at pixel centres.
      surface: int64 (resolution, resolution), index of the surface at pixel centres (`FIRST_SOLID + i` for solid i).
    """
    eye = tuple(np.float64(c) for c in scene.eye)
    depth, surface = trace(scene, eye, camera_rays(scene, resolution, ((0.0, 0.0),), np.float64))

    eye = tuple(np.float32(c) for c in scene.eye)
    rays = camera_rays(scene, resolution, SUBSAMPLES, np.float32)
    radiance = shade(scene, eye, rays, *trace(scene, eye, rays))
    mean = radiance.reshape(3, len(SUBSAMPLES), resolution, resolution).mean(axis=1)
    image = (np.sqrt(mean.clip(0, 1)) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0)
    return image, depth.reshape(resolution, resolution), surface.reshape(resolution, resolution)


def camera_rays(scene: Scene, resolution: int, offsets: tuple[tuple[float, float], ...], dtype) -> Vector:
    """Returns directions (S * resolution^2,) of rays with length 1 along the camera's axis, subsample by subsample."""
    centre = np.arange(resolution) + 0.5
    right, up = [], []
    for dy, dx in offsets:
        across = (2 * (centre + dx) / resolution - 1) * scene.tangent
        down = (2 * (centre + dy) / resolution - 1) * scene.tangent
        right.append(np.broadcast_to(across, (resolution, resolution)).ravel())
        up.append(np.broadcast_to(-down[:, None], (resolution, resolution)).ravel())
    right, up = np.concatenate(right), np.concatenate(up)
    axis_right, axis_up, forward = scene.axes
    return tuple((right * axis_right[i] + up * axis_up[i] + forward[i]).astype(dtype) for i in range(3))


def trace(scene: Scene, origin: Vector, rays: Vector) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distance in ray lengths to the nearest surface, and which surface it is (int64), for every ray."""
    nearest, surface = hit_room(scene, origin, rays)
    for i, solid in enumerate(scene.solids):
        distance = hit_solid(solid, origin, rays)
        closer = distance < nearest
        nearest = np.where(closer, distance, nearest)
        surface = np.where(closer, FIRST_SOLID + i, surface)
    return nearest, surface


def hit_room(scene: Scene, origin: Vector, rays: Vector) -> tuple[np.ndarray, np.ndarray]:
    """Returns where rays from inside leave the room, and through which surface."""
    nearest = np.full_like(rays[0], np.inf)
    surface = np.zeros(rays[0].shape, np.int64)
    pairs = ((LEFT, RIGHT), (FLOOR, CEILING), (FRONT, BACK))
    for o, d, size, (low, high) in zip(origin, rays, scene.room, pairs, strict=True):
        with np.errstate(divide="ignore"):
            distance = np.where(d > 0, np.asarray(size, d.dtype) - o, -o) / d
        distance = np.where(d == 0, np.inf, distance)
        closer = distance < nearest
        nearest = np.where(closer, distance, nearest)
        surface = np.where(closer, np.where(d > 0, high, low), surface)
    return nearest, surface


def hit_solid(solid: Solid, origin: Vector, rays: Vector) -> np.ndarray:
    """Returns the distance in ray lengths (inf where missed) at which rays from outside enter a solid.

    Solids stand on the floor and are seen from above it, so undersides are not tested.
    """
    # Most rays miss the sphere around the solid, and only the others are worth the exact test.
    real = rays[0].dtype.type
    to_centre = (real(solid.x) - origin[0], real(solid.height / 2) - origin[1], real(solid.z) - origin[2])
    reach = max(solid.half) if solid.kind != "box" else math.hypot(*solid.half)
    beyond = _dot(to_centre, to_centre) - real(1.01 * (reach**2 + solid.height**2 / 4))
    along = _dot(to_centre, rays)
    near = np.flatnonzero((along * along > beyond * _dot(rays, rays)) & ((along > 0) | (beyond < 0)))
    distance = np.full_like(rays[0], np.inf)
    origin = tuple(o if np.ndim(o) == 0 else o[near] for o in origin)
    distance[near] = _hit_surface(solid, origin, tuple(d[near] for d in rays))
    return distance


def _hit_surface(solid: Solid, origin: Vector, rays: Vector) -> np.ndarray:
    """`hit_solid` without its short cut."""
    ox, oy, oz, dx, dy, dz = *_to_local(solid, origin, place=True), *_to_local(solid, rays, place=False)
    real = dx.dtype.type
    height, radius = real(solid.height), real(solid.half[0])
    if solid.kind == "box":
        near, far = real(0), real(np.inf)
        deep = real(solid.half[1])
        for o, d, low, high in ((ox, dx, -radius, radius), (oy, dy, real(0), height), (oz, dz, -deep, deep)):
            inverse = 1 / np.where(d == 0, real(1e-12), d)
            t0, t1 = (low - o) * inverse, (high - o) * inverse
            near, far = np.maximum(near, np.minimum(t0, t1)), np.minimum(far, np.maximum(t0, t1))
        return np.where((near < far) & (near > 0), near, real(np.inf))
    if solid.kind == "sphere":
        oy = oy - radius
        a, b, c = dx * dx + dy * dy + dz * dz, ox * dx + oy * dy + oz * dz, ox * ox + oy * oy + oz * oz - radius**2
        return _first_root(a, b, c)[0]
    if solid.kind == "cylinder":
        a, b, c = dx * dx + dz * dz, ox * dx + oz * dz, ox * ox + oz * oz - radius**2
        side = _within_height(_first_root(a, b, c), oy, dy, height)
        with np.errstate(divide="ignore", invalid="ignore"):
            lid = (height - oy) / dy
            on_lid = (ox + lid * dx) ** 2 + (oz + lid * dz) ** 2 < radius**2
        return np.minimum(side, np.where(on_lid & (lid > 0), lid, real(np.inf)))
    slope = radius / height  # cone: x^2 + z^2 = (slope * (height - y))^2 below its tip
    oy_tip, k = oy - height, slope * slope
    a, b = dx * dx + dz * dz - k * dy * dy, ox * dx + oz * dz - k * oy_tip * dy
    c = ox * ox + oz * oz - k * oy_tip * oy_tip
    return _within_height(_first_root(a, b, c), oy, dy, height)


def shade(scene: Scene, eye: Vector, rays: Vector, distance: np.ndarray, surface: np.ndarray) -> np.ndarray:
    """Returns linear RGB (3, N): Lambert and Blinn-Phong under one shadowed lamp, plus occluded ambient light."""
    point = tuple(o + distance * d for o, d in zip(eye, rays, strict=True))
    normal, albedo, gloss = _surface_properties(scene, point, surface)

    shifts = np.repeat(np.asarray(LAMP_OFFSETS, np.float32), distance.size // len(LAMP_OFFSETS), axis=0)
    lamp = tuple(np.float32(c) for c in scene.lamp)
    to_lamp = (lamp[0] + shifts[:, 0] - point[0], lamp[1] - point[1], lamp[2] + shifts[:, 1] - point[2])
    start = tuple(p + np.float32(EPSILON) * n for p, n in zip(point, normal, strict=True))
    lit = _dot(normal, to_lamp) > 0
    facing = np.flatnonzero(lit)
    start, towards = (tuple(c[facing] for c in vector) for vector in (start, to_lamp))
    for solid in scene.solids:
        lit[facing] &= ~(hit_solid(solid, start, towards) < 1)

    lamp_distance = np.sqrt(_dot(to_lamp, to_lamp))
    light = tuple(c / lamp_distance for c in to_lamp)
    view_length = np.sqrt(_dot(rays, rays))
    half = tuple(l - d / view_length for l, d in zip(light, rays, strict=True))
    half_length = np.sqrt(_dot(half, half))
    fall_off = lit * (np.float32(1.6) / (1 + np.float32(0.1) * lamp_distance * lamp_distance))
    diffuse = fall_off * _dot(normal, light).clip(0) + _ambient(scene, point, normal, surface)
    shine = (_dot(normal, half) / half_length).clip(0)
    for _ in range(5):  # to the power 32
        shine = shine * shine
    return albedo * diffuse + gloss * fall_off * shine


def _surface_properties(scene: Scene, point: Vector, surface: np.ndarray):
    """Returns normals, albedo (3, N) and gloss (N,) of the points."""
    normal = tuple(np.zeros_like(point[0]) for _ in range(3))
    albedo = np.empty((3, surface.size), np.float32)
    gloss = np.empty(surface.size, np.float32)
    for index in np.flatnonzero(np.bincount(surface)):
        at = np.flatnonzero(surface == index)
        x, y, z = (c[at] for c in point)
        if index >= FIRST_SOLID:
            solid = scene.solids[index - FIRST_SOLID]
            material = solid.material
            x, y, z = _to_local(solid, (x, y, z), place=True)
            nx, ny, nz = _solid_normal(solid, x, y, z)
            u, v = np.where(ny > 0.9, x, x + z), np.where(ny > 0.9, z, y)
            cosine, sine = (np.float32(c) for c in solid.turn)
            n = (cosine * nx + sine * nz, ny, cosine * nz - sine * nx)
        else:
            material = scene.surfaces[index]
            u, v = ((x, z), (z, y), (x, y))[index // 2]
            n = ROOM_NORMALS[index]
        for out, component in zip(normal, n, strict=True):
            out[at] = component
        mix, tone = _pattern(material, u, v, scene.noise)
        first, second = material.colors.astype(np.float32)
        albedo[:, at] = (first[:, None] + (second - first)[:, None] * mix) * tone
        gloss[at] = material.gloss
    return normal, albedo, gloss


def _solid_normal(solid: Solid, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Vector:
    """Returns outward unit normals at points of a solid's surface, in its own coordinates."""
    radius, height = np.float32(solid.half[0]), np.float32(solid.height)
    zero = np.zeros_like(x)
    if solid.kind == "sphere":
        return x / radius, (y - radius) / radius, z / radius
    if solid.kind == "box":
        # The face is the one whose plane the point is nearest to.
        gaps = np.abs(np.stack([np.abs(x) - radius, y - height, np.abs(z) - np.float32(solid.half[1])]))
        face = gaps.argmin(axis=0)
        return np.where(face == 0, np.sign(x), zero), (face == 1) + zero, np.where(face == 2, np.sign(z), zero)
    length = np.sqrt(x * x + z * z).clip(1e-6)
    if solid.kind == "cylinder":
        lid = height - y < 1e-4
        return np.where(lid, zero, x / length), lid + zero, np.where(lid, zero, z / length)
    slope = radius / height
    scale = 1 / np.sqrt(1 + slope * slope)
    return x / length * scale, slope * scale + zero, z / length * scale


def _pattern(material: Material, u: np.ndarray, v: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the share of the second colour and the brightness of the grain at surface coordinates (metres)."""
    cell_u, cell_v = u / np.float32(material.period), v / np.float32(material.period)
    mix, tone = np.zeros_like(u), np.float32(1)
    if material.pattern == "checker":
        mix = (np.floor(cell_u) + np.floor(cell_v)) % 2
    elif material.pattern in ("tiles", "planks"):  # joints in the second colour, each piece of its own tone
        length = {"tiles": 1, "planks": 6}[material.pattern]
        row = np.floor(cell_v)
        along = cell_u / length + (np.float32(0.37) * row if length > 1 else 0)
        joint = (cell_v - row < np.float32(0.08)) | (along - np.floor(along) < np.float32(0.08 / length))
        mix = joint.astype(np.float32)
        size = len(noise)  # a power of two; the lattice is repeated without end
        shade = noise[row.astype(np.int32) & (size - 1), (7 * np.floor(along)).astype(np.int32) & (size - 1)]
        tone = np.float32(0.8) + np.float32(0.4) * shade
    stretch = np.float32(0.12 if material.pattern == "planks" else 1)  # the grain of wood runs along it
    fine = _smooth_noise(noise, u * stretch * 24, v * 24)
    coarse = _smooth_noise(noise, u * stretch * 5, v * 5)
    return mix, tone * (np.float32(0.8) + np.float32(0.2) * fine + np.float32(0.2) * coarse)


def _smooth_noise(noise: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Returns the noise lattice, repeated without end, interpolated bilinearly at (u, v)."""
    size = len(noise)
    wrapped = np.pad(noise, (0, 1), mode="wrap").ravel()
    i, j = np.floor(u), np.floor(v)
    a, b = u - i, v - j
    corner = (i.astype(np.int32) & (size - 1)) * (size + 1) + (j.astype(np.int32) & (size - 1))
    n00, n01, n10, n11 = (wrapped.take(corner + step) for step in (0, 1, size + 1, size + 2))
    low, high = n00 + (n01 - n00) * b, n10 + (n11 - n10) * b
    return low + (high - low) * a


def _ambient(scene: Scene, point: Vector, normal: Vector, surface: np.ndarray) -> np.ndarray:
    """Returns ambient light: darker below, in the corners of the room, and on the floor beside solids."""
    light = np.float32(AMBIENT) * (np.float32(0.85) + np.float32(0.15) * normal[1])
    for coordinate, size, component in zip(point, scene.room, normal, strict=True):
        gap = np.minimum(coordinate, np.float32(size) - coordinate) + np.abs(component)  # not from its own surface
        light = light * (np.float32(0.6) + np.float32(0.8) * gap.clip(0, 0.5))
    floor = np.flatnonzero(surface == FLOOR)
    x, z = point[0][floor], point[2][floor]
    for solid in scene.solids:
        reach = np.float32(max(solid.half))
        outside = np.sqrt((x - np.float32(solid.x)) ** 2 + (z - np.float32(solid.z)) ** 2) / reach
        light[floor] *= (np.float32(0.55) * outside).clip(0.35, 1)
    return light


def _to_local(solid: Solid, vector: Vector, *, place: bool) -> Vector:
    """Turns places or directions of the room into a solid's own coordinates: axis at 0, faces along x and z."""
    x, y, z = vector
    real = np.asarray(x).dtype.type
    if place:
        x, z = x - real(solid.x), z - real(solid.z)
    cosine, sine = (real(c) for c in solid.turn)
    return cosine * x - sine * z, y, sine * x + cosine * z


def _first_root(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns both roots of a t^2 + 2 b t + c = 0 in rising order, inf where there is none or it is not positive."""
    discriminant = b * b - a * c
    real = discriminant.dtype.type
    root = np.sqrt(discriminant.clip(0))
    with np.errstate(divide="ignore", invalid="ignore"):
        t0, t1 = (-b - root) / a, (-b + root) / a
    low, high = np.minimum(t0, t1), np.maximum(t0, t1)
    missed = ~(discriminant > 0)
    return tuple(np.where(missed | ~(t > 0), real(np.inf), t) for t in (low, high))


def _within_height(roots: tuple[np.ndarray, np.ndarray], oy, dy: np.ndarray, height) -> np.ndarray:
    """Returns the smaller root whose point lies between the floor and `height`."""
    with np.errstate(invalid="ignore"):
        hits = [np.where((oy + t * dy >= 0) & (oy + t * dy <= height), t, np.inf) for t in roots]
    return np.minimum(*hits).astype(dy.dtype)


def _dot(a: Vector, b: Vector) -> np.ndarray:
    return functools.reduce(operator.add, (x * y for x, y in zip(a, b, strict=True)))
