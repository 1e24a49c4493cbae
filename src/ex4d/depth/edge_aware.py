"""Completes disparity that is known in places, along the picture's own edges.

Guided filtering (He, Sun and Tang, 2013) with confidences as weights, at several radii: the smallest radius that finds
enough known pixels decides.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ex4d.core.arrays import Float32, UInt8

_RADII_PX = (3, 6, 12, 24, 48, 96)
_EDGE_VARIANCE = 2e-4
"""Brightness steps (0 to 1, squared) above this count as edges that disparity may follow."""
_ENOUGH = 0.35


def complete(values: Float32, weight: Float32, gray: UInt8) -> Float32:
    """Values everywhere: smoothed where they are known, continued where not.

    Args:
        values: float32 [h,w]; anything where `weight` is 0.
        weight: float32 [h,w] >= 0, relative; 0 = unknown.
        gray: uint8 [h,w], the picture.

    Returns:
        float32 [h,w]; the weighted mean where next to nothing is known.
    """
    guide = gray.astype(np.float32) / np.float32(255)
    known = weight > 0
    if not known.any():
        return np.zeros_like(values)
    weight = np.minimum(weight / np.float32(np.median(weight[known])), np.float32(4.0))
    values = np.where(known, values, 0).astype(np.float32)
    mean = float((values * weight).sum() / weight.sum())
    out = np.full_like(values, np.float32(mean))
    for radius in reversed(_RADII_PX):
        if radius > max(values.shape):
            continue
        fitted, share = _guided(values, weight, guide, radius)
        trust = np.clip(share / np.float32(_ENOUGH), 0, 1) ** 2
        out += trust * (fitted - out)
    return out


def _guided(values: Float32, weight: Float32, guide: Float32, radius: int) -> tuple[Float32, Float32]:
    """(weighted guided filter, share of weight in the window relative to an evenly known picture)."""
    count = _box(weight, radius)
    safe = count + np.float32(1e-6)
    mean_guide, mean_value = _box(weight * guide, radius) / safe, _box(weight * values, radius) / safe
    covariance = _box(weight * guide * values, radius) / safe - mean_guide * mean_value
    variance = _box(weight * guide * guide, radius) / safe - mean_guide**2
    slope = covariance / (np.maximum(variance, 0) + np.float32(_EDGE_VARIANCE))
    offset = mean_value - slope * mean_guide
    around = _box(count, radius) + np.float32(1e-6)
    fitted = _box(count * slope, radius) / around * guide + _box(count * offset, radius) / around
    low, high = _range(values, weight, radius)
    return np.clip(fitted, low, high).astype(np.float32), _box((weight > 0.02).astype(np.float32), radius)


def _range(values: Float32, weight: Float32, radius: int) -> tuple[Float32, Float32]:
    """Smallest and largest known value within twice the radius: a fit is not extrapolated beyond them."""
    size = 4 * radius + 1
    step = max(1, radius // 6)
    known = weight > 0
    lowest, highest = float(values[known].min()), float(values[known].max())
    low = np.where(known, values, np.float32(highest))[::step, ::step]
    high = np.where(known, values, np.float32(lowest))[::step, ::step]
    kernel = np.ones((size // step | 1, size // step | 1), np.uint8)
    shape = values.shape[::-1]
    low = cv2.resize(cv2.erode(low, kernel), shape, interpolation=cv2.INTER_NEAREST)
    high = cv2.resize(cv2.dilate(high, kernel), shape, interpolation=cv2.INTER_NEAREST)
    return np.asarray(low, np.float32), np.asarray(high, np.float32)


def _box(values: NDArray[Any], radius: int) -> Float32:
    side = 2 * radius + 1
    single = np.asarray(values, np.float32)
    return np.asarray(cv2.boxFilter(single, -1, (side, side), borderType=cv2.BORDER_REFLECT), np.float32)
