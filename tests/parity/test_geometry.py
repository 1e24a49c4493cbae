"""`official` geometry equals the official reconstruction, step by step.

`EX4D_GEOMETRY_ORACLE=<file>` runs the same tests on another safetensors file of the same keys.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from ex4d.core.camera import Camera
from ex4d.mesh.config import GeometryConfig
from ex4d.mesh.watertight import build_mesh
from helpers import load_safetensors

ORACLE = Path(os.environ.get("EX4D_GEOMETRY_ORACLE", Path(__file__).parents[1] / "data/geometry_oracle.safetensors"))


@pytest.fixture(scope="module")
def oracle() -> dict[str, np.ndarray]:
    return load_safetensors(ORACLE)


def _mesh(oracle: dict[str, np.ndarray], index: int):
    depth = np.ascontiguousarray(oracle["depth"][index])
    height, width = depth.shape
    camera = Camera(K=oracle["K"].astype(np.float64), world_to_camera=np.eye(4), height=height, width=width)
    valid = np.ones(depth.shape, bool)
    return build_mesh(oracle["rgb"][index], depth, valid, camera, config=GeometryConfig(name="official"))


def test_vertices(oracle: dict[str, np.ndarray]) -> None:
    for index in range(len(oracle["depth"])):
        got, want = _mesh(oracle, index).vertices, oracle[f"vertices_{index}"]
        scale = np.maximum(np.abs(want), np.abs(want[:, 2:]) * 1e-3)
        assert np.abs((got - want) / scale).max() <= 1e-5


def test_faces_exactly(oracle: dict[str, np.ndarray]) -> None:
    """Same triangles in the same order; ours wind outward, theirs inward, and our cap is a closed fan."""
    mesh = _mesh(oracle, 0)
    num = 2 * mesh.num_quads
    theirs = oracle["faces"]
    assert np.array_equal(np.roll(mesh.faces[:num, ::-1], 0, axis=1)[: mesh.num_quads], theirs[: mesh.num_quads])
    assert np.array_equal(np.sort(mesh.faces[:num], axis=1), np.sort(theirs[:num], axis=1))
    corners = set(np.unique(theirs[num:]).tolist())
    rows, cols = mesh.grid.shape[1:]
    assert corners == {0, cols - 1, (rows - 1) * cols, rows * cols - 1}
    assert corners <= set(mesh.faces[num:].ravel().tolist())


def test_torn_vertices_and_colours_exactly(oracle: dict[str, np.ndarray]) -> None:
    for index in range(len(oracle["depth"])):
        assert np.array_equal(_mesh(oracle, index).rgba.reshape(-1, 4), oracle[f"rgba_{index}"])


def test_mesh_is_closed_where_the_official_one_is_not(oracle: dict[str, np.ndarray]) -> None:
    assert _mesh(oracle, 0).is_watertight
