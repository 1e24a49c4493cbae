"""Every real clip, both geometries: closed meshes on every frame, exports that trimesh calls volumes."""

from pathlib import Path

import numpy as np
import pytest
import trimesh

from ex4d.core.camera import static_path
from ex4d.core.clip import iter_chunks
from ex4d.core.mesh import DepthMesh
from ex4d.depth.intrinsics import choose_intrinsics
from ex4d.depth.result import DepthConfig
from ex4d.depth.source import resolve_depth
from ex4d.io.encode import LosslessWriter
from ex4d.io.meshes import write_glb, write_ply
from ex4d.io.video import VideoReader, VideoSelection
from ex4d.io.video_lossless import VideoClip
from ex4d.mesh.config import GeometryConfig
from ex4d.mesh.watertight import MeshBuilder

CLIPS = (
    "cot_bear", "cut3r_ladyrunning", "ex4d_flower", "geo4d_driftstraight", "robonvs_01", "tapip_sheep",
    "vda_rollercoaster", "vipe_cosmos", "vxf_inpaint",
)  # fmt: skip


@pytest.mark.prove
@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize("geometry", ["default", "official"])
def test_every_mesh_of_a_clip_is_closed(shared: Path, tmp_path: Path, name: str, geometry: str) -> None:
    with VideoReader(shared / "clips" / f"{name}.mp4", selection=VideoSelection(max_side=512)) as reader:
        size = {"height": reader.height, "width": reader.width}
        writer = LosslessWriter(tmp_path / "source.mkv", "rgb", fps=reader.info.fps, **size)
        with writer:
            for chunk in reader:
                writer.write(chunk.frames, chunk.timestamps_s)
    config = GeometryConfig(name=geometry)  # pyright: ignore[reportArgumentType]
    with VideoClip(tmp_path / "source.mkv") as clip:
        depth = resolve_depth(clip, DepthConfig(mapping="official" if geometry == "official" else "floor")).depth
        k, _ = choose_intrinsics(height=clip.height, width=clip.width, geometry=config.name)
        camera = static_path(K=k, num_frames=1, height=clip.height, width=clip.width)[0]
        builder = MeshBuilder(config)
        exported = {0, clip.num_frames // 2, clip.num_frames - 1}
        for start, maps in iter_chunks(depth):
            frames = clip.read(start, start + len(maps)).frames
            for offset in range(len(maps)):
                mesh = builder.build(frames[offset], maps.depth[offset], maps.valid[offset], camera)
                assert mesh.is_watertight, start + offset
                if start + offset in exported:
                    _check_exports(mesh, tmp_path)


def _check_exports(mesh: DepthMesh, folder: Path) -> None:
    write_ply(mesh, folder / "mesh.ply")
    body = trimesh.load_mesh(folder / "mesh.ply", process=False)
    assert body.is_watertight
    assert body.is_winding_consistent
    assert body.is_volume
    write_glb(mesh, folder / "mesh.glb")
    body = trimesh.load_scene(folder / "mesh.glb").to_mesh()
    body.merge_vertices(merge_tex=True, merge_norm=True)
    assert body.is_watertight
    assert body.is_winding_consistent
    assert np.isfinite(body.volume)
    assert body.volume > 0
