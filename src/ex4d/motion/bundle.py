"""Bundle adjustment: the cameras and points that explain observations best.

Levenberg-Marquardt with the points eliminated (Schur complement) and Huber weights; Triggs et al., "Bundle
adjustment - a modern synthesis", 2000. Dense in the cameras, so meant for up to about a hundred of them. The sums over
pairs of observations run in Numba: NumPy would multiply large matrices that are nearly empty.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numba import njit

from ex4d.core.arrays import Bool, Float64, Int64

HUBER_PX = 1.0
"""Residuals beyond this count linearly."""
_MIN_DEPTH = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is adjusted, and what it shall explain.

    Attributes:
        rotation: float64 [n,3,3], world to camera.
        translation: float64 [n,3], world to camera.
        points: float64 [m,3], world.
        focal_px: shared by all cameras.
        camera: int64 [k], camera of each observation.
        point: int64 [k], point of each observation.
        xy: float64 [k,2], px relative to the principal point.
        fixed: bool [n], cameras that stay.
    """

    rotation: Float64
    translation: Float64
    points: Float64
    focal_px: float
    camera: Int64
    point: Int64
    xy: Float64
    fixed: Bool


def residuals(problem: Problem) -> tuple[Float64, Float64]:
    """(predicted minus seen float64 [k,2] px, depth float64 [k]) of every observation."""
    local = _local(problem)
    depth = local[:, 2]
    predicted = problem.focal_px * local[:, :2] / np.maximum(depth, _MIN_DEPTH)[:, None]
    return predicted - problem.xy, depth


def _local(problem: Problem) -> Float64:
    turned = np.einsum("kij,kj->ki", problem.rotation[problem.camera], problem.points[problem.point])
    return turned + problem.translation[problem.camera]


def adjust(problem: Problem, num_iterations: int = 12) -> Problem:
    """The problem with better cameras and points; the cost never rises."""
    damping = 1e-3
    cost = _cost(problem)
    for _ in range(num_iterations):
        system = _linearize(problem)
        gain = 0.0
        for _ in range(5):
            trial = _step(problem, system, damping)
            trial_cost = _cost(trial)
            if trial_cost < cost:
                gain = (cost - trial_cost) / cost
                problem, cost, damping = trial, trial_cost, damping / 5
                break
            damping *= 8
        if gain < 1e-5:
            break
    return problem


def _cost(problem: Problem) -> float:
    error, depth = residuals(problem)
    size = np.hypot(error[:, 0], error[:, 1])
    size = np.where(depth > _MIN_DEPTH, size, 100.0)
    huber = np.where(size < HUBER_PX, 0.5 * size**2, HUBER_PX * (size - 0.5 * HUBER_PX))
    return float(huber.sum())


@dataclass(frozen=True, slots=True)
class _System:
    """Normal equations: cameras (turn and shift, 6 a camera) and points."""

    cameras: Float64  # [n,6,6], the diagonal blocks; the others are 0
    points: Float64  # [m,3,3]
    cross: Float64  # [k,6,3], the block of each observation's camera and point
    gradient_cameras: Float64  # [n,6]
    gradient_points: Float64  # [m,3]
    order: Int64  # [k], observations by point
    starts: Int64  # [m+1], where each point's begin in `order`


def _linearize(problem: Problem) -> _System:
    num, num_points = len(problem.rotation), len(problem.points)
    error, depth = residuals(problem)
    size = np.maximum(np.hypot(error[:, 0], error[:, 1]), 1e-9)
    weight = (np.minimum(1.0, HUBER_PX / size) * (depth > _MIN_DEPTH))[:, None, None]
    by_camera, by_point = _jacobians(problem)
    of_camera, of_point = np.swapaxes(by_camera * weight, 1, 2), np.swapaxes(by_point * weight, 1, 2)
    cameras, gradient = np.zeros((num, 6, 6)), np.zeros((num, 6))
    np.add.at(cameras, problem.camera, of_camera @ by_camera)
    np.add.at(gradient, problem.camera, (of_camera @ error[..., None])[..., 0])
    points, gradient_points = np.zeros((num_points, 3, 3)), np.zeros((num_points, 3))
    np.add.at(points, problem.point, of_point @ by_point)
    np.add.at(gradient_points, problem.point, (of_point @ error[..., None])[..., 0])
    order = np.argsort(problem.point, kind="stable")
    starts = np.searchsorted(problem.point[order], np.arange(num_points + 1))
    return _System(cameras, points, of_camera @ by_point, gradient, gradient_points, order, starts)


def _jacobians(problem: Problem) -> tuple[Float64, Float64]:
    """Of the predicted pixels: by camera float64 [k,2,6] (turn, shift; 0 for fixed ones) and by point [k,2,3]."""
    local = _local(problem)
    z = np.maximum(local[:, 2], _MIN_DEPTH)
    by_local = np.zeros((len(z), 2, 3))
    by_local[:, 0, 0] = by_local[:, 1, 1] = problem.focal_px / z
    by_local[:, :, 2] = -problem.focal_px * local[:, :2] / z[:, None] ** 2
    # A small turn w after the rotation moves the local point by w x (R X).
    turned = local - problem.translation[problem.camera]
    by_camera = np.concatenate([by_local @ -_cross_matrix(turned), by_local], axis=2)
    by_camera[problem.fixed[problem.camera]] = 0
    return by_camera, by_local @ problem.rotation[problem.camera]


def _step(problem: Problem, system: _System, damping: float) -> Problem:
    """Solve the damped system and move."""
    num = len(system.cameras)
    inverse: Float64 = np.linalg.inv(_damped(system.points, damping)).astype(np.float64)
    reduced, right = _eliminate(
        system.cross, inverse, system.gradient_points, problem.camera, system.order, system.starts, num
    )
    for i, block in enumerate(_damped(system.cameras, damping)):
        reduced[6 * i : 6 * i + 6, 6 * i : 6 * i + 6] += block
    right -= system.gradient_cameras.ravel()
    turns = _solve(reduced, right, np.repeat(~problem.fixed, 6)).reshape(num, 6)
    back = system.gradient_points.copy()
    np.add.at(back, problem.point, (turns[problem.camera][:, None] @ system.cross)[:, 0])
    return replace(
        problem,
        rotation=rotation_of(turns[:, :3]) @ problem.rotation,
        translation=problem.translation + turns[:, 3:],
        points=problem.points - (inverse @ back[..., None])[..., 0],
    )


def _solve(matrix: Float64, right: Float64, free: Bool) -> Float64:
    """float64 [n]: the solution for the `free` unknowns of a positive definite system [n,n]; 0 for the others.

    OpenCV, because NumPy's threads wait for each other for 100 ms a system where the processors are busy.
    """
    move = np.zeros(len(right))
    if free.any():
        solved, found = cv2.solve(matrix[np.ix_(free, free)], right[free][:, None], flags=cv2.DECOMP_CHOLESKY)
        if solved:
            move[free] = found[:, 0]
    return move


@njit(cache=True, nogil=True, error_model="numpy")
def _eliminate(
    cross: Float64,
    inverse: Float64,
    gradient_points: Float64,
    camera: Int64,
    order: Int64,
    starts: Int64,
    num_cameras: int,
) -> tuple[Float64, Float64]:
    """The part of the reduced system float64 [6n,6n] and its right side [6n] that comes from the points."""
    reduced = np.zeros((6 * num_cameras, 6 * num_cameras))
    right = np.zeros(6 * num_cameras)
    weighted = np.zeros((6, 3))
    for p in range(len(starts) - 1):
        for i in range(starts[p], starts[p + 1]):
            a = order[i]
            row = 6 * camera[a]
            for r in range(6):
                for c in range(3):
                    weighted[r, c] = (
                        cross[a, r, 0] * inverse[p, 0, c]
                        + cross[a, r, 1] * inverse[p, 1, c]
                        + cross[a, r, 2] * inverse[p, 2, c]
                    )
                for c in range(3):
                    right[row + r] += weighted[r, c] * gradient_points[p, c]
            for j in range(starts[p], starts[p + 1]):
                b = order[j]
                column = 6 * camera[b]
                for r in range(6):
                    for c in range(6):
                        reduced[row + r, column + c] -= (
                            weighted[r, 0] * cross[b, c, 0]
                            + weighted[r, 1] * cross[b, c, 1]
                            + weighted[r, 2] * cross[b, c, 2]
                        )
    return reduced, right


def _damped(blocks: Float64, damping: float) -> Float64:
    """Levenberg-Marquardt: the diagonal of each block times (1 + damping), and a little more."""
    index = np.arange(blocks.shape[-1])
    out = blocks.copy()
    out[:, index, index] *= 1 + damping
    out[:, index, index] += 1e-9
    return out


def _cross_matrix(vectors: Float64) -> Float64:
    """float64 [...,3,3]: the matrices that multiply as a cross product from the left."""
    out = np.zeros((*vectors.shape[:-1], 3, 3))
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    out[..., 0, 1], out[..., 0, 2] = -z, y
    out[..., 1, 0], out[..., 1, 2] = z, -x
    out[..., 2, 0], out[..., 2, 1] = -y, x
    return out


def rotation_of(turns: Float64) -> Float64:
    """Rotations float64 [...,3,3] about axes of turns [...,3] by their length in radians (Rodrigues)."""
    angle = np.linalg.norm(turns, axis=-1)[..., None, None]
    safe = np.maximum(angle, 1e-12)
    unit = _cross_matrix(turns / safe[..., 0])
    return np.eye(3) + np.sin(angle) * unit + (1 - np.cos(angle)) * (unit @ unit)
