"""The fast renderer against the slow one, and the promises it makes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ex4d.core.camera import Camera
from ex4d.core.geometry import look_at
from ex4d.mesh.config import GeometryConfig
from ex4d.mesh.watertight import build_mesh
from ex4d.render.rasterizer import Rasterizer, render_mesh
from ex4d.render.reference import render_reference
from helpers import orbit_camera, random_rgbd, source_camera


def _mesh(seed: int, height: int, width: int, name: str = "default"):
    frame, depth, valid = random_rgbd(seed, height, width)
    return build_mesh(frame, depth, valid, source_camera(height, width), config=GeometryConfig(name=name))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["default", "official"])
@pytest.mark.parametrize("yaw_deg", [0.0, 17.0, -45.0, 90.0, 140.0])
def test_equals_reference(name: str, yaw_deg: float) -> None:
    mesh = _mesh(3, 26, 34, name)
    target = orbit_camera(mesh.source, yaw_deg, 1.6)
    fast = render_mesh(mesh, target, with_faces=True)
    slow = render_reference(mesh, target)
    assert fast.face_id is not None
    assert slow.face_id is not None
    assert np.array_equal(fast.face_id, slow.face_id)
    assert np.array_equal(fast.observed, slow.observed)
    assert np.abs(fast.rgb.astype(int) - slow.rgb).max() <= 1
    np.testing.assert_allclose(fast.depth, slow.depth, rtol=2e-5)


@pytest.mark.parametrize("name", ["default", "official"])
def test_equals_reference_when_the_near_plane_cuts(name: str) -> None:
    mesh = _mesh(5, 20, 24, name)
    eye = np.array([0.3, 0.2, 1.4])
    target = Camera(K=mesh.source.K, world_to_camera=look_at(eye, np.array([0.4, 1.0, 2.0])), height=28, width=20)
    fast = render_mesh(mesh, target, with_faces=True)
    slow = render_reference(mesh, target)
    assert fast.face_id is not None
    assert slow.face_id is not None
    # clipped corners are rounded from float64 here and float32 there: a sample on an edge may flip
    assert (fast.face_id != slow.face_id).mean() < 0.01
    assert (fast.observed != slow.observed).mean() < 0.01


@given(
    seed=st.integers(0, 10_000),
    height=st.integers(4, 40),
    width=st.integers(4, 40),
    focal=st.floats(8, 400),
    yaw=st.floats(-180, 180),
    x=st.floats(-50, 50),
)
@settings(max_examples=60, deadline=None)
def test_source_view_is_the_frame_bit_for_bit(
    seed: int, height: int, width: int, focal: float, yaw: float, x: float
) -> None:
    frame, depth, valid = random_rgbd(seed, height, width)
    valid[0, 0] = True
    depth[0, 0] = 1.5
    base = source_camera(height, width, focal)
    pose = look_at(np.array([x, 0.3, -1.0]), np.array([x + np.sin(yaw), 0.5, -1.0 + np.cos(yaw)]))
    camera = Camera(K=base.K, world_to_camera=pose, height=height, width=width)
    view = render_mesh(build_mesh(frame, depth, valid, camera), camera)
    assert view.observed.all()
    assert np.array_equal(view.rgb, frame)
    np.testing.assert_allclose(view.depth[valid], depth[valid], rtol=1e-5)


def test_official_source_view_has_the_half_pixel_fault() -> None:
    view = render_mesh(_mesh(1, 32, 32, "official"), source_camera(32, 32))
    assert view.observed.mean() < 0.99


def test_default_geometry_has_no_dark_fringe() -> None:
    frame = np.full((40, 40, 3), 200, np.uint8)
    depth = np.full((40, 40), 5.0, np.float32)
    depth[10:30, 10:30] = 1.0
    mesh = build_mesh(frame, depth, np.ones((40, 40), bool), source_camera(40, 40))
    view = render_mesh(mesh, orbit_camera(mesh.source, 20, 1.0))
    assert 0.2 < view.observed.mean() < 0.95
    assert (view.rgb[view.observed] == 200).all()


def test_unobserved_is_black_and_without_depth() -> None:
    view = render_mesh(_mesh(2, 30, 40), orbit_camera(source_camera(30, 40), 60, 1.5))
    assert (~view.observed).any()
    assert not view.rgb[~view.observed].any()
    assert not view.depth[~view.observed].any()


def test_reused_buffers_do_not_leak_between_frames() -> None:
    rasterizer = Rasterizer()
    mesh, other = _mesh(1, 30, 40), _mesh(2, 30, 40)
    target = orbit_camera(mesh.source, 40, 1.5)
    fresh = rasterizer.render(mesh, target)
    rasterizer.render(other, orbit_camera(mesh.source, -70, 1.5), with_faces=True)
    again = rasterizer.render(mesh, target)
    assert np.array_equal(fresh.rgb, again.rgb)
    assert np.array_equal(fresh.depth, again.depth)


def test_supersampling_averages_observed_samples_only() -> None:
    mesh = _mesh(4, 32, 32)
    target = orbit_camera(mesh.source, 25, 1.5)
    smooth = render_mesh(mesh, target, supersample=2)
    plain = render_mesh(mesh, target)
    assert smooth.rgb.shape == plain.rgb.shape
    assert abs(smooth.observed.mean() - plain.observed.mean()) < 0.05
    assert not smooth.rgb[~smooth.observed].any()
    with pytest.raises(ValueError, match="expected 1 or 2"):
        render_mesh(mesh, target, supersample=3)


def test_camera_outside_the_frustum_sees_only_walls() -> None:
    mesh = _mesh(6, 24, 24)
    behind = Camera(
        K=mesh.source.K,
        world_to_camera=look_at(np.array([0.0, 0, 30.0]), np.zeros(3)),
        height=24,
        width=24,
    )
    view = render_mesh(mesh, behind, with_faces=True)
    assert not view.observed.any()
    assert view.face_id is not None
    assert (view.face_id == 2 * mesh.num_quads).any()
