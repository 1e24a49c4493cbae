"""Exported meshes are closed, coloured and readable elsewhere."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh
from trimesh.visual.color import ColorVisuals

from ex4d.io.meshes import write_glb, write_ply
from ex4d.mesh.config import GeometryConfig
from ex4d.mesh.watertight import build_mesh
from helpers import random_rgbd, source_camera


def _mesh(name: str):
    config = GeometryConfig(name=name)  # pyright: ignore[reportArgumentType]
    return build_mesh(*random_rgbd(4, 24, 32), source_camera(24, 32), config=config)


@pytest.mark.parametrize("name", ["default", "official"])
def test_ply_is_one_closed_volume(name: str, tmp_path: Path) -> None:
    mesh = _mesh(name)
    write_ply(mesh, tmp_path / "mesh.ply")
    body = trimesh.load(tmp_path / "mesh.ply", process=False)
    assert isinstance(body, trimesh.Trimesh)
    assert body.is_watertight
    assert body.is_winding_consistent
    assert body.is_volume
    assert np.array_equal(body.vertices.astype(np.float32), mesh.vertices)
    assert isinstance(body.visual, ColorVisuals)
    assert np.array_equal(np.asarray(body.visual.vertex_colors), mesh.rgba.reshape(-1, 4))
    assert b"property uchar torn" in (tmp_path / "mesh.ply").read_bytes()[:600]


@pytest.mark.parametrize("name", ["default", "official"])
def test_glb_has_two_primitives_that_close(name: str, tmp_path: Path) -> None:
    mesh = _mesh(name)
    write_glb(mesh, tmp_path / "mesh.glb")
    data = (tmp_path / "mesh.glb").read_bytes()
    tree = json.loads(data[20 : 20 + struct.unpack("<I", data[12:16])[0]])
    materials = [tree["materials"][p["material"]]["name"] for p in tree["meshes"][0]["primitives"]]
    assert len(tree["meshes"]) == 1
    assert materials == ["surface", "torn"]
    body = trimesh.load(tmp_path / "mesh.glb", force="mesh")
    assert isinstance(body, trimesh.Trimesh)
    body.merge_vertices(merge_tex=True, merge_norm=True)
    assert body.is_watertight
    assert body.is_winding_consistent
    assert body.volume > 0


def test_glb_texture_is_the_frame_and_hits_the_vertex(tmp_path: Path) -> None:
    mesh = _mesh("default")
    write_glb(mesh, tmp_path / "mesh.glb")
    scene = trimesh.load_scene(tmp_path / "mesh.glb")
    surface = next(g for g in scene.geometry.values() if g.visual.material.name == "surface")
    image = np.asarray(surface.visual.material.baseColorTexture.convert("RGB"))
    assert np.array_equal(image, mesh.texture)
    point, uv = surface.vertices[100], surface.visual.uv[100]
    x, y = int(uv[0] * 32), int((1 - uv[1]) * 24)
    k = mesh.source.K
    local = point * (1, -1, -1)
    assert (int(k[0, 0] * local[0] / local[2] + k[0, 2]), int(k[1, 1] * local[1] / local[2] + k[1, 2])) == (x, y)
