"""Surface patterns and view-independent shading (Numba).

A pattern is a function of the position on the object (metres, object frame), so that it moves with
the object, and of the *footprint*: the size in metres of a pixel of the reference camera at the world
origin there. Detail finer than the footprint fades out for every viewer alike.
"""

import math

from numba import njit

from ex4d.core.arrays import Float64
from ex4d.scene.intersect import to_unit, unit_normal, world_normal
from ex4d.scene.model import PackedScene
from ex4d.scene.noise import distance_to_grid, hash_unit, keep, line, noise3, step

Vec = tuple[float, float, float]
Rgb = tuple[float, float, float]
_WRAP = 0.55  # the sun reaches this far (cosine) around a surface, like light from a large source


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def _mix(a: Rgb, b: Rgb, t: float) -> Rgb:
    return (a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t)


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def _scale(a: Rgb, t: float) -> Rgb:
    return (a[0] * t, a[1] * t, a[2] * t)


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def _fbm(p: Vec, size: float, seed: int, foot: float) -> float:
    """Two octaves of noise with the coarse cell `size`, each kept as far as the footprint allows."""
    x, y, z = p[0] / size, p[1] / size, p[2] / size
    out = noise3(x + 0.37, y + 0.11, z + 0.73, seed) * keep(1.6 * size, foot)
    fine = keep(0.7 * size, foot)
    if fine > 0.02:
        # The second octave is turned so that the two lattices never line up.
        out += 0.45 * fine * noise3(2.3 * (0.8 * x + 0.6 * z), 2.3 * y + 3.7, 2.3 * (0.8 * z - 0.6 * x), seed + 7)
    return out


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def _planks(u: float, v: float, m: Float64, foot: float) -> tuple[float, float, float]:
    """(tint, seam, grain) of boards along u."""
    seed = int(m[3])
    row = v / m[1]
    index = math.floor(row)
    length = 6.0 * m[1]
    along = u / length + hash_unit(index, 3, seed)
    board = math.floor(along)
    seam = line(distance_to_grid(row) * m[1], 0.035 * m[1] + 0.006, foot)
    seam = max(seam, line(distance_to_grid(along) * length, 0.035 * m[1] + 0.006, foot))
    tint = hash_unit(index, board, seed + 1)
    # Neighbouring boards blend over a footprint: no step is sharper than a pixel can hold.
    towards = 1 if row - index > 0.5 else -1
    other = math.floor(u / length + hash_unit(index + towards, 3, seed))
    edge = 0.5 * (1.0 - step(distance_to_grid(row) * m[1], 0.02 * m[1] + 2.0 * foot)) / 0.5
    tint += (hash_unit(index + towards, other, seed + 1) - tint) * 0.5 * edge
    grain = noise3(u / (2.5 * m[1]), row * 3.0, 9.0 * hash_unit(index, board, seed + 2), seed + 3)
    return tint, seam, grain * keep(0.5 * m[1], foot)


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def _brick(u: float, v: float, m: Float64, foot: float) -> tuple[float, float]:
    """(tint, mortar) of a running bond, courses `scale` high and 2.4 times as long."""
    seed = int(m[3])
    row = v / m[1]
    index = math.floor(row)
    along = u / (2.4 * m[1]) + 0.5 * (index & 1)
    mortar = line(distance_to_grid(row) * m[1], 0.09 * m[1], foot)
    mortar = max(mortar, line(distance_to_grid(along) * 2.4 * m[1], 0.09 * m[1], foot))
    tint = hash_unit(index, math.floor(along), seed) - 0.5
    return 0.5 + tint * keep(2.0 * m[1], foot), mortar


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def _facade(u: float, v: float, m: Float64, foot: float) -> float:
    """How much a point belongs to a window pane: a grid of windows `scale` apart."""
    a = abs(u / m[1] - math.floor(u / m[1]) - 0.5) * m[1]
    b = abs(v / (1.25 * m[1]) - math.floor(v / (1.25 * m[1])) - 0.5) * 1.25 * m[1]
    soft = 0.05 * m[1] + 2.0 * foot
    pane = step(0.26 * m[1] - a, soft) * step(0.38 * m[1] - b, soft)
    return pane * (1.0 - 0.6 * line(a, 0.03 * m[1], foot))


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def _sky(d: Vec, m: Float64, a: Rgb, b: Rgb, c: Rgb) -> Rgb:
    """Zenith a, horizon b, hazy land c below; soft clouds on a plane above. d: unit direction."""
    up = -d[1]
    color = _mix(b, a, math.sqrt(min(max(up, 0.0), 1.0)))
    x, z = d[0] / (abs(up) + 0.35), d[2] / (abs(up) + 0.35)
    seed = int(m[3])
    cloud = noise3(x / m[1], 0.5, z / m[1], seed) + 0.5 * noise3(2.1 * x / m[1], 4.5, 2.1 * z / m[1], seed + 5)
    cloud = step(cloud - 0.05, 1.3) * step(up - 0.08, 0.16)
    color = _mix(color, (0.93, 0.94, 0.96), cloud * m[2])
    hills = 0.035 * noise3(3.0 * d[0], 0.0, 3.0 * d[2], seed + 9)
    return _mix(c, color, step(up - 0.02 - hills, 0.03))


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def albedo(m: Float64, p: Vec, n: Vec, foot: float) -> Rgb:
    """Linear rgb of a material row at object position p [m] with object-frame face normal n."""
    pattern, seed, contrast = int(m[0]), int(m[3]), m[2]
    a, b, c = (m[4], m[5], m[6]), (m[7], m[8], m[9]), (m[10], m[11], m[12])
    if pattern == 9:
        return _sky(n, m, a, b, c)
    ax, ay, az = abs(n[0]), abs(n[1]), abs(n[2])
    u, v = p[0], p[1]
    if ax > ay and ax > az:
        u = p[2]
    elif ay >= ax and ay >= az:
        v = p[2]
    if pattern == 2:
        tint, seam, grain = _planks(u, v, m, foot)
        return _mix(_scale(_mix(a, b, tint), 1.0 + contrast * grain), c, 0.75 * seam)
    if pattern == 3:
        tint, mortar = _brick(u, v, m, foot)
        rough = _fbm(p, 2.2 * m[1], seed, foot)
        return _mix(_scale(_mix(a, b, tint), 1.0 + contrast * rough), c, 0.8 * mortar)
    size = m[1]
    if pattern == 4:
        vein = math.sin(3.9 * (p[0] + 0.6 * p[1] + 0.3 * p[2]) / size + 3.0 * _fbm(p, size, seed, foot))
        return _mix(a, b, 0.5 + 0.5 * vein * keep(1.2 * size, foot))
    rough = _fbm(p, size, seed, foot)
    if pattern == 0:
        return _mix(a, b, 0.5 + contrast * rough)
    if pattern == 1:
        soft = keep(2.0 * size, foot)
        wave = math.sin(math.pi * u / size) * math.sin(math.pi * v / size)
        check = 0.5 * wave / math.sqrt(wave * wave + 0.04 + 6.0 * (foot / size) ** 2)
        grout = max(line(distance_to_grid(u / size) * size, 0.025 * size, foot), 0.0)
        grout = max(grout, line(distance_to_grid(v / size) * size, 0.025 * size, foot))
        tile = _scale(_mix(a, b, 0.5 + check * soft), 1.0 + contrast * noise3(u / size, v / size, 0.5, seed) * soft)
        return _mix(tile, c, 0.6 * grout)
    if pattern == 5:
        big = noise3(0.31 * p[0] / size, 0.31 * p[1] / size, 0.31 * p[2] / size, seed + 11)
        return _mix(_mix(a, b, min(max(0.5 + 1.6 * contrast * rough, 0.0), 1.0)), c, 0.35 + 0.4 * big)
    if pattern == 6:
        wave = math.sin(2.0 * math.pi * p[1] / size)
        band = 0.5 + 0.5 * wave / math.sqrt(wave * wave + 0.05 + 12.0 * (foot / size) ** 2)
        return _scale(_mix(a, b, band), 1.0 + contrast * rough)
    if pattern == 7:
        wall = _scale(_mix(a, b, 0.5 + contrast * rough), 1.0)
        return _mix(wall, c, _facade(u, v, m, foot) if ay < 0.5 else 0.0)
    dx, dy, dz = distance_to_grid(p[0] / size), distance_to_grid(p[1] / size), distance_to_grid(p[2] / size)
    dot = step((0.33 - math.sqrt(dx * dx + dy * dy + dz * dz)) * size, 0.06 * size + 2.0 * foot)
    return _scale(_mix(a, b, dot * keep(size, foot)), 1.0 + contrast * rough)


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def _shadow(scene: PackedScene, x: float, z: float) -> float:
    """Light left by the static ground shadows at (x, z): soft ellipses, multiplied."""
    left = 1.0
    for i in range(scene.shadows.shape[0]):
        row = scene.shadows[i]
        dx, dz = x - row[0], z - row[1]
        a = (dx * row[2] + dz * row[3]) / row[4]
        b = (dz * row[2] - dx * row[3]) / row[5]
        q = 1.0 - (a * a + b * b)
        if q > 0.0:
            left *= 1.0 - row[6] * q * q * (3.0 - 2.0 * q)
    return left


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def _openness(scene: PackedScene, p: Vec) -> float:
    """Ambient light left near floors and walls (a cheap, smooth ambient occlusion), 0–1."""
    left = 1.0
    for i in range(scene.planes.shape[0]):
        row = scene.planes[i]
        d = max(p[0] * row[0] + p[1] * row[1] + p[2] * row[2] + row[3], 0.0) / 0.45
        left *= 1.0 - 0.33 / (1.0 + d * d)
    return left


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def shade(scene: PackedScene, which: int, p: Vec) -> Rgb:
    """Display-ready rgb, 0–255, of world point p on primitive `which`."""
    row, shape = scene.geometry[which], scene.shape[which]
    material = scene.materials[scene.material[which]]
    unit = to_unit(row, (p[0] - row[9], p[1] - row[10], p[2] - row[11]))
    local = (unit[0] * row[12], unit[1] * row[13], unit[2] * row[14])
    if material[0] == 9.0:
        color = albedo(material, local, unit, 0.0)
    else:
        n = world_normal(shape, row, unit)
        r = math.sqrt(p[0] * p[0] + p[1] * p[1] + p[2] * p[2])
        cos = abs(n[0] * p[0] + n[1] * p[1] + n[2] * p[2]) / (r + 1e-12)
        foot = r / (scene.light[12] * max(cos, 0.01))
        base = albedo(material, local, unit_normal(shape, unit), foot)
        light = scene.light
        sun = max((n[0] * light[0] + n[1] * light[1] + n[2] * light[2] + _WRAP) / (1.0 + _WRAP), 0.0)
        if material[13] > 0.0:
            sun *= _shadow(scene, p[0], p[2])
        up = 0.5 - 0.5 * n[1]
        open_ = _openness(scene, p)
        color = (
            base[0] * (light[3] * sun + open_ * (light[9] + (light[6] - light[9]) * up)),
            base[1] * (light[4] * sun + open_ * (light[10] + (light[7] - light[10]) * up)),
            base[2] * (light[5] * sun + open_ * (light[11] + (light[8] - light[11]) * up)),
        )
    return _display(color[0]), _display(color[1]), _display(color[2])


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def _display(linear: float) -> float:
    """Linear light to 0–255: square-root gamma with a soft shoulder above 0.8."""
    x = math.sqrt(max(linear, 0.0))
    if x > 0.8:
        x = 0.8 + 0.2 * (1.0 - math.exp(-(x - 0.8) / 0.2))
    return 255.0 * x
