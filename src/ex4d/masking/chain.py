"""Points followed by dense flow, chained from picture to picture and checked there and back."""

from collections.abc import Callable

import cv2
import numpy as np

from ex4d.core.arrays import Bool, Float32, UInt8
from ex4d.masking.tracker import PointTracks
from ex4d.motion.flow import is_consistent

Flow = Callable[[UInt8, UInt8], Float32]
"""Two pictures uint8 [h,w,3] → float32 [h,w,2], px: where each pixel of the first went in the second."""


def chain_flow(frames: UInt8, queries: Float32, flow: Flow) -> PointTracks:
    """Tracks of points: what `Tracker.track` of a flow method is.

    A point is visible as long as the flow there and back agrees at every step (`motion.flow.is_consistent`) and it
    stays in the picture; lost once, it stays lost: flow cannot see through what covers it.
    """
    height, width = frames.shape[1:3]
    points = np.empty((len(frames), len(queries), 2), np.float32)
    visible = np.ones((len(frames), len(queries)), np.bool_)
    points[0] = queries
    for t in range(1, len(frames)):
        forward, backward = flow(frames[t - 1], frames[t]), flow(frames[t], frames[t - 1])
        step = _at(forward, points[t - 1])
        agrees = _nearest(is_consistent(forward, backward), points[t - 1])
        points[t] = points[t - 1] + step
        inside = ((points[t] >= 0) & (points[t] <= (width, height))).all(axis=1)
        visible[t] = visible[t - 1] & agrees & inside
    return PointTracks(points=points, visible=visible)


def _at(flow: Float32, points: Float32) -> Float32:
    """Flow [h,w,2] at points [N,2] (corner origin), bilinear; those outside get the border's."""
    if not len(points):
        return np.empty((0, 2), np.float32)
    centres = np.ascontiguousarray(points[:, None] - np.float32(0.5))
    found = cv2.remap(flow, centres[..., 0], centres[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found, np.float32).reshape(-1, 2)


def _nearest(values: Bool, points: Float32) -> Bool:
    """Values [h,w] of the pixels that points [N,2] (corner origin) lie in; clamped to the picture."""
    height, width = values.shape
    column = np.clip(points[:, 0].astype(np.int64), 0, width - 1)
    row = np.clip(points[:, 1].astype(np.int64), 0, height - 1)
    return values[row, column]
