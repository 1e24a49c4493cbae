"""Smooth curves through keys at uneven times: positions, rotations and bounded scalars.

All of them pass through their keys and are continuous in velocity.
"""

import numpy as np

from ex4d.core.arrays import Float64, Int64


def _locate(times: Float64, t: Float64) -> tuple[Int64, Float64]:
    """Segment index [N] and position in it [N] in [0,1] of times inside the keys."""
    index = np.clip(np.searchsorted(times, t, side="right") - 1, 0, len(times) - 2).astype(np.int64)
    span = times[index + 1] - times[index]
    return index, np.clip((t - times[index]) / span, 0.0, 1.0)


def _key_velocities(times: Float64, steps: Float64) -> Float64:
    """Velocity at the M keys from the M-1 differences between them [M-1,D].

    Inside: the slope of the parabola through three keys (Catmull-Rom for uneven times). At the ends:
    the slope of the first and last segment.
    """
    span = np.diff(times)[:, None]
    slopes = steps / span
    inner = (slopes[:-1] * span[1:] + slopes[1:] * span[:-1]) / (span[1:] + span[:-1])
    return np.concatenate([slopes[:1], inner, slopes[-1:]])


def catmull_rom(times: Float64, points: Float64, t: Float64) -> Float64:
    """Positions float64 [N,D] on the non-uniform Catmull-Rom spline through M >= 1 points.

    Args:
        times: float64 [M], strictly increasing.
        points: float64 [M,D].
        t: float64 [N]; before the first and after the last key the ends are held.
    """
    if len(times) == 1:
        return np.repeat(points, len(t), axis=0)
    velocity = _key_velocities(times, np.diff(points, axis=0))
    i, u = _locate(times, t)
    u = u[:, None]
    h = (times[i + 1] - times[i])[:, None]
    return (
        (1 + 2 * u) * (1 - u) ** 2 * points[i]
        + u * (1 - u) ** 2 * h * velocity[i]
        + u**2 * (3 - 2 * u) * points[i + 1]
        + u**2 * (u - 1) * h * velocity[i + 1]
    )


def monotone_cubic(times: Float64, values: Float64, t: Float64) -> Float64:
    """Values float64 [N] of the Fritsch-Carlson curve through M >= 1 keys: it never leaves the keys' range.

    Args:
        times: float64 [M], strictly increasing.
        values: float64 [M].
        t: float64 [N]; the ends are held.
    """
    if len(times) == 1:
        return np.repeat(values, len(t))
    span = np.diff(times)
    slopes = np.diff(values) / span
    tangent = np.concatenate([slopes[:1], np.zeros(len(times) - 2), slopes[-1:]])
    same_sign = slopes[:-1] * slopes[1:] > 0
    before, after = slopes[:-1][same_sign], slopes[1:][same_sign]
    w1 = (2 * span[1:] + span[:-1])[same_sign]
    w2 = (span[1:] + 2 * span[:-1])[same_sign]
    tangent[1:-1][same_sign] = (w1 + w2) / (w1 / before + w2 / after)
    i, u = _locate(times, t)
    h = times[i + 1] - times[i]
    return (
        (1 + 2 * u) * (1 - u) ** 2 * values[i]
        + u * (1 - u) ** 2 * h * tangent[i]
        + u**2 * (3 - 2 * u) * values[i + 1]
        + u**2 * (u - 1) * h * tangent[i + 1]
    )


def quaternion_multiply(a: Float64, b: Float64) -> Float64:
    """Hamilton product of quaternions wxyz [...,4]."""
    w = a[..., :1] * b[..., :1] - np.sum(a[..., 1:] * b[..., 1:], axis=-1, keepdims=True)
    xyz = a[..., :1] * b[..., 1:] + b[..., :1] * a[..., 1:] + np.cross(a[..., 1:], b[..., 1:])
    return np.concatenate([w, xyz], axis=-1)


def _conjugate(q: Float64) -> Float64:
    return q * np.array([1.0, -1.0, -1.0, -1.0])


def _log(q: Float64) -> Float64:
    """Half rotation vectors [...,3] of unit quaternions [...,4]."""
    length = np.linalg.norm(q[..., 1:], axis=-1, keepdims=True)
    angle = np.arctan2(length, q[..., :1])
    return q[..., 1:] * np.where(length > 1e-15, angle / np.maximum(length, 1e-15), 1.0)


def _exp(v: Float64) -> Float64:
    """Unit quaternions [...,4] of half rotation vectors [...,3]."""
    angle = np.linalg.norm(v, axis=-1, keepdims=True)
    return np.concatenate([np.cos(angle), v * np.sinc(angle / np.pi)], axis=-1)


def _slerp(a: Float64, b: Float64, u: Float64) -> Float64:
    return quaternion_multiply(a, _exp(u[:, None] * _log(quaternion_multiply(_conjugate(a), b))))


def squad(times: Float64, quaternions: Float64, t: Float64) -> Float64:
    """Unit quaternions float64 [N,4] on the spherical cubic (Shoemake's squad) through M >= 1 keys.

    Control quaternions are made from angular velocities at the keys, so that uneven times stay smooth;
    for even times they are Shoemake's ``q exp(-(log(q⁻¹ q₊) + log(q⁻¹ q₋)) / 4)``.

    Args:
        times: float64 [M], strictly increasing.
        quaternions: float64 [M,4], wxyz, unit; signs are free (the shorter way is taken).
        t: float64 [N]; the ends are held.
    """
    q = _on_one_side(quaternions)
    if len(times) == 1:
        return np.repeat(q, len(t), axis=0)
    steps = _log(quaternion_multiply(_conjugate(q[:-1]), q[1:]))
    velocity = _limited(_key_velocities(times, steps), steps / np.diff(times)[:, None])
    i, u = _locate(times, t)
    h = (times[i + 1] - times[i])[:, None]
    leaving = quaternion_multiply(q[i], _exp((h * velocity[i] - steps[i]) / 2))
    arriving = quaternion_multiply(q[i + 1], _exp((steps[i] - h * velocity[i + 1]) / 2))
    out = _slerp(_slerp(q[i], q[i + 1], u), _slerp(leaving, arriving, u), 2 * u * (1 - u))
    return out / np.linalg.norm(out, axis=-1, keepdims=True)


def _limited(velocity: Float64, slopes: Float64) -> Float64:
    """Velocities at the keys of at most three times the slower neighbour (Fritsch-Carlson's bound).

    Without it a long segment beside a short, fast one would turn past half a circle and back.
    """
    speed = np.linalg.norm(slopes, axis=1)
    slower = np.concatenate([speed[:1], np.minimum(speed[:-1], speed[1:]), speed[-1:]])
    length = np.linalg.norm(velocity, axis=1)
    factor = np.minimum(1.0, 3.0 * slower / np.maximum(length, 1e-300))
    return velocity * factor[:, None]


def _on_one_side(quaternions: Float64) -> Float64:
    """The same rotations with each quaternion's sign chosen closest to the one before."""
    out = quaternions / np.linalg.norm(quaternions, axis=-1, keepdims=True)
    for i in range(1, len(out)):
        if np.dot(out[i - 1], out[i]) < 0:
            out[i] = -out[i]
    return out
