"""Rendered views against closed forms, and the same point seen from two cameras."""

import numpy as np
import pytest

from ex4d.core.arrays import Float64
from ex4d.core.camera import Camera, pinhole
from ex4d.core.geometry import look_at, pixel_centers, rotation_about, unproject
from ex4d.errors import ConfigError
from ex4d.scene.generate import default_camera, make_scene
from ex4d.scene.intersect import trace, world_normal
from ex4d.scene.model import Light, Material, Primitive, Scene, SceneObject, Shape
from ex4d.scene.patterns import shade
from ex4d.scene.render import render_scene, scene_depth

PAINT = Material(pattern="plain", color_a=(0.4, 0.4, 0.4), color_b=(0.6, 0.6, 0.6), seed=3)


def _scene(*primitives: Primitive) -> Scene:
    """One object a primitive, neutral light."""
    return Scene(
        seed=0,
        kind="room",
        objects=tuple(SceneObject(name=p.shape, role="occluder", primitives=(p,)) for p in primitives),
        light=Light(to_sun=(0.3, -1, -0.5), sun=(0.5, 0.5, 0.5), sky=(0.4, 0.4, 0.4), ground=(0.3, 0.3, 0.3)),
        shadows=np.zeros((0, 7)),
        planes=np.zeros((0, 4)),
    )


def _solid(shape: Shape, center: Float64, half: Float64, rotation: Float64) -> Primitive:
    x, y, z = center.tolist()
    a, b, c = half.tolist()
    return Primitive(shape=shape, center_m=(x, y, z), half_m=(a, b, c), material=PAINT, rotation=rotation)


def _camera(size: int = 65) -> Camera:
    eye, aim = np.array([0.7, -0.4, -1.0]), np.array([0.0, 0.1, 3.0])
    return Camera(
        K=pinhole(focal_px=60.0, height=size, width=size), world_to_camera=look_at(eye, aim), height=size, width=size
    )


def _unit_rays(camera: Camera) -> Float64:
    """World directions [H,W,3] of pixel centres with camera z = 1."""
    pixels = pixel_centers(camera.height, camera.width)
    return unproject(camera, pixels, np.ones(pixels.shape[:2])) - camera.center


def test_sphere_depth_is_the_closed_form() -> None:
    camera, center, radius = _camera(), np.array([0.1, 0.0, 3.0]), 1.1
    wall = _solid("box", np.array([0.0, 0.0, 30.0]), np.array([60.0, 60.0, 1.0]), np.eye(3))
    view = render_scene(_scene(_solid("sphere", center, np.full(3, radius), np.eye(3)), wall), camera, 0.0)
    rays = _unit_rays(camera)
    oc = camera.center - center
    a, b, c = (rays**2).sum(-1), rays @ oc, oc @ oc - radius**2
    square = b * b - a * c
    hit = square > 0
    np.testing.assert_array_equal(view.object_id == 0, hit)
    expected = (-b[hit] - np.sqrt(square[hit])) / a[hit]
    np.testing.assert_allclose(view.depth[hit], expected, rtol=1e-6)
    np.testing.assert_allclose(view.depth[~hit], (29.0 - camera.center[2]) / rays[~hit][:, 2], rtol=1e-6)


@pytest.mark.parametrize("shape", ["box", "sphere", "cylinder", "cone"])
def test_hits_lie_on_the_surface_and_nothing_is_before_them(shape: Shape) -> None:
    """Every hit satisfies the shape's implicit equation; no earlier point of the ray is inside."""
    turn = rotation_about("y", 0.6) @ rotation_about("x", 0.35)
    center, half = np.array([0.1, 0.0, 3.0]), np.array([0.9, 1.2, 0.6])
    camera = _camera(33)
    packed = _scene(_solid(shape, center, half, turn)).pack(0.0)
    origin, hits = tuple(camera.center.tolist()), 0
    for ray in _unit_rays(camera).reshape(-1, 3):
        t, which = trace(packed, origin, tuple(ray.tolist()))
        before = np.linspace(0.0, min(t, 10.0), 200)[:-1]
        inside = _outside_by(shape, ((camera.center + before[:, None] * ray - center) @ turn) / half) < -1e-6
        assert not inside.any()
        if which < 0:
            continue
        hits += 1
        unit = ((camera.center + t * ray - center) @ turn) / half
        assert abs(_outside_by(shape, unit[None])[0]) < 1e-9
        normal = world_normal(packed.shape[0], packed.geometry[0], tuple(unit.tolist()))
        assert np.dot(normal, ray) < 1e-9
        assert abs(np.linalg.norm(normal) - 1) < 1e-12
    assert 60 < hits < 1000


def _outside_by(shape: str, p: Float64) -> Float64:
    """Implicit function [n] of a unit shape at points [n,3]: negative inside, zero on the surface."""
    rho = np.hypot(p[:, 0], p[:, 2])
    if shape == "box":
        return np.abs(p).max(axis=1) - 1
    if shape == "sphere":
        return np.linalg.norm(p, axis=1) - 1
    if shape == "cylinder":
        return np.maximum(rho - 1, np.abs(p[:, 1]) - 1)
    return np.maximum(rho - 0.5 * (1 + p[:, 1]), np.abs(p[:, 1]) - 1)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_surface_point_has_one_colour_from_everywhere(seed: int) -> None:
    """Hits of a second view, looked at by exact rays of the source: same colour to one level."""
    scene = make_scene(seed)
    size = 96
    target = Camera(
        K=pinhole(focal_px=80.0, height=size, width=size),
        world_to_camera=look_at(np.array([1.3, -0.2, 0.4]), np.array([0.0, 0.0, 2.7])),
        height=size,
        width=size,
    )
    packed, view = scene.pack(0.7), render_scene(scene, target, 0.7)
    rays, eye = _unit_rays(target), target.center
    compared = 0
    for y in range(0, size, 3):
        for x in range(0, size, 3):
            t, which = trace(packed, tuple(eye.tolist()), tuple(rays[y, x].tolist()))
            point = eye + t * rays[y, x]
            s, first = trace(packed, (0.0, 0.0, 0.0), tuple(point.tolist()))
            if abs(s - 1) > 1e-9 or first != which:
                continue
            seen = np.array(shade(packed, first, tuple((s * point).tolist())))
            assert np.abs(seen - view.rgb[y, x]).max() <= 1.0
            compared += 1
    assert compared > 300


def test_culling_and_order_change_nothing() -> None:
    """The tiled renderer finds what a plain trace over all primitives finds."""
    for seed in (0, 1):
        scene = make_scene(seed)
        camera = Camera(
            K=pinhole(focal_px=70.0, height=72, width=90),
            world_to_camera=look_at(np.array([2.2, -0.5, 1.9]), np.array([0.0, 0.3, 2.8])),
            height=72,
            width=90,
        )
        view, packed = render_scene(scene, camera, 0.3), scene.pack(0.3)
        rays, eye = _unit_rays(camera), tuple(camera.center.tolist())
        for y in range(72):
            for x in range(90):
                t, which = trace(packed, eye, tuple(rays[y, x].tolist()))
                assert packed.owner[which] == view.object_id[y, x]
                assert abs(t / view.depth[y, x] - 1) < 1e-6


def test_supersampling_changes_colour_only() -> None:
    scene, camera = make_scene(2), default_camera(64, 80)
    plain, fine = render_scene(scene, camera, 0.2), render_scene(scene, camera, 0.2, supersample=3)
    np.testing.assert_array_equal(plain.depth, fine.depth)
    np.testing.assert_array_equal(plain.object_id, fine.object_id)
    np.testing.assert_array_equal(plain.depth, scene_depth(scene, camera, 0.2))
    assert (plain.rgb != fine.rgb).any()
    assert np.median(np.abs(plain.rgb.astype(int) - fine.rgb)) <= 1


def test_sky_is_far_and_named() -> None:
    scene = make_scene(1)
    view = render_scene(scene, default_camera(96, 96), 0.0)
    assert view.sky.mean() > 0.05
    assert (view.depth[view.sky] > 35).all()
    assert (view.depth[~view.sky] < 35).all()
    assert set(np.unique(view.object_id[view.sky]).tolist()) == set(scene.ids("sky").tolist())


@pytest.mark.parametrize(("supersample", "time_s"), [(0, 0.0), (9, 0.0), (1, float("nan"))])
def test_refuses_bad_arguments(supersample: int, time_s: float) -> None:
    with pytest.raises(ConfigError, match="got"):
        render_scene(make_scene(0), default_camera(8, 8), time_s, supersample=supersample)
