"""How near a path comes to the scene: found before rendering, so that depth can be stored in 16 bits."""

from typing import Any

import numba as nb
import numpy as np

from ex4d.core.arrays import Bool, Float32
from ex4d.core.camera import Camera
from ex4d.render.rasterizer import NEAR_SHARE

_JIT: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": False, "error_model": "numpy"}

_MARGIN = 0.25
"""Pixels this share of the frame outside the view still count: a face may reach in from there."""


def nearest_in_view(depth: Float32, valid: Bool, source: Camera, target: Camera) -> float:
    """Smallest z, in the target camera, of the frame's points that may be in view; inf if there are none.

    Args:
        depth: float32 [H,W], z in the source camera.
        valid: bool [H,W].
        source: the camera that saw the frame.
        target: the camera that will.

    Returns:
        Scene units, not below the near plane that the rasteriser would use for this frame.
    """
    if not valid.any():
        return float("inf")
    near = NEAR_SHARE * float(depth[valid].min())
    transform = np.ascontiguousarray((target.world_to_camera @ source.camera_to_world)[:3])
    return float(_nearest(depth, valid, source.K, transform, target.K, float(target.height), float(target.width), near))


@nb.njit(**_JIT)
def _nearest(depth, valid, source_k, transform, target_k, height, width, near):
    best = np.inf
    for i in range(depth.shape[0]):
        ray_y = (i + 0.5 - source_k[1, 2]) / source_k[1, 1]
        for j in range(depth.shape[1]):
            if not valid[i, j]:
                continue
            ray_x = (j + 0.5 - source_k[0, 2]) / source_k[0, 0]
            z0 = depth[i, j]
            x0, y0 = ray_x * z0, ray_y * z0
            z = transform[2, 0] * x0 + transform[2, 1] * y0 + transform[2, 2] * z0 + transform[2, 3]
            if z >= best:
                continue
            # points behind the near plane may belong to faces that cross it: those start at it
            x = transform[0, 0] * x0 + transform[0, 1] * y0 + transform[0, 2] * z0 + transform[0, 3]
            y = transform[1, 0] * x0 + transform[1, 1] * y0 + transform[1, 2] * z0 + transform[1, 3]
            clamped = max(z, near)
            u = target_k[0, 0] * x / clamped + target_k[0, 2]
            v = target_k[1, 1] * y / clamped + target_k[1, 2]
            if (
                z > -near
                and abs(u - width / 2) < (0.5 + _MARGIN) * width
                and abs(v - height / 2) < (0.5 + _MARGIN) * height
            ):
                best = clamped
    return best
