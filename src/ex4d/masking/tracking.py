"""Tracking masks: labels that were set in one frame follow the content along point tracks.

From the keyframe on, forwards and backwards, the clip is walked in pieces of `restart_frames`. At the start of each a
grid of points is set that knows where in the keyframe it belongs; the points are followed to the end of the piece, and
hand that place over to the next grid. A pixel takes the place of the nearest point that is visible in its frame: the
same content keeps its label, and content that appears takes that of the content around it.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from ex4d.core.arrays import Bool, Float32, Int64, UInt8
from ex4d.masking.tracker import Tracker
from ex4d.motion.flow import gray_frame, texture
from ex4d.motion.tracks import MIN_TEXTURE

LEAST_VISIBLE = 0.1
"""Share of a piece's points below which nothing of a frame was found again. Across a cut between procedural scenes flow
agrees with itself by chance at 1–10 % of the points; a fast pan keeps more than half of them for a piece."""
LEAST_TEXTURED = 0.01
"""Share of pixels with texture below which points can be anywhere without looking different."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where in the keyframe the content of every frame was.

    Attributes:
        offset: float32 [T,h,w,2], px of the tracked pictures: pixel (x, y) of frame t shows what was, or would have
            been, at (x, y) + offset in the keyframe.
        lost: frames in which nothing was found again, ascending: there, the mask stays where it was.
        textured: share of the keyframe's pixels that points can hold on to, 0–1.
    """

    offset: Float32
    lost: tuple[int, ...]
    textured: float


def find_places(frames: UInt8, tracker: Tracker, *, keyframe: int, restart_frames: int, grid_step_px: int) -> Places:
    """Follow the content of a clip to and from a keyframe.

    Args:
        frames: uint8 [T,h,w,3], the whole clip, small.
        tracker: what follows points.
        keyframe: index of a frame.
        restart_frames: length of a piece.
        grid_step_px: distance of the points.
    """
    num, height, width = frames.shape[:3]
    offset = np.zeros((num, height, width, 2), np.float32)
    lost: list[int] = []
    for order in (np.arange(keyframe, num), np.arange(keyframe, -1, -1)):
        for first in range(0, len(order) - 1, restart_frames):
            piece = order[first : first + restart_frames + 1]
            lost += _follow(frames, piece, offset, tracker, grid_step_px)
    gray = gray_frame(frames[keyframe], (height, width))
    return Places(offset=offset, lost=tuple(sorted(lost)), textured=float((texture(gray) > MIN_TEXTURE).mean()))


def _follow(frames: UInt8, piece: Int64, offset: Float32, tracker: Tracker, grid_step_px: int) -> list[int]:
    """Fill `offset` of the frames of a piece after its first, whose offset is known; returns the lost ones."""
    height, width = frames.shape[1:3]
    queries = _grid(height, width, grid_step_px)
    column, row = queries.astype(np.int64).T
    homes = queries + offset[piece[0], row, column]
    tracks = tracker.track(np.ascontiguousarray(frames[piece]), queries)
    lost: list[int] = []
    for t in range(1, len(piece)):
        visible = tracks.visible[t] & np.isfinite(tracks.points[t]).all(axis=1)  # networks may give up with NaN
        if visible.mean() < LEAST_VISIBLE:
            offset[piece[t]] = offset[piece[t - 1]]
            lost.append(int(piece[t]))
            continue
        points = tracks.points[t, visible]
        offset[piece[t]] = _spread(points, homes[visible] - points, (height, width), grid_step_px)
    return lost


def _grid(height: int, width: int, step: int) -> Float32:
    """float32 [N,2]: centres of pixels about `step` apart, corner origin, the same margin on both sides."""
    y, x = (np.arange((length - 1) % step // 2, length, step) + 0.5 for length in (height, width))
    return np.stack([a.ravel() for a in np.meshgrid(x, y)], axis=1).astype(np.float32)


def _spread(points: Float32, values: Float32, size: tuple[int, int], grid_step_px: int) -> Float32:
    """Values [N,2] at points [N,2] → float32 [h,w,2]: of the nearest point, smoothed over half a grid step.

    Smoothing closes the cracks between neighbouring cells; it is far below the size of what masks cut out.
    """
    height, width = size
    column = np.clip(points[:, 0].astype(np.int64), 0, width - 1)
    row = np.clip(points[:, 1].astype(np.int64), 0, height - 1)
    owner = np.full(size, -1, np.int64)
    owner[row, column] = np.arange(len(points))  # of several in one pixel the last
    nearest = values[owner.ravel()[nearest_of(owner >= 0)]]
    sigma = grid_step_px / 2
    return np.asarray(cv2.GaussianBlur(nearest, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), np.float32)


def carry_labels(labels: Bool, known: Bool, places: Places) -> Bool:
    """Labels of the keyframe in every frame.

    Args:
        labels: bool [H,W], any size.
        known: bool [H,W], where the depth that they come from is known. What would have been outside of the keyframe
            has the label of its rim; there, unknown pixels (sensors have many) count as their nearest known ones.
        places: where everything was.

    Returns:
        bool [T,H,W].
    """
    height, width = labels.shape
    num, small_height, small_width = places.offset.shape[:3]
    scale = np.array([width / small_width, height / small_height], np.float32)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    inner, rim = (values.astype(np.uint8) for values in (labels, labels.ravel()[nearest_of(known)]))
    carried = np.empty((num, height, width), np.bool_)
    for t in range(num):
        offset = cv2.resize(places.offset[t], (width, height), interpolation=cv2.INTER_LINEAR) * scale
        u, v = x + offset[..., 0], y + offset[..., 1]
        outside = (u < -0.5) | (v < -0.5) | (u > width - 0.5) | (v > height - 0.5)
        found = (cv2.remap(values, u, v, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE) for values in (rim, inner))
        carried[t] = np.where(outside, *found)
    return carried


def nearest_of(chosen: Bool) -> Int64:
    """int64 [H,W]: flat index of the nearest pixel that is chosen; its own where none is."""
    if not chosen.any():
        return np.arange(chosen.size).reshape(chosen.shape)
    found = cv2.distanceTransformWithLabels((~chosen).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    labels = np.asarray(found[1], np.int64)
    index = np.zeros(int(labels.max()) + 1, np.int64)
    index[labels[chosen]] = np.flatnonzero(chosen)
    return index[labels]
