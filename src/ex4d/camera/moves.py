"""Our camera moves as pure functions of eased progress.

Every move takes its values, the request and ``s`` float64 [N] (0 at the source view, 1 at the end) and
returns ``Poses``. World axes are OpenCV's with the source camera at the origin, so right is +x, up is
-y and forward is +z; p is the pivot depth and the pivot is (0, 0, p).
"""

from typing import NamedTuple

import numpy as np

from ex4d.camera.config import PathRequest
from ex4d.core.arrays import Float64
from ex4d.core.geometry import look_at, rotation_about

Values = tuple[float, ...]

FULL_YAW_RAD = np.pi / 2
"""`full` swings to 90 degrees on both sides."""

SPIRAL_TURNS = 2
"""Turns of `spiral` while its radius grows to K·p and shrinks to 0 again."""


class Poses(NamedTuple):
    """world_to_camera float64 [N,4,4] and K float64 [N,3,3] (pixels, corner origin)."""

    world_to_camera: Float64
    K: Float64


def looking_at(eyes: Float64, target: Float64, request: PathRequest) -> Poses:
    """Cameras at eyes [N,3] that look at one target [3], source intrinsics."""
    matrices = np.stack([look_at(eye, target) for eye in eyes])
    return Poses(matrices + 0.0, repeat_intrinsics(request))  # + 0.0 turns -0.0 into 0.0


def repeat_intrinsics(request: PathRequest) -> Float64:
    """The source K, once a frame: float64 [N,3,3]."""
    return np.repeat(request.K[None], request.num_frames, axis=0)


def moving(eyes: Float64, request: PathRequest) -> Poses:
    """Cameras at eyes [N,3] that keep the source orientation."""
    matrices = np.repeat(np.eye(4)[None], len(eyes), axis=0)
    matrices[:, :3, 3] = -eyes + 0.0
    return Poses(matrices, repeat_intrinsics(request))


def turning(axis: str, angles_rad: Float64, request: PathRequest) -> Poses:
    """Cameras at the origin turned by camera-to-world rotations about one of their axes."""
    matrices = np.repeat(np.eye(4)[None], len(angles_rad), axis=0)
    matrices[:, :3, :3] = np.stack([rotation_about(axis, -float(angle)) for angle in angles_rad])
    return Poses(matrices + 0.0, repeat_intrinsics(request))


def _pivot(request: PathRequest) -> Float64:
    return np.array([0.0, 0.0, request.pivot_depth])


def _around_pivot(yaw_rad: Float64, elevation_rad: Float64, request: PathRequest) -> Poses:
    """On the sphere of radius p about the pivot: + yaw is right, + elevation is up."""
    p = request.pivot_depth
    eyes = np.stack(
        [
            p * np.sin(yaw_rad) * np.cos(elevation_rad),
            -p * np.sin(elevation_rad),
            p - p * np.cos(yaw_rad) * np.cos(elevation_rad),
        ],
        axis=-1,
    )
    return looking_at(eyes, _pivot(request), request)


def _offsets(s: Float64, direction: tuple[float, float, float]) -> Float64:
    return s[:, None] * np.array(direction)


def orbit_left(values: Values, request: PathRequest, s: Float64) -> Poses:
    return _around_pivot(-np.radians(values[0]) * s, 0 * s, request)


def orbit_right(values: Values, request: PathRequest, s: Float64) -> Poses:
    return _around_pivot(np.radians(values[0]) * s, 0 * s, request)


def orbit_up(values: Values, request: PathRequest, s: Float64) -> Poses:
    return _around_pivot(0 * s, np.radians(values[0]) * s, request)


def orbit_down(values: Values, request: PathRequest, s: Float64) -> Poses:
    return _around_pivot(0 * s, -np.radians(values[0]) * s, request)


def arc(values: Values, request: PathRequest, s: Float64) -> Poses:
    return _around_pivot(np.radians(values[0]) * s, np.radians(values[1]) * s, request)


def full(values: Values, request: PathRequest, s: Float64) -> Poses:
    del values
    return _around_pivot(FULL_YAW_RAD * np.sin(_turns(s)), 0 * s, request)


def _turns(s: Float64, count: int = 1) -> Float64:
    """2π·count·s, with the end folded onto the start so that closed paths return exactly."""
    return 2 * np.pi * count * (s % 1.0)


def dolly_in(values: Values, request: PathRequest, s: Float64) -> Poses:
    return moving(_offsets(s, (0, 0, values[0] * request.pivot_depth)), request)


def dolly_out(values: Values, request: PathRequest, s: Float64) -> Poses:
    return moving(_offsets(s, (0, 0, -values[0] * request.pivot_depth)), request)


def dolly_zoom(values: Values, request: PathRequest, s: Float64) -> Poses:
    """Moves forward by K·p while the focal length becomes f·(p - z)/p: the pivot keeps its size."""
    poses = moving(_offsets(s, (0, 0, values[0] * request.pivot_depth)), request)
    intrinsics = poses.K.copy()
    intrinsics[:, :2, :2] *= (1.0 - values[0] * s)[:, None, None]
    return Poses(poses.world_to_camera, intrinsics)


def truck_left(values: Values, request: PathRequest, s: Float64) -> Poses:
    return moving(_offsets(s, (-values[0] * request.pivot_depth, 0, 0)), request)


def truck_right(values: Values, request: PathRequest, s: Float64) -> Poses:
    return moving(_offsets(s, (values[0] * request.pivot_depth, 0, 0)), request)


def pedestal_up(values: Values, request: PathRequest, s: Float64) -> Poses:
    return moving(_offsets(s, (0, -values[0] * request.pivot_depth, 0)), request)


def pedestal_down(values: Values, request: PathRequest, s: Float64) -> Poses:
    return moving(_offsets(s, (0, values[0] * request.pivot_depth, 0)), request)


def crane_up(values: Values, request: PathRequest, s: Float64) -> Poses:
    return looking_at(_offsets(s, (0, -values[0] * request.pivot_depth, 0)), _pivot(request), request)


def crane_down(values: Values, request: PathRequest, s: Float64) -> Poses:
    return looking_at(_offsets(s, (0, values[0] * request.pivot_depth, 0)), _pivot(request), request)


def pan_left(values: Values, request: PathRequest, s: Float64) -> Poses:
    return turning("y", -np.radians(values[0]) * s, request)


def pan_right(values: Values, request: PathRequest, s: Float64) -> Poses:
    return turning("y", np.radians(values[0]) * s, request)


def tilt_up(values: Values, request: PathRequest, s: Float64) -> Poses:
    return turning("x", np.radians(values[0]) * s, request)


def tilt_down(values: Values, request: PathRequest, s: Float64) -> Poses:
    return turning("x", -np.radians(values[0]) * s, request)


def roll_cw(values: Values, request: PathRequest, s: Float64) -> Poses:
    """The camera's right side sinks (clockwise seen from behind it), so the image turns counter-clockwise."""
    return turning("z", np.radians(values[0]) * s, request)


def roll_ccw(values: Values, request: PathRequest, s: Float64) -> Poses:
    return turning("z", -np.radians(values[0]) * s, request)


def spiral(values: Values, request: PathRequest, s: Float64) -> Poses:
    """Two turns in the image plane whose radius is K·p·sin(πs): out from the source view and back."""
    radius = values[0] * request.pivot_depth * np.sin(np.pi * (s % 1.0))
    angle = _turns(s, SPIRAL_TURNS)
    eyes = np.stack([radius * np.cos(angle), -radius * np.sin(angle), 0 * s], axis=-1)
    return looking_at(eyes, _pivot(request), request)


def figure_eight(values: Values, request: PathRequest, s: Float64) -> Poses:
    """x = K·p·sin(2πs), y = -(K/2)·p·sin(4πs): a lying eight through the source view."""
    extent = values[0] * request.pivot_depth
    eyes = np.stack([extent * np.sin(_turns(s)), -0.5 * extent * np.sin(2 * _turns(s)), 0 * s], axis=-1)
    return looking_at(eyes, _pivot(request), request)


def static(values: Values, request: PathRequest, s: Float64) -> Poses:
    del values
    return moving(_offsets(0 * s, (0, 0, 0)), request)
