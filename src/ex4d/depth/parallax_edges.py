"""Sharp outlines: near occlusion edges flow is a blend of both sides; the pictures say which side a pixel is on."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ex4d.core.arrays import Float32, Float64, UInt8

REACH_PX = 5
"""How far from its edge flow may be wrong."""
_STEP = 1.06
"""Sides that differ by less than this in disparity are one surface."""
_PREFER_OWN = 0.9
_MAX_DIFFERENCE = 40.0


def sharpen(disparity: Float32, gray: UInt8, neighbors: list[tuple[UInt8, Float64]]) -> Float32:
    """Disparity whose pixels near edges are put on the side that explains the neighbours best.

    Each pixel may keep its value or take the smallest or largest around it; the one wins under which the neighbours
    look most alike (census-like: brightness without its local mean, summed along the picture's edges), on the better
    half of them, because what is hidden in one is seen in another.

    Args:
        disparity: float32 [h,w], everywhere.
        gray: uint8 [h,w].
        neighbors: (picture uint8 [h,w] turned into this view's direction, shift K t float64 [3]) of each.

    Returns:
        float32 [h,w].
    """
    if len(neighbors) < 2:
        return disparity
    kernel = np.ones((2 * REACH_PX + 1, 2 * REACH_PX + 1), np.uint8)
    low = np.asarray(cv2.erode(disparity, kernel), np.float32)
    high = np.asarray(cv2.dilate(disparity, kernel), np.float32)
    edge = high > _STEP * low
    if not edge.any():
        return disparity
    here = _without_mean(gray)
    others = [(_without_mean(other), shift) for other, shift in neighbors]
    candidates = (disparity, low, high)
    costs = np.stack([_cost(candidate, here, others, gray) for candidate in candidates])
    costs[0] *= _PREFER_OWN
    best = np.where(edge, costs.argmin(axis=0), 0).astype(np.uint8)
    best = np.asarray(cv2.medianBlur(best, 3), np.int64)
    return np.choose(best, candidates).astype(np.float32)


def _without_mean(gray: UInt8) -> Float32:
    values = gray.astype(np.float32)
    return np.asarray(values - cv2.boxFilter(values, -1, (15, 15)), np.float32)


def _cost(disparity: Float32, here: Float32, others: list[tuple[Float32, Float64]], gray: UInt8) -> Float32:
    """Mean difference to the better half of the neighbours, gathered over 7x7 px of like brightness."""
    height, width = disparity.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) + np.float32(0.5)
    differences: list[Float32] = []
    for other, (a, b, c) in others:
        z = np.maximum(1 + disparity * np.float32(c), np.float32(1e-3))
        u = (x + disparity * np.float32(a)) / z - np.float32(0.5)
        v = (y + disparity * np.float32(b)) / z - np.float32(0.5)
        seen = cv2.remap(other, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        difference = np.minimum(np.abs(here - seen), np.float32(_MAX_DIFFERENCE)).astype(np.float32)
        differences.append(_gather(difference, gray))
    ranked = np.sort(np.stack(differences), axis=0)
    return ranked[: (len(ranked) + 1) // 2].mean(axis=0)


def _gather(cost: Float32, gray: UInt8, radius: int = 3) -> Float32:
    """Guided filter of a cost along the picture (Rhemann et al., "Fast cost-volume filtering", 2011)."""
    guide = gray.astype(np.float32) / np.float32(255)
    size = (2 * radius + 1, 2 * radius + 1)

    def box(values: NDArray[Any]) -> Float32:
        return np.asarray(cv2.boxFilter(np.asarray(values, np.float32), -1, size), np.float32)

    mean_guide, mean_cost = box(guide), box(cost)
    slope = (box(guide * cost) - mean_guide * mean_cost) / (box(guide * guide) - mean_guide**2 + np.float32(1e-3))
    return (box(slope) * guide + box(mean_cost - slope * mean_guide)).astype(np.float32)
