"""Seeded scenes: a place, a subject, occluders around it and things that move.

Layout rules, so that every camera of an orbit of ±90° about the subject stands in free space: nothing
taller than the cameras' clearance lies on the ring of radius p about the pivot (0, 0, p); things stand
inside 0.67 p or outside 1.36 p of it. The middle third of the frame belongs to the subject, so that
the default pivot (20th-percentile depth there) is the subject's front.
"""

from dataclasses import dataclass, field

import numpy as np

from ex4d.core.arrays import Float64
from ex4d.core.camera import Camera, pinhole
from ex4d.core.seeding import make_rng
from ex4d.errors import ConfigError
from ex4d.scene.catalogue import OUTDOOR_THINGS, ROOM_THINGS, ball, balloon, cart, figure, post, statue
from ex4d.scene.intersect import trace
from ex4d.scene.model import Motion, PackedScene, Scene, SceneKind, SceneObject
from ex4d.scene.places import Place, outdoor, room
from ex4d.scene.render import render_scene
from ex4d.scene.things import Rng, Thing, place

_CLEAR_HEIGHT_M = 1.05  # a thing lower than this passes under cameras about 1.4 m above the floor
_HALF_VIEW = 0.5 / 0.9  # tangent of half the field of view at f = 0.9 · max(W, H)
_MIN_VISIBLE = 7
_ATTEMPTS = 200


def make_scene(seed: int, *, kind: SceneKind | None = None) -> Scene:
    """The scene of a seed, always the same.

    Args:
        seed: any integer >= 0.
        kind: ``"room"`` or ``"outdoor"``; None alternates by seed (even: room, odd: outdoor).

    Raises:
        ConfigError: if the seed is negative or the kind unknown.
    """
    if seed < 0:
        raise ConfigError("a scene seed >= 0", str(seed), "pass a non-negative integer")
    chosen: SceneKind = kind if kind is not None else ("room", "outdoor")[seed % 2]
    if chosen not in ("room", "outdoor"):
        raise ConfigError("scene kind 'room' or 'outdoor'", repr(kind), "pass one of them or None")
    for attempt in range(_ATTEMPTS):
        scene = _draw(make_rng(seed, "scene", chosen, attempt), seed, chosen)
        if scene is not None and _is_good(scene):
            return scene
    raise AssertionError(f"no layout for scene seed {seed} in {_ATTEMPTS} attempts")


def default_camera(height: int, width: int) -> Camera:
    """The source camera: at the world origin, f = 0.9 · max(W, H), principal point in the middle."""
    K = pinhole(focal_px=0.9 * max(height, width), height=height, width=width)
    return Camera(K=K, world_to_camera=np.eye(4), height=height, width=width)


def pivot_depth(depth: Float64) -> float:
    """20th-percentile depth of the central third of a depth map [H,W], metres."""
    h, w = depth.shape
    return float(np.percentile(depth[h // 3 : h - h // 3, w // 3 : w - w // 3], 20))


@dataclass(slots=True, kw_only=True)
class _Layout:
    """Circles on the floor that are taken: (x, z, radius), and what stands there."""

    pivot_m: float
    place: Place
    circles: list[tuple[float, float, float]] = field(default_factory=list)
    objects: list[SceneObject] = field(default_factory=list)
    shadows: list[list[float]] = field(default_factory=list)

    def is_free(self, x: float, z: float, radius: float, *, tall: bool) -> bool:
        """Whether a circle meets nothing, keeps off the walls, the orbit ring and the middle of the view."""
        walls = self.place.planes[np.abs(self.place.planes[:, 1]) < 0.5]
        if (walls[:, :3] @ (x, 0.0, z) + walls[:, 3] < radius + 0.12).any():
            return False
        if any(np.hypot(x - cx, z - cz) < radius + r + 0.1 for cx, cz, r in self.circles):
            return False
        distance = float(np.hypot(x, z - self.pivot_m))
        ring = distance + radius > 0.67 * self.pivot_m and distance - radius < 1.36 * self.pivot_m
        if tall and ring:
            return False
        # Nothing tall in front of the subject: it would hide the space that an orbit looks through.
        if tall and (z - radius < self.pivot_m + 0.1 or (z < self.pivot_m + 0.6 and abs(x) < 0.36 * _HALF_VIEW * z)):
            return False
        if z < self.pivot_m and abs(x) - 0.5 * radius < 0.3 * _HALF_VIEW * z:
            return False
        return z - radius > 0.42 * self.pivot_m or abs(x) - radius > z + 0.5

    def take(self, item: Thing, at: tuple[float, float], yaw_rad: float, role: str) -> None:
        """Put a static thing down with its soft shadow."""
        x, z = at
        parts = place(item, (x, self.place.floor_y_m, z), yaw_rad)
        self.circles.append((x, z, item.radius_m))
        self.objects.append(SceneObject(name=item.name, role="occluder", primitives=parts))
        self.shadows += _shadow_of(item, at, self.place.light.to_sun)


def _shadow_of(item: Thing, at: tuple[float, float], to_sun: tuple[float, float, float]) -> list[list[float]]:
    """Rows of PackedScene.shadows: a contact shadow and one stretched away from the sun."""
    x, z = at
    away = np.array([-to_sun[0], -to_sun[2]])
    length = float(np.linalg.norm(away))
    away = away / length if length > 1e-6 else np.array([1.0, 0.0])
    reach = min(0.55 * item.height_m * length / -to_sun[1], 1.3)
    r = 0.85 * item.radius_m
    contact = [x, z, 1.0, 0.0, 1.25 * r + 0.12, 1.25 * r + 0.12, 0.45]
    cast = [x + away[0] * reach, z + away[1] * reach, away[0], away[1], reach + r + 0.2, r + 0.2, 0.42]
    return [contact, cast]


def _draw(rng: Rng, seed: int, kind: SceneKind) -> Scene | None:
    """One attempt at a layout; None if the things did not fit."""
    pivot = float(rng.uniform(2.45, 3.0))
    layout = _Layout(pivot_m=pivot, place=(room if kind == "room" else outdoor)(rng, pivot))
    subject = (statue, figure)[int(rng.integers(2))](rng)
    depth = 0.4 if subject.name == "statue" else 0.3
    layout.take(subject, (float(rng.uniform(-0.1, 0.1)), pivot + depth), float(rng.uniform(-0.35, 0.35)), "occluder")
    if not _add_movers(layout, rng):
        return None
    choices = ROOM_THINGS if kind == "room" else OUTDOOR_THINGS
    twice = [choices[i] for _ in range(2) for i in rng.permutation(len(choices))]
    inner, outer = int(rng.integers(4, 6)), int(rng.integers(5, 8))
    for builder in (post, *(builder for builder in twice if builder is not post), post):
        item = builder(rng)
        zone = "inner" if inner > 0 and item.radius_m < 0.62 else "outer"
        if (inner if zone == "inner" else outer) <= 0:
            continue
        spot = _find_spot(layout, rng, item, zone)
        if spot is not None:
            layout.take(item, spot, float(rng.uniform(0, 2 * np.pi)), "occluder")
            inner, outer = (inner - 1, outer) if zone == "inner" else (inner, outer - 1)
    return Scene(
        seed=seed,
        kind=kind,
        objects=(*layout.place.objects, *layout.objects),
        light=layout.place.light,
        shadows=np.array(layout.shadows),
        planes=layout.place.planes,
    )


def _find_spot(layout: _Layout, rng: Rng, item: Thing, zone: str) -> tuple[float, float] | None:
    """A free place in the source camera's view, or None after 80 tries."""
    p = layout.pivot_m
    low, high = (0.5 * p, 1.72 * p) if zone == "inner" else (1.6 * p, 3.6 * p)
    for _ in range(80):
        z = float(rng.uniform(low, high))
        x = float(rng.uniform(-1.02, 1.02)) * _HALF_VIEW * z
        if layout.is_free(x, z, item.radius_m, tall=item.height_m > _CLEAR_HEIGHT_M):
            return x, z
    return None


def _add_movers(layout: _Layout, rng: Rng) -> bool:
    """A ball or cart on the floor, a floating balloon, and both kinds of ground mover sometimes."""
    ground = [ball, cart] if rng.uniform() < 0.5 else [(ball, cart)[int(rng.integers(2))]]
    for builder in ground:
        item = builder(rng)
        along = "x" if builder is cart or rng.uniform() < 0.7 else "z"
        if not _add_runner(layout, rng, item, along):
            return False
    return _add_floater(layout, rng, balloon(rng))


def _add_runner(layout: _Layout, rng: Rng, item: Thing, along: str) -> bool:
    """Something that runs to and fro along x or z on a free strip of floor."""
    p = layout.pivot_m
    for _ in range(200):
        z, reach = float(rng.uniform(0.66 * p, 1.75 * p)), float(rng.uniform(0.45, 0.8))
        x = float(rng.uniform(-0.8, 0.8)) * _HALF_VIEW * z
        step = np.linspace(-reach, reach, 7)
        strip = [(x + s, z) if along == "x" else (x, z + s) for s in step.tolist()]
        if not all(layout.is_free(cx, cz, item.radius_m, tall=False) for cx, cz in strip):
            continue
        phase = float(rng.uniform(0, 2 * np.pi))
        shift = reach * np.sin(phase)
        at = (x + shift, z) if along == "x" else (x, z + shift)
        layout.circles += [(cx, cz, item.radius_m) for cx, cz in strip]
        parts = place(item, (at[0], layout.place.floor_y_m, at[1]), 0.0)
        motion = Motion(
            pivot_m=parts[0].center_m,
            amplitude_m=(reach, 0.0, 0.0) if along == "x" else (0.0, 0.0, reach),
            phase_rad=(phase, 0.0, phase),
            period_s=float(rng.uniform(3.0, 5.0)),
            roll=None if item.name == "cart" else ("z" if along == "x" else "x"),
            roll_radius_m=parts[0].half_m[0],
        )
        layout.objects.append(SceneObject(name=item.name, role="mover", primitives=parts, motion=motion))
        return True
    return False


def _add_floater(layout: _Layout, rng: Rng, item: Thing) -> bool:
    """A balloon that drifts inside the ring, behind the subject and to its side."""
    p = layout.pivot_m
    for _ in range(200):
        z = float(rng.uniform(1.14 * p, 1.5 * p))
        x = float(rng.uniform(-0.85, 0.85)) * _HALF_VIEW * z
        if abs(x) < 0.75 or np.hypot(x, z - p) > 0.52 * p:
            continue
        parts = place(item, (x, layout.place.floor_y_m + float(rng.uniform(0.0, 0.35)), z), 0.0)
        motion = Motion(
            pivot_m=parts[0].center_m,
            amplitude_m=(0.22, 0.14, 0.24),
            phase_rad=tuple(rng.uniform(0, 2 * np.pi, 3).tolist()),
            period_s=float(rng.uniform(3.5, 5.5)),
            swing_rad=0.5,
        )
        layout.objects.append(SceneObject(name=item.name, role="mover", primitives=parts, motion=motion))
        layout.circles.append((x, z, 0.3))
        return True
    return False


def _is_good(scene: Scene) -> bool:
    """Enough is visible, the pivot is the subject, and the orbit's eyes stand in free space."""
    view = render_scene(scene, default_camera(96, 96), 0.0)
    pixels = np.bincount(view.object_id.ravel(), minlength=len(scene.objects))
    if (pixels[scene.ids("occluder")] >= 14).sum() < _MIN_VISIBLE or (pixels[scene.ids("mover")] >= 10).sum() < 2:
        return False
    if not 0.01 <= view.sky.mean() <= 0.4:
        return False
    pivot = pivot_depth(view.depth.astype(np.float64))
    return 2.2 <= pivot <= 3.4 and _orbit_clearance(scene.pack(0.0), pivot) > 0.3


def _orbit_clearance(packed: PackedScene, pivot: float) -> float:
    """Smallest free distance found in 26 directions from the eyes of a ±90° orbit, metres."""
    axes = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1], [-1, 0, 1]), axis=-1).reshape(-1, 3).astype(float)
    directions = [tuple((d / np.linalg.norm(d)).tolist()) for d in axes if d.any()]
    nearest = np.inf
    for angle in np.radians(np.arange(-90, 91, 7.5)):
        eye = (float(pivot * np.sin(angle)), 0.0, float(pivot - pivot * np.cos(angle)))
        nearest = min(nearest, *(trace(packed, eye, direction)[0] for direction in directions))
    return nearest
