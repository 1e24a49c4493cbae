"""COLMAP dense workspaces, written as COLMAP writes them, as depth; see test_imports_estimated for the wall."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from test_imports_estimated import H, N, W, camera_to_world, distance_to_wall, lens, wall_depth

from ex4d.core.arrays import Float32
from ex4d.core.camera import CameraPath, invert_rigid
from ex4d.errors import CameraPathError, DepthError, Ex4dError
from ex4d.io.cameras.files import read_cameras, write_cameras
from ex4d.io.depth.colmap_dense import read_colmap_map
from ex4d.io.depth.files import open_depth


def write_map(path: Path, depth: Float32) -> None:
    """As ``Mat<float>::Write`` of colmap/colmap, src/colmap/mvs/mat.cc."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = depth.shape
    path.write_bytes(f"{width}&{height}&1&".encode() + depth.astype("<f4").tobytes())


def write_workspace(
    folder: Path, *, kind: str = "geometric", shrink: int = 1, model: str = "colmap-binary"
) -> list[Path]:
    """The workspace of https://colmap.github.io/format.html#dense-reconstruction; returns the maps in frame order."""
    poses, K = camera_to_world(), lens()
    path = CameraPath(
        K=np.tile(K, (N, 1, 1)),
        world_to_camera=invert_rigid(poses),
        source_index=np.arange(N),
        height=H,
        width=W,
    )
    assert model in ("colmap-binary", "colmap-text")
    write_cameras(folder / "sparse.d" if model == "colmap-binary" else folder / "sparse", path, kind=model)
    if model == "colmap-binary":
        (folder / "sparse.d").rename(folder / "sparse")
    depth = wall_depth(np.diag([1 / shrink, 1 / shrink, 1]) @ K, poses, H // shrink, W // shrink)
    depth[:, 0, 0] = 0
    maps = [folder / f"stereo/depth_maps/frame_{i:06d}.png.{kind}.bin" for i in range(N)]
    for file, frame in zip(maps, depth, strict=True):
        write_map(file, frame)
    return maps


@pytest.mark.parametrize("kind", ["geometric", "photometric"])
@pytest.mark.parametrize("model", ["colmap-binary", "colmap-text"])
def test_dense_workspace(tmp_path: Path, kind: str, model: str) -> None:
    write_workspace(tmp_path, kind=kind, model=model)
    clip = open_depth(tmp_path)
    assert (clip.kind, clip.scale, clip.num_frames) == ("depth", "relative", N)
    distance = distance_to_wall(clip)
    assert np.isnan(distance[:, 0, 0]).all()
    assert np.nanmax(distance) < 1e-5
    assert any(kind in notice for notice in clip.notices)
    assert any("undistorted" in notice for notice in clip.notices)


def test_maps_of_a_smaller_size_than_the_pictures(tmp_path: Path) -> None:
    """patch_match_stereo with max_image_size."""
    write_workspace(tmp_path, shrink=2)
    clip = open_depth(tmp_path)
    assert (clip.height, clip.width) == (H // 2, W // 2)
    assert np.nanmax(distance_to_wall(clip)) < 1e-5


def test_geometric_is_preferred_where_it_is_complete(tmp_path: Path) -> None:
    maps = write_workspace(tmp_path)
    for file in maps:
        write_map(file.with_name(file.name.replace("geometric", "photometric")), np.ones((H, W), np.float32))
    assert np.nanmax(distance_to_wall(open_depth(tmp_path))) < 1e-5
    maps[1].unlink()
    assert (open_depth(tmp_path).read(0, N).values == 1).all()


def test_a_project_folder_with_the_workspace_inside(tmp_path: Path) -> None:
    write_workspace(tmp_path / "dense/0")
    assert open_depth(tmp_path).num_frames == N


def test_every_camera_needs_its_map(tmp_path: Path) -> None:
    maps = write_workspace(tmp_path)
    maps[2].unlink()
    with pytest.raises(DepthError, match=r"1 of 3 pictures.*frame_000002"):
        open_depth(tmp_path)
    shutil.rmtree(tmp_path / "sparse")
    with pytest.raises(DepthError, match="sparse"):
        open_depth(tmp_path)


def test_distorted_cameras_are_refused(tmp_path: Path) -> None:
    write_workspace(tmp_path, model="colmap-text")
    cameras = tmp_path / "sparse/cameras.txt"
    cameras.write_text(cameras.read_text().replace("PINHOLE", "OPENCV"))
    with pytest.raises(CameraPathError, match="image_undistorter"):
        open_depth(tmp_path)


@pytest.mark.parametrize("name", ["../../../secret", "/etc/passwd", "a\x00b", "x" * 300])
def test_picture_names_do_not_lead_anywhere(tmp_path: Path, name: str) -> None:
    write_workspace(tmp_path, model="colmap-text")
    images = tmp_path / "sparse/images.txt"
    images.write_text(images.read_text().replace("frame_000001.png", name))
    with pytest.raises(DepthError, match="every picture"):
        open_depth(tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"30&20&1",
        b"30&20&3&" + bytes(30 * 20 * 12),
        b"30&20&1&" + bytes(30 * 20 * 4 - 1),
        b"30&20&1&" + bytes(30 * 20 * 4 + 1),
        b"9999999&9999999&1&",
        b"0&0&1&",
        b"-3&4&1&" + bytes(48),
        b"P5 30 20 255 ",
    ],
)
def test_damaged_maps(tmp_path: Path, data: bytes) -> None:
    maps = write_workspace(tmp_path)
    for index in (1, 0):
        maps[index].write_bytes(data)
        with pytest.raises(DepthError, match=r"frame_00000"):
            open_depth(tmp_path).read(0, N)


def test_maps_of_several_sizes(tmp_path: Path) -> None:
    maps = write_workspace(tmp_path)
    write_map(maps[1], np.ones((H, W + 1), np.float32))
    with pytest.raises(DepthError, match="frame 1"):
        open_depth(tmp_path).read(0, N)


def test_one_map_row_by_row(tmp_path: Path) -> None:
    depth = np.arange(12, dtype=np.float32).reshape(3, 4)
    write_map(tmp_path / "a.bin", depth)
    np.testing.assert_array_equal(read_colmap_map(tmp_path / "a.bin"), depth)


def test_the_workspace_as_source_cameras(tmp_path: Path) -> None:
    write_workspace(tmp_path)
    loaded = read_cameras(tmp_path, height=H, width=W)
    np.testing.assert_allclose(loaded.path.camera_to_world, camera_to_world(), atol=1e-9)


def test_mutated_workspaces(tmp_path: Path) -> None:
    write_workspace(tmp_path)
    rng = np.random.default_rng(7)
    refused = 0
    for file in [*tmp_path.glob("sparse/*.bin"), *tmp_path.glob("stereo/*/*")]:
        data = file.read_bytes()
        for _ in range(25):
            out = bytearray(data)
            at = int(rng.integers(0, min(len(out), 200)))
            out[at : at + int(rng.integers(0, 9))] = rng.integers(0, 256, 4, dtype=np.uint8).tobytes()
            file.write_bytes(out)
            try:
                open_depth(tmp_path).read(0, N)
            except Ex4dError:
                refused += 1
        file.write_bytes(data)
    assert refused > 30
