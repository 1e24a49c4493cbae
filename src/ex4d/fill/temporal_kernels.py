"""Numba kernels of the search in other frames: compare, judge, combine."""

from typing import Any

import numba as nb
import numpy as np

_JIT: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": False, "error_model": "numpy"}
f4 = nb.float32

CELL_PX = 4
"""Frames are compared in cells of this many pixels a side."""
MAX_OFFSET = 40.0
"""A mean colour difference above this many levels is another surface, not another exposure."""
MAX_TINT = 12.0
"""A mean difference whose channels lie farther than this from their average is no change of exposure either: added
to another colour in the hole it would tint it."""
MAX_MISFIT = 0.35
"""Share of compared pixels whose depth differs, from which on a frame is not trusted."""
MIN_PIXELS = 0.05
"""Least (distance-weighted) number of compared pixels."""
SAME_COLOR = 30.0
"""Levels within which supplied colours count as one surface, averaged over channels."""


@nb.njit(**_JIT)
def farthest_in_cells(observed, surface):
    """float32 [h,w], smallest 1/z of the observed pixels of each cell, infinity where none."""
    rows, cols = -(-observed.shape[0] // CELL_PX), -(-observed.shape[1] // CELL_PX)
    out = np.full((rows, cols), np.inf, np.float32)
    for y in range(observed.shape[0]):
        for x in range(observed.shape[1]):
            if observed[y, x]:
                i, j = y // CELL_PX, x // CELL_PX
                out[i, j] = min(out[i, j], surface[y, x])
    return out


@nb.njit(**_JIT)
def compare(view, render, far, tolerance):
    """Sums a cell over background pixels that both frames observe.

    view = rgb, observed, surface (1/z); render = rgb, depth (0 = not observed). Returns float32 [h,w,6]:
    number of equal depth, number of other depth, colour differences r g b, squared differences
    (mean of channels) of those of equal depth.
    """
    rgb, observed, surface = view
    other_rgb, other_depth = render
    out = np.zeros((far.shape[0], far.shape[1], 6), np.float32)
    for y in range(observed.shape[0]):
        for x in range(observed.shape[1]):
            z = other_depth[y, x]
            if not observed[y, x] or z <= 0:
                continue
            i, j = y // CELL_PX, x // CELL_PX
            d = surface[y, x]
            if d > far[i, j]:
                continue
            cell = out[i, j]
            if abs(f4(1.0) / z - d) > tolerance * d:
                cell[1] += f4(1.0)
                continue
            r = f4(rgb[y, x, 0]) - f4(other_rgb[y, x, 0])
            g = f4(rgb[y, x, 1]) - f4(other_rgb[y, x, 1])
            b = f4(rgb[y, x, 2]) - f4(other_rgb[y, x, 2])
            cell[0] += f4(1.0)
            cell[2] += r
            cell[3] += g
            cell[4] += b
            cell[5] += (r * r + g * g + b * b) / f4(3.0)
    return out


@nb.njit(**_JIT)
def judge(sums, color_tolerance):
    """Sums [h,w,6] → float32 [h,w,4]: trust 0–1 and the mean colour difference (0 where not trusted)."""
    out = np.zeros((sums.shape[0], sums.shape[1], 4), np.float32)
    for i in range(sums.shape[0]):
        for j in range(sums.shape[1]):
            n, misfit = sums[i, j, 0], sums[i, j, 1]
            if n < f4(MIN_PIXELS) or misfit > f4(MAX_MISFIT) * (n + misfit):
                continue
            r, g, b = sums[i, j, 2] / n, sums[i, j, 3] / n, sums[i, j, 4] / n
            mean2 = (r * r + g * g + b * b) / f4(3.0)
            error = np.sqrt(max(sums[i, j, 5] / n - mean2, f4(0)))
            gray = (r + g + b) / f4(3.0)
            tint = max(abs(r - gray), max(abs(g - gray), abs(b - gray)))
            if error >= color_tolerance or tint > f4(MAX_TINT) or mean2 > f4(MAX_OFFSET * MAX_OFFSET):
                continue
            trust = f4(1.0) - (error / color_tolerance) ** 2
            out[i, j, 0] = trust * (f4(1.0) - misfit / (f4(MAX_MISFIT) * (n + misfit))) + f4(1e-3)
            out[i, j, 1], out[i, j, 2], out[i, j, 3] = r, g, b
    return out


@nb.njit(**_JIT)
def _sample(offer, y, x, out):
    """Bilinear trust and colour difference of a cell map at a pixel; differences weigh by trust."""
    rows, cols = offer.shape[0], offer.shape[1]
    v = min(max((f4(y) + f4(0.5)) / f4(CELL_PX) - f4(0.5), f4(0)), f4(rows - 1))
    u = min(max((f4(x) + f4(0.5)) / f4(CELL_PX) - f4(0.5), f4(0)), f4(cols - 1))
    i0, j0 = int(v), int(u)
    out[:] = f4(0)
    for i in range(i0, min(i0 + 2, rows)):
        wy = f4(1.0) - abs(v - f4(i))
        for j in range(j0, min(j0 + 2, cols)):
            w = wy * (f4(1.0) - abs(u - f4(j))) * offer[i, j, 0]
            out[0] += w
            for c in range(1, 4):
                out[c] += w * offer[i, j, c]
    if out[0] > 0:
        for c in range(1, 4):
            out[c] /= out[0]


@nb.njit(**_JIT)
def combine(rgb, depth, offers, frame, tolerance, result):
    """Choose each unobserved pixel from the frames that offer it.

    rgb uint8 [K,H,W,3], depth float32 [K,H,W], offers float32 [K,h,w,4]; frame = observed, surface (1/z);
    result = colour float32 [H,W,3], disparity float32 [H,W], left 0 where nothing is found.

    Of the offers that lie in space the source frame did not see to be empty, the farthest is the
    reference (what moved is in front of what stayed); offers of its depth and of the colour of
    their most trusted member are averaged by trust.
    """
    observed, surface = frame
    color, disparity = result
    num = rgb.shape[0]
    values = np.zeros((num, 5), np.float32)
    cell = np.zeros(4, np.float32)
    for y in range(observed.shape[0]):
        for x in range(observed.shape[1]):
            if observed[y, x]:
                continue
            limit = surface[y, x] * (f4(1.0) + tolerance) if surface[y, x] > 0 else f4(np.inf)
            farthest = f4(np.inf)
            for k in range(num):
                values[k, 0] = f4(0)
                z = depth[k, y, x]
                if z <= 0 or f4(1.0) / z > limit:
                    continue
                _sample(offers[k], y, x, cell)
                if cell[0] <= f4(0.02):
                    continue
                values[k, 0], values[k, 1] = cell[0], f4(1.0) / z
                for c in range(3):
                    values[k, 2 + c] = f4(rgb[k, y, x, c]) + cell[1 + c]
                farthest = min(farthest, values[k, 1])
            if farthest < np.inf:
                _average(values, farthest * (f4(1.0) + f4(2.0) * tolerance), color[y, x])
                disparity[y, x] = farthest


@nb.njit(**_JIT)
def _average(values, nearest, out):
    """Mean colour of the offers up to a disparity that look like the most trusted of them."""
    best = -1
    for k in range(values.shape[0]):
        if values[k, 0] > 0 and values[k, 1] <= nearest and (best < 0 or values[k, 0] > values[best, 0]):
            best = k
    total = f4(0)
    for k in range(values.shape[0]):
        if values[k, 0] <= 0 or values[k, 1] > nearest:
            continue
        difference = f4(0)
        for c in range(2, 5):
            difference += abs(values[k, c] - values[best, c])
        if difference > f4(3.0 * SAME_COLOR):
            continue
        weight = values[k, 0] ** 4
        total += weight
        for c in range(3):
            out[c] += weight * values[k, 2 + c]
    for c in range(3):
        out[c] /= total
