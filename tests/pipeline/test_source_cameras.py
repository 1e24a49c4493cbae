"""Where source cameras come from, what they are scaled to, and that a run keeps what it found."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ex4d.core.arrays import Float64
from ex4d.core.camera import CameraPath
from ex4d.depth.result import DepthConfig
from ex4d.errors import CameraPathError, Ex4dError
from ex4d.io.cameras.files import read_cameras
from ex4d.io.cameras.own_json import write_cameras_json
from ex4d.io.encode_delivery import DeliverySettings, DeliveryWriter
from ex4d.mesh.config import GeometryConfig
from ex4d.pipeline.config import CameraConfig, ClipConfig, RunConfig
from ex4d.pipeline.progress import SilentReporter
from ex4d.pipeline.run import RunResult, run
from helpers import rotation_error_deg
from motion.motion_tools import FPS, Filmed, camera_path, filmed

HEIGHT, WIDTH, NUM = 192, 288, 20


@pytest.fixture(scope="module")
def scene() -> Filmed:
    return filmed(3, "dolly", num=NUM, height=HEIGHT, width=WIDTH)


@pytest.fixture(scope="module")
def media(scene: Filmed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A moving clip with its depth in metres, and a smaller one with files of too few or enough cameras."""
    folder = tmp_path_factory.mktemp("media")
    write_video(folder / "clip.mp4", scene)
    np.savez(folder / "depth.npz", depth=scene.depth)
    small = filmed(3, "dolly", num=6, height=48, width=72)
    write_video(folder / "small.mp4", small)
    np.savez(folder / "small.npz", depth=small.depth)
    for count in (3, 5, 6):
        write_cameras_json(folder / f"{count}.json", first(small.path, count))
    return folder


def write_video(path: Path, scene: Filmed) -> None:
    video = scene.clip.read(0, scene.clip.num_frames)
    settings = DeliverySettings(crf=8, preset="veryfast")
    with DeliveryWriter(
        path, height=video.height, width=video.width, fps=Fraction(int(FPS)), settings=settings
    ) as writer:
        writer.write(video.frames, video.timestamps_s)


def first(path: CameraPath, count: int) -> CameraPath:
    return replace(
        path,
        K=path.K[:count],
        world_to_camera=path.world_to_camera[:count],
        source_index=np.arange(count, dtype=np.int64),
    )


def config(media: Path, name: str = "clip", *, cameras: str = "auto", **changes: Any) -> RunConfig:
    depth = media / {"clip": "depth.npz", "small": "small.npz"}[name]
    values: dict[str, Any] = {
        "input": str(media / f"{name}.mp4"),
        "camera": CameraConfig(cam=("orbit-right:5",), source_cameras=cameras),
        "depth": DepthConfig(depth=str(depth), cache=False),
        "generator": "none",
    }
    return RunConfig(**{**values, **changes})


def source_path(folder: Path) -> CameraPath:
    return read_cameras(folder / "source_cameras.json").path


def info(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "prior.json").read_text())


@pytest.fixture(scope="module")
def followed(media: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunResult]:
    """The clip with its depth in metres, and nobody who knows the cameras."""
    folder = tmp_path_factory.mktemp("followed") / "out"
    return folder, run(config(media), folder)


def test_cameras_are_found_in_the_clip_in_metres(scene: Filmed, followed: tuple[Path, RunResult]) -> None:
    folder, result = followed
    path = source_path(folder)
    assert info(folder)["source_cameras"]["origin"] == "odometry"
    assert info(folder)["source_cameras"]["motion"]["verdict"] == "moving"
    assert np.array_equal(path.world_to_camera[0], np.eye(4))
    eyes, want = path.center, scene.path.center
    way = np.linalg.norm(want, axis=1)
    assert np.linalg.norm(eyes - want, axis=1).max() < 0.15 * way.max()
    assert np.linalg.norm(eyes[-1]) == pytest.approx(way[-1], rel=0.15)
    for a, b in zip(path.world_to_camera, scene.path.world_to_camera, strict=True):
        assert rotation_error_deg(a[:3, :3], b[:3, :3]) < 1.5
    notices = " ".join(result.notices)
    assert "source camera: moves" in notices
    assert "turns and shifts" in notices
    assert "to the unit of the depth" in notices


def test_the_focal_length_is_found_too(scene: Filmed, followed: tuple[Path, RunResult]) -> None:
    folder, _ = followed
    assert source_path(folder).K[0, 0, 0] == pytest.approx(scene.path.K[0, 0, 0], rel=0.12)
    assert "two-view geometry" in info(folder)["intrinsics"]


def test_static_takes_the_camera_to_stand_still(media: Path, tmp_path: Path) -> None:
    run(config(media, cameras="static", clip=ClipConfig(frames="0:10")), tmp_path / "out")
    path = source_path(tmp_path / "out")
    assert np.array_equal(path.world_to_camera, np.repeat(np.eye(4)[None], 10, axis=0))
    found = info(tmp_path / "out")
    assert found["source_cameras"]["origin"] == "static"
    assert found["source_cameras"]["motion"]["verdict"] == "moving"
    assert any("--source-cameras static" in notice for notice in found["notices"])


def test_official_geometry_reports_motion_and_never_follows(media: Path, tmp_path: Path) -> None:
    options = config(media, geometry=GeometryConfig(name="official"), clip=ClipConfig(frames="0:10"))
    run(options, tmp_path / "out")
    path = source_path(tmp_path / "out")
    assert np.array_equal(path.world_to_camera, np.repeat(np.eye(4)[None], 10, axis=0))
    assert path.K[0, 0, 0] == 500
    found = info(tmp_path / "out")
    assert found["source_cameras"]["motion"]["verdict"] == "moving"
    assert any("as the release does" in notice for notice in found["notices"])
    assert "follow points" not in json.loads((tmp_path / "out" / "timings.json").read_text())["seconds"]


def test_cameras_of_a_file_are_scaled_to_the_depth(media: Path, scene: Filmed, tmp_path: Path) -> None:
    """A file in centimetres, and depth in metres."""
    matrices = scene.path.world_to_camera.copy()
    matrices[:, :3, 3] *= 100
    write_cameras_json(tmp_path / "cm.json", replace(scene.path, world_to_camera=matrices))
    run(config(media, cameras=str(tmp_path / "cm.json")), tmp_path / "out")
    path = source_path(tmp_path / "out")
    way = np.linalg.norm(scene.path.center, axis=1).max()
    assert np.linalg.norm(path.center - scene.path.center, axis=1).max() < 0.05 * way
    assert np.abs(path.K - scene.path.K).max() < 1e-6
    found = info(tmp_path / "out")
    assert found["source_cameras"]["origin"] == "file"
    assert any("scaled by 0.01" in notice for notice in found["notices"])


def test_one_camera_a_working_frame_or_a_frame_of_the_input(media: Path, tmp_path: Path) -> None:
    truth = filmed(3, "dolly", num=6, height=48, width=72).path
    for count, name in ((3, "3"), (6, "6")):
        options = config(media, "small", cameras=str(media / f"{name}.json"), clip=ClipConfig(frames="2:5"))
        run(options, tmp_path / name)
        path = source_path(tmp_path / name)
        assert len(path) == 3
        assert np.abs(path.world_to_camera[0] - np.eye(4)).max() < 1e-9
        chosen = truth.world_to_camera[[0, 1, 2] if count == 3 else [2, 3, 4]]
        want = chosen[1, :3, :3] @ chosen[0, :3, :3].T
        assert rotation_error_deg(path.world_to_camera[1, :3, :3], want) < 1e-4


class _Watching(SilentReporter):
    """Remembers the stages, and may break off when one begins."""

    def __init__(self, stop_at: str | None = None) -> None:
        self.stages: list[str] = []
        self._stop_at = stop_at

    def begin(self, stage: str, total: int | None, unit: str = "frames") -> None:
        self.stages.append(stage)
        if stage == self._stop_at:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("frames", "count", "want"), [(None, 5, 6), ("1:5", 5, 4), ("1:5", 3, 4)])
def test_a_wrong_count_is_refused_before_long_work(
    media: Path, tmp_path: Path, frames: str | None, count: int, want: int
) -> None:
    watching = _Watching()
    options = config(media, "small", cameras=str(media / f"{count}.json"), clip=ClipConfig(frames=frames))
    with pytest.raises(CameraPathError, match=rf"{want} cameras.* got {count}; .*--frames A:B"):
        run(options, tmp_path / "out", reporter=watching)
    assert not (tmp_path / "out").exists()
    assert not {"follow points", "survey"} & set(watching.stages)


def test_a_broken_or_missing_file(media: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"frames": 3}')
    for name in ("bad.json", "missing.json"):
        with pytest.raises(Ex4dError, match=name):
            run(config(media, "small", cameras=str(tmp_path / name)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_resume_takes_what_was_found_and_gives_the_same_bytes(
    media: Path, followed: tuple[Path, RunResult], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(config(media), out, reporter=_Watching(stop_at="survey"))
    assert (out / ".ex4d-work" / "stages" / "source cameras.json").is_file()
    watching = _Watching()
    run(config(media), out, resume=True, reporter=watching)
    assert not {"camera motion", "source cameras"} & set(watching.stages)
    whole, _ = followed
    for path in sorted(whole.rglob("*")):
        if path.is_file() and path.name != "timings.json":
            assert path.read_bytes() == (out / path.relative_to(whole)).read_bytes(), path.name


def write_recording(folder: Path, scene: Filmed) -> Float64:
    """A 7-Scenes folder; returns the camera_to_world that it holds."""
    folder.mkdir()
    world = np.eye(4)
    world[:3, 3] = (5, -2, 1)
    poses = world @ scene.path.camera_to_world
    for index, frame in enumerate(scene.clip.read(0, scene.clip.num_frames).frames):
        stem = folder / f"frame-{index:06d}"
        Image.fromarray(frame).save(f"{stem}.color.png")
        codes = np.clip(np.rint(1000 * scene.depth[index]), 0, 20000).astype(np.uint16)
        Image.fromarray(codes).save(f"{stem}.depth.png")
        np.savetxt(f"{stem}.pose.txt", poses[index])
    np.savetxt(folder / "camera-intrinsics.txt", scene.path.K[0])
    return poses


def test_cameras_of_a_recording_are_left_as_they_are(tmp_path: Path) -> None:
    scene = filmed(3, "dolly", num=6, height=96, width=144)
    poses = write_recording(tmp_path / "rec", scene)
    options = RunConfig(
        input=str(tmp_path / "rec"), camera=CameraConfig(cam=("orbit-right:5",)), generator="none",
        depth=DepthConfig(cache=False), clip=ClipConfig(frames="1:6"),
    )  # fmt: skip
    watching = _Watching()
    run(options, tmp_path / "out", reporter=watching)
    path = source_path(tmp_path / "out")
    want = np.linalg.inv(poses[1:]) @ poses[1]
    assert np.abs(path.world_to_camera - want).max() < 1e-6
    assert np.abs(path.K - scene.path.K[1:]).max() < 1e-6
    assert info(tmp_path / "out")["source_cameras"]["origin"] == "depth"
    assert "follow points" not in watching.stages


def test_static_ignores_the_cameras_of_a_recording(tmp_path: Path) -> None:
    scene = filmed(3, "dolly", num=6, height=96, width=144)
    write_recording(tmp_path / "rec", scene)
    options = RunConfig(
        input=str(tmp_path / "rec"), camera=CameraConfig(cam=("orbit-right:5",), source_cameras="static"),
        generator="none", depth=DepthConfig(cache=False),
    )  # fmt: skip
    run(options, tmp_path / "out")
    path = source_path(tmp_path / "out")
    assert np.array_equal(path.world_to_camera, np.repeat(np.eye(4)[None], 6, axis=0))
    assert path.K[0] == pytest.approx(scene.path.K[0])


def awkward(name: str) -> np.ndarray:
    """Frames that give a search for cameras little to hold on to."""
    noise = np.random.default_rng(0).integers(0, 256, (8, 64, 96, 3), dtype=np.uint8)
    black, still = np.zeros_like(noise), np.repeat(noise[:1], 8, axis=0)
    return {
        "black": black, "noise": noise, "still": still, "two": still[:2], "tiny": noise[:, :16, :16].copy(),
        "cut": np.concatenate([still[:4], np.repeat(noise[5:6], 4, axis=0)]),
        "half black": np.concatenate([noise[:4], black[:4]]),
    }[name]  # fmt: skip


@pytest.mark.parametrize("name", ["black", "noise", "still", "cut", "half black", "two", "tiny"])
def test_awkward_clips_run_through(name: str, tmp_path: Path) -> None:
    frames = awkward(name)
    num, height, width = frames.shape[:3]
    with DeliveryWriter(tmp_path / "clip.mp4", height=height, width=width, fps=Fraction(24)) as writer:
        writer.write(frames, np.arange(num) / 24)
    np.savez(tmp_path / "depth.npz", depth=np.full((num, height, width), 2.0, np.float32))
    options = RunConfig(
        input=str(tmp_path / "clip.mp4"), camera=CameraConfig(cam=("orbit-right:5",)), generator="none",
        depth=DepthConfig(depth=str(tmp_path / "depth.npz"), cache=False),
    )  # fmt: skip
    run(options, tmp_path / "out")
    assert len(source_path(tmp_path / "out")) == num
    assert info(tmp_path / "out")["source_cameras"]["origin"] in ("static", "odometry", "not found")


def test_a_camera_that_shifts_without_landmarks_loses_its_shifts(media: Path, tmp_path: Path) -> None:
    """A file of cameras and a black clip: nothing says how long their unit is."""
    with DeliveryWriter(tmp_path / "black.mp4", height=48, width=72, fps=Fraction(12)) as writer:
        writer.write(np.zeros((6, 48, 72, 3), np.uint8), np.arange(6) / 12)
    eyes = np.linspace(0, 1, 6)[:, None] * np.array([[1.0, 0, 0]])
    write_cameras_json(tmp_path / "file.json", camera_path(eyes, 0.1 * eyes, height=48, width=72))
    options = config(media, "small", cameras=str(tmp_path / "file.json"), input=str(tmp_path / "black.mp4"))
    result = run(options, tmp_path / "out")
    path = source_path(tmp_path / "out")
    assert not path.center.any()
    assert rotation_error_deg(path.world_to_camera[5, :3, :3], np.eye(3)) > 1
    assert any("shifts are left out" in notice for notice in result.notices)
