"""Numba kernels of the CPU rasteriser: one frame's mesh, straight off its vertex grid, into a z-buffer.

No index buffer and no triangle list exist. Each vertex is transformed and snapped once to 1/256 px;
the quads of the grid are then walked in order. Pixel centres are the samples. Rules (see
`ex4d.render.reference` for the same thing, slow and obvious):

- coordinates are integers in 1/256 px with the *sample* of pixel (x, y) at (256 x, 256 y);
- the fill rule needs no winding: with F = edge + [edge is top-left], a sample is inside where all
  three F > 0 or all three F <= 0. Neighbours share integer edges, so there are no cracks or double hits;
- perspective-correct: weights are divided by z, nearest 1/z wins, both sides of a face are drawn;
- a torn face has no colour, except near its vertices (`shading.show_reach`).

They share one file on purpose: Numba's disk cache notices only changes of the file that an entry point is in.
``fastmath`` stays off: with it, a fresh and a cached process differ by 1/255 on some pixels.
"""

import math
from typing import Any, NamedTuple

import numba as nb
import numpy as np

INNER: dict[str, Any] = {"nogil": True, "fastmath": False, "error_model": "numpy"}
# Only entry points are cached on disk, and they take plain arrays: Numba cannot read a cache index that names a
# class which a newer version has renamed.
ENTRY: dict[str, Any] = {**INNER, "cache": True}
_types: Any = nb  # Numba's stubs call its scalar types plain Python numbers
f4, f8, i4, i8, u1, u4 = _types.float32, _types.float64, _types.int32, _types.int64, _types.uint8, _types.uint32

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


class Scratch(NamedTuple):
    """Working memory of one `draw_grid`: spans float64 [2,H], points float64 [3,7], polygon float64 [4,8]."""

    spans: Any
    points: Any
    polygon: Any


@nb.njit(inline="always", **INNER)
def put(z_buffer, colors, faces, o, inv_z, wa, wb, wc, ca, cb, cc, torn, face):
    """Write one sample that won the depth test. Weights are un-normalised (each already over z)."""
    z_buffer[o] = inv_z
    faces[o] = face
    if torn:
        colors[o] = u4(0)
    elif ca == cb and cb == cc:
        colors[o] = ca
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
        colors[o] = value


@nb.njit(inline="always", **INNER)
def top_left(dx, dy):
    """1 where an edge with this direction owns the samples that lie on it, else 0."""
    return i8(dy < 0) | (i8(dy == 0) & i8(dx > 0))


@nb.njit(**ENTRY)
def snap_vertices(x, y, z, transform, intrinsics, near, out_x, out_y, out_inv_z, out_flags):
    """Transform grid vertices (float32 planes, source camera frame) and snap them to 1/256 px.

    transform float32 [3,4] source camera → target camera; intrinsics float32 [4] = fx, fy, cx, cy in
    px, corner origin; near scene units.

    Out, one a vertex: x, y int32 (1/256 px, sample-centred), inv_z float32, flags uint8 (`NEEDS_CLIP`,
    `OUTSIDE_GUARD`).
    """
    m00, m01, m02, m03 = transform[0, 0], transform[0, 1], transform[0, 2], transform[0, 3]
    m10, m11, m12, m13 = transform[1, 0], transform[1, 1], transform[1, 2], transform[1, 3]
    m20, m21, m22, m23 = transform[2, 0], transform[2, 1], transform[2, 2], transform[2, 3]
    fx, fy = intrinsics[0] * f4(ONE_PX), intrinsics[1] * f4(ONE_PX)
    cx, cy = intrinsics[2] * f4(ONE_PX) - f4(HALF_PX), intrinsics[3] * f4(ONE_PX) - f4(HALF_PX)
    guard, half = f4(GUARD), f4(0.5)
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


@nb.njit(inline="always", **INNER)
def edge_line(px, py, qx, qy):
    """Where the directed edge p→q cuts sample row y: x = base + slope · y, and whether it bounds x from below.

    Inside is E = dx (y − py) − dy (x − px) ≥ 0 on edges that own their samples, else ≥ 1. E takes whole numbers
    only: the bound lies half way to the last one outside, where rounding cannot reach. Not for dy = 0.
    """
    dx, dy = qx - px, qy - py
    is_left = dy < 0  # left edges own their samples
    threshold = -0.5 if is_left else 0.5
    return dx / dy, (dy * px - dx * py - threshold) / (dy * ONE_PX), is_left


@nb.njit(**INNER)
def draw_spans(canvas, spans, ax, ay, bx, by, cx, cy, za, zb, zc, ca, cb, cc, torn, face):
    """A triangle of any size, float64 edges, one span of samples a row.

    spans: `Scratch.spans`. The ends of all spans are found first, in loops that vectorise: most rows of a sliver (a
    torn wall seen from the side) hold no sample, and this is what they cost.
    """
    area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
    if area == 0.0:
        return
    if area < 0.0:
        bx, cx, by, cy, zb, zc, cb, cc, area = cx, bx, cy, by, zc, zb, cc, cb, -area
    x0 = max(math.ceil(min(ax, bx, cx) / ONE_PX), 0.0)
    x1 = min(math.floor(max(ax, bx, cx) / ONE_PX), canvas.width - 1.0)
    y0 = i8(max(math.ceil(min(ay, by, cy) / ONE_PX), 0.0))
    y1 = i8(min(math.floor(max(ay, by, cy) / ONE_PX), canvas.height - 1.0))
    if x0 > x1 or y0 > y1:
        return
    lo, hi = spans[0, y0 : y1 + 1], spans[1, y0 : y1 + 1]
    lo[:] = x0
    hi[:] = x1
    for px, py, qx, qy in ((bx, by, cx, cy), (cx, cy, ax, ay), (ax, ay, bx, by)):
        if py == qy:
            # a bottom edge (right to left) does not own its samples
            if qx < px and y1 * ONE_PX == py:
                y1 -= 1
            continue
        slope, base, is_lower = edge_line(px, py, qx, qy)
        if is_lower:
            for k in range(lo.size):
                lo[k] = max(lo[k], math.ceil(base + slope * f8(y0 + k)))
        else:
            for k in range(hi.size):
                hi[k] = min(hi[k], math.floor(base + slope * f8(y0 + k)))
    d0x, d0y, d1x, d1y, d2x, d2y = cx - bx, cy - by, ax - cx, ay - cy, bx - ax, by - ay
    fa, fb, fc = za / area, zb / area, zc / area
    z_buffer, colors, faces = canvas.inv_z, canvas.color, canvas.face
    for row in range(y0, y1 + 1):
        first, last = lo[row - y0], hi[row - y0]
        if first > last:
            continue
        y = f8(row) * ONE_PX
        r0 = d0x * (y - by) + d0y * bx
        r1 = d1x * (y - cy) + d1y * cx
        r2 = d2x * (y - ay) + d2y * ax
        z_start, z_slope = r0 * fa + r1 * fb + r2 * fc, (d0y * fa + d1y * fb + d2y * fc) * ONE_PX
        o = row * canvas.width
        for col in range(i8(first), i8(last) + 1):
            inv_z = f4(z_start - z_slope * f8(col))
            if inv_z > z_buffer[o + col]:
                x = f8(col) * ONE_PX
                wa, wb, wc = f4((r0 - d0y * x) * fa), f4((r1 - d1y * x) * fb), f4((r2 - d2y * x) * fc)
                put(z_buffer, colors, faces, o + col, inv_z, wa, wb, wc, ca, cb, cc, torn, face)


@nb.njit(**INNER)
def misses_view(points, width, height, intrinsics, near):
    """True if all three camera points lie beyond one side of the view, or before the near plane."""
    fx, fy, cx, cy = intrinsics[0], intrinsics[1], intrinsics[2], intrinsics[3]
    left = right = above = below = behind = True
    for k in range(3):
        x, y, z = points[k, 0], points[k, 1], points[k, 2]
        # a pixel outside the frame is a linear inequality, for points behind the camera too; one pixel of slack
        left &= fx * x + (cx + 1) * z < 0
        right &= fx * x + (cx - width - 1) * z > 0
        above &= fy * y + (cy + 1) * z < 0
        below &= fy * y + (cy - height - 1) * z > 0
        behind &= z < near
    return left or right or above or below or behind


@nb.njit(**INNER)
def draw_clipped(canvas, scratch, corners, grid, rgba, transform, intrinsics, near, torn, face):
    """A triangle that crosses the near plane: clip it to a polygon in camera space, fan, draw.

    corners: three vertex indices; grid float32 [3,V]; rgba uint32 [V].
    """
    points, polygon = scratch.points, scratch.polygon
    for k in range(3):
        v = corners[k]
        for r in range(3):
            points[k, r] = (
                transform[r, 0] * grid[0, v]
                + transform[r, 1] * grid[1, v]
                + transform[r, 2] * grid[2, v]
                + transform[r, 3]
            )
    if misses_view(points, canvas.width, canvas.height, intrinsics, near):
        return
    for k in range(3):
        for s in range(4):
            points[k, 3 + s] = (rgba[corners[k]] >> u4(8 * s)) & u4(255)
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
            canvas, scratch.spans, a[0], a[1], b[0], b[1], c[0], c[1], f4(a[2]), f4(b[2]), f4(c[2]),
            u4(a[7]), u4(b[7]), u4(c[7]), torn, face,
        )  # fmt: skip


@nb.njit(inline="always", **INNER)
def draw_one_sample(
    z_buffer, colors, faces, o, ax, ay, bx, by, cx, cy, dx, dy, za, zb, zc, zd, ca, cb, cc, cd, torn, quad, num_quads
):
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
        if inv_z > z_buffer[o]:
            put(z_buffer, colors, faces, o, inv_z, wa, wb, wc, ca, cb, cc, torn & 1, quad)
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
        if inv_z > z_buffer[o]:
            put(z_buffer, colors, faces, o, inv_z, wd, wb, wc, cd, cb, cc, torn & 2, num_quads + quad)


@nb.njit(inline="always", **INNER)
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
    z_buffer, colors, faces = canvas.inv_z, canvas.color, canvas.face
    for row in range(y0, y1 + 1):
        o = row * canvas.width + x0
        g_cb, g_ac, g_ba, g_cd, g_db = e_cb, e_ac, e_ba, e_cd, e_db
        for col in range(x1 - x0 + 1):
            positive = g_cb + t_cb > 0
            if ((g_ac + t_ac > 0) == positive) & ((g_ba + t_ba > 0) == positive) & (area0 != 0):
                wa, wb, wc = f4(g_cb) * za0, f4(g_ac) * zb0, f4(g_ba) * zc0
                inv_z = wa + wb + wc
                if inv_z > z_buffer[o + col]:
                    put(z_buffer, colors, faces, o + col, inv_z, wa, wb, wc, ca, cb, cc, torn & 1, quad)
            if ((g_cd + t_cd > 0) != positive) & ((g_db + t_db > 0) != positive) & (area1 != 0):
                wd, wb, wc = f4(-g_cb) * zd1, f4(g_cd) * zb1, f4(g_db) * zc1
                inv_z = wd + wb + wc
                if inv_z > z_buffer[o + col]:
                    put(z_buffer, colors, faces, o + col, inv_z, wd, wb, wc, cd, cb, cc, torn & 2, num_quads + quad)
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


@nb.njit(**INNER)
def box_row(top, bottom, first, last):
    """Sample box of every quad of a row, along one axis: first = ceil(min), last = floor(max), int32 [GW-1]."""
    n = first.size
    b_row, d_row = top[1 : n + 1], bottom[1 : n + 1]
    for j in range(n):
        low = min(min(top[j], b_row[j]), min(bottom[j], d_row[j]))
        high = max(max(top[j], b_row[j]), max(bottom[j], d_row[j]))
        first[j] = (low + i4(ONE_PX - 1)) >> i4(SUBPIXEL_BITS)
        last[j] = high >> i4(SUBPIXEL_BITS)


@nb.njit(**INNER)
def sort_row(boxes, flags_top, flags_bottom, width, height, kinds, lists):
    """Sort the quads of a row by how they are drawn; returns how many of each kind there are.

    boxes int32 [4,GW-1]: x0, x1, y0, y1. lists int32 [3,GW]: columns of quads with one sample, with a few, and
    the rest (big, clamped or crossing the near plane). Quads without a sample in view are in none. Vector code
    and appends without branches: deciding quad by quad costs more in mispredicted jumps than in work.
    """
    n = kinds.size
    x0, x1, y0, y1 = boxes[0], boxes[1], boxes[2], boxes[3]
    fb_row, fd_row = flags_top[1 : n + 1], flags_bottom[1 : n + 1]
    for j in range(n):
        some = flags_top[j] | fb_row[j] | flags_bottom[j] | fd_row[j]
        every = flags_top[j] & fb_row[j] & flags_bottom[j] & fd_row[j]
        in_view = (x0[j] <= x1[j]) & (x1[j] >= 0) & (x0[j] < width) & (y0[j] <= y1[j]) & (y1[j] >= 0) & (y0[j] < height)
        across, down = x1[j] - x0[j], y1[j] - y0[j]
        few = (across < SMALL_BOX_PX) & (down < SMALL_BOX_PX) & ((across + 1) * (down + 1) <= SMALL_BOX_PX)
        kind = 1 if (across == 0) & (down == 0) else (2 if few else 3)
        kind = 3 if some != 0 else kind
        drawn = in_view if (some & NEEDS_CLIP) == 0 else (every & NEEDS_CLIP) == 0
        kinds[j] = u1(kind) if drawn else u1(0)
    num_one, num_few, num_rest = 0, 0, 0
    for j in range(n):
        lists[0, num_one] = j
        lists[1, num_few] = j
        lists[2, num_rest] = j
        num_one += kinds[j] == 1
        num_few += kinds[j] == 2
        num_rest += kinds[j] == 3
    return num_one, num_few, num_rest


@nb.njit(**ENTRY)
def draw_grid(buffers, snapped, grid, rgba, quad_torn, transform, intrinsics, near):
    """Walk the quads of the grid row by row, then the cap.

    buffers: inv_z float32, color uint32, face int32, each [H,W] (see `Canvas`); snapped: sx, sy int32, inv_z
    float32, flags uint8, each [GH·GW] (see `snap_vertices`); grid float32 [3,GH,GW]; rgba uint32 [GH·GW].
    """
    height, width = buffers[0].shape
    z_buffer, colors, faces = buffers[0].reshape(-1), buffers[1].reshape(-1), buffers[2].reshape(-1)
    canvas = Canvas(width, height, z_buffer, colors, faces)
    sx, sy, inv_z, flags = snapped
    rows, cols = grid.shape[1], grid.shape[2]
    flat = grid.reshape(3, rows * cols)
    num_quads = (rows - 1) * (cols - 1)
    scratch = Scratch(np.empty((2, height)), np.empty((3, 7)), np.empty((4, 8)))
    boxes, lists = np.empty((4, cols - 1), np.int32), np.empty((3, cols), np.int32)
    kinds = np.empty(cols - 1, np.uint8)
    for i in range(rows - 1):
        o, p, e = i * cols, (i + 1) * cols, (i + 2) * cols
        box_row(sx[o:p], sx[p:e], boxes[0], boxes[1])
        box_row(sy[o:p], sy[p:e], boxes[2], boxes[3])
        num_one, num_few, num_rest = sort_row(boxes, flags[o:p], flags[p:e], width, height, kinds, lists)
        for k in range(num_one):
            j = i8(lists[0, k])
            a, c = o + j, p + j
            b, d = a + 1, c + 1
            x0, y0 = i8(boxes[0, j]), i8(boxes[2, j])
            left, top = x0 << SUBPIXEL_BITS, y0 << SUBPIXEL_BITS
            draw_one_sample(
                z_buffer, colors, faces, y0 * width + x0, i8(sx[a]) - left, i8(sy[a]) - top, i8(sx[b]) - left,
                i8(sy[b]) - top, i8(sx[c]) - left, i8(sy[c]) - top, i8(sx[d]) - left, i8(sy[d]) - top,
                inv_z[a], inv_z[b], inv_z[c], inv_z[d], rgba[a], rgba[b], rgba[c], rgba[d],
                quad_torn[i, j], i * (cols - 1) + j, num_quads,
            )  # fmt: skip
        for k in range(num_few):
            j = i8(lists[1, k])
            a, c = o + j, p + j
            b, d = a + 1, c + 1
            draw_small_box(
                canvas, max(i8(boxes[0, j]), 0), min(i8(boxes[1, j]), width - 1), max(i8(boxes[2, j]), 0),
                min(i8(boxes[3, j]), height - 1), i8(sx[a]), i8(sy[a]), i8(sx[b]), i8(sy[b]), i8(sx[c]), i8(sy[c]),
                i8(sx[d]), i8(sy[d]), inv_z[a], inv_z[b], inv_z[c], inv_z[d], rgba[a], rgba[b], rgba[c], rgba[d],
                quad_torn[i, j], i * (cols - 1) + j, num_quads,
            )  # fmt: skip
        for k in range(num_rest):
            j = i8(lists[2, k])
            a, c = o + j, p + j
            b, d = a + 1, c + 1
            torn, quad = quad_torn[i, j], i * (cols - 1) + j
            if flags[a] | flags[b] | flags[c] | flags[d]:
                # crosses the near plane, or a corner was clamped to the guard band: too coarse for edges
                draw_clipped(canvas, scratch, (b, a, c), flat, rgba, transform, intrinsics, near, torn & 1, quad)
                draw_clipped(
                    canvas, scratch, (d, b, c), flat, rgba, transform, intrinsics, near, torn & 2, num_quads + quad
                )
                continue
            ax, ay, bx, by = f8(sx[a]), f8(sy[a]), f8(sx[b]), f8(sy[b])
            cx, cy, dx, dy = f8(sx[c]), f8(sy[c]), f8(sx[d]), f8(sy[d])
            draw_spans(
                canvas, scratch.spans, bx, by, ax, ay, cx, cy, inv_z[b], inv_z[a], inv_z[c],
                rgba[b], rgba[a], rgba[c], torn & 1, quad,
            )  # fmt: skip
            draw_spans(
                canvas, scratch.spans, dx, dy, bx, by, cx, cy, inv_z[d], inv_z[b], inv_z[c],
                rgba[d], rgba[b], rgba[c], torn & 2, num_quads + quad,
            )  # fmt: skip
    draw_cap(canvas, scratch, flat, rgba, rows, cols, transform, intrinsics, near)


@nb.njit(**INNER)
def draw_cap(canvas, scratch, flat, rgba, rows, cols, transform, intrinsics, near):
    """The back of the mesh. The ring lies in one plane, so the perimeter fan covers two triangles."""
    p, q, r, s = 0, cols - 1, rows * cols - 1, (rows - 1) * cols
    face = 2 * (rows - 1) * (cols - 1)
    draw_clipped(canvas, scratch, (p, q, r), flat, rgba, transform, intrinsics, near, 1, face)
    draw_clipped(canvas, scratch, (p, r, s), flat, rgba, transform, intrinsics, near, 1, face)
