"""Exact ray–primitive intersection, Numba, float64.

All shapes are convex: a ray crosses each in one interval (near, far), in the ray's own parameter.
Camera rays have a direction with z = 1 in the camera frame, so that the parameter is the z-depth.
"""

import math

import numpy as np
from numba import njit

from ex4d.core.arrays import Float64
from ex4d.scene.model import PackedScene

Vec = tuple[float, float, float]
_NONE = (1.0, -1.0)
_START = 1e-9  # a hit closer than this (metres along a unit ray) is the starting point itself


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def _slab(origin: float, direction: float) -> tuple[float, float]:
    """Where |origin + t·direction| <= 1."""
    if direction == 0.0:
        return (-np.inf, np.inf) if abs(origin) <= 1.0 else (1.0, -1.0)
    t0 = (-1.0 - origin) / direction
    t1 = (1.0 - origin) / direction
    return (t0, t1) if t0 < t1 else (t1, t0)


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def _quadratic(a: float, b: float, c: float) -> tuple[float, float]:
    """Roots of a·t² + 2b·t + c in order, stable for large b; (1, -1) if there are none."""
    square = b * b - a * c
    if square <= 0.0 or a == 0.0:
        return (1.0, -1.0)
    q = -(b + math.copysign(math.sqrt(square), b))
    t0, t1 = q / a, c / q
    return (t0, t1) if t0 < t1 else (t1, t0)


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def _cylinder(o: Vec, d: Vec) -> tuple[float, float]:
    lo, hi = _slab(o[1], d[1])
    if lo > hi:
        return (1.0, -1.0)
    a = d[0] * d[0] + d[2] * d[2]
    c = o[0] * o[0] + o[2] * o[2] - 1.0
    if a < 1e-18:
        return (lo, hi) if c <= 0.0 else (1.0, -1.0)
    t0, t1 = _quadratic(a, o[0] * d[0] + o[2] * d[2], c)
    if t0 > t1:
        return (1.0, -1.0)
    return max(lo, t0), min(hi, t1)


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def _cone(o: Vec, d: Vec) -> tuple[float, float]:
    """The solid cone x² + z² <= ((1+y)/2)², -1 <= y <= 1: from its at most two boundary crossings."""
    near, far = np.inf, -np.inf
    if d[1] != 0.0:
        t = (1.0 - o[1]) / d[1]
        x, z = o[0] + t * d[0], o[2] + t * d[2]
        if x * x + z * z <= 1.0:
            near, far = t, t
    g, gd = 0.5 * (1.0 + o[1]), 0.5 * d[1]
    a = d[0] * d[0] + d[2] * d[2] - gd * gd
    roots = _quadratic(a, o[0] * d[0] + o[2] * d[2] - g * gd, o[0] * o[0] + o[2] * o[2] - g * g)
    if roots[0] <= roots[1]:
        for t in roots:
            y = o[1] + t * d[1]
            if -1.0 <= y <= 1.0:
                near, far = min(near, t), max(far, t)
    return near, far


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def _interval(shape: int, o: Vec, d: Vec) -> tuple[float, float]:
    """Where the ray is inside the unit shape; near > far if nowhere."""
    if shape == 0:
        x0, x1 = _slab(o[0], d[0])
        y0, y1 = _slab(o[1], d[1])
        z0, z1 = _slab(o[2], d[2])
        return max(x0, y0, z0), min(x1, y1, z1)
    if shape == 1:
        return _quadratic(
            d[0] * d[0] + d[1] * d[1] + d[2] * d[2],
            o[0] * d[0] + o[1] * d[1] + o[2] * d[2],
            o[0] * o[0] + o[1] * o[1] + o[2] * o[2] - 1.0,
        )
    if shape == 2:
        return _cylinder(o, d)
    return _cone(o, d)


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def to_unit(row: Float64, v: Vec) -> Vec:
    """A world vector in the unit frame of a primitive (row of PackedScene.geometry)."""
    return (
        row[0] * v[0] + row[1] * v[1] + row[2] * v[2],
        row[3] * v[0] + row[4] * v[1] + row[5] * v[2],
        row[6] * v[0] + row[7] * v[1] + row[8] * v[2],
    )


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def hit_primitive(shape: int, row: Float64, origin: Vec, direction: Vec, limit: float) -> float:
    """Ray parameter of the first crossing of one primitive's surface after the start, or inf.

    The bounding sphere is tested first; `limit` (the best hit so far) prunes.
    """
    cx, cy, cz = row[9] - origin[0], row[10] - origin[1], row[11] - origin[2]
    dd = direction[0] * direction[0] + direction[1] * direction[1] + direction[2] * direction[2]
    along = cx * direction[0] + cy * direction[1] + cz * direction[2]
    square = along * along - dd * (cx * cx + cy * cy + cz * cz - row[15] * row[15])
    if square < 0.0:
        return np.inf
    reach = math.sqrt(square)
    if along + reach < 0.0 or along - reach > limit * dd:
        return np.inf
    o = to_unit(row, (-cx, -cy, -cz))
    d = to_unit(row, direction)
    near, far = _interval(shape, o, d)
    if near > far:
        return np.inf
    start = _START / math.sqrt(dd)
    if near > start:
        return near
    return far if far > start else np.inf


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def trace(scene: PackedScene, origin: Vec, direction: Vec) -> tuple[float, int]:
    """First hit of a ray with the scene: (ray parameter, primitive); (inf, -1) if it leaves the scene."""
    best, which = np.inf, -1
    for i in range(scene.shape.shape[0]):
        t = hit_primitive(scene.shape[i], scene.geometry[i], origin, direction, best)
        if t < best:
            best, which = t, i
    return best, which


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def unit_normal(shape: int, p: Vec) -> Vec:
    """Outward normal (not normalised) at a surface point of a unit shape, in its unit frame."""
    if shape == 0:
        ax, ay, az = abs(p[0]), abs(p[1]), abs(p[2])
        if ax >= ay and ax >= az:
            return (math.copysign(1.0, p[0]), 0.0, 0.0)
        if ay >= az:
            return (0.0, math.copysign(1.0, p[1]), 0.0)
        return (0.0, 0.0, math.copysign(1.0, p[2]))
    if shape == 1:
        return p
    rho = math.sqrt(p[0] * p[0] + p[2] * p[2])
    if shape == 2:
        if abs(1.0 - abs(p[1])) < abs(1.0 - rho):
            return (0.0, math.copysign(1.0, p[1]), 0.0)
        return (p[0], 0.0, p[2])
    slope = 0.5 * (1.0 + p[1])
    if abs(1.0 - p[1]) < abs(slope - rho):
        return (0.0, 1.0, 0.0)
    return (2.0 * p[0], -slope, 2.0 * p[2])


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def world_normal(shape: int, row: Float64, p: Vec) -> Vec:
    """Unit outward normal in world axes at a unit-frame surface point (inverse-transpose rule)."""
    n = unit_normal(shape, p)
    x = row[0] * n[0] + row[3] * n[1] + row[6] * n[2]
    y = row[1] * n[0] + row[4] * n[1] + row[7] * n[2]
    z = row[2] * n[0] + row[5] * n[1] + row[8] * n[2]
    length = math.sqrt(x * x + y * y + z * z)
    return (x / length, y / length, z / length)
