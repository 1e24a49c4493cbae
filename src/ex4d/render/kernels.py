"""Numba kernels of the CPU rasteriser: one frame's mesh, straight off its vertex grid, into a z-buffer.

No index buffer and no triangle list exist. Each vertex is transformed and snapped once to 1/256 px;
the quads of the grid are then walked in order. Pixel centres are the samples. Rules (see
`ex4d.render.reference` for the same thing, slow and obvious):

- coordinates are integers in 1/256 px with the *sample* of pixel (x, y) at (256 x, 256 y);
- the fill rule needs no winding: with F = edge + [edge is top-left], a sample is inside where all
  three F > 0 or all three F <= 0. Neighbours share integer edges, so there are no cracks or double hits;
- perspective-correct: weights are divided by z, nearest 1/z wins, both sides of a face are drawn;
- a torn face has no colour, except near its vertices (`show_reach`).

``fastmath`` stays off: with it, a fresh and a cached process differ by 1/255 on some pixels.
"""

import math
from typing import Any, NamedTuple

import numba as nb
import numpy as np

_JIT: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": False, "error_model": "numpy"}
f4, f8, i4, i8, u1, u4 = nb.float32, nb.float64, nb.int32, nb.int64, nb.uint8, nb.uint32

SUBPIXEL_BITS = 8
ONE_PX = 256
"""Sub-pixel steps in a pixel."""
HALF_PX = 128
GUARD = 16384 * ONE_PX
"""Vertices farther out than this (16384 px) go through the exact float64 path."""
SMALL_BOX_PX = 24
"""Quads whose box holds more samples than this are drawn as row spans."""

NEEDS_CLIP = 2
OUTSIDE_GUARD = 1


class Canvas(NamedTuple):
    """What is drawn into; every array has H·W entries, row-major.

    inv_z float32 (0 = nothing yet), color uint32 (R | G<<8 | B<<16 | A<<24; 0 on torn faces), face int32
    (index into `DepthMesh.faces`; -1 = nothing).
    """

    width: int
    height: int
    inv_z: Any
    color: Any
    face: Any


class Snapped(NamedTuple):
    """Vertices of one mesh in the target view, row-major over the grid.

    x, y int32 (1/256 px, sample-centred), inv_z float32, flags uint8 (`NEEDS_CLIP`, `OUTSIDE_GUARD`).
    """

    x: Any
    y: Any
    inv_z: Any
    flags: Any


@nb.njit(inline="always", **_JIT)
def put(canvas, o, inv_z, wa, wb, wc, ca, cb, cc, torn, face):
    """Write one sample that won the depth test. Weights are un-normalised (each already over z)."""
    canvas.inv_z[o] = inv_z
    canvas.face[o] = face
    if torn:
        canvas.color[o] = u4(0)
    elif ca == cb and cb == cc:
        canvas.color[o] = ca
    else:
        r = f4(1.0) / inv_z
        wa *= r
        wb *= r
        wc *= r
        value = u4(0)
        for s in (0, 8, 16, 24):
            channel = (
                wa * f4((ca >> u4(s)) & u4(255)) + wb * f4((cb >> u4(s)) & u4(255)) + wc * f4((cc >> u4(s)) & u4(255))
            )
            value |= u4(i4(channel + f4(0.5))) << u4(s)
        canvas.color[o] = value


@nb.njit(inline="always", **_JIT)
def top_left(dx, dy):
    """1 where an edge with this direction owns the samples that lie on it, else 0."""
    return i8(dy < 0) | (i8(dy == 0) & i8(dx > 0))


@nb.njit(**_JIT)
def snap_vertices(x, y, z, transform, intrinsics, near, out):
    """Transform grid vertices (float32 planes, source camera frame) and snap them to 1/256 px.

    transform float32 [3,4] source camera → target camera; intrinsics float32 [4] = fx, fy, cx, cy in
    px, corner origin; near scene units.
    """
    m00, m01, m02, m03 = transform[0, 0], transform[0, 1], transform[0, 2], transform[0, 3]
    m10, m11, m12, m13 = transform[1, 0], transform[1, 1], transform[1, 2], transform[1, 3]
    m20, m21, m22, m23 = transform[2, 0], transform[2, 1], transform[2, 2], transform[2, 3]
    fx, fy = intrinsics[0] * f4(ONE_PX), intrinsics[1] * f4(ONE_PX)
    cx, cy = intrinsics[2] * f4(ONE_PX) - f4(HALF_PX), intrinsics[3] * f4(ONE_PX) - f4(HALF_PX)
    guard, half = f4(GUARD), f4(0.5)
    out_x, out_y, out_inv_z, out_flags = out.x, out.y, out.inv_z, out.flags
    for i in range(x.size):
        cam_x = m00 * x[i] + m01 * y[i] + m02 * z[i] + m03
        cam_y = m10 * x[i] + m11 * y[i] + m12 * z[i] + m13
        cam_z = m20 * x[i] + m21 * y[i] + m22 * z[i] + m23
        r = f4(1.0) / cam_z
        u = fx * cam_x * r + cx
        v = fy * cam_y * r + cy
        outside = (abs(u) > guard) | (abs(v) > guard)
        out_flags[i] = u1(NEEDS_CLIP) if cam_z < near else u1(outside)
        u = min(max(u, -guard), guard)
        v = min(max(v, -guard), guard)
        out_x[i] = i4(math.floor(u + half))
        out_y[i] = i4(math.floor(v + half))
        out_inv_z[i] = r


@nb.njit(**_JIT)
def draw_spans(canvas, ax, ay, bx, by, cx, cy, za, zb, zc, ca, cb, cc, torn, face):
    """A triangle of any size, float64 edges (exact below 2^26 steps), one span of samples a row."""
    area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
    if area == 0.0:
        return
    if area < 0.0:
        bx, cx, by, cy, zb, zc, cb, cc, area = cx, bx, cy, by, zc, zb, cc, cb, -area
    x0 = max(math.ceil(min(ax, bx, cx) / ONE_PX), 0.0)
    x1 = min(math.floor(max(ax, bx, cx) / ONE_PX), canvas.width - 1.0)
    y0 = max(math.ceil(min(ay, by, cy) / ONE_PX), 0.0)
    y1 = min(math.floor(max(ay, by, cy) / ONE_PX), canvas.height - 1.0)
    if x0 > x1 or y0 > y1:
        return
    d0x, d0y, d1x, d1y, d2x, d2y = cx - bx, cy - by, ax - cx, ay - cy, bx - ax, by - ay
    t0 = 0.0 if (d0y < 0 or (d0y == 0 and d0x > 0)) else 1.0
    t1 = 0.0 if (d1y < 0 or (d1y == 0 and d1x > 0)) else 1.0
    t2 = 0.0 if (d2y < 0 or (d2y == 0 and d2x > 0)) else 1.0
    v0 = 1.0 / (d0y * ONE_PX) if d0y != 0 else 0.0
    v1 = 1.0 / (d1y * ONE_PX) if d1y != 0 else 0.0
    v2 = 1.0 / (d2y * ONE_PX) if d2y != 0 else 0.0
    inv_area = 1.0 / area
    inv_z_buffer = canvas.inv_z
    for row in range(i8(y0), i8(y1) + 1):
        y = f8(row) * ONE_PX
        # edge(x) = r - dy·x >= t on the inside; each edge bounds the span from one side
        r0 = d0x * (y - by) + d0y * bx
        r1 = d1x * (y - cy) + d1y * cx
        r2 = d2x * (y - ay) + d2y * ax
        lo, hi = x0, x1
        if d0y < 0:
            lo = max(lo, math.ceil((r0 - t0) * v0))
        elif d0y > 0:
            hi = min(hi, math.floor((r0 - t0) * v0))
        elif r0 < t0:
            continue
        if d1y < 0:
            lo = max(lo, math.ceil((r1 - t1) * v1))
        elif d1y > 0:
            hi = min(hi, math.floor((r1 - t1) * v1))
        elif r1 < t1:
            continue
        if d2y < 0:
            lo = max(lo, math.ceil((r2 - t2) * v2))
        elif d2y > 0:
            hi = min(hi, math.floor((r2 - t2) * v2))
        elif r2 < t2:
            continue
        o = row * canvas.width
        for col in range(i8(lo), i8(hi) + 1):
            x = f8(col) * ONE_PX
            wa = f4((r0 - d0y * x) * inv_area) * za
            wb = f4((r1 - d1y * x) * inv_area) * zb
            wc = f4((r2 - d2y * x) * inv_area) * zc
            inv_z = wa + wb + wc
            if inv_z > inv_z_buffer[o + col]:
                put(canvas, o + col, inv_z, wa, wb, wc, ca, cb, cc, torn, face)


@nb.njit(**_JIT)
def draw_clipped(canvas, corners, grid, rgba, transform, intrinsics, near, torn, face):
    """A triangle that crosses the near plane: clip it to a polygon in camera space, fan, draw.

    corners: three vertex indices; grid float32 [3,V]; rgba uint32 [V].
    """
    points = np.empty((3, 7))
    for k in range(3):
        v = corners[k]
        for r in range(3):
            points[k, r] = (
                transform[r, 0] * grid[0, v]
                + transform[r, 1] * grid[1, v]
                + transform[r, 2] * grid[2, v]
                + transform[r, 3]
            )
        for s in range(4):
            points[k, 3 + s] = (rgba[v] >> u4(8 * s)) & u4(255)
    polygon = np.empty((4, 8))
    n = 0
    for i in range(3):
        j = (i + 1) % 3
        if points[i, 2] >= near:
            polygon[n, :7] = points[i]
            n += 1
        if (points[i, 2] >= near) != (points[j, 2] >= near):
            # interpolate from the visible end, so that the edge's other face gets the same point
            p, q = (i, j) if points[i, 2] >= near else (j, i)
            t = (points[p, 2] - near) / (points[p, 2] - points[q, 2])
            for s in range(7):
                polygon[n, s] = points[p, s] + t * (points[q, s] - points[p, s])
            n += 1
    for i in range(n):
        r = 1.0 / polygon[i, 2]
        polygon[i, 0] = math.floor((intrinsics[0] * polygon[i, 0] * r + intrinsics[2]) * ONE_PX + 0.5) - HALF_PX
        polygon[i, 1] = math.floor((intrinsics[1] * polygon[i, 1] * r + intrinsics[3]) * ONE_PX + 0.5) - HALF_PX
        polygon[i, 2] = r
        color = i8(0)
        for s in range(4):
            color |= i8(polygon[i, 3 + s] + 0.5) << (8 * s)
        polygon[i, 7] = color
    for i in range(1, n - 1):
        a, b, c = polygon[0], polygon[i], polygon[i + 1]
        draw_spans(
            canvas, a[0], a[1], b[0], b[1], c[0], c[1], f4(a[2]), f4(b[2]), f4(c[2]),
            u4(a[7]), u4(b[7]), u4(c[7]), torn, face,
        )  # fmt: skip


@nb.njit(inline="always", **_JIT)
def draw_one_sample(canvas, o, ax, ay, bx, by, cx, cy, dx, dy, za, zb, zc, zd, ca, cb, cc, cd, torn, quad, num_quads):
    """Both triangles of a quad whose box holds one sample; coordinates are relative to that sample."""
    e_cb = cx * by - cy * bx
    t_cb = top_left(bx - cx, by - cy)
    e_ac = ax * cy - ay * cx
    e_ba = bx * ay - by * ax
    area = e_ac + e_cb + e_ba
    positive = e_cb + t_cb > 0
    if (
        ((e_ac + top_left(cx - ax, cy - ay) > 0) == positive)
        and ((e_ba + top_left(ax - bx, ay - by) > 0) == positive)
        and area != 0
    ):
        r = f4(1.0) / f4(area)
        wa = f4(e_cb) * r * za
        wb = f4(e_ac) * r * zb
        wc = f4(e_ba) * r * zc
        inv_z = wa + wb + wc
        if inv_z > canvas.inv_z[o]:
            put(canvas, o, inv_z, wa, wb, wc, ca, cb, cc, torn & 1, quad)
    e_cd = cx * dy - cy * dx
    e_db = dx * by - dy * bx
    area = e_cd + e_db - e_cb
    if (
        ((e_cd + top_left(dx - cx, dy - cy) > 0) != positive)
        and ((e_db + top_left(bx - dx, by - dy) > 0) != positive)
        and area != 0
    ):
        r = f4(1.0) / f4(area)
        wd = f4(-e_cb) * r * zd
        wb = f4(e_cd) * r * zb
        wc = f4(e_db) * r * zc
        inv_z = wd + wb + wc
        if inv_z > canvas.inv_z[o]:
            put(canvas, o, inv_z, wd, wb, wc, cd, cb, cc, torn & 2, num_quads + quad)


@nb.njit(**_JIT)
def draw_small_box(
    canvas, x0, x1, y0, y1, ax, ay, bx, by, cx, cy, dx, dy, za, zb, zc, zd, ca, cb, cc, cd, torn, quad, num_quads
):
    """Both triangles of a quad over a few samples: five signed integer edges stepped together."""
    left, top = x0 << SUBPIXEL_BITS, y0 << SUBPIXEL_BITS
    ax, bx, cx, dx = ax - left, bx - left, cx - left, dx - left
    ay, by, cy, dy = ay - top, by - top, cy - top, dy - top
    acx, acy, cbx, cby, bax, bay = cx - ax, cy - ay, bx - cx, by - cy, ax - bx, ay - by
    cdx, cdy, dbx, dby = dx - cx, dy - cy, bx - dx, by - dy
    e_cb, e_ac, e_ba = cx * by - cy * bx, ax * cy - ay * cx, bx * ay - by * ax
    e_cd, e_db = cx * dy - cy * dx, dx * by - dy * bx
    area0, area1 = e_ac + e_cb + e_ba, e_cd + e_db - e_cb
    t_cb, t_ac, t_ba = top_left(cbx, cby), top_left(acx, acy), top_left(bax, bay)
    t_cd, t_db = top_left(cdx, cdy), top_left(dbx, dby)
    r0 = f4(1.0) / f4(area0) if area0 != 0 else f4(0)
    r1 = f4(1.0) / f4(area1) if area1 != 0 else f4(0)
    za0, zb0, zc0, zd1, zb1, zc1 = za * r0, zb * r0, zc * r0, zd * r1, zb * r1, zc * r1
    inv_z_buffer = canvas.inv_z
    for row in range(y0, y1 + 1):
        o = row * canvas.width + x0
        g_cb, g_ac, g_ba, g_cd, g_db = e_cb, e_ac, e_ba, e_cd, e_db
        for col in range(x1 - x0 + 1):
            positive = g_cb + t_cb > 0
            if ((g_ac + t_ac > 0) == positive) & ((g_ba + t_ba > 0) == positive) & (area0 != 0):
                wa, wb, wc = f4(g_cb) * za0, f4(g_ac) * zb0, f4(g_ba) * zc0
                inv_z = wa + wb + wc
                if inv_z > inv_z_buffer[o + col]:
                    put(canvas, o + col, inv_z, wa, wb, wc, ca, cb, cc, torn & 1, quad)
            if ((g_cd + t_cd > 0) != positive) & ((g_db + t_db > 0) != positive) & (area1 != 0):
                wd, wb, wc = f4(-g_cb) * zd1, f4(g_cd) * zb1, f4(g_db) * zc1
                inv_z = wd + wb + wc
                if inv_z > inv_z_buffer[o + col]:
                    put(canvas, o + col, inv_z, wd, wb, wc, cd, cb, cc, torn & 2, num_quads + quad)
            g_cb -= cby << SUBPIXEL_BITS
            g_ac -= acy << SUBPIXEL_BITS
            g_ba -= bay << SUBPIXEL_BITS
            g_cd -= cdy << SUBPIXEL_BITS
            g_db -= dby << SUBPIXEL_BITS
        e_cb += cbx << SUBPIXEL_BITS
        e_ac += acx << SUBPIXEL_BITS
        e_ba += bax << SUBPIXEL_BITS
        e_cd += cdx << SUBPIXEL_BITS
        e_db += dbx << SUBPIXEL_BITS


@nb.njit(**_JIT)
def draw_grid(canvas, snapped, grid, rgba, quad_torn, transform, intrinsics, near):
    """Walk the quads of the grid, then the cap. grid float32 [3,GH,GW]; rgba uint32 [GH·GW]."""
    rows, cols = grid.shape[1], grid.shape[2]
    flat = grid.reshape(3, rows * cols)
    num_quads = (rows - 1) * (cols - 1)
    sx, sy, inv_z, flags = snapped.x, snapped.y, snapped.inv_z, snapped.flags
    width, height = canvas.width, canvas.height
    for i in range(rows - 1):
        for j in range(cols - 1):
            a = i * cols + j
            b, c = a + 1, a + cols
            d = c + 1
            quad = i * (cols - 1) + j
            if flags[a] | flags[b] | flags[c] | flags[d]:
                if not (flags[a] & flags[b] & flags[c] & flags[d] & NEEDS_CLIP):
                    torn = quad_torn[i, j]
                    draw_clipped(canvas, (b, a, c), flat, rgba, transform, intrinsics, near, torn & 1, quad)
                    draw_clipped(canvas, (d, b, c), flat, rgba, transform, intrinsics, near, torn & 2, num_quads + quad)
                continue
            ax, bx, cx, dx = i8(sx[a]), i8(sx[b]), i8(sx[c]), i8(sx[d])
            x0 = (min(min(ax, bx), min(cx, dx)) + (ONE_PX - 1)) >> SUBPIXEL_BITS
            x1 = max(max(ax, bx), max(cx, dx)) >> SUBPIXEL_BITS
            if x0 > x1 or x1 < 0 or x0 >= width:
                continue
            ay, by, cy, dy = i8(sy[a]), i8(sy[b]), i8(sy[c]), i8(sy[d])
            y0 = (min(min(ay, by), min(cy, dy)) + (ONE_PX - 1)) >> SUBPIXEL_BITS
            y1 = max(max(ay, by), max(cy, dy)) >> SUBPIXEL_BITS
            if y0 > y1 or y1 < 0 or y0 >= height:
                continue
            za, zb, zc, zd = inv_z[a], inv_z[b], inv_z[c], inv_z[d]
            ca, cb, cc, cd = rgba[a], rgba[b], rgba[c], rgba[d]
            torn = quad_torn[i, j]
            if x0 == x1 and y0 == y1:
                left, top = x0 << SUBPIXEL_BITS, y0 << SUBPIXEL_BITS
                draw_one_sample(
                    canvas, y0 * width + x0, ax - left, ay - top, bx - left, by - top, cx - left, cy - top,
                    dx - left, dy - top, za, zb, zc, zd, ca, cb, cc, cd, torn, quad, num_quads,
                )  # fmt: skip
            elif (x1 - x0 + 1) * (y1 - y0 + 1) <= SMALL_BOX_PX:
                draw_small_box(
                    canvas, max(x0, 0), min(x1, width - 1), max(y0, 0), min(y1, height - 1), ax, ay, bx, by, cx, cy,
                    dx, dy, za, zb, zc, zd, ca, cb, cc, cd, torn, quad, num_quads,
                )  # fmt: skip
            else:
                fax, fay, fbx, fby = f8(ax), f8(ay), f8(bx), f8(by)
                fcx, fcy, fdx, fdy = f8(cx), f8(cy), f8(dx), f8(dy)
                draw_spans(canvas, fbx, fby, fax, fay, fcx, fcy, zb, za, zc, cb, ca, cc, torn & 1, quad)
                draw_spans(canvas, fdx, fdy, fbx, fby, fcx, fcy, zd, zb, zc, cd, cb, cc, torn & 2, num_quads + quad)
    draw_cap(canvas, flat, rgba, rows, cols, transform, intrinsics, near)


@nb.njit(**_JIT)
def draw_cap(canvas, flat, rgba, rows, cols, transform, intrinsics, near):
    """The back of the mesh. The ring lies in one plane, so the perimeter fan covers two triangles."""
    p, q, r, s = 0, cols - 1, rows * cols - 1, (rows - 1) * cols
    face = 2 * (rows - 1) * (cols - 1)
    draw_clipped(canvas, (p, q, r), flat, rgba, transform, intrinsics, near, 1, face)
    draw_clipped(canvas, (p, r, s), flat, rgba, transform, intrinsics, near, 1, face)


ON_VERTEX_PX = np.float32(1 / 512)
"""A sample this close to a vertex, in source pixels, lies on it: half a sub-pixel step."""


@nb.njit(**_JIT)
def show_reach(canvas, grid, rgba, reach, ring, to_source, target_k, source_k):
    """Give samples on torn faces the colour of the vertices that reach them.

    A vertex is known at a sample whose depth in the source camera is closer than its reach to its own, or
    which lies exactly on it (so that the source view is the frame, bit for bit). Of several, the mean by
    distance in the source image.

    grid float32 [3,GH,GW]; rgba uint32, reach float32 [GH,GW]; to_source float64 [3,4] target → source
    camera; target_k, source_k float64 [4] = fx, fy, cx, cy (px, corner origin).
    """
    rows, cols = reach.shape
    num_quads = (rows - 1) * (cols - 1)
    vi, vj = np.empty(3, np.int64), np.empty(3, np.int64)
    for row in range(canvas.height):
        ray_y = (row + 0.5 - target_k[3]) / target_k[1]
        for col in range(canvas.width):
            o = row * canvas.width + col
            face = canvas.face[o]
            if canvas.color[o] != 0 or face < 0 or face >= 2 * num_quads:
                continue
            ray_x = (col + 0.5 - target_k[2]) / target_k[0]
            depth = 1.0 / canvas.inv_z[o]
            x, y = ray_x * depth, ray_y * depth
            z = to_source[2, 0] * x + to_source[2, 1] * y + to_source[2, 2] * depth + to_source[2, 3]
            second = face >= num_quads
            quad = face - num_quads if second else face
            i, j = quad // (cols - 1), quad % (cols - 1)
            vi[0], vj[0], vi[1], vj[1] = i, j + 1, i + 1, j
            vi[2], vj[2] = (i + 1, j + 1) if second else (i, j)
            near_any = False
            for k in range(3):
                gap = abs(z - grid[2, vi[k], vj[k]])
                near_any |= gap < max(reach[vi[k], vj[k]], 1e-3 * z)
            if near_any:
                u = source_k[0] * (
                    to_source[0, 0] * x + to_source[0, 1] * y + to_source[0, 2] * depth + to_source[0, 3]
                )
                v = source_k[1] * (
                    to_source[1, 0] * x + to_source[1, 1] * y + to_source[1, 2] * depth + to_source[1, 3]
                )
                # in grid steps: vertex (i, j) is the sample of source pixel (i - ring, j - ring)
                gx, gy = u / z + source_k[2] + ring - 0.5, v / z + source_k[3] + ring - 0.5
                canvas.color[o] = reached_color(grid, rgba, reach, vi, vj, gx, gy, z)


@nb.njit(**_JIT)
def reached_color(grid, rgba, reach, vi, vj, gx, gy, z):
    """Mean colour uint32 of those of three vertices that are known at source position (gx, gy, z); else 0."""
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


@nb.njit(**_JIT)
def resolve(inv_z, color, min_alpha, rgb, observed, depth):
    """Buffers → rgb uint8 [H,W,3], observed bool [H,W], depth float32 [H,W]; black and 0 elsewhere."""
    o = 0
    for y in range(rgb.shape[0]):
        for x in range(rgb.shape[1]):
            c = color[o]
            seen = (c >> u4(24)) >= u4(min_alpha)
            if not seen:
                c = u4(0)
            observed[y, x] = seen
            rgb[y, x, 0] = c & u4(255)
            rgb[y, x, 1] = (c >> u4(8)) & u4(255)
            rgb[y, x, 2] = (c >> u4(16)) & u4(255)
            depth[y, x] = f4(1.0) / inv_z[o] if seen else f4(0)
            o += 1
