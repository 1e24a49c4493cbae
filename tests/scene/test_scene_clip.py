"""Scenes as clips: frames, depth track, cameras."""

import numpy as np
import pytest

from ex4d.core.camera import CameraPath, static_path
from ex4d.core.clip import Clip
from ex4d.core.depth import DepthVideo
from ex4d.core.video import Video
from ex4d.errors import ConfigError
from ex4d.scene.clip import CameraMotion, SceneClip, scene_clip
from ex4d.scene.generate import make_scene
from ex4d.scene.render import render_scene


def _clip(**options: object) -> SceneClip:
    return scene_clip(make_scene(1), num_frames=5, fps=2.5, height=36, width=48, **options)  # type: ignore[arg-type]


def test_is_a_clip_of_video_and_of_depth() -> None:
    clip = _clip()
    frames: Clip[Video] = clip
    depth: Clip[DepthVideo] = clip.depth
    for source in (frames, depth):
        assert (source.num_frames, source.height, source.width) == (5, 36, 48)
        np.testing.assert_allclose(source.timestamps_s, np.arange(5) / 2.5)
    video, track = frames.read(1, 4), depth.read(1, 4)
    assert video.frames.shape == (3, 36, 48, 3)
    assert track.depth.shape == (3, 36, 48)
    np.testing.assert_array_equal(video.timestamps_s, track.timestamps_s)
    assert track.scale == "metric"
    assert track.valid.all()
    view = render_scene(clip.scene, clip.path[2], 0.8)
    np.testing.assert_array_equal(video.frames[1], view.rgb)
    np.testing.assert_array_equal(track.depth[1], view.depth)


def test_reading_in_pieces_is_reading_at_once() -> None:
    clip = _clip(camera_motion="handheld")
    whole = clip.read(0, 5).frames
    np.testing.assert_array_equal(np.concatenate([clip.read(0, 2).frames, clip.read(2, 5).frames]), whole)
    assert (whole[0] != whole[4]).any()


def test_default_camera_is_static_at_the_origin() -> None:
    path = _clip().path
    np.testing.assert_array_equal(path.world_to_camera, np.repeat(np.eye(4)[None], 5, axis=0))
    np.testing.assert_allclose(path.K[0], [[0.9 * 48, 0, 24], [0, 0.9 * 48, 18], [0, 0, 1]])


@pytest.mark.parametrize("motion", ["pan", "handheld", "dolly"])
def test_moving_cameras_start_at_the_origin_and_move_smoothly(motion: CameraMotion) -> None:
    clip = scene_clip(make_scene(0), num_frames=49, fps=24.0, height=36, width=48, camera_motion=motion)
    again = scene_clip(make_scene(0), num_frames=49, fps=24.0, height=36, width=48, camera_motion=motion)
    matrices = clip.path.world_to_camera
    np.testing.assert_array_equal(matrices, again.path.world_to_camera)
    np.testing.assert_allclose(matrices[0], np.eye(4), atol=1e-12)
    step = np.abs(np.diff(matrices, axis=0)).max(axis=(1, 2))
    assert 1e-4 < step.max() < 0.05
    assert np.abs(clip.path.center).max() < 0.7


def test_takes_a_given_path() -> None:
    path = static_path(K=_clip().path.K[0], num_frames=5, height=36, width=48)
    assert _clip(path=path).path is path


@pytest.mark.parametrize(
    "options", [{"num_frames": 0}, {"fps": 0.0}, {"fps": float("inf")}, {"width": 40}, {"camera_motion": "fly"}]
)
def test_refuses_bad_arguments(options: dict[str, object]) -> None:
    good: dict[str, object] = {"num_frames": 5, "fps": 2.5, "height": 36, "width": 48}
    path = None if "camera_motion" in options else static_path(K=np.eye(3), num_frames=5, height=36, width=48)
    with pytest.raises(ConfigError, match="got"):
        scene_clip(make_scene(0), path=path, **(good | options))  # type: ignore[arg-type]


def test_refuses_path_with_motion_and_empty_ranges() -> None:
    path: CameraPath = static_path(K=np.eye(3), num_frames=5, height=36, width=48)
    with pytest.raises(ConfigError, match="both"):
        _clip(path=path, camera_motion="pan")
    for start, stop in ((2, 2), (-1, 2), (3, 6)):
        with pytest.raises(ConfigError, match="start < stop"):
            _clip().read(start, stop)
        with pytest.raises(ConfigError, match="start < stop"):
            _clip().depth.read(start, stop)
