"""What the mesh itself says of an unobserved pixel: which torn edge made it, and what lies on its far side.

An unobserved pixel shows a torn face. That face hangs between a near and a far surface of the source
frame, so its far end names, row by row, the background that the hole continues. Its depth bounds the
empty space that the source camera saw: nothing in the hole may stand in front of it.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numba as nb
import numpy as np

from ex4d.core.arrays import Bool, Float32
from ex4d.core.camera import Camera
from ex4d.core.mesh import DepthMesh
from ex4d.render.rasterizer import Rasterizer

_JIT: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": False, "error_model": "numpy"}
f4 = nb.float32

WALK_STEPS = 12
"""Torn steps followed from a face to the far surface: depth edges may be smeared over this many px."""
INSET_PX = 3
"""Colours are taken this far behind the edge: nearer ones are mixed with the foreground by the lens."""
SEED_RADIUS_PX = 2.0
"""A seed counts half at this distance from the pixel it was taken from."""
BACKGROUND_PERCENTILE = 60
"""Of the disparities of far ends: what is farther counts as equally far."""
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


class SurfaceRasterizer(Rasterizer):
    """A `Rasterizer` that also tells the depth of torn faces."""

    def surface_inv_z(self, height: int, width: int) -> Float32:
        """float32 [H,W], 1/z of the nearest face of the last `render`, torn or not; 0 where none."""
        return self._scratch["canvas_inv_z"].reshape(height, width).copy()


def make_guide(mesh: DepthMesh, target: Camera, observed: Bool, rasterizer: SurfaceRasterizer) -> Guide:
    """See the source frame's mesh from the target camera and follow its torn faces to their far ends.

    Args:
        mesh: default geometry (with a ring).
        target: the target camera.
        observed: bool [H,W], pixels that need no hint.
        rasterizer: private to the calling thread.
    """
    height, width = observed.shape
    frame = rasterizer.render(mesh, target, with_face_id=True)
    assert frame.face_id is not None
    surface = rasterizer.surface_inv_z(height, width)
    color = np.zeros((height, width, 3), np.float32)
    disparity, confidence = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    transform = np.ascontiguousarray((target.world_to_camera @ mesh.source.camera_to_world)[:3], np.float32)
    k = target.K
    intrinsics = np.array([k[0, 0], k[1, 1], k[0, 2], k[1, 2]], np.float32)
    _follow_faces(
        frame.face_id, observed, (mesh.grid, mesh.texture), (transform, intrinsics), color, disparity,
        confidence,
    )  # fmt: skip
    torn = confidence > 0
    typical = disparity[torn] if torn.any() else surface[observed]
    background = np.float32(np.percentile(typical[::7], BACKGROUND_PERCENTILE)) if typical.size else np.float32(0)
    to_source = np.ascontiguousarray((mesh.source.world_to_camera @ target.camera_to_world)[:3])
    k = mesh.source.K
    source_intrinsics = np.array([k[0, 0], k[1, 1], k[0, 2], k[1, 2]])
    blurred = np.asarray(cv2.blur(mesh.texture, (BORDER_BLUR_PX, BORDER_BLUR_PX)), dtype=np.uint8)
    _continue_border(
        (surface, observed),
        (mesh.grid[2, 1:-1, 1:-1], blurred),
        (to_source, intrinsics, source_intrinsics),
        (color, disparity, confidence),
    )
    _keep_seen(frame.rgb, frame.observed, observed, surface, color, disparity, confidence)
    return Guide(surface=surface, color=color, disparity=disparity, confidence=confidence, background=background)


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
    """Grid vertex whose colour the face's hole continues, and whether it hangs on the frame's border.

    Returns (row, col, is_wall); row -1 where all vertices lie on the ring.
    """
    rows, cols = z.shape
    quad = face % num_quads
    near_i, near_j, far_i, far_j = -1, -1, -1, -1
    nearest, farthest, is_wall = f4(np.inf), f4(0), False
    for index in range(3):
        which = index if face < num_quads else 3 - index
        i, j = _corner(quad, which, cols)
        if i == 0 or j == 0 or i == rows - 1 or j == cols - 1:
            is_wall = True
            continue
        if z[i, j] < nearest:
            nearest, near_i, near_j = z[i, j], i, j
        if z[i, j] > farthest:
            farthest, far_i, far_j = z[i, j], i, j
    if far_i < 0 or is_wall or (near_i == far_i and near_j == far_j):
        return far_i, far_j, is_wall
    i, j = _far_end(z, near_i, near_j, far_i, far_j)
    return i, j, False


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
            i, j, is_wall = _known_end(grid[2], face, num_quads)
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
            r2 = dx * dx + dy * dy
            if is_wall:
                confidence[y, x] = f4(BORDER_SHARE) * f4(BORDER_RADIUS_PX) / (f4(BORDER_RADIUS_PX) + np.sqrt(r2))
            else:
                confidence[y, x] = radius2 / (radius2 + r2)
            for c in range(3):
                color[y, x, c] = f4(texture[i - 1, j - 1, c])


@nb.njit(**_JIT)
def _continue_border(target, source, cameras, hints):
    """Hints for rays that leave the source view without meeting a face: its outermost pixels go on sideways.

    The source depth map is taken to repeat its border for ever; the ray is followed until it passes below that.
    target = surface (1/z), observed; source = depth float32 [H,W], colours; cameras = target → source
    float64 [3,4] and both intrinsics; hints = colour, disparity, confidence.
    """
    surface, observed = target
    depth = source[0]
    start = f4(0.2) * depth.min()
    hit = np.zeros(6, np.float64)
    for y0 in range(0, observed.shape[0], BORDER_CELL_PX):
        y1 = min(y0 + BORDER_CELL_PX, observed.shape[0])
        for x0 in range(0, observed.shape[1], BORDER_CELL_PX):
            x1 = min(x0 + BORDER_CELL_PX, observed.shape[1])
            wanted = False
            for y in range(y0, y1):
                for x in range(x0, x1):
                    wanted |= not observed[y, x] and surface[y, x] == 0
            if not wanted or not _march(0.5 * (x0 + x1), 0.5 * (y0 + y1), start, source, cameras, hit):
                continue
            for y in range(y0, y1):
                for x in range(x0, x1):
                    if not observed[y, x] and surface[y, x] == 0:
                        hints[1][y, x] = hit[3]
                        hints[2][y, x] = BORDER_SHARE * BORDER_RADIUS_PX / (BORDER_RADIUS_PX + hit[4])
                        for c in range(3):
                            hints[0][y, x, c] = hit[c]


@nb.njit(**_JIT)
def _march(px, py, start, source, cameras, hit):
    """Follow the target ray of (px, py) px. hit = colour [3], 1/z in the target, px beyond the frame. False: no hit."""
    depth, color = source
    to_source, k_target, k_source = cameras
    height, width = depth.shape
    rx, ry = (px - k_target[2]) / k_target[0], (py - k_target[3]) / k_target[1]
    dx = to_source[0, 0] * rx + to_source[0, 1] * ry + to_source[0, 2]
    dy = to_source[1, 0] * rx + to_source[1, 1] * ry + to_source[1, 2]
    dz = to_source[2, 0] * rx + to_source[2, 1] * ry + to_source[2, 2]
    t = float(start)
    for step in range(MARCH_STEPS):
        t *= MARCH_GROWTH
        z = to_source[2, 3] + t * dz
        if z <= 1e-9:
            continue
        u = k_source[0] * (to_source[0, 3] + t * dx) / z + k_source[2]
        v = k_source[1] * (to_source[1, 3] + t * dy) / z + k_source[3]
        j, i = int(min(max(u, 0.0), width - 1.0)), int(min(max(v, 0.0), height - 1.0))
        beyond = max(max(-u, u - width), max(-v, v - height))
        # the last point of a ray that stays above everything stands for infinity: sky goes on
        if beyond <= 0 or (z < depth[i, j] and step < MARCH_STEPS - 1):
            continue
        for c in range(3):
            hit[c] = color[i, j, c]
        hit[3], hit[4] = 1.0 / t, beyond
        return True
    return False
