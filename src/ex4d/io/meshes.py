"""Depth watertight meshes as files: PLY (one closed mesh) and GLB (one mesh, two primitives)."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from PIL import Image
from trimesh.exchange.gltf import export_glb
from trimesh.exchange.ply import export_ply
from trimesh.visual.color import ColorVisuals
from trimesh.visual.material import PBRMaterial
from trimesh.visual.texture import TextureVisuals

from ex4d.core.arrays import Bool, Int32
from ex4d.core.mesh import DepthMesh
from ex4d.io.atomic import atomic_path

_GL_FROM_CV = np.diag([1.0, -1.0, -1.0])
"""glTF looks down −z with y up: OpenCV axes turned half a turn about x (winding is kept)."""


def write_ply(mesh: DepthMesh, path: Path) -> None:
    """One closed mesh, OpenCV axes, world coordinates, binary little-endian.

    Vertices carry RGBA (alpha 0: no colour is known), faces the property ``torn`` (1: an occluder).
    """
    body = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False, validate=False)
    body.visual = ColorVisuals(body, vertex_colors=mesh.rgba.reshape(-1, 4))
    body.face_attributes["torn"] = mesh.face_torn.astype(np.uint8)
    data = export_ply(body, vertex_normal=False)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_glb(mesh: DepthMesh, path: Path) -> None:
    """One glTF mesh with the primitives ``surface`` (textured with the frame) and ``torn`` (black).

    glTF axes (y up, looking down −z). Together the two primitives are closed: they repeat the vertices
    they share, so merge vertices by position to see one closed mesh.
    """
    torn = mesh.face_torn
    texture = _png(mesh.texture)
    surface_material = PBRMaterial(
        name="surface", baseColorTexture=texture, metallicFactor=0.0, roughnessFactor=1.0, doubleSided=True
    )
    torn_material = PBRMaterial(
        name="torn", baseColorFactor=[0, 0, 0, 255], metallicFactor=0.0, roughnessFactor=1.0, doubleSided=True
    )
    scene = trimesh.Scene()
    for name, keep, material in (("surface", ~torn, surface_material), ("torn", torn, torn_material)):
        part = _submesh(mesh, mesh.faces, keep, material)
        if part is not None:
            scene.add_geometry(part, geom_name=name, node_name=name)
    data = export_glb(scene, include_normals=False, tree_postprocessor=_join_primitives)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def _png(frame: np.ndarray) -> Image.Image:
    """The frame as an image that trimesh will embed losslessly."""
    buffer = BytesIO()
    Image.fromarray(frame).save(buffer, format="PNG", compress_level=1)
    buffer.seek(0)
    return Image.open(buffer)


def _submesh(mesh: DepthMesh, faces: Int32, keep: Bool, material: PBRMaterial) -> trimesh.Trimesh | None:
    """The kept faces with the vertices they use; None if there are none."""
    used, local = np.unique(faces[keep], return_inverse=True)
    if used.size == 0:
        return None
    height, width = mesh.texture.shape[:2]
    texture_px = mesh.texture_px[used]
    # trimesh wants v upwards and flips it back on export
    uv = np.stack([texture_px[:, 0] / width, 1 - texture_px[:, 1] / height], axis=1)
    vertices = mesh.vertices[used] @ _GL_FROM_CV.astype(np.float32)
    return trimesh.Trimesh(
        vertices,
        local.reshape(-1, 3),
        visual=TextureVisuals(uv=uv, material=material),
        process=False,
        validate=False,
    )


def _join_primitives(tree: dict[str, Any]) -> None:
    """trimesh writes one glTF mesh a geometry; make them primitives of one mesh on one node."""
    meshes = tree["meshes"]
    for extra in meshes[1:]:
        meshes[0]["primitives"] += extra["primitives"]
    meshes[0]["name"] = "depth_watertight_mesh"
    tree["meshes"] = meshes[:1]
    tree["nodes"] = [{"name": "depth_watertight_mesh", "mesh": 0}]
    tree["scenes"] = [{"nodes": [0]}]
    tree["scene"] = 0
    tree.pop("cameras", None)
