"""Points followed through a clip: dense flow from frame to frame, sharpened by Lucas-Kanade, checked there and back."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import cv2
import numpy as np

from ex4d.core.arrays import Bool, Float32, Float64, Int64, UInt8, check_array
from ex4d.motion.flow import FlowEngine, texture

CELL_PX = 14
"""One point a cell of this size: about 500 in a frame of 384x288."""
MIN_TEXTURE = 2e-4 * 255**2 / 4
_ROUND_TRIP_PX = 0.7
_WINDOW = (11, 11)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracks:
    """Observations of points, sorted by frame.

    Attributes:
        frame: int64 [M], where it was seen.
        track: int64 [M], which point it is; 0 to `num_tracks` - 1.
        xy: float64 [M,2], px of the tracked pictures, corner origin.
        num_frames: of the clip.
        num_tracks: points.
        height: px of the tracked pictures.
        width: px of the tracked pictures.
    """

    frame: Int64
    track: Int64
    xy: Float64
    num_frames: int
    num_tracks: int
    height: int
    width: int

    def __post_init__(self) -> None:
        check_array("Tracks.frame", self.frame, np.int64, (None,))
        check_array("Tracks.track", self.track, np.int64, (len(self.frame),))
        check_array("Tracks.xy", self.xy, np.float64, (len(self.frame), 2))

    def at(self, frame: int) -> tuple[Int64, Float64]:
        """(track [n], xy [n,2]) of one frame, tracks ascending."""
        a, b = np.searchsorted(self.frame, (frame, frame + 1))
        return self.track[a:b], self.xy[a:b]

    def shared(self, first: int, second: int) -> tuple[Int64, Float64, Float64]:
        """(track [n], xy in `first` [n,2], xy in `second` [n,2]) of the points seen in both frames."""
        a, xy_a = self.at(first)
        b, xy_b = self.at(second)
        common, in_a, in_b = np.intersect1d(a, b, assume_unique=True, return_indices=True)
        return common, xy_a[in_a], xy_b[in_b]


@dataclass(slots=True)
class _Active:
    """Points that are being followed."""

    track: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    xy: Float32 = field(default_factory=lambda: np.empty((0, 2), np.float32))


def track_points(frames: Iterable[UInt8]) -> Tracks:
    """Follow points through gray frames uint8 [h,w]; new ones start wherever texture has no point nearby.

    Args:
        frames: one at a time; only two are held.
    """
    engine = FlowEngine()
    active = _Active()
    rows: list[tuple[int, Int64, Float32]] = []
    last: UInt8 | None = None
    num_tracks, shape, number = 0, (0, 0), -1
    for number, gray in enumerate(frames):
        if last is not None:
            active = _advance(engine, last, gray, active)
        fresh = _start(gray, active.xy)
        ids = np.arange(num_tracks, num_tracks + len(fresh))
        num_tracks += len(fresh)
        active = _Active(np.concatenate([active.track, ids]), np.concatenate([active.xy, fresh]))
        rows.append((number, active.track, active.xy))
        last, shape = gray, gray.shape
    return Tracks(
        frame=np.concatenate([np.full(len(track), frame, np.int64) for frame, track, _ in rows]),
        track=np.concatenate([track for _, track, _ in rows]),
        xy=np.concatenate([xy for *_, xy in rows]).astype(np.float64) + 0.5,
        num_frames=number + 1,
        num_tracks=num_tracks,
        height=shape[0],
        width=shape[1],
    )


def _start(gray: UInt8, taken: Float32) -> Float32:
    """float32 [n,2], centre origin: the most textured pixel of each cell that has no point yet."""
    height, width = gray.shape
    strength = texture(gray)
    margin = 4
    strength[:margin] = strength[-margin:] = 0
    strength[:, :margin] = strength[:, -margin:] = 0
    rows, columns = -(-height // CELL_PX), -(-width // CELL_PX)
    padded = np.zeros((rows * CELL_PX, columns * CELL_PX), np.float32)
    padded[:height, :width] = strength
    cells = padded.reshape(rows, CELL_PX, columns, CELL_PX).transpose(0, 2, 1, 3).reshape(rows * columns, -1)
    best = cells.argmax(axis=1)
    free = cells.max(axis=1) > MIN_TEXTURE
    held = (taken / CELL_PX).astype(np.int64)
    free[np.clip(held[:, 1], 0, rows - 1) * columns + np.clip(held[:, 0], 0, columns - 1)] = False
    cell = np.flatnonzero(free)
    x = cell % columns * CELL_PX + best[cell] % CELL_PX
    y = cell // columns * CELL_PX + best[cell] // CELL_PX
    return np.stack([x, y], axis=1).astype(np.float32)


def _advance(engine: FlowEngine, last: UInt8, gray: UInt8, active: _Active) -> _Active:
    """The points that are found again, where they are now."""
    if not len(active.track):
        return active
    forward, backward = engine.flow(last, gray), engine.flow(gray, last)
    guess = active.xy + _sample(forward, active.xy)
    settings = {"winSize": _WINDOW, "maxLevel": 1, "flags": cv2.OPTFLOW_USE_INITIAL_FLOW}
    there, found, _ = cv2.calcOpticalFlowPyrLK(last, gray, active.xy, guess.copy(), **settings)
    there = np.asarray(there, np.float32)
    back_guess = there + _sample(backward, there)
    back, returned, _ = cv2.calcOpticalFlowPyrLK(gray, last, there, back_guess.copy(), **settings)
    good = (found[:, 0] == 1) & (returned[:, 0] == 1)
    good &= np.linalg.norm(back - active.xy, axis=1) < _ROUND_TRIP_PX
    good &= np.linalg.norm(there - guess, axis=1) < 3.0 + 0.1 * np.linalg.norm(guess - active.xy, axis=1)
    return _keep_one_a_cell(_Active(active.track[good], there[good]), gray.shape)


def _keep_one_a_cell(points: _Active, shape: tuple[int, ...]) -> _Active:
    """Drop points outside of the frame, and all but the oldest where several run together."""
    x, y = points.xy[:, 0], points.xy[:, 1]
    inside: Bool = (x >= 2) & (y >= 2) & (x < shape[1] - 3) & (y < shape[0] - 3)
    half = CELL_PX // 2
    cell = (y // half).astype(np.int64) * shape[1] + (x // half).astype(np.int64)
    first = np.zeros(len(cell), np.bool_)
    order = np.flatnonzero(inside)
    first[order[np.unique(cell[order], return_index=True)[1]]] = True
    return _Active(points.track[first], points.xy[first])


def _sample(flow: Float32, xy: Float32) -> Float32:
    """Flow [h,w,2] at points [n,2] (centre origin), bilinear; 0 outside."""
    maps = np.ascontiguousarray(xy[None])
    found = cv2.remap(flow, maps[..., 0], maps[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.nan_to_num(found[0])
