"""Record3D exports and TUM sequences against what their makers say of them; see test_imports_estimated for the wall."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_imports_estimated import N, camera_to_world, wall_depth, wall_distance

from ex4d.core.rotations import matrix_to_quaternion
from ex4d.errors import InputError
from ex4d.io.depth.clip import resize_path
from ex4d.io.rgbd.folder import open_rgbd

R3D_H, R3D_W = 64, 48


def pose_rows(axes: np.ndarray) -> np.ndarray:
    """float64 [N,7]: qx qy qz qw tx ty tz of camera-to-world poses with these camera axes."""
    poses = camera_to_world() @ axes
    w_first = matrix_to_quaternion(poses[:, :3, :3])
    return np.concatenate([w_first[:, [1, 2, 3, 0]], poses[:, :3, 3]], axis=1)


def write_record3d(folder: Path, *, picture: tuple[int, int] = (R3D_H, R3D_W), **change: Any) -> Path:
    """An "EXR + JPG" export: github.com/marek-simonik/record3d, issues 27 (poses), 33 (axes), 67 and 93 (files)."""
    OpenEXR = pytest.importorskip("OpenEXR", reason="the extra `exr` is not installed")
    fx, fy, cx, cy = 55.0, 56.0, 23.1, 30.7  # for R3D_W x R3D_H, from the centre of the first pixel as ARKit has it
    corner = np.array([[fx, 0, cx + 0.5], [0, fy, cy + 0.5], [0, 0, 1]])
    depth = wall_depth(np.diag([0.5, 0.5, 1]) @ corner, camera_to_world(), R3D_H // 2, R3D_W // 2)
    for sub in ("rgb", "depth"):
        (folder / "EXR_RGBD" / sub).mkdir(parents=True)
    for i in range(N):
        Image.fromarray(np.zeros((*picture, 3), np.uint8)).save(folder / f"EXR_RGBD/rgb/{i}.jpg")
        OpenEXR.File({}, {"R": depth[i].copy()}).write(str(folder / f"EXR_RGBD/depth/{i}.exr"))
    content: dict[str, Any] = {
        "w": R3D_W,
        "h": R3D_H,
        "dw": R3D_W // 2,
        "dh": R3D_H // 2,
        "fps": 30,
        "K": [fx, 0, 0, 0, fy, 0, cx, cy, 1],
        "poses": pose_rows(np.diag([1.0, -1, -1, 1])).tolist(),
        "perFrameIntrinsicCoeffs": [[fx, fy, cx, cy]] * N,
    }
    (folder / "EXR_RGBD/metadata.json").write_text(json.dumps(content | change))
    return folder


@pytest.mark.parametrize("change", [{}, {"perFrameIntrinsicCoeffs": []}])
@pytest.mark.parametrize("scale", [1, 2])
def test_record3d(tmp_path: Path, change: dict[str, Any], scale: int) -> None:
    """Depth is smaller than the pictures, whose size may also differ from the one that K is for."""
    rgbd = open_rgbd(write_record3d(tmp_path, picture=(scale * R3D_H, scale * R3D_W), **change))
    depth = rgbd.depth.read(0, N)
    assert (depth.height, depth.width, depth.scale) == (scale * R3D_H, scale * R3D_W, "metric")
    assert rgbd.path is not None
    stored = depth.depth[:, :: 2 * scale, :: 2 * scale]
    assert np.max(wall_distance(stored, resize_path(rgbd.path, R3D_H // 2, R3D_W // 2))) < 1e-5
    assert any("scaled" in notice for notice in rgbd.notices) is (scale == 2)


def test_record3d_pictures_of_another_shape(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"48x64.*64x48"):
        open_rgbd(write_record3d(tmp_path, picture=(R3D_W, R3D_H)))


def test_tum(tmp_path: Path) -> None:
    """cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats: 5000 = 1 m, registered, "tx ty tz qx qy qz qw"."""
    corner = np.array([[517.3, 0, 318.6 + 0.5], [0, 516.5, 255.3 + 0.5], [0, 0, 1]])
    folder = tmp_path / "rgbd_dataset_freiburg1_xyz"
    depth = wall_depth(corner, camera_to_world(), 480, 640)
    rows = pose_rows(np.eye(4))
    for sub in ("rgb", "depth"):
        (folder / sub).mkdir(parents=True)
    for i in range(N):
        Image.fromarray(np.zeros((480, 640, 3), np.uint8)).save(folder / f"rgb/{i}.png")
        Image.fromarray(np.rint(depth[i] * 5000).astype(np.uint16)).save(folder / f"depth/{i}.png")
    for name in ("rgb", "depth"):
        lines = [f"{1305031102 + i}.175304 {name}/{i}.png\n" for i in range(N)]
        (folder / f"{name}.txt").write_text("# color images\n# file: 'x.bag'\n# timestamp filename\n" + "".join(lines))
    truth = [
        " ".join([f"{1305031102 + i}.175304", *map(repr, [*map(float, (*row[4:], *row[:4]))])])
        for i, row in enumerate(rows)
    ]
    (folder / "groundtruth.txt").write_text("# timestamp tx ty tz qx qy qz qw\n" + "\n".join(truth))
    rgbd = open_rgbd(folder)
    assert rgbd.path is not None
    assert np.max(wall_distance(rgbd.depth.read(0, N).depth, rgbd.path)) < 2e-4
