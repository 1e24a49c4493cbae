"""Geometry of two views: rotation, essential matrix, triangulation, and the focal length that fits best."""

from dataclasses import dataclass

import cv2
import numpy as np

from ex4d.core.arrays import Bool, Float64

INLIER_PX = 1.0
"""A correspondence fits within this, px of the tracked pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelativePose:
    """The second camera as seen from the first.

    Attributes:
        rotation: float64 [3,3], first to second.
        translation: float64 [3], first to second, of length 1.
        inlier: bool [n], correspondences that fit it.
    """

    rotation: Float64
    translation: Float64
    inlier: Bool


def relative_pose(
    first: Float64, second: Float64, K: Float64, *, threshold_px: float = INLIER_PX
) -> RelativePose | None:
    """Relative pose of two views by MAGSAC on the essential matrix.

    Args:
        first: float64 [n,2], px in the first view.
        second: float64 [n,2], px of the same points in the second.
        K: float64 [3,3], of both.
        threshold_px: about how far an inlier may lie from its epipolar line.

    Returns:
        None where there are fewer than 12 points or no solution.
    """
    if len(first) < 12:
        return None
    essential, mask = cv2.findEssentialMat(
        first, second, K, method=cv2.USAC_MAGSAC, prob=0.9999, threshold=threshold_px
    )
    if essential is None or essential.shape != (3, 3) or mask is None:
        return None
    _, rotation, translation, _ = cv2.recoverPose(essential, first, second, K, mask=mask.copy())
    return RelativePose(
        rotation=np.asarray(rotation, np.float64),
        translation=np.asarray(translation, np.float64)[:, 0],
        inlier=np.asarray(mask).ravel() > 0,
    )


def rotation_between(first: Float64, second: Float64, K: Float64, num_iterations: int = 12) -> tuple[Float64, Float64]:
    """The rotation alone that best carries one view into the other, robustly (points at infinity, or no translation).

    Iteratively reweighted least squares on bearings, weights 1 / (1 + (r / 1 px)²).

    Args:
        first: float64 [n,2], px.
        second: float64 [n,2], px.
        K: float64 [3,3].

    Returns:
        rotation float64 [3,3], first to second, and residuals float64 [n], px.
    """
    a, b = bearings(first, K), bearings(second, K)
    rotation = np.eye(3)
    weight = np.ones(len(a))
    error = np.zeros(len(a))
    scale = max(1.0, float(np.median(np.linalg.norm(second - first, axis=1))))
    for _ in range(num_iterations):
        u, _, vt = np.linalg.svd((b * weight[:, None]).T @ a)
        rotation = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
        turned = (a @ rotation.T) @ K.T
        error = np.linalg.norm(turned[:, :2] / np.maximum(turned[:, 2:], 1e-6) - second, axis=1)
        weight = 1 / (1 + (error / scale) ** 2) ** 2
        scale = max(1.0, scale * 0.6)
    return rotation, error


def bearings(xy: Float64, K: Float64) -> Float64:
    """Unit directions float64 [n,3] of pixels [n,2]."""
    rays = np.concatenate([xy, np.ones((len(xy), 1))], axis=1) @ np.linalg.inv(K).T
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def triangulate(bearing: Float64, rotation: Float64, translation: Float64, seen: Bool) -> tuple[Float64, Float64]:
    """Points nearest to the rays of several cameras, in the least-squares sense.

    Args:
        bearing: float64 [v,n,3], unit directions in the camera of each of v views of n points.
        rotation: float64 [v,n,3,3], or [v,1,3,3] where a view is one camera for all points; world to camera.
        translation: float64 [v,n,3] or [v,1,3].
        seen: bool [v,n].

    Returns:
        points float64 [n,3], world, and the largest angle of a ray with their mean, doubled, float64 [n], radians.
    """
    direction = (np.swapaxes(rotation, -1, -2) @ bearing[..., None])[..., 0]
    center = -(np.swapaxes(rotation, -1, -2) @ translation[..., None])[..., 0]
    projector = (np.eye(3) - direction[..., :, None] * direction[..., None, :]) * seen[..., None, None]
    matrix = projector.sum(axis=0) + 1e-12 * np.eye(3)
    right = (projector @ np.broadcast_to(center, direction.shape)[..., None]).sum(axis=0)
    points = np.linalg.solve(matrix, right)[..., 0]
    mean = (direction * seen[..., None]).sum(axis=0)
    mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    cosine = np.where(seen, np.einsum("vni,ni->vn", direction, mean), 1.0)
    return points, 2 * np.arccos(np.clip(cosine.min(axis=0), -1, 1))


def epipolar_error_px(first: Float64, second: Float64, K: Float64, rotation: Float64, translation: Float64) -> Float64:
    """float64 [n]: Sampson distance of correspondences [n,2], px, to a relative pose (first to second)."""
    x, y, z = translation
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ rotation
    inverse = np.linalg.inv(K)
    fundamental = inverse.T @ essential @ inverse
    a = np.concatenate([first, np.ones((len(first), 1))], axis=1)
    b = np.concatenate([second, np.ones((len(second), 1))], axis=1)
    line_b, line_a = a @ fundamental.T, b @ fundamental
    value = np.einsum("ni,ni->n", b, line_b)
    return np.abs(value) / np.sqrt((line_a[:, :2] ** 2).sum(axis=1) + (line_b[:, :2] ** 2).sum(axis=1) + 1e-18)
