"""Where things move by themselves: flow that the camera does not explain."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from ex4d.core.arrays import Bool, Float32, Float64, UInt8
from ex4d.core.camera import CameraPath
from ex4d.core.clip import Clip
from ex4d.core.video import Video
from ex4d.motion.flow import WORK_SIDE_PX, FlowEngine, follow, iter_gray

SPANS_S = (0.1, 0.4)
"""How far apart the compared frames are: fast things, and slow ones."""
_MAX_GAP = 10
_STILL_PX = 0.5
"""What flow invents where nothing moves, px of pictures 384 wide; motion counts fully from twice as much."""
_NOISE_FACTOR = 3.0
_GRID_PX = 6
_FIT_STEPS = 10
_STILL_SCALE_PX, _TURNED_SCALE_PX = 1.0, 4.0
"""How far a still and a turned camera's background may seem to move before it is doubted."""
_WINDOW_PX = 5
_TOLERANCE_LEVELS = 1.5
_UNSEEN_RIM_PX = 6


def gaps(timestamps_s: Float64) -> tuple[int, ...]:
    """Frame distances that come nearest to `SPANS_S`: 1 to 10 frames, without doubles."""
    if len(timestamps_s) < 2:
        return ()
    interval = float(timestamps_s[-1] - timestamps_s[0]) / (len(timestamps_s) - 1)
    wanted = [round(span / interval) if interval > 0 else 1 for span in SPANS_S]
    longest = min(_MAX_GAP, len(timestamps_s) - 1)
    return tuple(sorted({min(max(gap, 1), longest) for gap in wanted}))


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionSearch:
    """Compares a frame with its neighbours.

    Attributes:
        cameras: whose turns are taken out; None: the camera stands still.
        size: (h, w) of the gray frames.
        gaps: frame distances.
    """

    cameras: CameraPath | None
    size: tuple[int, int]
    gaps: tuple[int, ...]

    def evidence(self, engine: FlowEngine, frames: dict[int, UInt8], index: int) -> Float32:
        """float32 [h,w] in 0..1: how surely each pixel moves against the background.

        For each gap, the frame before and the one after must both say so (where both exist): what a mover hides or
        uncovers looks as if it moved in one of them only.
        """
        best = np.zeros(self.size, np.float32)
        for gap in self.gaps:
            both = [self._moves(engine, frames, index, index + step) for step in (-gap, gap) if index + step in frames]
            if both:
                best = np.maximum(best, np.fmin.reduce(both))
        return np.nan_to_num(best)

    def _moves(self, engine: FlowEngine, frames: dict[int, UInt8], index: int, other: int) -> Float32:
        """float32 [h,w], NaN where the other frame does not show what is behind the pixel."""
        view, seen = self._seen_from(frames[other], index, other)
        flow = engine.flow(frames[index], view)
        background = _background_flow(flow, seen, _STILL_SCALE_PX if self.cameras is None else _TURNED_SCALE_PX)
        left = np.linalg.norm(flow - background, axis=2)
        scale = max(self.size) / WORK_SIDE_PX
        noise = float(np.median(left[seen])) if seen.any() else 0.0
        low = _STILL_PX * scale + _NOISE_FACTOR * noise
        moves = np.clip((left - low) / low, 0, 1)
        # Flow carries a rim of background along with a mover; where rest explains the picture as well, nothing moves.
        gain = _mismatch(frames[index], view, background) - _mismatch(frames[index], view, flow)
        moves *= np.clip(1 + gain / _TOLERANCE_LEVELS, 0, 1)
        return np.where(seen, moves, np.float32(np.nan)).astype(np.float32)

    def _seen_from(self, gray: UInt8, index: int, other: int) -> tuple[UInt8, Bool]:
        """Frame `other` as a camera at its place, turned like camera `index`, would see it, and where it sees."""
        height, width = self.size
        if self.cameras is None:
            return gray, np.ones(self.size, np.bool_)
        a, b = self.cameras[index], self.cameras[other]
        turn = b.world_to_camera[:3, :3] @ a.world_to_camera[:3, :3].T
        carry = self._K(b.K) @ turn @ np.linalg.inv(self._K(a.K))
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        view = cv2.warpPerspective(gray, carry, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        seen = cv2.warpPerspective(np.ones_like(gray), carry, (width, height), flags=flags)
        return np.asarray(view, np.uint8), cv2.erode(seen, np.ones((2 * _UNSEEN_RIM_PX + 1,) * 2, np.uint8)) > 0

    def _K(self, K: Float64) -> Float64:  # noqa: N802
        """Of the shrunk picture, centre origin as OpenCV counts."""
        assert self.cameras is not None
        scale = np.array([self.size[1] / self.cameras.width, self.size[0] / self.cameras.height, 1.0])
        small = K * scale[:, None]
        small[:2, 2] -= 0.5
        return small


def iter_motion(source: Clip[Video], search: MotionSearch) -> Iterator[Float32]:
    """`MotionSearch.evidence` of every frame; holds twice the longest gap of frames."""
    engine = FlowEngine()
    ahead = max(search.gaps, default=0)
    frames: dict[int, UInt8] = {}
    for newest, gray in enumerate(iter_gray(source, search.size)):
        frames[newest] = gray
        if newest >= ahead:
            yield search.evidence(engine, frames, newest - ahead)
            frames.pop(newest - 2 * ahead, None)
    for index in range(max(source.num_frames - ahead, 0), source.num_frames):
        yield search.evidence(engine, frames, index)


def _mismatch(gray: UInt8, view: UInt8, flow: Float32) -> Float32:
    """float32 [h,w], gray levels, mean over a small window: how badly `flow` carries one picture into the other."""
    carried = np.nan_to_num(follow(flow, view.astype(np.float32)), nan=255.0)
    return np.asarray(cv2.blur(np.abs(gray - carried), (_WINDOW_PX, _WINDOW_PX)), np.float32)


def _background_flow(flow: Float32, seen: Bool, scale_px: float) -> Float32:
    """float32 [h,w,2], px: what the background itself does in `flow` [h,w,2] (shake, zoom, errors of the cameras).

    A quadratic map, as of a plane, near zero: reweighted least squares that starts at rest and counts motion of
    `scale_px` or more little, so that a mover that fills the frame is not taken for the background; then to 1 px.
    """
    height, width = seen.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = x / width - np.float32(0.5), y / height - np.float32(0.5)
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    chosen = (slice(_GRID_PX // 2, None, _GRID_PX),) * 2
    use = seen[chosen].ravel()
    a, b = terms[chosen].reshape(-1, 6)[use], flow[chosen].reshape(-1, 2)[use]
    fit = np.zeros((6, 2), np.float32)
    for _ in range(_FIT_STEPS):
        error = np.linalg.norm(b - a @ fit, axis=1)
        weighted = a * (1 / (1 + (error / scale_px) ** 2) ** 2)[:, None]
        fit = np.linalg.solve(weighted.T @ a + 1e-3 * np.eye(6, dtype=np.float32), weighted.T @ b)
        scale_px = max(1.0, 0.7 * scale_px)
    return np.asarray(terms @ fit, np.float32)
