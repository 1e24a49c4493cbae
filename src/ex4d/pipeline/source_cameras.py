"""Where the source camera stood in every frame: given, standing still, or found in the clip itself."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ex4d.core.arrays import Float64
from ex4d.core.camera import CameraPath, pinhole, static_path
from ex4d.depth.anchor import camera_scale
from ex4d.depth.intrinsics import choose_intrinsics
from ex4d.depth.result import DepthResult
from ex4d.depth.source import FoundDepth
from ex4d.errors import CameraPathError
from ex4d.io.cameras.files import read_cameras
from ex4d.io.rgbd.poses import build_path, select_path
from ex4d.motion.detector import detect_motion
from ex4d.motion.focal import sweep_focal
from ex4d.motion.landmarks import Landmarks, find_landmarks
from ex4d.motion.odometry import Odometry, find_cameras, follow_clip
from ex4d.motion.tracks import Tracks
from ex4d.pipeline.config import RunConfig
from ex4d.pipeline.ingest import WorkingSource
from ex4d.pipeline.progress import Reporter, timed_stage
from ex4d.pipeline.workspace import Workspace

Origin = Literal["depth", "file", "static", "odometry", "not found"]

_MOVES = 1e-6
"""Translations below this share of the unit are none."""
_LOOSE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceCameras:
    """The cameras that filmed the clip.

    Attributes:
        path: one a frame, world = camera of frame 0.
        landmarks: points in the world that frames see; None where the camera does not shift or nothing was followed.
        origin: ``depth``: they came with the depth; ``file``: --source-cameras FILE; ``static``: asked for, or the
            detector says so; ``odometry``: found in the clip; ``not found``: the camera moves, and could not be
            followed: taken to stand still.
        intrinsics: the sentence that says where K is from.
        motion: the detector's report, JSON types.
        notices: what was decided, for people.
    """

    path: CameraPath
    landmarks: Landmarks | None
    origin: Origin
    intrinsics: str
    motion: dict[str, Any]
    notices: tuple[str, ...]


class _Follower:
    """Tracks of the clip, made when somebody needs them, once."""

    def __init__(self, source: WorkingSource, reporter: Reporter, timings: dict[str, float]) -> None:
        self._source, self._reporter, self._timings = source, reporter, timings
        self._tracks: Tracks | None = None
        self._found: dict[tuple[float, bool], Odometry | None] = {}

    def tracks(self) -> Tracks:
        if self._tracks is None:
            with timed_stage(self._reporter, self._timings, "follow points", self._source.clip.num_frames):
                self._tracks = follow_clip(self._source.clip, self._reporter.advance)
        return self._tracks

    def cameras(self, K: Float64, *, may_shift: bool) -> Odometry | None:
        """Cameras for a K."""
        key = float(K[0, 0]), may_shift
        if key not in self._found:
            tracks, clip = self.tracks(), self._source.clip
            with timed_stage(self._reporter, self._timings, "source cameras", None):
                self._found[key] = find_cameras(tracks, K, height=clip.height, width=clip.width, may_shift=may_shift)
        return self._found[key]

    def focal(self) -> float | None:
        """Focal length over the longer side; only from a clip whose cameras it then makes sense of."""
        share = sweep_focal(self.tracks())
        if share is None:
            return None
        height, width = self._source.clip.height, self._source.clip.width
        K = pinhole(focal_px=share * max(height, width), height=height, width=width)
        found = self.cameras(K, may_shift=True)
        return share if found is not None and found.kind == "full" else None


def find_source_cameras(
    config: RunConfig,
    source: WorkingSource,
    found: FoundDepth | None,
    workspace: Workspace,
    reporter: Reporter,
    timings: dict[str, float],
) -> SourceCameras:
    """Ask the detector, then take or find the cameras.

    Args:
        config: of the run.
        source: the working clip.
        found: depth that may bring K or cameras; None where it is estimated afterwards.
        workspace: keeps what was found for --resume.
        reporter: told of progress.
        timings: gets the seconds of each stage.

    Raises:
        CameraPathError: a camera file that does not fit the clip.
    """
    record = workspace.result("source cameras")
    follower = _Follower(source, reporter, timings)
    if record is None:
        record = _decide(config, source, found, follower, reporter, timings)
        workspace.finish("source cameras", record)
    clip = source.clip
    path = CameraPath(
        K=np.array(record["K"]),
        world_to_camera=np.array(record["world_to_camera"]),
        source_index=np.arange(clip.num_frames, dtype=np.int64),
        height=clip.height,
        width=clip.width,
    )
    for notice in record["notices"]:
        reporter.note(notice)
    landmarks = None
    if _shifts(path) and (found is None or found.wants_anchor or record["origin"] in ("odometry", "file")):
        landmarks = find_landmarks(follower.tracks(), path)
    return SourceCameras(
        path=path,
        landmarks=landmarks,
        origin=record["origin"],
        intrinsics=record["intrinsics"],
        motion=record["motion"],
        notices=tuple(record["notices"]),
    )


def _decide(
    config: RunConfig,
    source: WorkingSource,
    found: FoundDepth | None,
    follower: _Follower,
    reporter: Reporter,
    timings: dict[str, float],
) -> dict[str, Any]:
    clip, option = source.clip, config.camera.source_cameras
    with timed_stage(reporter, timings, "camera motion", None):
        report = detect_motion(clip)
    notices = [report.sentence()]
    given = _read_file(option, source) if option not in ("auto", "static") else None
    follow = option == "auto" and report.verdict in ("rotating", "moving") and config.geometry.name == "default"
    swept: list[float | None] = []

    def sweep() -> float | None:
        if follow and report.verdict == "moving":
            swept.append(follower.focal())
        return swept[-1] if swept else None

    K, intrinsics = choose_intrinsics(
        height=clip.height,
        width=clip.width,
        file_K=given.K[0] if given is not None else (found.K if found and not found.is_estimate else None),
        fov_deg=config.camera.fov_deg,
        focal_px=config.camera.focal_px,
        focal_35mm=source.focal_35mm,
        estimated_K=found.K if found and found.is_estimate else None,
        sweep=sweep,
        geometry=config.geometry.name,
    )
    still = static_path(K=K, num_frames=clip.num_frames, height=clip.height, width=clip.width)
    origin: Origin
    if given is not None:
        origin, path = "file", given
        notices.append(f"source cameras from {option}")
    elif option == "auto" and (brought := _brought(found, K)) is not None:
        origin, path = "depth", brought
        notices.append("source cameras come with the depth")
    elif follow:
        # Under a guessed focal length a turn leaves motion that looks like parallax: shifts need a known one.
        may_shift = report.verdict == "moving" and swept != [None]
        origin, path, sentence = _odometry(follower, K, still, may_shift=may_shift)
        notices.append(sentence)
    else:
        origin, path = "static", still
        if report.verdict in ("rotating", "moving"):
            why = "--source-cameras static" if option == "static" else "--geometry official, as the release does"
            notices.append(f"source cameras: taken to stand still ({why})")
    matrices = path.world_to_camera
    return {
        "origin": origin,
        "K": _with_focal(path.K, K).tolist(),
        "world_to_camera": matrices.tolist(),
        "intrinsics": intrinsics,
        "motion": report.as_dict(),
        "notices": [*notices, intrinsics],
    }


def _with_focal(path_K: Float64, K: Float64) -> Float64:
    """K a frame: that of the path, in proportion to the one that was chosen (a zoom stays a zoom)."""
    ratio = K[0, 0] / path_K[0, 0, 0]
    out = path_K.copy()
    out[:, 0, 0] *= ratio
    out[:, 1, 1] *= ratio
    return out


def _brought(found: FoundDepth | None, K: Float64) -> CameraPath | None:
    """Cameras that came with the depth."""
    if found is None:
        return None
    if found.path is not None:
        return found.path
    if found.world_to_camera is None:
        return None
    size = found.measured
    assert size is not None
    return build_path(found.world_to_camera, K, height=size.height, width=size.width)


def _read_file(option: str, source: WorkingSource) -> CameraPath:
    """Cameras of a file for the working frames: one for each of them, or one for each of the whole input."""
    clip, whole = source.clip, source.selection
    loaded = read_cameras(Path(option), height=clip.height, width=clip.width, rebase=True)
    if len(loaded.path) == clip.num_frames:
        return replace(loaded.path, source_index=np.arange(clip.num_frames, dtype=np.int64))
    if len(loaded.path) == whole.num_frames:
        chosen = select_path(loaded.path, whole.frame_index)
        return replace(chosen, source_index=np.arange(clip.num_frames, dtype=np.int64))
    raise CameraPathError(
        f"{clip.num_frames} cameras, one a frame (or {whole.num_frames}, one a frame of the whole input), in {option}",
        str(len(loaded.path)),
        "export one camera a frame, or choose the frames that have one with --frames A:B",
    )


def _odometry(follower: _Follower, K: Float64, still: CameraPath, *, may_shift: bool) -> tuple[Origin, CameraPath, str]:
    found = follower.cameras(K, may_shift=may_shift)
    if found is None:
        lost = "warning: the source camera moves but could not be followed: taken to stand still"
        return "not found", still, f"{lost} (give its cameras with --source-cameras FILE)"
    return "odometry", found.path, found.sentence()


def _shifts(path: CameraPath) -> bool:
    eyes = path.center
    return bool(np.abs(eyes - eyes[0]).max() > _MOVES)


def scale_cameras(cameras: SourceCameras, depth: DepthResult) -> tuple[CameraPath, tuple[str, ...]]:
    """The cameras in the unit of the depth, and what is to be said of it.

    Cameras that came with the depth are in its unit already; others are scaled so that landmarks lie where the depth
    puts them.
    """
    if cameras.landmarks is None or cameras.origin == "depth":
        return cameras.path, ()
    found = camera_scale(depth.depth, cameras.landmarks)
    if found is None:
        text = "warning: too few landmarks to bring the source cameras into the unit of the depth: shifts are left out"
        matrices = cameras.path.world_to_camera.copy()
        matrices[:, :3, 3] = 0
        return replace(cameras.path, world_to_camera=matrices), (text,)
    ratio, spread = found
    matrices = cameras.path.world_to_camera.copy()
    matrices[:, :3, 3] *= ratio
    notices: list[str] = []
    if abs(ratio - 1) > 0.02:
        notices.append(f"source cameras scaled by {ratio:.4g} to the unit of the depth (spread {spread:.0%})")
    if spread > _LOOSE:
        notices.append(
            f"warning: depth and source cameras disagree ({spread:.0%} spread of the scale between landmarks): "
            "expect things to swim when other frames are used"
        )
    return replace(cameras.path, world_to_camera=matrices), tuple(notices)
