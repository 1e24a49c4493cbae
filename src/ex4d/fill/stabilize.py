"""Carry the previous frame's fill along the camera's motion, so that invented pixels do not flicker."""

from dataclasses import dataclass
from typing import Any

import numba as nb
import numpy as np

from ex4d.core.arrays import Bool, Float32
from ex4d.core.camera import Camera

_JIT: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": False, "error_model": "numpy"}
f4 = nb.float32

SAME_SURFACE = 0.25
"""Relative disparity difference up to which a carried pixel counts as the same background; invented
depth is rough."""
CHANGE_LEVELS = 40.0
"""A carried colour this far from the new one counts half: the scene has changed."""

EDGE_PX = 12.0
"""The share of the previous frame fades out over this distance from its edges."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The last completed frame.

    Attributes:
        color: float32 [H,W,3], levels, before rounding.
        disparity: float32 [H,W], 1/z in its camera.
        camera: its camera.
    """

    color: Float32
    disparity: Float32
    camera: Camera


def carry_fill(color: Float32, disparity: Float32, invented: Bool, *, memory: Memory, camera: Camera, share: float):
    """Blend invented pixels with the previous frame, in place.

    Args:
        color: float32 [H,W,3], levels.
        disparity: float32 [H,W], 1/z in `camera`.
        invented: bool [H,W], the only pixels that are changed.
        memory: the previous frame.
        camera: this frame's camera.
        share: weight of the previous frame, 0–1.
    """
    to_old = memory.camera.world_to_camera @ camera.camera_to_world
    rays = memory.camera.K @ to_old[:3, :3] @ np.linalg.inv(camera.K)
    shift = memory.camera.K @ to_old[:3, 3]
    matrix = np.concatenate([rays, shift[:, None]], axis=1)
    _carry(color, disparity, invented, (memory.color, memory.disparity), matrix, f4(share))


@nb.njit(**_JIT)
def _carry(color, disparity, invented, old, matrix, share):
    """matrix float64 [3,4]: (x, y, 1, 1/z) of this frame → homogeneous pixel of the old one, over z."""
    old_color, old_disparity = old
    height, width = invented.shape
    for y in range(height):
        for x in range(width):
            d = disparity[y, x]
            if not invented[y, x] or d <= 0:
                continue
            px, py = x + 0.5, y + 0.5
            w = matrix[2, 0] * px + matrix[2, 1] * py + matrix[2, 2] + matrix[2, 3] * d
            if w <= 1e-6:
                continue
            u = (matrix[0, 0] * px + matrix[0, 1] * py + matrix[0, 2] + matrix[0, 3] * d) / w - 0.5
            v = (matrix[1, 0] * px + matrix[1, 1] * py + matrix[1, 2] + matrix[1, 3] * d) / w - 0.5
            if u < 0 or v < 0 or u > width - 1 or v > height - 1:
                continue
            expected = f4(d / w)
            i0, j0 = min(int(v), max(height - 2, 0)), min(int(u), max(width - 2, 0))
            total, r, g, b = f4(0), f4(0), f4(0), f4(0)
            for i in range(i0, min(i0 + 2, height)):
                for j in range(j0, min(j0 + 2, width)):
                    if abs(old_disparity[i, j] - expected) > f4(SAME_SURFACE) * expected:
                        continue
                    a = f4((1.0 - abs(v - i)) * (1.0 - abs(u - j)))
                    total += a
                    r += a * old_color[i, j, 0]
                    g += a * old_color[i, j, 1]
                    b += a * old_color[i, j, 2]
            if total <= f4(0.05):
                continue
            r, g, b = r / total - color[y, x, 0], g / total - color[y, x, 1], b / total - color[y, x, 2]
            q = (r * r + g * g + b * b) / f4(3.0 * CHANGE_LEVELS * CHANGE_LEVELS)
            # no seam where the old frame ends
            edge = min(min(u, width - 1 - u), min(v, height - 1 - v)) + 1.0
            s = share * f4(min(edge / EDGE_PX, 1.0)) * min(total, f4(1.0)) / (f4(1.0) + q)
            color[y, x, 0] += s * r
            color[y, x, 1] += s * g
            color[y, x, 2] += s * b
