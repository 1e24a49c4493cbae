"""Numba kernels of the mesh build: depth → vertex planes → torn faces.

Slices are passed instead of ``k + offset`` indices because Numba vectorises only the former.
"""

import math
from typing import Any

import numba as nb
import numpy as np

_JIT: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": False, "error_model": "numpy"}
f4, u1, u4 = nb.float32, nb.uint8, nb.uint32

HALF_PIXEL_REACH = np.float32(0.25)
"""Reach of every surface, in pixel sizes. A surface ends on average half a pixel beyond its last sample, which
a view from 30–90° sees as 0–0.9 pixel sizes of depth on the torn face; less than the mean, so that no more than
1 % of what is called observed was not seen (`ex4d demo` measures it on scenes 0–4)."""
MAX_EXTENSION_STEPS = 2.5
"""Bound of the round extension, in depth steps: keeps noise from growing long tongues."""
MAX_SMOOTH_STEP = np.float32(0.05)
"""Relative depth step above which neighbours are no evidence of how a surface goes on."""


@nb.njit(**_JIT)
def unproject_grid(depth, ring, ring_depth, offset_px, intrinsics, out):
    """Depth float32 [H,W] → out float32 [3,GH,GW], source camera frame.

    ring 1: a ring of vertices outside the frame at ring_depth (GH = H+2); ring 0: the outermost pixels
    themselves go to ring_depth (GH = H). intrinsics float32 [4] = fx, fy, cx, cy (px, corner origin).
    """
    rows, cols = out.shape[1], out.shape[2]
    inv_fx, inv_fy = f4(1.0) / intrinsics[0], f4(1.0) / intrinsics[1]
    cx, cy = intrinsics[2], intrinsics[3]
    shift = f4(offset_px) - f4(ring)
    for i in range(rows):
        ray_y = (f4(i) + shift - cy) * inv_fy
        z_row, y_row, x_row = out[2, i], out[1, i], out[0, i]
        if i == 0 or i == rows - 1:
            z_row[:] = ring_depth
        else:
            if ring:
                z_row[1 : cols - 1] = depth[i - 1]
            else:
                z_row[:] = depth[i]
            z_row[0] = ring_depth
            z_row[cols - 1] = ring_depth
        for j in range(cols):
            z = z_row[j]
            y_row[j] = ray_y * z
            x_row[j] = (f4(j) + shift - cx) * inv_fx * z


@nb.njit(**_JIT)
def squared_lengths(x0, y0, z0, x1, y1, z1, out):
    """out[k] = |p1[k] − p0[k]|²; all float32, equal length."""
    for k in range(out.size):
        dx = x1[k] - x0[k]
        dy = y1[k] - y0[k]
        dz = z1[k] - z0[k]
        out[k] = dx * dx + dy * dy + dz * dz


@nb.njit(inline="always", **_JIT)
def is_sliver(p, q, r, four_cos2):
    """True if the smallest angle of a triangle with squared edges p, q, r is below the limit.

    The smallest angle is opposite the shortest edge s: cos = (m + d − s) / (2 sqrt(m d)), compared
    squared with four_cos2 = 4 cos²(limit). Equals the minimum of three arccos at 1 % of the cost.
    """
    s = min(p, min(q, r))
    m = max(p, max(q, r))
    d = p + q + r - s - m
    k = d + m - s
    return k * k > four_cos2 * d * m


@nb.njit(**_JIT)
def sliver_flags(grid, four_cos2, horizontal, vertical, diagonal, first, second):
    """first, second uint8 [GH-1,GW]: is the triangle a sliver? Scratch float32 [GH·GW] each; last column unused."""
    rows, cols = grid.shape[1], grid.shape[2]
    n = rows * cols
    m = n - cols
    x, y, z = grid[0].reshape(n), grid[1].reshape(n), grid[2].reshape(n)
    squared_lengths(x[: n - 1], y[: n - 1], z[: n - 1], x[1:], y[1:], z[1:], horizontal[: n - 1])
    squared_lengths(x[:m], y[:m], z[:m], x[cols:], y[cols:], z[cols:], vertical[:m])
    squared_lengths(x[1 : m + 1], y[1 : m + 1], z[1 : m + 1], x[cols:], y[cols:], z[cols:], diagonal[:m])
    for i in range(rows - 1):
        o = i * cols
        hl, vl, dl = horizontal[o : o + cols], vertical[o : o + cols], diagonal[o : o + cols]
        hl_below, vl_right = horizontal[o + cols : o + 2 * cols], vertical[o + 1 : o + 1 + cols]
        t0, t1 = first[i], second[i]
        for j in range(cols - 1):
            t0[j] = u1(is_sliver(hl[j], vl[j], dl[j], four_cos2))
        for j in range(cols - 1):
            t1[j] = u1(is_sliver(hl_below[j], vl_right[j], dl[j], four_cos2))


@nb.njit(**_JIT)
def jump_flags(z, keep_below, first, second):
    """Clear flags of triangles without a disparity jump: keep where z_min < keep_below · z_max.

    z float32 [GH,GW]; keep_below = 1 − relative disparity jump.
    """
    rows, cols = z.shape
    for i in range(rows - 1):
        top, bottom = z[i], z[i + 1]
        b_row, d_row = top[1:], bottom[1:]
        t0, t1 = first[i], second[i]
        for j in range(cols - 1):
            lo = min(top[j], min(b_row[j], bottom[j]))
            hi = max(top[j], max(b_row[j], bottom[j]))
            t0[j] &= u1(lo < keep_below * hi)
        for j in range(cols - 1):
            lo = min(d_row[j], min(b_row[j], bottom[j]))
            hi = max(d_row[j], max(b_row[j], bottom[j]))
            t1[j] &= u1(lo < keep_below * hi)


@nb.njit(**_JIT)
def pack_quads(first, second, quad_torn):
    """Two flag planes uint8 [GH-1,GW] → bits uint8 [GH-1,GW-1]."""
    for i in range(quad_torn.shape[0]):
        t0, t1, out = first[i], second[i], quad_torn[i]
        for j in range(out.size):
            out[j] = t0[j] | (t1[j] << u1(1))


@nb.njit(**_JIT)
def tear_border(quad_torn):
    """Every face that touches the ring is torn: the walls are made of nothing the camera saw."""
    quad_torn[0, :] = u1(3)
    quad_torn[-1, :] = u1(3)
    quad_torn[:, 0] = u1(3)
    quad_torn[:, -1] = u1(3)


@nb.njit(**_JIT)
def tear_invalid(valid, ring, quad_torn):
    """Every face that touches a pixel without depth is torn. valid bool [H,W]."""
    height, width = valid.shape
    for i in range(height):
        for j in range(width):
            if not valid[i, j]:
                gi, gj = i + ring, j + ring
                # quads around the vertex: it is d, c, b, a of them; b and c belong to both triangles
                if gi > 0 and gj > 0:
                    quad_torn[gi - 1, gj - 1] |= u1(2)
                if gi > 0 and gj < quad_torn.shape[1]:
                    quad_torn[gi - 1, gj] = u1(3)
                if gi < quad_torn.shape[0] and gj > 0:
                    quad_torn[gi, gj - 1] = u1(3)
                if gi < quad_torn.shape[0] and gj < quad_torn.shape[1]:
                    quad_torn[gi, gj] |= u1(1)


@nb.njit(**_JIT)
def pack_colors(frame, ring, rgba):
    """frame uint8 [H,W,3] → rgba uint32 [GH,GW]: R | G<<8 | B<<16 | 255<<24; the ring, if any, is 0."""
    rows, cols = rgba.shape
    for i in range(rows):
        out = rgba[i]
        if ring and (i == 0 or i == rows - 1):
            out[:] = u4(0)
            continue
        line = frame[i - ring].reshape(-1)
        red, green, blue = line[0::3], line[1::3], line[2::3]
        inner = out[ring : cols - ring]
        for j in range(inner.size):
            inner[j] = u4(red[j]) | u4(green[j]) << u4(8) | u4(blue[j]) << u4(16) | u4(0xFF000000)
        if ring:
            out[0] = u4(0)
            out[cols - 1] = u4(0)


@nb.njit(**_JIT)
def clear_torn_vertices(quad_torn, rgba):
    """Official rule: every vertex of a torn face loses its colour (RGBA = 0). rgba uint32 [GH,GW]."""
    for i in range(quad_torn.shape[0]):
        for j in range(quad_torn.shape[1]):
            bits = quad_torn[i, j]
            if bits:
                rgba[i, j + 1] = 0
                rgba[i + 1, j] = 0
                if bits & 1:
                    rgba[i, j] = 0
                if bits & 2:
                    rgba[i + 1, j + 1] = 0


@nb.njit(**_JIT)
def fill_invalid(depth, valid, out):
    """Give pixels without depth the farther depth of their nearest valid neighbours.

    Breadth-first from the valid region, 8-connected: each layer takes the maximum of its neighbours in
    earlier layers. The farther one claims the least: it occludes nothing that was seen.
    depth, out float32 [H,W]; valid bool [H,W].
    """
    height, width = depth.shape
    layer = np.zeros((height, width), np.int32)
    queue = np.empty(height * width, np.int32)
    tail = 0
    for i in range(height):
        for j in range(width):
            out[i, j] = depth[i, j]
            if valid[i, j]:
                layer[i, j] = 1
    for i in range(height):
        for j in range(width):
            if layer[i, j] == 0:
                touches = False
                for y in range(max(i - 1, 0), min(i + 2, height)):
                    for x in range(max(j - 1, 0), min(j + 2, width)):
                        touches |= layer[y, x] == 1
                if touches:
                    layer[i, j] = 2
                    queue[tail] = i * width + j
                    tail += 1
    head = 0
    while head < tail:
        i, j = queue[head] // width, queue[head] % width
        head += 1
        mine, farthest = layer[i, j], f4(0)
        for y in range(max(i - 1, 0), min(i + 2, height)):
            for x in range(max(j - 1, 0), min(j + 2, width)):
                if layer[y, x] == 0:
                    layer[y, x] = mine + 1
                    queue[tail] = y * width + x
                    tail += 1
                elif layer[y, x] < mine:
                    farthest = max(farthest, out[y, x])
        out[i, j] = farthest


@nb.njit(**_JIT)
def surface_reach(z, quad_torn, valid, focal_px, reach):
    """How far, in depth, the surface of a vertex goes on beyond it into a torn face (`DepthMesh.reach`).

    z, reach float32 [GH,GW] with a ring; valid bool [GH-2,GW-2]; focal_px px. Only vertices of torn faces
    get a reach, and only valid ones.
    """
    rows, cols = z.shape
    for i in range(rows - 1):
        torn_row = quad_torn[i]
        for j in range(cols - 1):
            if torn_row[j]:
                for y in range(max(i, 1), min(i + 2, rows - 1)):
                    for x in range(max(j, 1), min(j + 2, cols - 1)):
                        if reach[y, x] == 0 and valid[y - 1, x - 1]:
                            reach[y, x] = vertex_reach(z, valid, y, x, focal_px)


@nb.njit(**_JIT)
def vertex_reach(z, valid, i, j, focal_px):
    """The shortest extension over the directions in which the surface of grid vertex (i, j) ends.

    0 beside a pixel without depth: nothing is known of what is there.
    """
    rows, cols = z.shape
    pixel_size = z[i, j] / focal_px
    shortest = np.inf
    for di, dj in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        i2, j2 = i - 2 * di, j - 2 * dj
        i1, j1 = i + di, j + dj
        if 0 < i1 < rows - 1 and 0 < j1 < cols - 1 and not valid[i1 - 1, j1 - 1]:
            return f4(0.0)
        ends_here = abs(z[i1, j1] - z[i, j]) > MAX_SMOOTH_STEP * z[i, j]
        if ends_here and 0 < i2 < rows - 1 and 0 < j2 < cols - 1:
            shortest = min(shortest, round_extension(z[i2, j2], z[i - di, j - dj], z[i, j], pixel_size))
    return f4(HALF_PIXEL_REACH * pixel_size + (shortest if shortest < np.inf else 0.0))


@nb.njit(**_JIT)
def round_extension(z2, z1, z0, pixel_size):
    """Depth that a round surface with samples z2, z1, z0 one pixel apart goes on before it turns away.

    Fits the circle through (−2h, z2), (−h, z1), (0, z0), h = pixel_size. If it turns away from the line of
    sight before the next sample, that is where the surface leaves the view; else the surface ends abruptly
    (an edge) and is not extended. The length is capped at `MAX_EXTENSION_STEPS` depth steps.
    """
    p, s2 = z0 - z1, z1 - z2
    if p > MAX_SMOOTH_STEP * z0 or s2 < 0 or s2 >= p:
        return 0.0
    h, q = pixel_size, p + s2
    # circumcentre of (0, 0), (−h, −p), (−2h, −q); 2 h (q − 2 p) < 0 because the steps grow
    d = 2.0 * h * (q - 2.0 * p)
    center_x = (-q * (h * h + p * p) + p * (4.0 * h * h + q * q)) / d
    center_z = (-h * (4.0 * h * h + q * q) + 2.0 * h * (h * h + p * p)) / d
    radius = math.sqrt(center_x * center_x + center_z * center_z)
    if center_z <= 0 or center_x >= 0 or center_x + radius > h:
        return 0.0
    return min(center_z, MAX_EXTENSION_STEPS * p)
