"""A procedural scene as a clip: frames, depth track and cameras, rendered when they are read."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from ex4d.core.arrays import Float64
from ex4d.core.camera import Camera, CameraPath, static_path
from ex4d.core.depth import DepthVideo
from ex4d.core.geometry import rotation_about
from ex4d.core.seeding import make_rng
from ex4d.core.video import Video
from ex4d.errors import ConfigError
from ex4d.scene.generate import default_camera
from ex4d.scene.model import Scene
from ex4d.scene.render import SceneView, render_scene, scene_depth

CameraMotion = Literal["static", "pan", "handheld", "dolly"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneClip:
    """A scene filmed along a path; a `Clip[Video]`.

    Attributes:
        scene: what is filmed.
        path: one camera a frame; camera 0 of a clip made by `scene_clip` is the world origin.
        timestamps_s: float64 [N], also the scene times of the frames.
        supersample: colour rays a pixel side (see `render_scene`).
    """

    scene: Scene
    path: CameraPath
    timestamps_s: Float64
    supersample: int = 1

    @property
    def num_frames(self) -> int:
        return len(self.path)

    @property
    def height(self) -> int:
        return self.path.height

    @property
    def width(self) -> int:
        return self.path.width

    @property
    def depth(self) -> "SceneDepthClip":
        """The exact depth of the same frames, a `Clip[DepthVideo]`, scale metric, valid everywhere."""
        return SceneDepthClip(clip=self)

    def view(self, index: int) -> SceneView:
        """Everything that is known about one frame."""
        time_s = float(self.timestamps_s[index])
        return render_scene(self.scene, self.path[index], time_s, supersample=self.supersample)

    def read(self, start: int, stop: int) -> Video:
        """Frames ``start:stop``, rendered now."""
        _check_range(start, stop, self.num_frames)
        frames = np.stack(_in_threads(lambda i: self.view(i).rgb, range(start, stop)))
        return Video(frames=frames, timestamps_s=self.timestamps_s[start:stop])


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneDepthClip:
    """The depth track of a `SceneClip`: what a perfect depth camera would record."""

    clip: SceneClip

    @property
    def num_frames(self) -> int:
        return self.clip.num_frames

    @property
    def height(self) -> int:
        return self.clip.height

    @property
    def width(self) -> int:
        return self.clip.width

    @property
    def timestamps_s(self) -> Float64:
        return self.clip.timestamps_s

    def read(self, start: int, stop: int) -> DepthVideo:
        """Depth of frames ``start:stop``, traced now."""
        _check_range(start, stop, self.num_frames)
        clip = self.clip
        times = clip.timestamps_s[start:stop]
        depth = np.stack(
            _in_threads(
                lambda i: scene_depth(clip.scene, clip.path[i], float(clip.timestamps_s[i])), range(start, stop)
            )
        )
        return DepthVideo(depth=depth, valid=np.ones(depth.shape, dtype=np.bool_), timestamps_s=times, scale="metric")


def scene_clip(
    scene: Scene,
    *,
    num_frames: int,
    fps: float,
    height: int,
    width: int,
    path: CameraPath | None = None,
    camera_motion: CameraMotion = "static",
) -> SceneClip:
    """Film a scene from time 0 on.

    Args:
        scene: what to film.
        num_frames: at least 1.
        fps: frames a second; frame i shows the scene at i / fps seconds.
        height: px.
        width: px.
        path: cameras, one a frame; default a camera at the world origin with f = 0.9 · max(W, H),
            moved by `camera_motion`.
        camera_motion: ``"static"``; ``"pan"`` turns by up to 14°; ``"handheld"`` shakes by a few
            centimetres and a degree; ``"dolly"`` moves sideways and forward by up to half a metre.
            Each starts at the world origin, depends on the scene's seed only, and needs `path` None.

    Raises:
        ConfigError: on a bad count or rate, or a path of another length or size.
    """
    if num_frames < 1 or not (np.isfinite(fps) and fps > 0):
        raise ConfigError("num_frames >= 1 and fps > 0", f"{num_frames} and {fps}", "pass positive numbers")
    times = np.arange(num_frames, dtype=np.float64) / fps
    if path is None:
        path = moving_path(scene.seed, times, height=height, width=width, camera_motion=camera_motion)
    elif camera_motion != "static":
        raise ConfigError("either path or camera_motion", "both", "drop one of them")
    if (len(path), path.height, path.width) != (num_frames, height, width):
        raise ConfigError(
            f"a path of {num_frames} cameras of {height}x{width} px",
            f"{len(path)} of {path.height}x{path.width}",
            "build the path for the clip's size and length",
        )
    return SceneClip(scene=scene, path=path, timestamps_s=times)


def moving_path(seed: int, times_s: Float64, *, height: int, width: int, camera_motion: CameraMotion) -> CameraPath:
    """The source cameras of a motion at times [N] (seconds), starting at the world origin."""
    camera = default_camera(height, width)
    if camera_motion == "static":
        return static_path(K=camera.K, num_frames=len(times_s), height=height, width=width)
    poses = {"pan": _pan, "handheld": _handheld, "dolly": _dolly}
    if camera_motion not in poses:
        raise ConfigError(
            "camera_motion static, pan, handheld or dolly", repr(camera_motion), "pass one of these names"
        )
    rng = make_rng(seed, "camera", camera_motion)
    cameras: list[Camera] = []
    for center, turn in poses[camera_motion](rng, times_s):
        matrix = np.eye(4)
        matrix[:3, :3] = turn.T
        matrix[:3, 3] = -turn.T @ center
        cameras.append(Camera(K=camera.K, world_to_camera=matrix, height=height, width=width))
    return CameraPath.from_cameras(cameras, np.arange(len(times_s), dtype=np.int64))


_Poses = list[tuple[Float64, Float64]]


def _pan(rng: np.random.Generator, times_s: Float64) -> _Poses:
    """A slow turn to one side and back, period 8 s."""
    angle = float(rng.choice([-1, 1])) * np.radians(14) * np.sin(2 * np.pi * times_s / 8)
    return [(np.zeros(3), rotation_about("y", float(a))) for a in angle]


def _handheld(rng: np.random.Generator, times_s: Float64) -> _Poses:
    """Sums of three sines for each of six motions: about 3 cm and 0.7° (root mean square)."""
    out = np.zeros((6, len(times_s)))
    for row, size in zip(out, (0.03, 0.03, 0.02, 0.012, 0.012, 0.006), strict=True):
        for _ in range(3):
            rate, phase = rng.uniform(0.25, 1.6), rng.uniform(0, 2 * np.pi)
            row += size * rng.uniform(0.5, 1.0) * (np.sin(2 * np.pi * rate * times_s + phase) - np.sin(phase))
    turns = [rotation_about("y", y) @ rotation_about("x", x) @ rotation_about("z", z) for x, y, z in out[3:].T.tolist()]
    return list(zip(out[:3].T, turns, strict=True))


def _dolly(rng: np.random.Generator, times_s: Float64) -> _Poses:
    """Sideways and forward with a slight turn back towards the subject, period 8 s."""
    side = float(rng.choice([-1, 1]))
    s = np.sin(2 * np.pi * times_s / 8)
    return [
        (np.array([side * 0.5 * a, -0.05 * a, 0.35 * a]), rotation_about("y", -side * 0.12 * a)) for a in s.tolist()
    ]


_Out = TypeVar("_Out")


def _in_threads(make: Callable[[int], _Out], indices: range) -> list[_Out]:
    """Frames on all cores (the kernels release the GIL), in order."""
    with ThreadPoolExecutor(max_workers=min(len(indices), os.cpu_count() or 1)) as pool:
        return list(pool.map(make, indices))


def _check_range(start: int, stop: int, num_frames: int) -> None:
    if not 0 <= start < stop <= num_frames:
        raise ConfigError(f"0 <= start < stop <= {num_frames}", f"{start}:{stop}", "read frames that exist")
