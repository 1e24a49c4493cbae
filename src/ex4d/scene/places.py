"""The shells that scenes stand in: rooms with an opening to the sky, and walled outdoor places."""

from dataclasses import dataclass, replace

import numpy as np

from ex4d.core.arrays import Float64
from ex4d.core.geometry import rotation_about
from ex4d.scene.catalogue import PALETTE, WOODS
from ex4d.scene.model import Light, Material, Primitive, SceneObject, Vector
from ex4d.scene.things import Rng, pick, textured, tint

SKY_RADIUS_M = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A shell without things in it.

    Attributes:
        objects: background and sky.
        light: of the scene.
        planes: float64 [K,4] inward normals and offsets of floor, walls and ceiling.
        floor_y_m: world y of the floor (the camera is at 0, y points down).
    """

    objects: tuple[SceneObject, ...]
    light: Light
    planes: Float64
    floor_y_m: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A turned rectangle on the floor: origin (x, z), yaw, and its extent in its own axes, metres."""

    origin: tuple[float, float]
    yaw_rad: float
    x: tuple[float, float]
    z: tuple[float, float]

    def solid(self, low: Vector, high: Vector, material: Material) -> Primitive:
        """A box between two corners given in this frame's x and z and in world y."""
        turn = rotation_about("y", self.yaw_rad)
        middle = (np.array(low) + np.array(high)) / 2
        x, y, z = (turn @ middle + np.array([self.origin[0], 0.0, self.origin[1]])).tolist()
        half = ((high[0] - low[0]) / 2, (high[1] - low[1]) / 2, (high[2] - low[2]) / 2)
        return Primitive(shape="box", center_m=(x, y, z), half_m=half, material=material, rotation=turn)

    def planes(self, floor_y: float, ceiling_y: float | None) -> Float64:
        """float64 [K,4]: n·X + d = distance inwards from the floor, the four sides and the ceiling."""
        turn = rotation_about("y", self.yaw_rad)
        base = np.array([self.origin[0], 0.0, self.origin[1]])
        rows = [np.array([0.0, -1.0, 0.0, floor_y])]
        if ceiling_y is not None:
            rows.append(np.array([0.0, 1.0, 0.0, -ceiling_y]))
        for axis, (low, high) in ((0, self.x), (2, self.z)):
            for sign, bound in ((1.0, low), (-1.0, high)):
                normal = sign * turn[:, axis]
                rows.append(np.array([*normal, -normal @ base - sign * bound]))
        return np.stack(rows)


def sky(rng: Rng) -> SceneObject:
    """The backdrop: a sphere 60 m away with a gradient, soft clouds and hazy hills at the horizon."""
    warm = float(rng.uniform(0, 1))
    paint = Material(
        pattern="sky",
        color_a=(0.30 + 0.08 * warm, 0.50, 0.78 - 0.06 * warm),
        color_b=(0.74 + 0.12 * warm, 0.80, 0.88 - 0.08 * warm),
        color_c=(0.46, 0.53, 0.46),
        scale_m=0.8,
        contrast=0.75,
        seed=int(rng.integers(1, 1 << 20)),
    )
    ball = Primitive(
        shape="sphere",
        center_m=(0.0, 0.0, 0.0),
        half_m=(SKY_RADIUS_M, SKY_RADIUS_M, SKY_RADIUS_M),
        material=paint,
        rotation=np.eye(3),
    )
    return SceneObject(name="sky", role="sky", primitives=(ball,))


def _wall_with_opening(frame: Frame, rng: Rng, y: tuple[float, float], wall: Material) -> list[Primitive]:
    """The far wall (z high) as four boxes around a window, and the window's bars. y: (ceiling, floor)."""
    top, floor = y
    z0, z1 = frame.z[1], frame.z[1] + 0.25
    width = float(rng.uniform(1.7, 2.5))
    left = float(rng.uniform(frame.x[0] + 0.9, frame.x[1] - 0.9 - width))
    right = left + width
    door = bool(rng.uniform() < 0.35)
    low = floor if door else floor - 1.0
    high = top + 0.55
    parts = [
        frame.solid((frame.x[0], top, z0), (left, floor, z1), wall),
        frame.solid((right, top, z0), (frame.x[1], floor, z1), wall),
        frame.solid((left, top, z0), (right, high, z1), wall),
    ]
    if not door:
        parts.append(frame.solid((left, low, z0), (right, floor, z1), wall))
    bar = textured(rng, "plain", (0.86, 0.84, 0.80), 0.3, 0.2)
    middle = (left + right) / 2
    parts.append(frame.solid((middle - 0.045, high, z0 + 0.08), (middle + 0.045, low, z0 + 0.17), bar))
    for x in (left, right - 0.07):
        parts.append(frame.solid((x, high, z0 - 0.03), (x + 0.07, low, z0 + 0.2), bar))
    parts.append(frame.solid((left + 0.07, high, z0 - 0.03), (right - 0.07, high + 0.07, z0 + 0.2), bar))
    return parts


def room(rng: Rng, pivot_m: float) -> Place:
    """A room around the orbit circle of radius `pivot_m` about (0, 0, pivot_m), turned by up to 24°."""
    floor_y, height = float(rng.uniform(1.3, 1.5)), float(rng.uniform(3.1, 3.5))
    top = floor_y - height
    side = 1.36 * pivot_m + float(rng.uniform(0.2, 0.7))
    frame = Frame(
        origin=(0.0, pivot_m),
        yaw_rad=float(rng.choice([-1, 1]) * rng.uniform(0.12, 0.42)),
        x=(-side, side),
        z=(-1.5 * pivot_m, 1.4 * pivot_m + float(rng.uniform(0.6, 1.3))),
    )
    paint = pick(rng, [(0.76, 0.72, 0.66), (0.66, 0.72, 0.74), (0.78, 0.68, 0.60), (0.68, 0.72, 0.64)])
    wall = (
        textured(rng, "plain", paint, 0.35, 0.42, spread=0.13)
        if rng.uniform() < 0.6
        else replace(textured(rng, "planks", paint, 0.3, 0.12, spread=0.07), color_c=tint(paint, -0.25))
    )
    brick = textured(rng, "brick", pick(rng, [(0.70, 0.50, 0.42), (0.72, 0.66, 0.60)]), 0.2, 0.2, spread=0.14)
    ground = (
        textured(rng, "planks", pick(rng, WOODS), 0.34, 0.25)
        if rng.uniform() < 0.6
        else textured(rng, "check", pick(rng, [(0.66, 0.60, 0.52), (0.58, 0.60, 0.60)]), 0.55, 0.2, spread=0.15)
    )
    (x0, x1), (z0, z1), t = frame.x, frame.z, 0.25
    lit = replace(ground, takes_shadow=True)
    ceiling = textured(rng, "planks", (0.84, 0.82, 0.78), 0.6, 0.1, spread=0.05)
    ceiling = replace(ceiling, color_c=(0.62, 0.60, 0.57))
    side_walls = [brick, wall] if rng.uniform() < 0.5 else [wall, brick]
    shell = [
        ("floor", [frame.solid((x0 - t, floor_y, z0 - t), (x1 + t, floor_y + 0.3, z1 + t), lit)]),
        ("ceiling", [frame.solid((x0 - t, top - 0.3, z0 - t), (x1 + t, top, z1 + t), ceiling)]),
        ("left wall", [frame.solid((x0 - t, top, z0 - t), (x0, floor_y, z1 + t), side_walls[0])]),
        ("right wall", [frame.solid((x1, top, z0 - t), (x1 + t, floor_y, z1 + t), side_walls[1])]),
        ("near wall", [frame.solid((x0, top, z0 - t), (x1, floor_y, z0), wall)]),
        ("window wall", _wall_with_opening(frame, rng, (top, floor_y), wall)),
        ("rug", [_rug(rng, (pivot_m, floor_y))]),
        ("pictures", _pictures(frame, rng, floor_y)),
    ]  # fmt: skip
    objects = [SceneObject(name=name, role="background", primitives=tuple(parts)) for name, parts in shell]
    light = Light(
        to_sun=(float(rng.uniform(-0.6, 0.6)), -0.75, -0.55),
        sun=(0.42, 0.38, 0.33),
        sky=(0.66, 0.68, 0.71),
        ground=(0.66, 0.62, 0.57),
    )
    return Place(objects=(*objects, sky(rng)), light=light, planes=frame.planes(floor_y, top), floor_y_m=floor_y)


def _rug(rng: Rng, at: tuple[float, float]) -> Primitive:
    """A round rug 12 mm thick under the subject. at: (z, floor y)."""
    r = float(rng.uniform(0.9, 1.2))
    cloth = textured(rng, "check", pick(rng, PALETTE[:5]), 0.22, 0.3, spread=0.15)
    return Primitive(
        shape="cylinder",
        center_m=(0.0, at[1] - 0.006, at[0] + 0.4),
        half_m=(r, 0.006, r),
        material=replace(cloth, takes_shadow=True),
        rotation=rotation_about("y", float(rng.uniform(0, 3))),
    )


def _pictures(frame: Frame, rng: Rng, floor_y: float) -> list[Primitive]:
    """Framed pictures on the side walls, where the source camera sees them."""
    parts: list[Primitive] = []
    for side in (0, 1):
        sign, wall = (1.0, frame.x[0]) if side == 0 else (-1.0, frame.x[1])
        z = frame.z[1] - 0.7
        for _ in range(3):
            w, h = float(rng.uniform(0.25, 0.45)), float(rng.uniform(0.3, 0.45))
            y = floor_y - float(rng.uniform(1.5, 1.75))
            wood = textured(rng, "plain", pick(rng, WOODS), 0.12, 0.3)
            art = textured(rng, ("marble", "foliage")[int(rng.integers(2))], pick(rng, PALETTE), 0.25, 0.5)
            art = replace(art, color_b=pick(rng, PALETTE))
            for grow, depth, paint in ((0.05, 0.03, wood), (0.0, 0.035, art)):
                near, far = sorted((wall, wall + sign * depth))
                low = (near, y - h - grow, z - w - grow)
                parts.append(frame.solid(low, (far, y + h + grow, z + w + grow), paint))
            z -= 2 * w + float(rng.uniform(0.4, 0.8))
    return parts


def outdoor(rng: Rng, pivot_m: float) -> Place:
    """A courtyard: ground, a garden wall on all sides, buildings behind it, open sky above."""
    floor_y = float(rng.uniform(1.35, 1.55))
    side, back = float(rng.uniform(5.5, 7.5)), float(rng.uniform(6.0, 8.0))
    frame = Frame(
        origin=(0.0, pivot_m),
        yaw_rad=float(rng.choice([-1, 1]) * rng.uniform(0.1, 0.5)),
        x=(-side, side),
        z=(-side, back),
    )
    ground = (
        textured(rng, "check", pick(rng, [(0.66, 0.62, 0.56), (0.60, 0.60, 0.60)]), 0.75, 0.25, spread=0.13)
        if rng.uniform() < 0.5
        else Material(
            pattern="foliage", color_a=(0.34, 0.42, 0.22), color_b=(0.56, 0.60, 0.36), color_c=(0.58, 0.52, 0.38),
            scale_m=0.26, contrast=0.45, seed=int(rng.integers(1, 1 << 20)),
        )
    )  # fmt: skip
    lit = replace(ground, takes_shadow=True)
    brick = textured(rng, "brick", pick(rng, [(0.68, 0.47, 0.39), (0.70, 0.65, 0.58)]), 0.24, 0.25)
    (x0, x1), (z0, z1) = frame.x, frame.z
    top = floor_y - float(rng.uniform(2.0, 2.4))
    walls = [
        frame.solid((x0 - 0.3, top, z1), (x1 + 0.3, floor_y, z1 + 0.3), brick),
        frame.solid((x0 - 0.3, top, z0 - 0.3), (x1 + 0.3, floor_y, z0), brick),
        frame.solid((x0 - 0.3, top, z0), (x0, floor_y, z1), brick),
        frame.solid((x1, top, z0), (x1 + 0.3, floor_y, z1), brick),
    ]
    objects = [
        SceneObject(
            name="ground",
            role="background",
            primitives=(frame.solid((-40, floor_y, -40), (40, floor_y + 0.5, 40), lit),),
        ),
        SceneObject(name="wall", role="background", primitives=tuple(walls)),
        *_buildings(frame, rng, floor_y),
    ]
    light = Light(
        to_sun=(float(rng.choice([-1, 1]) * rng.uniform(0.4, 0.8)), -0.8, -0.5),
        sun=(0.66, 0.60, 0.50),
        sky=(0.52, 0.57, 0.66),
        ground=(0.46, 0.43, 0.38),
    )
    return Place(objects=(*objects, sky(rng)), light=light, planes=frame.planes(floor_y, None), floor_y_m=floor_y)


def _buildings(frame: Frame, rng: Rng, floor_y: float) -> list[SceneObject]:
    """Houses behind the far, left and right walls with gaps of sky between them."""
    out: list[SceneObject] = []
    spots = [(-0.75, 1), (0.1, 1), (0.85, 1), (1, -0.1), (-1, -0.1), (1, 0.7), (-1, 0.6)]
    for number, (sx, sz) in enumerate(spots):
        if rng.uniform() < 0.2:
            continue
        w, d, h = rng.uniform(1.4, 2.3), rng.uniform(1.2, 1.8), rng.uniform(3.6, 6.0)
        x = sx * frame.x[1] + (np.sign(sx) * (d + 1.2) if abs(sx) == 1 else rng.uniform(-0.4, 0.4))
        z = sz * frame.z[1] + (d + 1.2 if sz == 1 else 0.0)
        paint = textured(
            rng,
            "facade",
            pick(rng, [*PALETTE[5:6], (0.80, 0.70, 0.55), (0.72, 0.55, 0.47), (0.66, 0.70, 0.72)]),
            1.25,
            0.3,
        )
        paint = replace(paint, color_c=(0.26, 0.31, 0.37))
        roof = textured(rng, "plain", tint((0.52, 0.34, 0.28), float(rng.uniform(-0.2, 0.2))), 0.4, 0.4)
        base = floor_y - h
        parts = (
            frame.solid((x - w, base, z - d), (x + w, floor_y, z + d), paint),
            frame.solid((x - w - 0.2, base - 0.25, z - d - 0.2), (x + w + 0.2, base, z + d + 0.2), roof),
        )
        out.append(SceneObject(name=f"house {number}", role="background", primitives=parts))
    return out
