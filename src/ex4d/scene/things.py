"""Things: primitives that stand on a floor at (0, 0), and the tools to build, measure and place them.

Heights are measured upwards from the floor here; `place` moves a thing into the world, where y points
down.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ex4d.core.arrays import Float64
from ex4d.core.geometry import rotation_about
from ex4d.scene.model import Color, Material, Pattern, Primitive, Shape, Vector

Rng = np.random.Generator


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """Primitives on a floor at the origin, the radius of the circle they cover, and their height [m]."""

    name: str
    primitives: tuple[Primitive, ...]
    radius_m: float
    height_m: float


def tint(color: Color, amount: float) -> Color:
    """Lighter (amount > 0) or darker (< 0), clipped to 0–1."""
    r, g, b = (min(max(channel * (1 + amount), 0.0), 1.0) for channel in color)
    return (r, g, b)


def pick(rng: Rng, colors: Sequence[Color]) -> Color:
    """One of the colours, slightly varied."""
    return tint(colors[int(rng.integers(len(colors)))], float(rng.uniform(-0.08, 0.08)))


def textured(
    rng: Rng, pattern: Pattern, color: Color, scale_m: float, contrast: float = 0.3, *, spread: float = 0.2
) -> Material:
    """A material of two shades of a colour, `spread` darker and lighter than it."""
    return Material(
        pattern=pattern,
        color_a=tint(color, -spread),
        color_b=tint(color, spread),
        color_c=tint(color, -0.5),
        scale_m=scale_m,
        contrast=contrast,
        seed=int(rng.integers(1, 1 << 20)),
    )


def solid(shape: Shape, at: Vector, half: Vector, material: Material, rotation: Float64 | None = None) -> Primitive:
    """A primitive at (x, height above the floor, z) with half sizes; world y points down."""
    turn = np.eye(3) if rotation is None else rotation
    return Primitive(shape=shape, center_m=(at[0], -at[1], at[2]), half_m=half, material=material, rotation=turn)


def thing(name: str, primitives: Sequence[Primitive]) -> Thing:
    """Measure primitives: the radius and height of what they cover (corners of their oriented boxes)."""
    radius = height = 0.0
    for item in primitives:
        corners = np.stack(np.meshgrid(*[(-h, h) for h in item.half_m]), axis=-1).reshape(-1, 3)
        if item.shape != "box":
            corners[:, [0, 2]] *= np.sqrt(0.5)  # a round base reaches its half size, not its box's corner
        points = corners @ item.rotation.T + item.center_m
        radius = max(radius, float(np.hypot(points[:, 0], points[:, 2]).max()))
        height = max(height, float(-points[:, 1].min()))
    return Thing(name=name, primitives=tuple(primitives), radius_m=radius, height_m=height)


def place(item: Thing, at: Vector, yaw_rad: float) -> tuple[Primitive, ...]:
    """Turn about the vertical and move so that the thing's floor origin is at world `at`."""
    turn = rotation_about("y", yaw_rad)
    shift = np.array(at)
    out: list[Primitive] = []
    for primitive in item.primitives:
        x, y, z = (turn @ np.array(primitive.center_m) + shift).tolist()
        out.append(replace(primitive, center_m=(x, y, z), rotation=turn @ primitive.rotation))
    return tuple(out)
