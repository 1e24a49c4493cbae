"""Landmarks: points in the world that frames see, with known cameras. What sparse depth comes from."""

from dataclasses import dataclass

import numpy as np

from ex4d.core.arrays import Float64, Int64, check_array
from ex4d.core.camera import CameraPath
from ex4d.motion.tracks import Tracks
from ex4d.motion.two_view import triangulate

_MIN_ANGLE_RAD = np.radians(1.0)
_MAX_ERROR_PX = 2.0
_MAX_VIEWS = 12
_BATCH = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Landmarks:
    """Points that stand still, in the world and unit of the cameras that saw them.

    Attributes:
        points: float64 [m,3], world.
        track: int64 [m], ascending: the track of each point.
        tracks: what was followed, px of the shrunk pictures.
        path: the cameras, one a frame, at the clip's size.
    """

    points: Float64
    track: Int64
    tracks: Tracks
    path: CameraPath

    def __post_init__(self) -> None:
        check_array("Landmarks.points", self.points, np.float64, (None, 3))
        check_array("Landmarks.track", self.track, np.int64, (len(self.points),))

    def seen(self, frame: int) -> tuple[Float64, Float64]:
        """(xy float64 [n,2] px of the clip, depth float64 [n] > 0) of the landmarks that a frame sees."""
        ids, xy = self.tracks.at(frame)
        if not len(self.track):
            return np.empty((0, 2)), np.empty(0)
        slot = np.minimum(np.searchsorted(self.track, ids), len(self.track) - 1)
        known = self.track[slot] == ids
        matrix = self.path.world_to_camera[frame]
        depth = self.points[slot[known]] @ matrix[2, :3] + matrix[2, 3]
        scale = np.array([self.path.width / self.tracks.width, self.path.height / self.tracks.height])
        return (xy[known] * scale)[depth > 0], depth[depth > 0]


def find_landmarks(tracks: Tracks, path: CameraPath) -> Landmarks:
    """Triangulate tracks from cameras that are known (a file, another program).

    A point is kept where its rays meet under at least 1° and it is seen within 2 px of where it should be, from up
    to 12 of its frames, spread over its life.

    Args:
        tracks: of the clip.
        path: one camera a frame.
    """
    scale = np.array([tracks.width / path.width, tracks.height / path.height, 1.0])
    K = path.K * scale[:, None]
    order = np.lexsort((tracks.frame, tracks.track))
    starts = np.searchsorted(tracks.track[order], np.arange(tracks.num_tracks + 1))
    kept: list[tuple[int, Float64]] = []
    long = np.flatnonzero(np.diff(starts) >= 2)
    for first in range(0, len(long), _BATCH):
        batch = long[first : first + _BATCH]
        kept += _triangulate(tracks, path, K, order, starts, batch)
    points = np.array([point for _, point in kept]).reshape(-1, 3)
    return Landmarks(points=points, track=np.array([i for i, _ in kept], np.int64), tracks=tracks, path=path)


def _triangulate(
    tracks: Tracks, path: CameraPath, K: Float64, order: Int64, starts: Int64, batch: Int64
) -> list[tuple[int, Float64]]:
    shares = np.linspace(0, 1, _MAX_VIEWS)
    count = starts[batch + 1] - starts[batch]
    slot = np.round(shares[:, None] * (count - 1)).astype(np.int64)
    rows = order[starts[batch] + slot]  # [views, points]; short tracks repeat views, which does no harm
    frames, xy = tracks.frame[rows], tracks.xy[rows]
    homogeneous = np.concatenate([xy, np.ones((*xy.shape[:2], 1))], axis=2)
    rays = (np.linalg.inv(K)[frames] @ homogeneous[..., None])[..., 0]
    rays /= np.linalg.norm(rays, axis=2, keepdims=True)
    rotation, translation = path.world_to_camera[frames, :3, :3], path.world_to_camera[frames, :3, 3]
    points, angle = triangulate(rays, rotation, translation, np.ones(frames.shape, np.bool_))
    local = (rotation @ points[:, :, None])[..., 0] + translation
    image = (K[frames] @ local[..., None])[..., 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.linalg.norm(image[..., :2] / image[..., 2:] - xy, axis=2)
    good = (angle > _MIN_ANGLE_RAD) & (np.nan_to_num(error, nan=np.inf).max(axis=0) < _MAX_ERROR_PX)
    good &= (local[..., 2] > 0).all(axis=0)
    return [(int(i), point) for i, point in zip(batch[good], points[good], strict=True)]
