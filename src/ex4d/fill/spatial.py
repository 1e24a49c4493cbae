"""Multi-scale fill that continues the far side of each hole (pull–push with confidences).

Pull–push after Gortler et al., *The Lumigraph*, 1996, §3.4.3. What is added: every value carries its
disparity, and wherever values meet, the far ones win, so that no foreground enters the background.
"""

from typing import Any

import cv2
import numba as nb
import numpy as np
from numpy.typing import NDArray

from ex4d.core.arrays import Bool, Float32

_JIT: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": False, "error_model": "numpy"}
f4 = nb.float32

FRINGE_PX = 2
"""Observed pixels this close to a hole may hold mixed colours of both sides of the edge."""
FRINGE_WEIGHT = 0.02
FAR_SHARPNESS = 0.1
"""Relative disparity difference at which a nearer value's weight falls to a quarter."""

SATURATION = 9.0
"""A coarse cell is sure of itself when the weights (64 at most) of what it covers reach this."""
BEHIND_SHARPNESS = 0.3
"""As `FAR_SHARPNESS`, for values behind a hint: a hint on a wall takes little from the sky."""
SMOOTHING_PX = (2, 6, 18, 48, 96)
"""Radii of the smoothing inside holes; each is reached at twice that distance from known pixels."""


def fill_spatial(
    color: Float32, disparity: Float32, confidence: Float32, known: Bool, *, background: np.float32
) -> None:
    """Complete a frame in place.

    Args:
        color: float32 [H,W,3], levels; known pixels and hints on entry, complete on return.
        disparity: float32 [H,W], 1/z in the target camera; likewise.
        confidence: float32 [H,W], 0–1, weight of the hints; known pixels count 1 whatever it says.
        known: bool [H,W], pixels that stay as they are.
        background: 1/z of what counts as background: beyond it, far no longer beats near, so that the sky
            does not win over a wall.
    """
    trusted = cv2.erode(known.astype(np.uint8), np.ones((2 * FRINGE_PX + 1,) * 2, np.uint8), borderValue=1)
    weight = np.where(known, np.where(trusted != 0, f4(1.0), f4(FRINGE_WEIGHT)), confidence).astype(np.float32)
    levels = [_pack(color, disparity, weight)]
    while min(levels[-1].shape[:2]) > 2:
        fine = levels[-1]
        coarse = np.empty(((fine.shape[0] + 1) // 2, (fine.shape[1] + 1) // 2, 5), np.float32)
        _pull(fine, background, coarse)
        levels.append(coarse)
    _finish_top(levels[-1])
    for fine, coarse in zip(levels[-2::-1], levels[:0:-1], strict=True):
        _push(fine, background, coarse)
    hole = ~known
    filled = _smooth_inside(levels[0][..., :4], hole)
    color[hole] = filled[hole][:, :3]
    disparity[hole] = filled[hole][:, 3]


def _smooth_inside(filled: Float32, hole: Bool) -> Float32:
    """Average filled pixels with filled pixels only, over radii that grow with the distance to known ones.

    filled: float32 [H,W,4]; hole: bool [H,W]. Returns a new array; known pixels are left unspecified.
    """
    weight = hole.astype(np.float32)
    distance = cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, 3)
    out: NDArray[Any] = filled
    for radius in SMOOTHING_PX:
        if not (distance > radius).any():
            break
        size = (2 * radius + 1,) * 2
        share = cv2.blur(weight, size, borderType=cv2.BORDER_CONSTANT)
        mean = cv2.blur(out * weight[..., None], size, borderType=cv2.BORDER_CONSTANT)
        mean /= np.maximum(share, 1e-6)[..., None]
        blend = np.clip(distance / radius - 1, 0, 1)[..., None]
        out = out + blend * (mean - out)
    return out


def _pack(color: Float32, disparity: Float32, weight: Float32) -> Float32:
    """float32 [H,W,5]: r, g, b, disparity, weight."""
    return np.concatenate([color, disparity[..., None], weight[..., None]], axis=2)


@nb.njit(inline="always", **_JIT)
def _far_weight(d, reference):
    """1 for a value at or beyond the reference disparity, towards 0 for nearer ones."""
    q = max(d - reference, f4(0)) / (f4(FAR_SHARPNESS) * reference + f4(1e-9))
    w = f4(1.0) / (f4(1.0) + q * q)
    return w * w


@nb.njit(**_JIT)
def _pull(fine, background, coarse):
    """Each coarse cell = mean of the 4×4 fine cells around it (weights 1 3 3 1), the far ones first."""
    height, width = fine.shape[0], fine.shape[1]
    for i in range(coarse.shape[0]):
        y0, y1 = max(2 * i - 1, 0), min(2 * i + 3, height)
        for j in range(coarse.shape[1]):
            x0, x1 = max(2 * j - 1, 0), min(2 * j + 3, width)
            farthest = f4(np.inf)
            for y in range(y0, y1):
                for x in range(x0, x1):
                    if fine[y, x, 4] > 0:
                        farthest = min(farthest, fine[y, x, 3])
            farthest = max(farthest, background)
            total, r, g, b, d = f4(0), f4(0), f4(0), f4(0), f4(0)
            for y in range(y0, y1):
                wy = f4(3.0) if y // 2 == i else f4(1.0)
                for x in range(x0, x1):
                    w = fine[y, x, 4]
                    if w > 0:
                        w *= wy * (f4(3.0) if x // 2 == j else f4(1.0)) * _far_weight(fine[y, x, 3], farthest)
                        total += w
                        r += w * fine[y, x, 0]
                        g += w * fine[y, x, 1]
                        b += w * fine[y, x, 2]
                        d += w * fine[y, x, 3]
            s = f4(1.0) / total if total > 0 else f4(0)
            coarse[i, j, 0], coarse[i, j, 1], coarse[i, j, 2], coarse[i, j, 3] = r * s, g * s, b * s, d * s
            coarse[i, j, 4] = min(total / f4(SATURATION), f4(1.0))


@nb.njit(**_JIT)
def _finish_top(top):
    """The coarsest cells without any weight take the mean of the others."""
    mean = np.zeros(4, np.float32)
    total = f4(0)
    for i in range(top.shape[0]):
        for j in range(top.shape[1]):
            total += top[i, j, 4]
            for c in range(4):
                mean[c] += top[i, j, 4] * top[i, j, c]
    if total > 0:
        for i in range(top.shape[0]):
            for j in range(top.shape[1]):
                w = top[i, j, 4]
                for c in range(4):
                    top[i, j, c] = w * top[i, j, c] + (f4(1.0) - w) * mean[c] / total
                top[i, j, 4] = f4(1.0)


@nb.njit(**_JIT)
def _push(fine, background, coarse):
    """Cells that lack confidence take the rest from the coarser level, from nothing nearer than themselves."""
    rows, cols = coarse.shape[0], coarse.shape[1]
    for y in range(fine.shape[0]):
        i0 = y // 2 - 1 + y % 2
        wy1 = f4(0.25) if y % 2 else f4(0.75)
        for x in range(fine.shape[1]):
            own = fine[y, x, 4]
            if own >= f4(1.0):
                continue
            j0 = x // 2 - 1 + x % 2
            wx1 = f4(0.25) if x % 2 else f4(0.75)
            reference = fine[y, x, 3] if own > 0 else f4(np.inf)
            for i in range(max(i0, 0), min(i0 + 2, rows)):
                for j in range(max(j0, 0), min(j0 + 2, cols)):
                    if coarse[i, j, 4] > 0:
                        reference = min(reference, coarse[i, j, 3])
            reference = max(reference, background)
            mine = max(fine[y, x, 3], background) if own > 0 else f4(0)
            total = f4(1e-6) * own
            r, g, b, d = total * fine[y, x, 0], total * fine[y, x, 1], total * fine[y, x, 2], total * fine[y, x, 3]
            for i in range(max(i0, 0), min(i0 + 2, rows)):
                wy = wy1 if i > i0 else f4(1.0) - wy1
                for j in range(max(j0, 0), min(j0 + 2, cols)):
                    if coarse[i, j, 4] > 0:
                        w = wy * (wx1 if j > j0 else f4(1.0) - wx1) * _far_weight(coarse[i, j, 3], reference)
                        behind = max(mine - max(coarse[i, j, 3], background), f4(0))
                        w /= f4(1.0) + (behind / (f4(BEHIND_SHARPNESS) * mine + f4(1e-9))) ** 2
                        total += w
                        r += w * coarse[i, j, 0]
                        g += w * coarse[i, j, 1]
                        b += w * coarse[i, j, 2]
                        d += w * coarse[i, j, 3]
            if total > 0:
                s = (f4(1.0) - own) / total
                fine[y, x, 0] = own * fine[y, x, 0] + s * r
                fine[y, x, 1] = own * fine[y, x, 1] + s * g
                fine[y, x, 2] = own * fine[y, x, 2] + s * b
                fine[y, x, 3] = own * fine[y, x, 3] + s * d
                fine[y, x, 4] = f4(1.0)
