"""What moves: pixels of a source frame that other source frames contradict.

A surface point is struck out if another frame looked through it (saw something farther along the ray to it), or
if most frames that measured a surface there saw another colour. What is left stayed where it was, so that
it may stand in for another moment.
"""

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numba as nb
import numpy as np

from ex4d.core.arrays import Bool, Float32, UInt8
from ex4d.core.camera import Camera
from ex4d.core.mesh import DepthMesh

_JIT: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": False, "error_model": "numpy"}
f4 = nb.float32

OBJECT_SHARE = 0.2
"""Struck share of a piece of surface from which on all of it is struck."""
MARGIN_PX = 3
"""Struck regions grow by this: their rims hold mixed colours and unsure depth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenFrame:
    """A source frame as evidence.

    Attributes:
        mesh: default geometry, its depth filled where invalid.
        valid: bool [H,W], where that depth was measured.
        smooth: uint8 [H,W,3], the frame averaged over 3×3 pixels, for comparing colours.
    """

    mesh: DepthMesh
    valid: Bool
    smooth: UInt8

    @staticmethod
    def of(mesh: DepthMesh, valid: Bool) -> "SeenFrame":
        return SeenFrame(mesh=mesh, valid=valid, smooth=np.asarray(cv2.blur(mesh.texture, (3, 3)), dtype=np.uint8))


def strike_transient(
    frame: SeenFrame, others: list[SeenFrame], *, depth_tolerance: float, color_tolerance: float
) -> DepthMesh:
    """The frame's mesh without the colour of what the other frames contradict (it renders as unobserved).

    Args:
        frame: what is judged.
        others: the evidence; frames of other moments.
        depth_tolerance: relative disparity difference up to which two depths are one surface.
        color_tolerance: levels (mean over channels) up to which two colours are one.
    """
    height, width = frame.valid.shape
    votes = np.zeros((height, width, 3), np.uint8)
    for other in others:
        transform = other.mesh.source.world_to_camera @ frame.mesh.source.camera_to_world
        _vote(
            (_inner(frame.mesh), frame.smooth, frame.valid),
            (_inner(other.mesh)[2], other.smooth, other.valid),
            np.ascontiguousarray(transform[:3], np.float32),
            _intrinsics(other.mesh.source),
            (np.float32(depth_tolerance), np.float32(color_tolerance)),
            votes,
        )
    # thin lines of other colour are edges that poses and depth put a pixel or two apart, not things that moved
    recolored = cv2.morphologyEx((votes[..., 1] > votes[..., 0]).astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5)))
    struck = _whole_objects(votes[..., 2] > 0, frame.mesh) | (recolored != 0)
    size = 2 * MARGIN_PX + 1
    struck = cv2.dilate(struck.astype(np.uint8), np.ones((size, size), np.uint8)) != 0
    rgba = frame.mesh.rgba.copy()
    rgba[1:-1, 1:-1][struck] = 0
    return replace(frame.mesh, rgba=rgba)


def _whole_objects(struck: Bool, mesh: DepthMesh) -> Bool:
    """Strike a whole piece of surface, bounded by torn faces, once enough of it is struck: parts of a slow
    mover cover each other in all frames, and nothing would contradict them."""
    torn = (mesh.quad_torn != 0).astype(np.uint8)
    # a pixel touches the four quads around it; with the ring, pixel (y, x) is grid vertex (y+1, x+1)
    rim = torn[:-1, :-1] | torn[:-1, 1:] | torn[1:, :-1] | torn[1:, 1:]
    rim[[0, -1]] = 0
    rim[:, [0, -1]] = 0
    num, labels = cv2.connectedComponents(1 - rim, connectivity=4)
    size = np.bincount(labels.ravel(), minlength=num)
    hits = np.bincount(labels.ravel(), weights=struck.ravel(), minlength=num)
    whole = hits > OBJECT_SHARE * size
    whole[0] = False
    return struck | whole[labels]


def _inner(mesh: DepthMesh) -> Float32:
    return mesh.grid[:, 1:-1, 1:-1]


def _intrinsics(camera: Camera) -> Float32:
    k = camera.K
    return np.array([k[0, 0], k[1, 1], k[0, 2], k[1, 2]], np.float32)


@nb.njit(**_JIT)
def _vote(frame, other, transform, intrinsics, tolerances, votes):
    """Add one frame's votes uint8 [H,W,3]: same surface, same depth but other colour, looked through.

    frame = points float32 [3,H,W] in its camera, smooth colours, valid; other = depth, smooth, valid.
    """
    points, color, valid = frame
    other_depth, other_color, other_valid = other
    depth_tolerance, color_tolerance = tolerances
    height, width = other_depth.shape
    for y in range(valid.shape[0]):
        for x in range(valid.shape[1]):
            if not valid[y, x]:
                continue
            px, py, pz = points[0, y, x], points[1, y, x], points[2, y, x]
            z = transform[2, 0] * px + transform[2, 1] * py + transform[2, 2] * pz + transform[2, 3]
            if z <= f4(1e-6):
                continue
            u = (transform[0, 0] * px + transform[0, 1] * py + transform[0, 2] * pz + transform[0, 3]) / z
            v = (transform[1, 0] * px + transform[1, 1] * py + transform[1, 2] * pz + transform[1, 3]) / z
            u, v = u * intrinsics[0] + intrinsics[2], v * intrinsics[1] + intrinsics[3]
            if not (u >= 1 and v >= 1 and u < width - 1 and v < height - 1):
                continue
            j, i = int(u), int(v)
            nearest, farthest, known = f4(np.inf), f4(0), True
            for row in range(i - 1, i + 2):
                for col in range(j - 1, j + 2):
                    nearest = min(nearest, other_depth[row, col])
                    farthest = max(farthest, other_depth[row, col])
                    known &= other_valid[row, col]
            if not known:
                continue
            if nearest * (f4(1.0) - depth_tolerance) > z:
                votes[y, x, 2] = 1
            elif nearest <= z * (f4(1.0) + depth_tolerance) and z <= farthest * (f4(1.0) + depth_tolerance):
                votes[y, x, 1 if _distance(color[y, x], other_color, i, j) > color_tolerance else 0] += 1


@nb.njit(**_JIT)
def _distance(color, image, i, j):
    """How far a colour lies outside the range of colours within 2 px of (i, j), levels, mean over channels."""
    height, width = image.shape[0], image.shape[1]
    total = f4(0)
    for c in range(3):
        low, high = f4(255), f4(0)
        for row in range(max(i - 2, 0), min(i + 3, height), 2):
            for col in range(max(j - 2, 0), min(j + 3, width), 2):
                value = f4(image[row, col, c])
                low, high = min(low, value), max(high, value)
        value = f4(color[c])
        total += max(max(low - value, value - high), f4(0))
    return total / f4(3.0)
