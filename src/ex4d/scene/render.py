"""Exact views of a scene: colour, z-depth, object and sky of every pixel."""

import math
from dataclasses import dataclass

import numpy as np
from numba import njit

from ex4d.core.arrays import Bool, Float32, Float64, Int32, Int64, UInt8, check_array
from ex4d.core.camera import Camera
from ex4d.errors import ConfigError
from ex4d.scene.intersect import hit_primitive
from ex4d.scene.model import PackedScene, Scene
from ex4d.scene.patterns import shade

Vec = tuple[float, float, float]
Hits = tuple[Float64, Int32]
_TILE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneView:
    """What a camera sees of a scene at one time.

    Attributes:
        rgb: uint8 [H,W,3] sRGB.
        depth: float32 [H,W], exact z-depth in metres at pixel centres; finite everywhere.
        object_id: int32 [H,W], index into `Scene.objects` at pixel centres.
        sky: bool [H,W], True where the sky backdrop is seen.
    """

    rgb: UInt8
    depth: Float32
    object_id: Int32
    sky: Bool

    def __post_init__(self) -> None:
        check_array("SceneView.rgb", self.rgb, np.uint8, (None, None, 3))
        check_array("SceneView.depth", self.depth, np.float32, self.rgb.shape[:2])
        check_array("SceneView.object_id", self.object_id, np.int32, self.rgb.shape[:2])
        check_array("SceneView.sky", self.sky, np.bool_, self.rgb.shape[:2])


def render_scene(scene: Scene, camera: Camera, time_s: float, *, supersample: int = 1) -> SceneView:
    """Render a scene.

    Args:
        scene: what to render.
        camera: from where; its world is the scene's (OpenCV axes, metres).
        time_s: seconds; objects move over it.
        supersample: colour rays a pixel side, 1–8. 1 samples the pixel centre; depth and ids are
            always those of the centre.

    Raises:
        ConfigError: if `supersample` is out of range or `time_s` is not finite.
    """
    if not 1 <= supersample <= 8:
        raise ConfigError("supersample from 1 to 8", str(supersample), "pass 1, 2 or 4")
    if not math.isfinite(time_s):
        raise ConfigError("a finite time_s", str(time_s), "pass seconds")
    packed = scene.pack(time_s)
    height, width = camera.height, camera.width
    rgb = np.empty((height, width, 3), dtype=np.uint8)
    depth = np.empty((height, width))
    owner = np.empty((height, width), dtype=np.int32)
    _render(packed, (camera_rays(camera), image_matrix(camera)), supersample, rgb, (depth, owner))
    sky = np.isin(owner, scene.ids("sky"))
    return SceneView(rgb=rgb, depth=depth.astype(np.float32), object_id=owner, sky=sky)


def scene_depth(scene: Scene, camera: Camera, time_s: float) -> Float32:
    """Exact z-depth float32 [H,W] at pixel centres without the cost of colour."""
    return depth_map(scene.pack(time_s), camera, 1).astype(np.float32)


def depth_map(packed: PackedScene, camera: Camera, scale: int) -> Float64:
    """z-depth float64 [scale·H, scale·W] at the centres of sub-pixels (no colour)."""
    K = camera.K.copy()
    K[:2] *= scale
    fine = Camera(K=K, world_to_camera=camera.world_to_camera, height=camera.height * scale, width=camera.width * scale)
    depth = np.empty((fine.height, fine.width))
    owner = np.empty((fine.height, fine.width), dtype=np.int32)
    _render(packed, (camera_rays(fine), image_matrix(fine)), 0, np.empty((1, 1, 3), dtype=np.uint8), (depth, owner))
    return depth


def camera_rays(camera: Camera) -> Float64:
    """float64 [4,3]: eye, ray of pixel (0, 0), and the change of the ray per pixel in x and in y.

    Ray directions are world vectors whose camera z is 1, so that the ray parameter is z-depth.
    """
    to_world = camera.camera_to_world
    basis = to_world[:3, :3] @ np.linalg.inv(camera.K)
    return np.stack([to_world[:3, 3], basis[:, 2], basis[:, 0], basis[:, 1]])


def image_matrix(camera: Camera) -> Float64:
    """float64 [3,4]: K · world_to_camera; its rows give x·z, y·z and z of a homogeneous world point."""
    return camera.K @ camera.world_to_camera[:3]


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def _ray(rays: Float64, x: float, y: float) -> Vec:
    return (
        rays[1, 0] + x * rays[2, 0] + y * rays[3, 0],
        rays[1, 1] + x * rays[2, 1] + y * rays[3, 1],
        rays[1, 2] + x * rays[2, 2] + y * rays[3, 2],
    )


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def _corners(row: Float64, to_image: Float64) -> Float64:
    """float64 [8,3]: (x·z, y·z, z) of the corners of a primitive's oriented box. to_image: [3,4]."""
    out = np.empty((8, 3))
    for corner in range(8):
        p = (row[9], row[10], row[11])
        for axis in range(3):
            # A row of the world→unit matrix is the unit axis over its half size.
            s = row[12 + axis] ** 2 * (1.0 if (corner >> axis) & 1 else -1.0)
            p = (p[0] + s * row[3 * axis], p[1] + s * row[3 * axis + 1], p[2] + s * row[3 * axis + 2])
        for k in range(3):
            out[corner, k] = to_image[k, 0] * p[0] + to_image[k, 1] * p[1] + to_image[k, 2] * p[2] + to_image[k, 3]
    return out


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def _meets(corners: Float64, axis: int, low: float, high: float) -> bool:
    """Whether a box may be seen between two image lines (x or y = low, high): not wholly outside either."""
    left, right, front = False, False, False
    for corner in range(8):
        at, w = corners[corner, axis], corners[corner, 2]
        left = left or at >= low * w
        right = right or at <= high * w
        front = front or w > 0.0
    return left and right and front


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def _min_cos(rays: Float64, height: int, width: int) -> float:
    """Smallest cosine between a camera ray and the forward axis (rays have z = 1)."""
    longest = 1.0
    for corner in range(4):
        d = _ray(rays, width * (corner & 1), height * (corner >> 1))
        longest = max(longest, math.sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]))
    return 1.0 / longest


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def _first_z(scene: PackedScene, i: int, corners: Float64, rays: Float64, min_cos: float) -> float:
    """A lower bound of the z-depth at which a camera ray can hit a primitive."""
    row = scene.geometry[i]
    x, y, z = row[9] - rays[0, 0], row[10] - rays[0, 1], row[11] - rays[0, 2]
    inside = min(row[12], row[13], row[14]) - math.sqrt(x * x + y * y + z * z)
    if scene.shape[i] == 1 and inside > 0.0:
        # From within a sphere (the sky) only its far side can be hit.
        return inside * min_cos
    return corners[:, 2].min()


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def _nearest(scene: PackedScene, origin: Vec, direction: Vec, listed: Int64, first_z: Float64) -> tuple[float, int]:
    """First hit among the listed primitives, which come in order of their smallest z."""
    best, which = np.inf, -1
    for k in range(listed.shape[0]):
        i = listed[k]
        if first_z[i] > best:
            break
        t = hit_primitive(int(scene.shape[i]), scene.geometry[i], origin, direction, best)
        if t < best:
            best, which = t, i
    return best, which


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def _color(scene: PackedScene, origin: Vec, direction: Vec, listed: Int64, first_z: Float64) -> Vec:
    t, which = _nearest(scene, origin, direction, listed, first_z)
    if which < 0:
        return (0.0, 0.0, 0.0)
    p = (origin[0] + t * direction[0], origin[1] + t * direction[1], origin[2] + t * direction[2])
    return shade(scene, which, p)


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def _pixel(scene: PackedScene, rays: Float64, corner: tuple[int, int], n: int, listed: Int64, first_z: Float64) -> Vec:
    """Mean display colour of n × n rays in the pixel with this top-left corner."""
    origin = (rays[0, 0], rays[0, 1], rays[0, 2])
    r, g, b = 0.0, 0.0, 0.0
    for sy in range(n):
        for sx in range(n):
            ray = _ray(rays, corner[0] + (sx + 0.5) / n, corner[1] + (sy + 0.5) / n)
            c = _color(scene, origin, ray, listed, first_z)
            r, g, b = r + c[0], g + c[1], b + c[2]
    return (r / (n * n), g / (n * n), b / (n * n))


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def _render(scene: PackedScene, view: tuple[Float64, Float64], supersample: int, rgb: UInt8, out: Hits) -> None:
    """Fill depth and owner, and rgb unless `supersample` is 0. view: rays and world-to-image matrix."""
    rays, to_image = view
    depth, owner = out
    height, width = depth.shape
    origin = (rays[0, 0], rays[0, 1], rays[0, 2])
    num, cols, rows = scene.shape.shape[0], -(-width // _TILE), -(-height // _TILE)
    in_col, in_row = np.empty((num, cols), dtype=np.bool_), np.empty((num, rows), dtype=np.bool_)
    first_z = np.empty(num)
    min_cos = _min_cos(rays, height, width)
    for i in range(num):
        corners = _corners(scene.geometry[i], to_image)
        first_z[i] = _first_z(scene, i, corners, rays, min_cos)
        for k in range(cols):
            in_col[i, k] = _meets(corners, 0, k * _TILE, (k + 1.0) * _TILE)
        for k in range(rows):
            in_row[i, k] = _meets(corners, 1, k * _TILE, (k + 1.0) * _TILE)
    order = np.argsort(first_z)
    scratch = np.empty(num, dtype=np.int64)
    for ty in range(0, height, _TILE):
        for tx in range(0, width, _TILE):
            count = 0
            for k in range(num):
                i = int(order[k])
                if in_col[i, tx // _TILE] and in_row[i, ty // _TILE]:
                    scratch[count] = i
                    count += 1
            listed = scratch[:count]
            for y in range(ty, min(ty + _TILE, height)):
                for x in range(tx, min(tx + _TILE, width)):
                    direction = _ray(rays, x + 0.5, y + 0.5)
                    t, which = _nearest(scene, origin, direction, listed, first_z)
                    depth[y, x] = t
                    owner[y, x] = scene.owner[which] if which >= 0 else -1
                    if supersample == 1:
                        p = (origin[0] + t * direction[0], origin[1] + t * direction[1], origin[2] + t * direction[2])
                        c = shade(scene, which, p) if which >= 0 else (0.0, 0.0, 0.0)
                    elif supersample > 1:
                        c = _pixel(scene, rays, (x, y), supersample, listed, first_z)
                    else:
                        continue
                    for k in range(3):
                        rgb[y, x, k] = np.uint8(min(max(c[k], 0.0), 255.0) + 0.5)
