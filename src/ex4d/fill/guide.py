"""What the mesh itself says of an unobserved pixel: which torn edge made it, and what lies on its far side.

An unobserved pixel shows a torn face. That face hangs between a near and a far surface of the source
frame, so its far end names, row by row, the background that the hole continues. Its depth bounds the
empty space that the source camera saw: nothing in the hole may stand in front of it.
"""

from dataclasses import dataclass
from typing import Any

import numba as nb
import numpy as np

from ex4d.core.arrays import Bool, Float32
from ex4d.core.camera import Camera
from ex4d.core.mesh import DepthMesh
from ex4d.fill.border import continue_border
from ex4d.render.rasterizer import Rasterizer

_JIT: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": False, "error_model": "numpy"}
f4 = nb.float32

WALK_STEPS = 12
"""Torn steps followed from a face to the far surface: depth edges may be smeared over this many px."""
INSET_PX = 3
"""Colours are taken this far behind the edge: nearer ones are mixed with the foreground by the lens."""
SEED_RADIUS_PX = 2.0
"""A seed counts half at this distance from the pixel it was taken from."""
TORN_PERCENTILE = 60
"""Of the disparities of far ends: what is farther counts as equally far."""
HINT_PERCENTILE = 80
"""The same of all hints: sideways of the scene, far ends alone may be as near as the foreground."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guide:
    """Hints for the unobserved pixels of one target frame.

    Attributes:
        surface: float32 [H,W], 1/z in the target camera of the nearest face, torn or not; 0 where none.
        color: float32 [H,W,3], levels, of the far end of the torn face in view; 0 where none.
        disparity: float32 [H,W], 1/z of that far end.
        confidence: float32 [H,W], 0 (no hint) to 1.
        background: 1/z that is typical of the far ends of torn faces; of the observed pixels where none is in view.
    """

    surface: Float32
    color: Float32
    disparity: Float32
    confidence: Float32
    background: np.float32


def make_guide(mesh: DepthMesh, target: Camera, observed: Bool, rasterizer: Rasterizer) -> Guide:
    """See the source frame's mesh from the target camera and follow its torn faces to their far ends.

    Args:
        mesh: default geometry (with a ring).
        target: the target camera.
        observed: bool [H,W], pixels that need no hint.
        rasterizer: private to the calling thread.
    """
    height, width = observed.shape
    frame = rasterizer.render(mesh, target, with_faces=True)
    surface = frame.surface_inv_z
    assert frame.face_id is not None
    assert surface is not None
    color = np.zeros((height, width, 3), np.float32)
    disparity, confidence = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    transform = np.ascontiguousarray((target.world_to_camera @ mesh.source.camera_to_world)[:3], np.float32)
    k = target.K
    intrinsics = np.array([k[0, 0], k[1, 1], k[0, 2], k[1, 2]], np.float32)
    _follow_faces(
        frame.face_id, observed, (mesh.grid, mesh.texture), (transform, intrinsics), color, disparity,
        confidence,
    )  # fmt: skip
    torn = disparity[confidence > 0]
    continue_border(observed, mesh, target, (color, disparity, confidence))
    background = _background(torn, disparity[confidence > 0], surface[observed])
    _keep_seen(frame.rgb, frame.observed, observed, surface, color, disparity, confidence)
    return Guide(surface=surface, color=color, disparity=disparity, confidence=confidence, background=background)


def _background(torn: Float32, hinted: Float32, seen: Float32) -> np.float32:
    """The farther one of what is typical of far ends and of all hints; of what is seen, if there are none."""
    far = [
        np.percentile(values[::7], percentile)
        for values, percentile in ((torn, TORN_PERCENTILE), (hinted, HINT_PERCENTILE))
        if values.size
    ]
    if not far:
        far = [np.percentile(seen[::7], TORN_PERCENTILE) if seen.size else 0]
    return np.float32(min(far))


@nb.njit(**_JIT)
def _keep_seen(rgb, seen, observed, surface, color, disparity, confidence):
    """Where the view is unobserved and this mesh is not (official geometry erodes edges): use its colour."""
    for y in range(rgb.shape[0]):
        for x in range(rgb.shape[1]):
            if seen[y, x] and not observed[y, x]:
                disparity[y, x] = surface[y, x]
                confidence[y, x] = f4(0.1)
                for c in range(3):
                    color[y, x, c] = f4(rgb[y, x, c])


@nb.njit(**_JIT)
def _corner(quad, which, cols):
    """Grid (row, col) of corner a, b, c, d = 0, 1, 2, 3 of a quad."""
    return quad // (cols - 1) + which // 2, quad % (cols - 1) + which % 2


@nb.njit(**_JIT)
def _far_end(z, near_i, near_j, far_i, far_j):
    """From the far vertex of a torn face across the rest of the tear, then `INSET_PX` onto the surface."""
    rows, cols = z.shape
    di, dj = far_i - near_i, far_j - near_j
    i, j = far_i, far_j
    for _ in range(WALK_STEPS):
        y, x = i + di, j + dj
        if y < 1 or x < 1 or y > rows - 2 or x > cols - 2 or z[y, x] < z[i, j] * f4(1.015):
            break
        i, j = y, x
    base = z[i, j]
    for _ in range(INSET_PX):
        y, x = i + di, j + dj
        if y < 1 or x < 1 or y > rows - 2 or x > cols - 2 or abs(z[y, x] - base) > f4(0.05) * base:
            break
        i, j = y, x
    return i, j


@nb.njit(**_JIT)
def _known_end(z, face, num_quads):
    """Grid vertex (row, col) whose colour the face's hole continues; row -1 for walls, which hang on the ring."""
    rows, cols = z.shape
    quad = face % num_quads
    near_i, near_j, far_i, far_j = -1, -1, -1, -1
    nearest, farthest = f4(np.inf), f4(0)
    for index in range(3):
        i, j = _corner(quad, index if face < num_quads else 3 - index, cols)
        if i == 0 or j == 0 or i == rows - 1 or j == cols - 1:
            return -1, -1
        if z[i, j] < nearest:
            nearest, near_i, near_j = z[i, j], i, j
        if z[i, j] > farthest:
            farthest, far_i, far_j = z[i, j], i, j
    if near_i == far_i and near_j == far_j:
        return far_i, far_j
    return _far_end(z, near_i, near_j, far_i, far_j)


@nb.njit(**_JIT)
def _follow_faces(face_id, observed, mesh, camera, color, disparity, confidence):
    """Fill the hints of `Guide`. mesh = grid float32 [3,GH,GW], texture; camera = transform, fx fy cx cy."""
    grid, texture = mesh
    transform, intrinsics = camera
    rows, cols = grid.shape[1], grid.shape[2]
    num_quads = (rows - 1) * (cols - 1)
    radius2 = f4(SEED_RADIUS_PX * SEED_RADIUS_PX)
    for y in range(face_id.shape[0]):
        for x in range(face_id.shape[1]):
            face = face_id[y, x]
            if observed[y, x] or face < 0 or face >= 2 * num_quads:
                continue
            i, j = _known_end(grid[2], face, num_quads)
            if i < 0:
                continue
            px, py, pz = grid[0, i, j], grid[1, i, j], grid[2, i, j]
            z = transform[2, 0] * px + transform[2, 1] * py + transform[2, 2] * pz + transform[2, 3]
            if z <= f4(1e-6) * pz:
                continue
            u = (transform[0, 0] * px + transform[0, 1] * py + transform[0, 2] * pz + transform[0, 3]) / z
            v = (transform[1, 0] * px + transform[1, 1] * py + transform[1, 2] * pz + transform[1, 3]) / z
            dx = u * intrinsics[0] + intrinsics[2] - f4(x + 0.5)
            dy = v * intrinsics[1] + intrinsics[3] - f4(y + 0.5)
            disparity[y, x] = f4(1.0) / z
            confidence[y, x] = radius2 / (radius2 + dx * dx + dy * dy)
            for c in range(3):
                color[y, x, c] = f4(texture[i - 1, j - 1, c])
