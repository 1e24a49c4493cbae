"""Meshes: closed, outward, torn where they must be."""

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from ex4d.core.mesh import open_edge_count
from ex4d.errors import ConfigError, DepthError
from ex4d.mesh import kernels
from ex4d.mesh.config import GeometryConfig
from ex4d.mesh.watertight import MeshBuilder, build_mesh
from helpers import random_rgbd, source_camera


@pytest.mark.parametrize("name", ["default", "official"])
@given(seed=st.integers(0, 1000), height=st.integers(3, 30), width=st.integers(3, 30))
@settings(max_examples=25, deadline=None)
def test_every_mesh_is_a_closed_outward_volume(name: str, seed: int, height: int, width: int) -> None:
    frame, depth, valid = random_rgbd(seed, height, width)
    valid[1, 1], depth[1, 1] = True, 2.0
    config = GeometryConfig(name=name)  # pyright: ignore[reportArgumentType]
    mesh = build_mesh(frame, depth, valid, source_camera(height, width), config=config)
    assert mesh.is_watertight
    assert len(mesh.face_torn) == len(mesh.faces)
    body = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    assert body.is_watertight
    assert body.is_winding_consistent
    assert body.volume > 0


def test_edge_count_notices_a_missing_and_a_flipped_face() -> None:
    frame, depth, valid = random_rgbd(0, 6, 6)
    faces = build_mesh(frame, depth, valid, source_camera(6, 6)).faces
    assert open_edge_count(faces) == 0
    assert open_edge_count(faces[1:]) >= 3
    flipped = faces.copy()
    flipped[4] = flipped[4, ::-1]
    assert open_edge_count(flipped) > 0


def test_vertices_sit_on_pixel_centres_at_the_given_depth() -> None:
    frame, depth, _ = random_rgbd(1, 8, 10)
    depth[:] = 2.0
    camera = source_camera(8, 10, 9.0)
    mesh = build_mesh(frame, depth, np.ones((8, 10), bool), camera)
    assert mesh.grid.shape == (3, 10, 12)
    x, y, z = mesh.grid[:, 3, 5]
    assert (x, y, z) == pytest.approx(((4.5 - 5) / 9 * 2, (2.5 - 4) / 9 * 2, 2.0))
    assert (mesh.grid[2, 0] == 4.0).all()
    assert (mesh.grid[2, :, -1] == 4.0).all()


def test_ring_lies_beyond_the_sky() -> None:
    frame, depth, _ = random_rgbd(1, 12, 12)
    depth[:] = 3.0
    depth[:4] = 5000.0
    mesh = build_mesh(frame, depth, np.ones((12, 12), bool), source_camera(12, 12))
    assert mesh.grid[2].max() == mesh.grid[2, 0, 0] > 5000


def test_only_faces_across_the_step_are_torn() -> None:
    frame = np.zeros((10, 12, 3), np.uint8)
    depth = np.full((10, 12), 2.0, np.float32)
    depth[:, 6:] = 4.0
    inner = build_mesh(frame, depth, np.ones((10, 12), bool), source_camera(10, 12)).quad_torn[1:-1, 1:-1]
    assert (inner[:, 5] == 3).all()
    assert not np.delete(inner, 5, axis=1).any()


@pytest.mark.parametrize("size", [64, 256, 1024])
def test_tearing_does_not_depend_on_resolution(size: int) -> None:
    """A 3 % step is surface, an 8 % step is an edge, at 64 px as at 1024 px."""
    frame = np.zeros((8, size, 3), np.uint8)
    camera = source_camera(8, size)
    for ratio, torn in ((1.03, False), (1.08, True)):
        depth = np.full((8, size), 2.0, np.float32)
        depth[:, size // 2 :] = 2.0 * ratio
        quads = build_mesh(frame, depth, np.ones((8, size), bool), camera).quad_torn[2, size // 2]
        assert bool(quads) == torn, (size, ratio)


def test_invalid_pixels_are_filled_from_behind_and_torn() -> None:
    depth = np.full((9, 9), 1.0, np.float32)
    depth[:, 5:] = 3.0
    valid = np.ones((9, 9), bool)
    valid[3:6, 4] = False
    depth[~valid] = 0
    mesh = build_mesh(np.zeros((9, 9, 3), np.uint8), depth, valid, source_camera(9, 9))
    assert (mesh.grid[2, 4:7, 5] == 3.0).all()
    assert (mesh.quad_torn[4:6, 4:6] == 3).all()
    with pytest.raises(DepthError, match="at least one valid depth"):
        build_mesh(np.zeros((9, 9, 3), np.uint8), depth, np.zeros((9, 9), bool), source_camera(9, 9))


def test_fill_takes_the_nearest_layer_first() -> None:
    depth = np.array([[1, 0, 0, 0, 9, 2]], np.float32)
    out = np.empty_like(depth)
    kernels.fill_invalid(depth, depth > 0, out)
    assert out.tolist() == [[1, 1, 9, 9, 9, 2]]


def test_closed_form_angle_rule_equals_arccos() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(4000, 3, 3)) * rng.uniform(0.01, 1, (4000, 1, 3))
    edges = np.stack([np.roll(points, -1, axis=1) - points], 0)[0]
    lengths = np.linalg.norm(edges, axis=2)
    cosines = np.stack(
        [-(edges[:, k] * edges[:, k - 1]).sum(1) / (lengths[:, k] * lengths[:, k - 1]) for k in range(3)], axis=1
    )
    smallest = np.degrees(np.arccos(np.clip(cosines, -1, 1))).min(axis=1)
    limit = np.float32(4 * np.cos(np.radians(10.0)) ** 2)
    squared = (lengths**2).astype(np.float32)
    ours = np.array([bool(kernels.is_sliver(p, q, r, limit)) for p, q, r in squared])
    clear = np.abs(smallest - 10) > 1e-3
    assert np.array_equal(ours[clear], (smallest < 10)[clear])


def test_builder_reuse_gives_the_same_mesh() -> None:
    builder = MeshBuilder()
    camera = source_camera(20, 30)
    one = builder.build(*random_rgbd(1, 20, 30), camera)
    builder.build(*random_rgbd(2, 20, 30), camera)
    again = builder.build(*random_rgbd(1, 20, 30), camera)
    assert np.array_equal(one.grid, again.grid)
    assert np.array_equal(one.quad_torn, again.quad_torn)


@pytest.mark.parametrize(("field", "value"), [("name", "best"), ("tear_angle_deg", 80.0), ("tear_disparity_jump", 1.5)])
def test_config_names_the_bad_field(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"geometry.{field}"):
        GeometryConfig(**{field: value})  # pyright: ignore[reportArgumentType]
