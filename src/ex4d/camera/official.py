"""The camera paths of the EX-4D release: formulas of its recon code, right for any frame count.

Progress is linear. r is the official pivot depth (nearest depth of frame 0 + 0.15) and the camera
looks at (0, 0, r). Axes are OpenCV's; the release saves the same paths with OpenGL-style rows.
"""

import numpy as np

from ex4d.camera.config import PathRequest
from ex4d.camera.moves import Poses, Values, looking_at
from ex4d.core.arrays import Float64

OFFICIAL_FRAMES = 49
RISE = 0.2
"""Height of the official arcs as a share of r (1 - cos a)."""
ZOOM_IN_STOP = 0.01
"""Scene units before the pivot at which `zoom_in` ends (the look-at needs a direction)."""


def _overshoot(request: PathRequest) -> float:
    if not request.official_overshoot:
        return 1.0
    return max(OFFICIAL_FRAMES / request.num_frames, request.num_frames / OFFICIAL_FRAMES)


def _aim(eyes: Float64, request: PathRequest) -> Poses:
    return looking_at(eyes, np.array([0.0, 0.0, request.official_pivot_depth]), request)


def arc_degrees(values: Values, request: PathRequest, s: Float64) -> Poses:
    """`30`, `60`, `90`, ...: a = 0 to N°, eye = (r sin a, 0.2 r (|cos a| - 1), r - r |cos a|)."""
    r = request.official_pivot_depth
    angle = np.radians(values[0]) * s * _overshoot(request)
    cosine = np.abs(np.cos(angle))
    return _aim(np.stack([r * np.sin(angle), RISE * r * (cosine - 1), r - r * cosine], axis=-1), request)


def swing_180(values: Values, request: PathRequest, s: Float64) -> Poses:
    """`180`: a = 0 to 2π, eye = (r sin a, 0.2 r (cos a - 1), 0)."""
    del values
    r = request.official_pivot_depth
    angle = 2 * np.pi * s * _overshoot(request)
    return _aim(np.stack([r * np.sin(angle), RISE * r * (np.cos(angle) - 1), 0 * s], axis=-1), request)


def zoom_in(values: Values, request: PathRequest, s: Float64) -> Poses:
    """eye z = 0 to r - 0.01: ends 0.14 past the nearest surface."""
    del values
    return _zoom(s * (request.official_pivot_depth - ZOOM_IN_STOP), request)


def zoom_out(values: Values, request: PathRequest, s: Float64) -> Poses:
    """eye z = 0 to -r."""
    del values
    return _zoom(-s * request.official_pivot_depth, request)


def _zoom(z: Float64, request: PathRequest) -> Poses:
    return _aim(np.stack([0 * z, 0 * z, z], axis=-1), request)
