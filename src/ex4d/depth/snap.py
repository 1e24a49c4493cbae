"""Estimated depth at the size of the clip, with edges that are edges.

Networks and flow blend near and far across an outline; such pixels float in between ("flying pixels"), and a mesh
stretches a wide skirt over them. Each is moved to the nearer one of the two surfaces, so that a torn face is one pixel
wide. Slopes are no edges: their depth range grows with the window, that of a step does not.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from ex4d.core.arrays import Bool, Float32, Float64, check_array
from ex4d.core.clip import Clip
from ex4d.core.depth import DepthVideo
from ex4d.io.depth.clip import nearest_index

EDGE_JUMP = 0.08
"""Two disparities in a window that differ by more than this share belong to two surfaces."""
BLUR_PX = 1
"""How far to each side of an outline estimates blend, px of their own maps."""


def snap_edges(disparity: Float32, radius_px: int) -> Float32:
    """Disparity without values in between two surfaces.

    Args:
        disparity: float32 [h,w] > 0, any scale (no shift).
        radius_px: how far to each side of an outline it blends.

    Returns:
        float32 [h,w]: where the range around a pixel is a step, the nearer extreme of that range.
    """
    reach = radius_px + radius_px // 4 + 1  # so that both surfaces are seen from the middle of what is blended
    low, high = _extremes(disparity, reach, reach)
    is_step = _is_step(disparity, reach, axis=0) | _is_step(disparity, reach, axis=1)
    nearest = np.where(disparity - low < high - disparity, low, high)
    return np.where(is_step, nearest, disparity).astype(np.float32)


def _is_step(values: Float32, reach: int, *, axis: int) -> Bool:
    """bool [h,w]: where the range along an axis is wide, and a wider window has not half of what a slope would gain."""
    at = np.arange(values.shape[axis])
    narrow, wide = (np.minimum(at, n) + np.minimum(at[::-1], n) for n in (reach, 2 * reach + 1))  # the frame cuts both
    limit = (1 + 0.5 * (wide / np.maximum(narrow, 1) - 1)).astype(np.float32)
    (low, high), (lowest, highest) = (
        _extremes(values, *((n, 0) if axis == 0 else (0, n))) for n in (reach, 2 * reach + 1)
    )
    jump = high - low
    grows = highest - lowest >= (limit[:, None] if axis == 0 else limit) * jump
    return (jump > np.float32(EDGE_JUMP) * low) & ~grows


def _extremes(values: Float32, rows_px: int, columns_px: int) -> tuple[Float32, Float32]:
    kernel = np.ones((2 * rows_px + 1, 2 * columns_px + 1), np.uint8)
    return np.asarray(cv2.erode(values, kernel), np.float32), np.asarray(cv2.dilate(values, kernel), np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnappedDepthClip:
    """An estimate at the clip's size: enlarged smoothly in disparity, then snapped.

    Attributes:
        clip: depth at the estimate's own size; unknown pixels stay unknown (nearest sample).
        timestamps_s: float64 [num_frames], those of the video beside it.
        height: px.
        width: px.
    """

    clip: Clip[DepthVideo]
    timestamps_s: Float64
    height: int
    width: int

    def __post_init__(self) -> None:
        check_array("SnappedDepthClip.timestamps_s", self.timestamps_s, np.float64, (self.clip.num_frames,))

    @property
    def num_frames(self) -> int:
        return self.clip.num_frames

    def read(self, start: int, stop: int) -> DepthVideo:
        """Frames ``start:stop``."""
        chunk = self.clip.read(start, stop)
        factor = max(self.height / chunk.height, self.width / chunk.width)
        radius = max(1, math.ceil(BLUR_PX * factor))
        rows, columns = nearest_index(chunk.height, self.height), nearest_index(chunk.width, self.width)
        valid = chunk.valid[:, rows[:, None], columns]
        depth = np.zeros(valid.shape, np.float32)
        for slot in range(len(chunk)):
            known = chunk.valid[slot]
            disparity = np.where(known, 1 / np.where(known, chunk.depth[slot], 1), 0).astype(np.float32)
            if known.any() and not known.all():  # what is unknown must not look like a surface at infinity
                disparity = _nearest_known(disparity, known)
            large = disparity
            if disparity.shape != (self.height, self.width):
                large = cv2.resize(disparity, (self.width, self.height), interpolation=cv2.INTER_LINEAR)
            snapped = snap_edges(np.asarray(large, np.float32), radius)
            depth[slot] = np.where(valid[slot], 1 / np.where(valid[slot], snapped, 1), 0)
        return DepthVideo(depth=depth, valid=valid, timestamps_s=self.timestamps_s[start:stop], scale=chunk.scale)


def _nearest_known(values: Float32, known: Bool) -> Float32:
    """`values` [h,w], those that are not known replaced by the nearest one that is."""
    unknown = np.where(known, np.uint8(0), np.uint8(1))
    _, labels = cv2.distanceTransformWithLabels(unknown, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    label = np.asarray(labels, np.int64)
    of_label = np.zeros(int(label.max()) + 1, np.float32)
    of_label[label[known]] = values[known]
    return of_label[label]
