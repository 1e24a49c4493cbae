"""RGB-D folders: 7-Scenes, generic pairs, TUM, Record3D; and what is wrong with bad ones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ex4d.errors import ConfigError, DepthError, InputError, MediaError
from ex4d.io.rgbd.folder import is_rgbd_folder, open_rgbd
from ex4d.io.rgbd.poses import interpolate_poses, nearest_rigid, poses_from_quaternions
from ex4d.io.rgbd.tum import associate

RNG = np.random.default_rng(5)
H, W = 12, 16


def pose(yaw: float, x: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[0, 0] = matrix[2, 2] = np.cos(yaw)
    matrix[0, 2], matrix[2, 0] = np.sin(yaw), -np.sin(yaw)
    matrix[0, 3] = x
    return matrix


def write_color(path: Path, seed: int) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = np.random.default_rng(seed).integers(0, 256, (H, W, 3), dtype=np.uint8)
    Image.fromarray(frame).save(path)
    return frame


def write_depth(path: Path, codes: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(codes.astype(np.uint16)).save(path)


def codes_of(frame: int) -> np.ndarray:
    codes = np.full((H, W), 1000 + frame)
    codes[0, :4] = [0, 65535, 20001, 20000]
    return codes


@pytest.fixture
def seven_scenes(tmp_path: Path) -> Path:
    folder = tmp_path / "küche"
    for i in range(3):
        write_color(folder / f"frame-{i:06d}.color.png", i)
        write_depth(folder / f"frame-{i:06d}.depth.png", codes_of(i))
        np.savetxt(folder / f"frame-{i:06d}.pose.txt", pose(0.3 + 0.1 * i, 2.0 + i))
    return folder


def test_seven_scenes(seven_scenes: Path) -> None:
    assert is_rgbd_folder(seven_scenes)
    rgbd = open_rgbd(seven_scenes)
    depth = rgbd.depth.read(0, 3)
    assert depth.valid[0, 0, :4].tolist() == [False, False, False, True]
    np.testing.assert_allclose(depth.depth[:, 5, 5], [1.0, 1.001, 1.002], rtol=1e-6)
    assert depth.scale == "metric"
    expected = np.asarray(Image.open(seven_scenes / "frame-000001.color.png"))
    np.testing.assert_array_equal(rgbd.video.read(1, 2).frames[0], expected)
    assert rgbd.path is not None
    np.testing.assert_array_equal(rgbd.path.world_to_camera[0], np.eye(4))
    relative = np.linalg.inv(pose(0.3, 2)) @ pose(0.5, 4)
    np.testing.assert_allclose(rgbd.path.camera_to_world[2], relative, atol=1e-9)
    assert rgbd.K is not None
    np.testing.assert_allclose(rgbd.K[0], [585 / 640 * W, 0, W / 2])
    assert any("585" in n or "7-Scenes" in n for n in rgbd.notices)


def test_intrinsics_file_keeps_the_centre(seven_scenes: Path) -> None:
    np.savetxt(seven_scenes / "camera-intrinsics.txt", [[15, 0, 8], [0, 15, 6], [0, 0, 1]])
    K = open_rgbd(seven_scenes).K
    assert K is not None
    assert K[0].tolist() == [15, 0, 8]


def test_real_seven_scenes(shared: Path) -> None:
    rgbd = open_rgbd(shared / "clips/rgbd/7scenes_redkitchen")
    assert (rgbd.video.num_frames, rgbd.video.height, rgbd.video.width) == (49, 480, 640)
    assert rgbd.K is not None
    assert rgbd.K[0].tolist() == [585, 0, 320]
    depth = rgbd.depth.read(0, 2)
    assert 0.8 < depth.valid.mean() < 0.95
    assert depth.depth[depth.valid].min() > 0.3
    assert depth.depth.max() < 20


def test_real_pairs_with_a_pose_file(shared: Path) -> None:
    rgbd = open_rgbd(shared / "clips/rgbd/slambook2_ch5")
    assert rgbd.K is None
    assert rgbd.path is None
    assert rgbd.world_to_camera is not None
    assert len(rgbd.world_to_camera) == 3
    assert any("5 poses for 3 frames" in notice for notice in rgbd.notices)
    moved = np.linalg.inv(rgbd.world_to_camera[1])[:3, 3]
    assert np.linalg.norm(moved) == pytest.approx(0.41, abs=0.01)


def make_pairs(folder: Path, stems: list[str], num_poses: int) -> None:
    for i, stem in enumerate(stems):
        write_color(folder / f"{stem}.color.png", i)
        write_depth(folder / f"{stem}.depth.png", codes_of(i))
    (folder / "pose.txt").write_text("\n".join(f"{i} 0 0 0 0 0 1" for i in range(num_poses)))


@pytest.mark.parametrize(
    ("stems", "num_poses", "moves"),
    [(["a", "b"], 2, 1), (["a1", "a3"], 4, 2), (["a0", "a3"], 4, 3), (["x", "y"], 5, 1), (["f7", "f9"], 3, 1)],
)
def test_pose_lines_are_matched(tmp_path: Path, stems: list[str], num_poses: int, moves: int) -> None:
    make_pairs(tmp_path, stems, num_poses)
    poses = open_rgbd(tmp_path).world_to_camera
    assert poses is not None
    assert poses[1, 0, 3] == pytest.approx(-moves)


def test_too_few_poses(tmp_path: Path) -> None:
    make_pairs(tmp_path, ["a", "b", "c"], 2)
    with pytest.raises(InputError, match="3 poses"):
        open_rgbd(tmp_path)


def make_tum(folder: Path, *, names: str = "rgb/{}.png") -> None:
    for i in range(4):
        write_color(folder / "rgb" / f"{i}.png", i)
        write_depth(folder / "depth" / f"{i}.png", np.full((H, W), 5000 + 5 * i))
    rgb = [f"{100 + i / 30:.6f} {names.format(i)}" for i in range(4)]
    depth = [f"{100 + i / 30 + 0.008:.6f} depth/{i}.png" for i in (0, 1, 3)]
    (folder / "rgb.txt").write_text("# color images\n" + "\n".join(rgb))
    (folder / "depth.txt").write_text("\n".join(depth))
    truth = [f"{99.9 + i / 100:.4f} {i / 100} 0 0 0 0 0 1" for i in range(60)]
    (folder / "groundtruth.txt").write_text("# t tx ty tz qx qy qz qw\n" + "\n".join(truth))


def test_tum(tmp_path: Path) -> None:
    folder = tmp_path / "rgbd_dataset_freiburg2_desk"
    make_tum(folder)
    assert is_rgbd_folder(folder)
    rgbd = open_rgbd(folder)
    assert rgbd.video.num_frames == 3
    assert any("1 of 4" in notice for notice in rgbd.notices)
    np.testing.assert_allclose(rgbd.video.timestamps_s, [0, 1 / 30, 3 / 30], atol=1e-6)
    np.testing.assert_allclose(rgbd.depth.read(0, 3).depth[:, 0, 0], [1.0, 1.001, 1.003], rtol=1e-6)
    assert rgbd.path is not None
    # The camera moves at 1 m/s: interpolated between the 10 ms samples.
    np.testing.assert_allclose(rgbd.path.center[:, 0], [0, 1 / 30, 3 / 30], atol=1e-5)
    assert rgbd.K is not None
    np.testing.assert_allclose(rgbd.K[:2, 2], [325.6, 250.2])


def test_tum_names_may_not_leave_the_folder(tmp_path: Path) -> None:
    make_tum(tmp_path / "seq", names="../../etc/{}.png")
    with pytest.raises(InputError, match="inside"):
        open_rgbd(tmp_path / "seq")


def test_association_uses_each_frame_once() -> None:
    first, second = associate(np.array([0.0, 0.01, 0.05, 0.3]), np.array([0.012, 0.055, 0.9]))
    assert first.tolist() == [1, 2]
    assert second.tolist() == [0, 1]


def metadata(num: int) -> dict[str, Any]:
    half = np.sqrt(0.5)
    return {
        "w": W,
        "h": H,
        "fps": 60,
        "K": [14.0, 0, 0, 0, 15.0, 0, 7.5, 5.5, 1],
        "poses": [[0, half, 0, half, 0, i * 0.1, -i * 0.5] for i in range(num)],
    }


def make_record3d(folder: Path, content: dict[str, Any], num: int = 2) -> None:
    for i in range(num):
        write_color(folder / "rgbd" / f"{i}.jpg", i)
        (folder / "depth").mkdir(exist_ok=True)
        np.save(folder / "depth" / f"{i}.npy", np.full((H // 2, W // 2), 1.5 + i, np.float32))
    (folder / "metadata.json").write_text(json.dumps(content))


def test_record3d(tmp_path: Path) -> None:
    make_record3d(tmp_path, metadata(2))
    assert is_rgbd_folder(tmp_path)
    rgbd = open_rgbd(tmp_path)
    depth = rgbd.depth.read(0, 2)
    assert depth.depth.shape == (2, H, W)
    assert depth.depth[:, 3, 3].tolist() == [1.5, 2.5]
    assert any("resampled" in notice for notice in rgbd.notices)
    assert rgbd.K is not None
    np.testing.assert_allclose(rgbd.K, [[14, 0, 8], [0, 15, 6], [0, 0, 1]])
    np.testing.assert_allclose(rgbd.video.timestamps_s, [0, 1 / 60])
    assert rgbd.path is not None
    # OpenGL camera turned 90° left about +y (up): world -z is its right; up in the world is -y of ours.
    np.testing.assert_allclose(rgbd.path.center[1], [0.5, -0.1, 0], atol=1e-9)


@pytest.mark.parametrize(
    "change",
    [
        {"poses": [[0, 0, 0, 2, 0, 0, 0]] * 2},
        {"poses": [[0, 0, 0, 1, 0, 0, 0]]},
        {"poses": [["x"] * 7] * 2},
        {"K": [1, 2, 3]},
        {"K": [0.0] * 9},
        {"K": [float("nan")] * 9},
        {"perFrameIntrinsicCoeffs": [[1, 1, 0], "a"]},
    ],
)
def test_record3d_bad_metadata(tmp_path: Path, change: dict[str, Any]) -> None:
    make_record3d(tmp_path, {**metadata(2), **change})
    with pytest.raises(InputError):
        open_rgbd(tmp_path)


def test_record3d_compressed_depth_is_explained(tmp_path: Path) -> None:
    make_record3d(tmp_path / "x", metadata(2))
    for i in range(2):
        (tmp_path / "x/depth" / f"{i}.npy").unlink()
        (tmp_path / "x/rgbd" / f"{i}.depth").write_bytes(b"bvx2" + bytes(50))
    with pytest.raises(InputError, match="EXR"):
        open_rgbd(tmp_path / "x")
    archive = tmp_path / "scan.r3d"
    archive.write_bytes(b"PK\3\4")
    assert is_rgbd_folder(archive)
    with pytest.raises(InputError, match="LZFSE"):
        open_rgbd(archive)


def test_what_is_no_rgbd(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    assert not is_rgbd_folder(tmp_path)
    assert not is_rgbd_folder(tmp_path / "a.png")
    for path in [tmp_path, tmp_path / "a.png", tmp_path / "none"]:
        with pytest.raises(InputError):
            open_rgbd(path)


def test_bad_folders(seven_scenes: Path) -> None:
    with pytest.raises(ConfigError, match="fps"):
        open_rgbd(seven_scenes, fps=0)
    (seven_scenes / "frame-000001.pose.txt").unlink()
    with pytest.raises(InputError, match=r"frame-000001\.pose"):
        open_rgbd(seven_scenes)
    (seven_scenes / "frame-000001.pose.txt").write_text("1 0 0 0\n0 nan 0 0\n0 0 1 0\n0 0 0 1")
    with pytest.raises(InputError, match="NaN"):
        open_rgbd(seven_scenes)
    np.savetxt(seven_scenes / "frame-000001.pose.txt", np.diag([1, 1, -1, 1]))
    with pytest.raises(InputError, match="rotation"):
        open_rgbd(seven_scenes)
    np.savetxt(seven_scenes / "frame-000001.pose.txt", np.eye(4))
    write_depth(seven_scenes / "frame-000002.depth.png", np.zeros((H, W)))
    with pytest.raises(DepthError, match="frame 2"):
        open_rgbd(seven_scenes).depth.read(1, 3)
    (seven_scenes / "frame-000002.color.png").write_bytes(b"broken")
    with pytest.raises(MediaError, match="frame-000002"):
        open_rgbd(seven_scenes).video.read(2, 3)
    (seven_scenes / "frame-000002.depth.png").unlink()
    with pytest.raises(InputError, match=r"frame-000002\.depth"):
        open_rgbd(seven_scenes)


def test_depth_of_another_shape(seven_scenes: Path) -> None:
    for i in range(3):
        write_depth(seven_scenes / f"frame-{i:06d}.depth.png", np.full((H, H), 1000))
    with pytest.raises(DepthError, match="aspect"):
        open_rgbd(seven_scenes)


def test_quaternions_and_rounding() -> None:
    matrix = poses_from_quaternions(np.array([[1.0, 2, 3]]), np.array([[0, np.sin(0.2), 0, np.cos(0.2)]]), "x")[0]
    expected = pose(0.4, 1)
    expected[1:3, 3] = [2, 3]
    np.testing.assert_allclose(matrix, expected, atol=1e-12)
    rounded = np.round(pose(0.4, 1), 4).astype(np.float64)
    fixed = nearest_rigid(rounded, "x")
    np.testing.assert_allclose(fixed[:3, :3] @ fixed[:3, :3].T, np.eye(3), atol=1e-12)
    with pytest.raises(InputError, match="unit quaternions"):
        poses_from_quaternions(np.zeros((1, 3)), np.ones((1, 4)), "x")


def test_poses_between_samples() -> None:
    times, poses = np.array([0.0, 0.1]), np.stack([pose(0.0, 0), pose(0.02, 1)])
    middle = interpolate_poses(times, poses, np.array([0.05, 0.1]), "x")
    np.testing.assert_allclose(middle[0], pose(0.01, 0.5), atol=1e-6)
    np.testing.assert_allclose(middle[1], poses[1], atol=1e-12)
    with pytest.raises(InputError, match="frame 1"):
        interpolate_poses(times, poses, np.array([0.05, 0.5]), "x")
