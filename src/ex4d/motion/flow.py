"""Dense optical flow between two frames, and where it can be believed. OpenCV's DIS; no weights."""

from collections.abc import Iterator

import cv2
import numpy as np

from ex4d.core.arrays import Bool, Float32, UInt8
from ex4d.core.clip import Clip, iter_chunks
from ex4d.core.video import Video

WORK_SIDE_PX = 384
"""Longer side of the pictures that motion is looked at in: enough for sub-pixel motion, 10-20 ms a flow."""


def work_size(height: int, width: int, side_px: int = WORK_SIDE_PX) -> tuple[int, int]:
    """(height, width) of a clip's frames shrunk so that the longer side is at most `side_px`; at least 16 px each."""
    scale = min(1.0, side_px / max(height, width))
    return max(16, round(height * scale)), max(16, round(width * scale))


def gray_frame(frame: UInt8, size: tuple[int, int]) -> UInt8:
    """uint8 [h,w]: luma of an sRGB frame uint8 [H,W,3] at (h, w)."""
    gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    if gray.shape != size:
        gray = cv2.resize(gray, size[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(gray, np.uint8)


def iter_gray(source: Clip[Video], size: tuple[int, int]) -> Iterator[UInt8]:
    """Every frame of a clip as `gray_frame`, one at a time."""
    for _, chunk in iter_chunks(source):
        for frame in chunk.frames:
            yield gray_frame(frame, size)


class FlowEngine:
    """DIS at its medium preset; keeps OpenCV's buffers between calls."""

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def flow(self, first: UInt8, second: UInt8) -> Float32:
        """float32 [h,w,2], px (x right, y down): where each pixel of `first` [h,w] went in `second` [h,w]."""
        return np.asarray(self._dis.calc(first, second, None), np.float32)  # pyright: ignore[reportCallIssue, reportArgumentType]


def follow(flow: Float32, values: Float32) -> Float32:
    """`values` [h,w] or [h,w,c] of the second frame, looked up where `flow` [h,w,2] points; NaN outside of it."""
    height, width = flow.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    u, v = x + flow[..., 0], y + flow[..., 1]
    found = np.asarray(cv2.remap(values, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)
    found[(u < 0) | (v < 0) | (u > width - 1) | (v > height - 1)] = np.nan
    return found


def round_trip_px(forward: Float32, backward: Float32) -> Float32:
    """float32 [h,w]: how far a pixel ends from itself there and back, px; infinite where it leaves the frame."""
    back = forward + follow(forward, backward)
    return np.nan_to_num(np.hypot(back[..., 0], back[..., 1]), nan=np.inf)


def is_consistent(forward: Float32, backward: Float32, tolerance_px: float = 1.0) -> Bool:
    """bool [h,w]: where the flow there and back agree to `tolerance_px` plus 2 % of the motion."""
    length = np.hypot(forward[..., 0], forward[..., 1])
    return round_trip_px(forward, backward) < tolerance_px + 0.02 * length


def texture(gray: UInt8) -> Float32:
    """float32 [h,w]: the smaller eigenvalue of the gradient's 7x7 structure tensor (Shi-Tomasi), in gray levels².

    Where it is small, a point can slide along an edge, or anywhere, without looking different.
    """
    return np.asarray(cv2.cornerMinEigenVal(gray.astype(np.float32), 7, ksize=3), np.float32)
