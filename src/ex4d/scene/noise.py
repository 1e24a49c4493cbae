"""Band-limited gradient noise and soft edges for procedural patterns (Numba, float64)."""

import math

from numba import njit

Vec = tuple[float, float, float]


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def hash_cell(i: int, j: int, k: int, seed: int) -> int:
    """A well-mixed 32-bit number of a lattice cell."""
    h = (i * 73856093) ^ (j * 19349663) ^ (k * 83492791) ^ (seed * 2654435761)
    h &= 0xFFFFFFFF
    h = ((h ^ (h >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    h = ((h ^ (h >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    return h ^ (h >> 16)


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def hash_unit(i: int, j: int, seed: int) -> float:
    """A number in [0, 1) of a 2D cell."""
    return hash_cell(i, j, 0, seed) / 4294967296.0


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def _corner(i: int, j: int, k: int, seed: int, d: Vec) -> float:
    """Random gradient of a lattice corner times the offset from it."""
    h = hash_cell(i, j, k, seed)
    gx = (h & 1023) * (2.0 / 1023.0) - 1.0
    gy = ((h >> 10) & 1023) * (2.0 / 1023.0) - 1.0
    gz = ((h >> 20) & 1023) * (2.0 / 1023.0) - 1.0
    return gx * d[0] + gy * d[1] + gz * d[2]


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def noise3(x: float, y: float, z: float, seed: int) -> float:
    """Gradient noise (Perlin 2002, quintic fade), about [-1, 1]; most energy near 0.6 cycles a unit."""
    fx, fy, fz = math.floor(x), math.floor(y), math.floor(z)
    i, j, k = int(fx), int(fy), int(fz)
    x, y, z = x - fx, y - fy, z - fz
    u = x * x * x * (x * (x * 6.0 - 15.0) + 10.0)
    v = y * y * y * (y * (y * 6.0 - 15.0) + 10.0)
    w = z * z * z * (z * (z * 6.0 - 15.0) + 10.0)
    a = _corner(i, j, k, seed, (x, y, z))
    a += u * (_corner(i + 1, j, k, seed, (x - 1.0, y, z)) - a)
    b = _corner(i, j + 1, k, seed, (x, y - 1.0, z))
    b += u * (_corner(i + 1, j + 1, k, seed, (x - 1.0, y - 1.0, z)) - b)
    c = _corner(i, j, k + 1, seed, (x, y, z - 1.0))
    c += u * (_corner(i + 1, j, k + 1, seed, (x - 1.0, y, z - 1.0)) - c)
    d = _corner(i, j + 1, k + 1, seed, (x, y - 1.0, z - 1.0))
    d += u * (_corner(i + 1, j + 1, k + 1, seed, (x - 1.0, y - 1.0, z - 1.0)) - d)
    a += v * (b - a)
    c += v * (d - c)
    return 1.3 * (a + w * (c - a))


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def keep(wavelength: float, footprint: float) -> float:
    """Share of a pattern's amplitude that survives: 1 where a wavelength spans many pixels, 0 where few.

    The half-way point is at 4.5 pixels a wavelength; keeps point samples free of aliasing and lets a
    bilinear look-up reproduce the surface.
    """
    ratio = 4.5 * footprint / wavelength
    ratio *= ratio
    return 1.0 / (1.0 + ratio * ratio)


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def step(distance: float, softness: float) -> float:
    """A soft 0→1 edge at distance 0; 90 % of it within ±1.3 softness."""
    return 0.5 + 0.5 * distance / math.sqrt(distance * distance + softness * softness * 0.2)


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def line(distance: float, width: float, footprint: float) -> float:
    """A soft line of a width, 0–1, widened to the pixel and dimmed by as much."""
    soft = math.sqrt(width * width + 2.2 * footprint * footprint)
    r = distance / soft
    return width / soft * math.exp(-r * r)


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def distance_to_grid(x: float) -> float:
    """Distance from x to the nearest integer."""
    return abs(x - math.floor(x + 0.5))
