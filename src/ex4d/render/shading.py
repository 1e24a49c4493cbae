"""Numba kernels after rasterising: what torn faces still show, and buffers → pictures."""

import numba as nb
import numpy as np

from ex4d.render.kernels import ENTRY, INNER, f4, f8, u4

ON_VERTEX_PX = np.float32(1 / 512)
"""A sample this close to a vertex, in source pixels, lies on it: half a sub-pixel step."""


@nb.njit(**ENTRY)
def show_reach(buffers, grid, rgba, reach, ring, to_source, target_k, source_k):
    """Give samples on torn faces the colour of the vertices that reach them.

    A vertex is known at a sample whose depth in the source camera is closer than its reach to its own, or
    which lies exactly on it (so that the source view is the frame, bit for bit). Of several, the mean by
    distance in the source image.

    buffers as for `draw_grid`; grid float32 [3,GH,GW]; rgba uint32, reach float32 [GH,GW]; to_source float64
    [3,4] target → source camera; target_k, source_k float64 [4] = fx, fy, cx, cy (px, corner origin).
    """
    inv_z, color, face_id = buffers
    rows, cols = reach.shape
    num_quads = (rows - 1) * (cols - 1)
    vi, vj = np.empty(3, np.int64), np.empty(3, np.int64)
    # z = depth · (p x + q y + r) + s in single precision is enough to rule most samples out
    p, q = f4(to_source[2, 0] / target_k[0]), f4(to_source[2, 1] / target_k[1])
    r, s = f4(to_source[2, 2]), f4(to_source[2, 3])
    depth = grid[2]
    per_row = 1.0 / (cols - 1)
    for row in range(color.shape[0]):
        y = f4(row + 0.5 - target_k[3])
        for col in range(color.shape[1]):
            face = face_id[row, col]
            if color[row, col] != 0 or face < 0 or face >= 2 * num_quads:
                continue
            z = (p * f4(col + 0.5 - target_k[2]) + q * y + r) / inv_z[row, col] + s
            second = face >= num_quads
            quad = face - num_quads if second else face
            i = int((quad + 0.5) * per_row)  # the quotient, without the cost of a division
            j = quad - i * (cols - 1)
            slack = f4(1e-3) * z
            k = 1 if second else 0
            near_any = (
                (abs(z - depth[i, j + 1]) < reach[i, j + 1] + slack)
                | (abs(z - depth[i + 1, j]) < reach[i + 1, j] + slack)
                | (abs(z - depth[i + k, j + k]) < reach[i + k, j + k] + slack)
            )
            if near_any:
                vi[0], vj[0], vi[1], vj[1], vi[2], vj[2] = i, j + 1, i + 1, j, i + k, j + k
                ahead = 1.0 / f8(inv_z[row, col])
                ray_x, ray_y = (col + 0.5 - target_k[2]) / target_k[0], (row + 0.5 - target_k[3]) / target_k[1]
                color[row, col] = reached_color(
                    grid, rgba, reach, vi, vj, ray_x * ahead, ray_y * ahead, ahead, ring, to_source, source_k
                )


@nb.njit(**INNER)
def reached_color(grid, rgba, reach, vi, vj, x, y, depth, ring, to_source, source_k):
    """Mean colour uint32 of those of three vertices that are known at target point (x, y, depth); else 0."""
    u = to_source[0, 0] * x + to_source[0, 1] * y + to_source[0, 2] * depth + to_source[0, 3]
    v = to_source[1, 0] * x + to_source[1, 1] * y + to_source[1, 2] * depth + to_source[1, 3]
    z = to_source[2, 0] * x + to_source[2, 1] * y + to_source[2, 2] * depth + to_source[2, 3]
    # in grid steps: vertex (i, j) is the sample of source pixel (i - ring, j - ring)
    gx = source_k[0] * u / z + source_k[2] + ring - 0.5
    gy = source_k[1] * v / z + source_k[3] + ring - 0.5
    red, green, blue, alpha, total = 0.0, 0.0, 0.0, 0.0, 0.0
    for k in range(3):
        i, j = vi[k], vj[k]
        dx, dy = abs(gx - j), abs(gy - i)
        on_vertex = dx < ON_VERTEX_PX and dy < ON_VERTEX_PX
        if not on_vertex and abs(z - grid[2, i, j]) >= reach[i, j]:
            continue
        weight = 1.0 if on_vertex else max(1.0 - dx, 1e-3) * max(1.0 - dy, 1e-3)
        color = rgba[i, j]
        if on_vertex:
            return color
        red += weight * (color & u4(255))
        green += weight * ((color >> u4(8)) & u4(255))
        blue += weight * ((color >> u4(16)) & u4(255))
        alpha += weight * (color >> u4(24))
        total += weight
    if total == 0.0:
        return u4(0)
    r = 1.0 / total
    return (
        u4(red * r + 0.5) | u4(green * r + 0.5) << u4(8) | u4(blue * r + 0.5) << u4(16) | u4(alpha * r + 0.5) << u4(24)
    )


@nb.njit(**ENTRY)
def resolve(inv_z, color, min_alpha, rgb, observed, depth):
    """Buffers → rgb uint8 [H,W,3], observed bool [H,W], depth float32 [H,W]; black and 0 elsewhere."""
    for y in range(rgb.shape[0]):
        for x in range(rgb.shape[1]):
            c = color[y, x]
            seen = (c >> u4(24)) >= u4(min_alpha)
            if not seen:
                c = u4(0)
            observed[y, x] = seen
            rgb[y, x, 0] = c & u4(255)
            rgb[y, x, 1] = (c >> u4(8)) & u4(255)
            rgb[y, x, 2] = (c >> u4(16)) & u4(255)
            depth[y, x] = f4(1.0) / inv_z[y, x] if seen else f4(0)
