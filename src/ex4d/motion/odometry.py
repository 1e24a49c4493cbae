"""Visual odometry: the cameras of a clip from the clip itself. Flow, tracks, structure from motion; no weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ex4d.core.arrays import Bool, Float64
from ex4d.core.camera import CameraPath, rebase
from ex4d.core.clip import Clip
from ex4d.core.video import Video
from ex4d.motion.flow import iter_gray, work_size
from ex4d.motion.structure import Structure, reconstruct
from ex4d.motion.tracks import Tracks, track_points
from ex4d.motion.two_view import rotation_between

_MIN_SHARE = 0.4
_MIN_FOUND = 0.9
_MIN_PARALLAX_PX = 1.5
_MIN_PARALLAX_TO_ERROR = 18.0
"""Less than this (px of pictures 384 wide; times the error of the points), and shifts cannot be told from turns and
from what moves by itself. Set on the clips of docs/depth.md, where it parts usable depth from noise."""
_MIN_SHARED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Odometry:
    """Cameras that were found.

    Attributes:
        path: one camera a frame, at the clip's size; world = camera of frame 0. The unit is the median depth of the
            points that frame 0 (or the first frame with points) sees.
        kind: ``full``: turns and shifts; ``rotation``: turns only, shifts are too small to show in the picture.
        is_found: bool [T]; False: the camera was put between its neighbours.
        error_px: median distance between points and where they were seen, px of pictures 384 wide.
        share: how much of what was followed is explained by a still scene.
    """

    path: CameraPath
    kind: Literal["full", "rotation"]
    is_found: Bool
    error_px: float
    share: float

    def sentence(self) -> str:
        """For people."""
        lost = int((~self.is_found).sum())
        gaps = f", {lost} of {len(self.is_found)} frames interpolated" if lost else ""
        what = "turns and shifts" if self.kind == "full" else "turns only (no parallax)"
        return (
            f"source cameras from the clip: {what}, {self.share:.0%} of the points fit a still scene "
            f"to {self.error_px:.2f} px{gaps}"
        )


def follow_clip(source: Clip[Video], advance: Callable[[int], None] | None = None) -> Tracks:
    """Tracks of a whole clip at `flow.work_size`; `advance` is told each frame."""
    size = work_size(source.height, source.width)

    def frames():
        for gray in iter_gray(source, size):
            yield gray
            if advance is not None:
                advance(1)

    return track_points(frames())


def find_cameras(tracks: Tracks, K: Float64, *, height: int, width: int, may_shift: bool = True) -> Odometry | None:
    """Cameras of a clip.

    Args:
        tracks: of the clip.
        K: float64 [3,3], px of the clip (height x width); a changing zoom is not modelled.
        height: px of the clip.
        width: px of the clip.
        may_shift: False where the detector saw no parallax: turns only are looked for.

    Returns:
        None where even a turning camera cannot be followed through the clip.
    """
    scale = np.array([tracks.width / width, tracks.height / height, 1.0])
    small = K * scale[:, None]
    structure = reconstruct(tracks, small) if may_shift else None
    if structure is not None and _is_sound(structure):
        return _full(tracks, structure, K, height=height, width=width)
    return _rotation(tracks, small, K, height=height, width=width)


def _is_sound(structure: Structure) -> bool:
    """Whether shifts can be told from turns, in (nearly) every frame."""
    if structure.share < _MIN_SHARE or structure.is_found.mean() < _MIN_FOUND:
        return False
    return structure.parallax_px >= max(_MIN_PARALLAX_PX, _MIN_PARALLAX_TO_ERROR * structure.error_px)


def _full(tracks: Tracks, structure: Structure, K: Float64, *, height: int, width: int) -> Odometry:
    num = tracks.num_frames
    matrices = np.repeat(np.eye(4)[None], num, axis=0)
    matrices[:, :3, :3], matrices[:, :3, 3] = structure.rotation, structure.translation
    unit = _unit(tracks, structure)
    matrices = rebase(matrices)
    matrices[:, :3, 3] /= unit
    return Odometry(
        path=_path(matrices, K, height=height, width=width),
        kind="full",
        is_found=structure.is_found,
        error_px=structure.error_px,
        share=structure.share,
    )


def _unit(tracks: Tracks, structure: Structure) -> float:
    """Median depth of the points that the first frame with enough of them sees, or the frame that sees most."""
    most = np.empty(0)
    for frame in range(tracks.num_frames):
        seen = np.isin(structure.point_track, tracks.at(frame)[0])
        depth = structure.points[seen] @ structure.rotation[frame, 2] + structure.translation[frame, 2]
        most = max(most, depth[depth > 0], key=len)
        if len(most) >= _MIN_SHARED:
            break
    return float(np.median(most))


def _rotation(tracks: Tracks, small: Float64, K: Float64, *, height: int, width: int) -> Odometry | None:
    """Turns alone, each frame against the last keyframe."""
    matrices = np.repeat(np.eye(4)[None], tracks.num_frames, axis=0)
    is_found = np.ones(tracks.num_frames, np.bool_)
    key, errors, shares = 0, [], []
    for frame in range(1, tracks.num_frames):
        ids, here, there = tracks.shared(key, frame)
        if len(ids) < _MIN_SHARED and frame - 1 != key:
            key = frame - 1
            ids, here, there = tracks.shared(key, frame)
        if len(ids) < _MIN_SHARED:
            matrices[frame], is_found[frame] = matrices[frame - 1], False
            continue
        turn, left = rotation_between(here, there, small)
        matrices[frame, :3, :3] = turn @ matrices[key, :3, :3]
        fits = left < 3 * max(1.0, float(np.median(left)))
        errors.append(float(np.median(left[fits])))
        shares.append(float((left < 2.0).mean()))
        if len(ids) < 0.5 * len(tracks.at(key)[0]):
            key = frame
    if is_found.mean() < 0.5 or not errors or np.median(shares) < _MIN_SHARE:
        return None
    return Odometry(
        path=_path(rebase(matrices), K, height=height, width=width),
        kind="rotation",
        is_found=is_found,
        error_px=float(np.median(errors)),
        share=float(np.median(shares)),
    )


def _path(matrices: Float64, K: Float64, *, height: int, width: int) -> CameraPath:
    num = len(matrices)
    return CameraPath(
        K=np.repeat(K[None], num, axis=0),
        world_to_camera=matrices,
        source_index=np.arange(num, dtype=np.int64),
        height=height,
        width=width,
    )
