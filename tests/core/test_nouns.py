"""Nouns refuse what they must, and say what is wrong."""

import numpy as np
import pytest

from ex4d.core.camera import Camera, CameraPath, invert_rigid, pinhole, static_path
from ex4d.core.clip import ArrayClip, iter_chunks
from ex4d.core.depth import DepthVideo
from ex4d.core.video import Video
from helpers import source_camera


def _video(num: int = 5) -> Video:
    frames = np.arange(num * 4 * 6 * 3, dtype=np.uint64).astype(np.uint8).reshape(num, 4, 6, 3)
    return Video(frames=frames, timestamps_s=np.arange(num) / 10)


def test_video_checks_dtype_shape_and_times() -> None:
    with pytest.raises(ValueError, match=r"Video.frames: expected uint8"):
        Video(frames=np.zeros((1, 2, 2, 3), np.float32), timestamps_s=np.zeros(1))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"Video.timestamps_s: expected float64 \[2\]"):
        Video(frames=np.zeros((2, 2, 2, 3), np.uint8), timestamps_s=np.zeros(1))


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_valid_depth_is_finite_and_positive(value: float) -> None:
    depth = np.full((1, 2, 2), 1.0, np.float32)
    depth[0, 0, 0] = value
    valid = np.ones((1, 2, 2), bool)
    with pytest.raises(ValueError, match="1 valid pixels are not finite"):
        DepthVideo(depth=depth, valid=valid, timestamps_s=np.zeros(1), scale="metric")
    valid[0, 0, 0] = False
    assert len(DepthVideo(depth=depth, valid=valid, timestamps_s=np.zeros(1), scale="metric")) == 1


def test_chunks_cover_a_clip_once() -> None:
    clip = ArrayClip(_video(11))
    parts = list(iter_chunks(clip, 4))
    assert [start for start, _ in parts] == [0, 4, 8]
    assert np.array_equal(np.concatenate([part.frames for _, part in parts]), _video(11).frames)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.__setitem__((0, 0), -1.0), "rotation, got a reflection"),
        (lambda m: m.__setitem__((0, 0), 2.0), "rigid transform"),
        (lambda m: m.__setitem__((0, 3), np.nan), "NaN or infinity"),
        (lambda m: m.__setitem__((3, 0), 1.0), "rigid transform"),
    ],
)
def test_camera_refuses_what_is_no_pose(change, message: str) -> None:
    matrix = np.eye(4)
    change(matrix)
    with pytest.raises(ValueError, match=message):
        Camera(K=pinhole(focal_px=5, height=4, width=6), world_to_camera=matrix, height=4, width=6)


def test_camera_refuses_bad_intrinsics_and_size() -> None:
    k = pinhole(focal_px=5, height=4, width=6)
    with pytest.raises(ValueError, match="positive focal"):
        Camera(K=k * [[-1], [1], [1]], world_to_camera=np.eye(4), height=4, width=6)
    with pytest.raises(ValueError, match="at least 1 px"):
        Camera(K=k, world_to_camera=np.eye(4), height=0, width=6)


def test_path_indexing_and_properties() -> None:
    path = static_path(K=pinhole(focal_px=3.0, height=4, width=6), num_frames=3, height=4, width=6)
    assert len(path) == 3
    assert np.array_equal(path[2].world_to_camera, np.eye(4))
    assert path.fov_x_deg == pytest.approx([90.0] * 3)
    assert np.array_equal(path.center, np.zeros((3, 3)))
    with pytest.raises(ValueError, match="at least one camera"):
        CameraPath(
            K=np.zeros((0, 3, 3)),
            world_to_camera=np.zeros((0, 4, 4)),
            source_index=np.zeros(0, np.int64),
            height=4,
            width=6,
        )


def test_rigid_inverse_is_exact() -> None:
    camera = source_camera(4, 6)
    matrix = np.eye(4)
    matrix[:3, :3] = [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    matrix[:3, 3] = [1, 2, 3]
    assert np.array_equal(invert_rigid(matrix) @ matrix, np.eye(4))
    assert np.array_equal(camera.camera_to_world, np.eye(4))
