"""The nouns of a procedural scene: primitives, materials, objects and the packed form kernels read.

World axes are OpenCV's (x right, y down, z forward), unit metre; the world is the camera frame of
source frame 0. Surfaces are opaque and shaded view-independently, so that a surface point has one
colour from every camera.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from ex4d.core.arrays import Float64, Int64
from ex4d.core.geometry import rotation_about

Shape = Literal["box", "sphere", "cylinder", "cone"]
Pattern = Literal["plain", "check", "planks", "brick", "marble", "foliage", "stripes", "facade", "dots", "sky"]
Role = Literal["background", "occluder", "mover", "sky"]
SceneKind = Literal["room", "outdoor"]
Color = tuple[float, float, float]
Vector = tuple[float, float, float]

SHAPES: tuple[Shape, ...] = ("box", "sphere", "cylinder", "cone")
PATTERNS: tuple[Pattern, ...] = (
    "plain", "check", "planks", "brick", "marble", "foliage", "stripes", "facade", "dots", "sky",
)  # fmt: skip
_GAMMA = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """How a surface looks.

    Attributes:
        pattern: which procedural pattern.
        color_a, color_b, color_c: sRGB, 0–1; their use depends on the pattern.
        scale_m: size of one cell of the pattern, metres.
        contrast: strength of the noise on top, 0–1.
        seed: offsets the noise.
        takes_shadow: darkened by the scene's ground shadows (floors and ground).
    """

    pattern: Pattern
    color_a: Color
    color_b: Color
    color_c: Color = (0.2, 0.2, 0.2)
    scale_m: float = 0.5
    contrast: float = 0.3
    seed: int = 0
    takes_shadow: bool = False

    def packed(self) -> list[float]:
        """The row that kernels read: pattern, scale, contrast, seed, 3 linear colours, takes_shadow."""
        colors = [channel**_GAMMA for color in (self.color_a, self.color_b, self.color_c) for channel in color]
        head = [float(PATTERNS.index(self.pattern)), self.scale_m, self.contrast, float(self.seed)]
        return [*head, *colors, float(self.takes_shadow)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Primitive:
    """One convex solid: the unit shape scaled by `half_m`, turned by `rotation`, moved to `center_m`.

    Unit shapes: box [-1,1]³; sphere of radius 1; cylinder of radius 1 about y, |y| ≤ 1; cone with its
    apex at y = -1 (up) and base radius 1 at y = +1.
    """

    shape: Shape
    center_m: Vector
    half_m: Vector
    material: Material
    rotation: Float64

    def packed(self, rotation: Float64, center: Float64) -> list[float]:
        """World→unit matrix [9], centre [3], half sizes [3], bounding radius."""
        half = np.array(self.half_m)
        to_unit = rotation.T / half[:, None]
        radius = {
            "box": float(np.linalg.norm(half)),
            "sphere": float(half.max()),
            "cylinder": float(np.hypot(max(half[0], half[2]), half[1])),
            "cone": float(np.hypot(max(half[0], half[2]), half[1])),
        }[self.shape]
        return [*to_unit.ravel().tolist(), *center.tolist(), *half.tolist(), radius * (1 + 1e-9)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Motion:
    """A smooth periodic motion: offset = amplitude·(sin(2πt/T + phase) − sin(phase)), plus turns.

    Attributes:
        pivot_m: the point the object turns about, at rest.
        amplitude_m: per axis, metres.
        phase_rad: per axis.
        period_s: T, seconds.
        roll: axis that the object rolls about as it moves along the ground ("x" or "z"), or None.
        roll_radius_m: radius of that rolling.
        swing_rad: amplitude of the turn about y.
    """

    pivot_m: Vector
    amplitude_m: Vector
    phase_rad: Vector
    period_s: float
    roll: Literal["x", "z"] | None = None
    roll_radius_m: float = 1.0
    swing_rad: float = 0.0

    def offset_m(self, time_s: float) -> Float64:
        """float64 [3]: displacement from rest at a time; zero at time 0."""
        phase = np.array(self.phase_rad)
        turn = 2 * np.pi * time_s / self.period_s
        return np.array(self.amplitude_m) * (np.sin(turn + phase) - np.sin(phase))

    def pose(self, time_s: float) -> tuple[Float64, Float64]:
        """Rotation [3,3] about `pivot_m` and offset [3] at a time."""
        offset = self.offset_m(time_s)
        rotation = rotation_about("y", self.swing_rad * float(np.sin(2 * np.pi * time_s / self.period_s)))
        if self.roll == "z":
            # y points down: rolling towards +x turns clockwise as seen along +z.
            rotation = rotation_about("z", offset[0] / self.roll_radius_m) @ rotation
        elif self.roll == "x":
            rotation = rotation_about("x", -offset[2] / self.roll_radius_m) @ rotation
        return rotation, offset


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneObject:
    """Primitives that belong and move together.

    Attributes:
        name: what it is, for people.
        role: background (floor, walls), occluder, mover, or the sky backdrop.
        primitives: at rest (time 0).
        motion: None for static objects.
    """

    name: str
    role: Role
    primitives: tuple[Primitive, ...]
    motion: Motion | None = None


class PackedScene(NamedTuple):
    """A scene at one time, as arrays for the kernels. P primitives, M materials, B shadows, K planes."""

    shape: Int64  # [P] index into SHAPES
    geometry: Float64  # [P,16] see Primitive.packed
    owner: Int64  # [P] index into Scene.objects
    material: Int64  # [P] row of materials
    materials: Float64  # [M,14] see Material.packed
    shadows: Float64  # [B,7] x, z, unit major axis (x, z), semi-major, semi-minor, strength
    planes: Float64  # [K,4] inward normal and offset of the planes that darken what is near them
    light: Float64  # [13] direction to the sun, sun, sky and ground light (linear rgb), reference focal


@dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    """A fixed directional light with a soft sky/ground ambient; colours are linear rgb, about 0–1."""

    to_sun: Vector
    sun: Color
    sky: Color
    ground: Color


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A place with exact geometry.

    Attributes:
        seed: what it was made from.
        kind: ``"room"`` or ``"outdoor"``.
        objects: all of them; `SceneView.object_id` indexes this tuple.
        light: view-independent lighting.
        shadows: float64 [B,7], soft static ground shadows (see `PackedScene`).
        planes: float64 [K,4], floor and walls that darken what is close to them.
        reference_focal_px: patterns are band-limited for a camera of this focal length at the world
            origin (0.9 · 512 px by default), whoever looks: colour never depends on the viewer.
    """

    seed: int
    kind: SceneKind
    objects: tuple[SceneObject, ...]
    light: Light
    shadows: Float64
    planes: Float64
    reference_focal_px: float = 0.9 * 512

    def pack(self, time_s: float) -> PackedScene:
        """The arrays of this scene at a time in seconds."""
        shape: list[int] = []
        geometry: list[list[float]] = []
        owner: list[int] = []
        material: list[int] = []
        rows: dict[Material, int] = {}
        for index, item in enumerate(self.objects):
            turn, offset = (np.eye(3), np.zeros(3)) if item.motion is None else item.motion.pose(time_s)
            pivot = np.zeros(3) if item.motion is None else np.array(item.motion.pivot_m)
            for primitive in item.primitives:
                center = turn @ (np.array(primitive.center_m) - pivot) + pivot + offset
                shape.append(SHAPES.index(primitive.shape))
                geometry.append(primitive.packed(turn @ primitive.rotation, center))
                owner.append(index)
                material.append(rows.setdefault(primitive.material, len(rows)))
        sun = np.array(self.light.to_sun) / np.linalg.norm(self.light.to_sun)
        light = [*sun, *self.light.sun, *self.light.sky, *self.light.ground, self.reference_focal_px]
        return PackedScene(
            shape=np.array(shape, dtype=np.int64),
            geometry=np.array(geometry),
            owner=np.array(owner, dtype=np.int64),
            material=np.array(material, dtype=np.int64),
            materials=np.array([row.packed() for row in rows]),
            shadows=self.shadows,
            planes=self.planes,
            light=np.array(light, dtype=np.float64),
        )

    def ids(self, *roles: Role) -> Int64:
        """int64 [n]: indices of the objects that have one of these roles."""
        return np.array([i for i, item in enumerate(self.objects) if item.role in roles], dtype=np.int64)
