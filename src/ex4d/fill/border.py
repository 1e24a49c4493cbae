"""What may lie beyond the frame: hints for rays that leave the source view without meeting a torn edge."""

from typing import Any

import cv2
import numba as nb
import numpy as np

from ex4d.core.arrays import Bool, Float32, Float64
from ex4d.core.camera import Camera
from ex4d.core.mesh import DepthMesh

_JIT: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": False, "error_model": "numpy"}

BORDER_SHARE = 0.05
"""Weight of hints beyond the frame's border, whose continuation is a guess, against those of torn edges."""
BORDER_RADIUS_PX = 30.0
"""Hints beyond the frame's border fall off as 1/distance from here on: nothing else says what goes on there."""
BORDER_CELL_PX = 4
"""Rays that leave the source view are followed for one pixel in so many, each way."""
BORDER_BLUR_PX = 9
"""The colours that go on beyond the border are averaged over a square of this side."""
MARCH_STEPS = 48
MARCH_GROWTH = 1.16
"""Steps along such a ray and the factor from one distance to the next: 3 orders of magnitude in all."""


def continue_border(observed: Bool, mesh: DepthMesh, target: Camera, hints: tuple[Float32, Float32, Float32]) -> None:
    """Let the outermost pixels of the source frame go on sideways, for ever, and see them from the target.

    Args:
        observed: bool [H,W], pixels that need no hint.
        mesh: default geometry of the source frame.
        target: the target camera.
        hints: colour float32 [H,W,3], disparity and confidence float32 [H,W]; written where the confidence is 0.
    """
    to_source = np.ascontiguousarray((mesh.source.world_to_camera @ target.camera_to_world)[:3])
    blurred = np.asarray(cv2.blur(mesh.texture, (BORDER_BLUR_PX, BORDER_BLUR_PX)), dtype=np.uint8)
    source = (mesh.grid[2, 1:-1, 1:-1], blurred, _typical_background(mesh))
    _continue(observed, source, (to_source, _intrinsics(target), _intrinsics(mesh.source)), hints)


def _intrinsics(camera: Camera) -> Float64:
    k = camera.K
    return np.array([k[0, 0], k[1, 1], k[0, 2], k[1, 2]])


def _typical_background(mesh: DepthMesh) -> Float64:
    """float64 [4]: mean colour (levels) and 1/z of the farther half of a source frame."""
    depth = mesh.grid[2, 1:-1:4, 1:-1:4]
    far = depth >= np.median(depth)
    return np.array([*mesh.texture[::4, ::4][far].mean(axis=0), 1 / depth[far].mean()])


@nb.njit(**_JIT)
def _continue(observed, source, cameras, hints):
    """Hints for rays that leave the source view without meeting a torn edge: its outermost pixels go on.

    The source depth map is taken to repeat its border for ever; the ray is followed until it passes below that.
    source = depth float32 [H,W], colours, what stands for the unknown (colour, 1/z); cameras = target → source
    float64 [3,4] and both intrinsics; hints = colour, disparity, confidence.
    """
    depth = source[0]
    start = 0.2 * depth.min()
    hit = np.zeros(6, np.float64)
    for y0 in range(0, observed.shape[0], BORDER_CELL_PX):
        y1 = min(y0 + BORDER_CELL_PX, observed.shape[0])
        for x0 in range(0, observed.shape[1], BORDER_CELL_PX):
            x1 = min(x0 + BORDER_CELL_PX, observed.shape[1])
            wanted = False
            for y in range(y0, y1):
                for x in range(x0, x1):
                    wanted |= not observed[y, x] and hints[2][y, x] == 0
            if not wanted or not _march(0.5 * (x0 + x1), 0.5 * (y0 + y1), start, source, cameras, hit):
                continue
            for y in range(y0, y1):
                for x in range(x0, x1):
                    if not observed[y, x] and hints[2][y, x] == 0:
                        hints[1][y, x] = hit[3]
                        hints[2][y, x] = BORDER_SHARE * BORDER_RADIUS_PX / (BORDER_RADIUS_PX + hit[4])
                        for c in range(3):
                            hints[0][y, x, c] = hit[c]


@nb.njit(**_JIT)
def _march(px, py, start, source, cameras, hit):
    """Follow the target ray of (px, py) px. hit = colour [3], 1/z in the target, px beyond the frame. False: no hit."""
    depth, color, typical = source
    to_source, k_target, k_source = cameras
    height, width = depth.shape
    rx, ry = (px - k_target[2]) / k_target[0], (py - k_target[3]) / k_target[1]
    dx = to_source[0, 0] * rx + to_source[0, 1] * ry + to_source[0, 2]
    dy = to_source[1, 0] * rx + to_source[1, 1] * ry + to_source[1, 2]
    dz = to_source[2, 0] * rx + to_source[2, 1] * ry + to_source[2, 2]
    t = float(start)
    left = False
    for step in range(MARCH_STEPS):
        t *= MARCH_GROWTH
        z = to_source[2, 3] + t * dz
        if z <= 1e-9:
            continue
        u = k_source[0] * (to_source[0, 3] + t * dx) / z + k_source[2]
        v = k_source[1] * (to_source[1, 3] + t * dy) / z + k_source[3]
        j, i = int(min(max(u, 0.0), width - 1.0)), int(min(max(v, 0.0), height - 1.0))
        beyond = max(max(-u, u - width), max(-v, v - height))
        if beyond <= 0:
            continue
        left = True
        # the last point of a ray that stays above everything stands for infinity: sky goes on
        if z < depth[i, j] and step < MARCH_STEPS - 1:
            continue
        for c in range(3):
            hit[c] = color[i, j, c]
        hit[3], hit[4] = 1.0 / t, beyond
        return True
    # a ray that turns away from where the source looked could meet anything: the mean of the background
    for c in range(3):
        hit[c] = typical[c]
    hit[3], hit[4] = typical[3], width
    return left
