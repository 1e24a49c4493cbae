"""Rotations between matrices and unit quaternions, and the nearest rotation to a rounded matrix.

Quaternions are float64 [...,4] in the order w, x, y, z (COLMAP's, and that of `rotation_wxyz`).
"""

import numpy as np

from ex4d.core.arrays import Float64


def matrix_to_quaternion(rotation: Float64) -> Float64:
    """Unit quaternions wxyz float64 [...,4] of rotations float64 [...,3,3], with w >= 0.

    Takes, for each matrix, the formula whose divisor is largest (Shepperd), so that no angle loses digits.
    """
    r = rotation
    trace = r[..., 0, 0] + r[..., 1, 1] + r[..., 2, 2]
    # Four times the products of quaternion entries: row k of `table` is 4·q_k·(w, x, y, z).
    table = np.empty((*r.shape[:-2], 4, 4))
    table[..., 0, :] = np.stack(
        [1 + trace, r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]], axis=-1
    )
    for k in range(3):
        row = r[..., k, :] + r[..., :, k]
        table[..., k + 1, 1:] = row
        table[..., k + 1, k + 1] = 1 - trace + 2 * r[..., k, k]
        table[..., k + 1, 0] = table[..., 0, k + 1]
    best = np.argmax(np.diagonal(table, axis1=-2, axis2=-1), axis=-1)
    q: Float64 = np.take_along_axis(table, best[..., None, None], axis=-2)[..., 0, :]
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    return q * np.where(q[..., :1] < 0, -1.0, 1.0)


def quaternion_to_matrix(quaternion: Float64) -> Float64:
    """Rotations float64 [...,3,3] of quaternions wxyz [...,4]; their length is divided out."""
    q = quaternion / np.linalg.norm(quaternion, axis=-1, keepdims=True)
    w, x, y, z = q[..., 0], q[..., 1], q[..., 2], q[..., 3]
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def rotation_error(rotation: Float64) -> float:
    """Largest entry of |R Rᵀ - I| over matrices float64 [...,3,3]."""
    return float(np.abs(rotation @ np.swapaxes(rotation, -1, -2) - np.eye(3)).max())


def nearest_rotation(matrix: Float64) -> Float64:
    """The rotations closest to nearly orthonormal matrices float64 [...,3,3] (polar factor by SVD)."""
    u, _, vt = np.linalg.svd(matrix)
    return u @ vt
