"""Projection and rotation: pure functions on NumPy arrays, OpenCV axes, corner-origin pixels."""

import numpy as np

from ex4d.core.arrays import Float64
from ex4d.core.camera import Camera


def unproject(camera: Camera, pixels_px: Float64, depth: Float64) -> Float64:
    """World points of pixels at a z-depth.

    Args:
        camera: where the pixels were seen from.
        pixels_px: float64 [...,2], (x right, y down), corner origin.
        depth: float64 [...], z in the camera frame, scene units.

    Returns:
        float64 [...,3], world coordinates.
    """
    ones = np.ones_like(depth)
    homogeneous = np.stack([pixels_px[..., 0], pixels_px[..., 1], ones], axis=-1)
    rays = homogeneous @ np.linalg.inv(camera.K).T
    return transform_points(camera.camera_to_world, rays * depth[..., None])


def project(camera: Camera, points: Float64) -> tuple[Float64, Float64]:
    """Pixels and z-depth of world points.

    Args:
        camera: the viewing camera.
        points: float64 [...,3], world coordinates.

    Returns:
        pixels_px float64 [...,2] (corner origin; NaN or infinite at z = 0) and depth float64 [...]
        (z in the camera frame; <= 0 lies behind the camera).
    """
    local = transform_points(camera.world_to_camera, points)
    image = local @ camera.K.T
    with np.errstate(divide="ignore", invalid="ignore"):
        return image[..., :2] / image[..., 2:3], local[..., 2]


def transform_points(matrix: Float64, points: Float64) -> Float64:
    """Apply a rigid transform float64 [4,4] to points float64 [...,3]."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def pixel_centers(height: int, width: int) -> Float64:
    """float64 [H,W,2]: (x+0.5, y+0.5) of every pixel."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x + 0.5, y + 0.5], axis=-1)


def look_at(eye: Float64, target: Float64, up: Float64 | None = None) -> Float64:
    """World-to-camera matrix of a camera at `eye` that looks at `target`.

    Args:
        eye: float64 [3], world.
        target: float64 [3], world; must differ from `eye`.
        up: float64 [3], the world direction that points up in the image; default (0, -1, 0).

    Returns:
        float64 [4,4], OpenCV axes.

    Raises:
        ValueError: if the eye is at the target, or the view direction is parallel to `up`.
    """
    world_up = np.array([0.0, -1.0, 0.0]) if up is None else up
    forward = target - eye
    length = np.linalg.norm(forward)
    right = np.cross(forward, world_up)
    right_length = np.linalg.norm(right)
    if length < 1e-12:
        raise ValueError("look_at: the eye is at the target")
    if right_length < 1e-9 * length:
        raise ValueError("look_at: the view direction is parallel to up")
    forward = forward / length
    right = right / right_length
    rotation = np.stack([right, np.cross(forward, right), forward])
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = -rotation @ eye
    return matrix


def rotation_about(axis: str, angle_rad: float) -> Float64:
    """Right-handed rotation float64 [3,3] about ``"x"``, ``"y"`` or ``"z"`` (OpenCV axes)."""
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    if axis == "x":
        return np.array([[1.0, 0, 0], [0, c, -s], [0, s, c]])
    if axis == "y":
        return np.array([[c, 0, s], [0, 1.0, 0], [-s, 0, c]])
    if axis == "z":
        return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    raise ValueError(f"rotation_about: expected axis 'x', 'y' or 'z', got {axis!r}")
