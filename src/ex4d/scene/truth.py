"""What of a target view a source camera can know: exact visibility, and what a closed mesh can claim.

`visible` and `provable` are the two truths that the project's figures are measured against; both are
computed from the scene itself, never from a depth map's resolution alone.
"""

import math
from dataclasses import dataclass

import numpy as np
from numba import njit

from ex4d.core.arrays import Bool, Float32, Float64, UInt8, check_array
from ex4d.core.camera import Camera
from ex4d.scene.intersect import trace
from ex4d.scene.model import PackedScene, Scene
from ex4d.scene.render import camera_rays, depth_map, image_matrix, render_scene

Vec = tuple[float, float, float]

VISIBLE_TOLERANCE = 2e-3
"""Two hits within 0.2 % of the source ray's length are the same surface."""
_EMPTY_TOLERANCE = 1e-3  # relative excess of disparity below which a point counts as on the surface, not behind it
_SUBPIXELS = 4  # the source's seen space is looked up at this many samples a pixel side
_STEP_PX = 0.5  # march step in source pixels
_SKIP_PX = 1.0  # the last pixel before the hit is the hit's own surface
_NEAR_M = 1e-3  # the part of a segment closer than this to the source's image plane is not looked up


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewTruth:
    """The truth of a target view with respect to a source camera at the same time.

    Attributes:
        rgb: uint8 [H,W,3], the exact target view.
        depth: float32 [H,W], z in the target camera, metres.
        visible: bool [H,W], the target ray's first hit lies inside the source frame and is also the
            source ray's first hit.
        provable: bool [H,W], visible, and the ray reaches its hit without crossing space inside the
            source frustum that the source did not see to be empty.
    """

    rgb: UInt8
    depth: Float32
    visible: Bool
    provable: Bool

    def __post_init__(self) -> None:
        check_array("ViewTruth.rgb", self.rgb, np.uint8, (None, None, 3))
        check_array("ViewTruth.depth", self.depth, np.float32, self.rgb.shape[:2])
        check_array("ViewTruth.visible", self.visible, np.bool_, self.rgb.shape[:2])
        check_array("ViewTruth.provable", self.provable, np.bool_, self.rgb.shape[:2])
        if (self.provable & ~self.visible).any():
            raise ValueError("ViewTruth.provable: expected a subset of visible")


def view_truth(scene: Scene, source: Camera, target: Camera, time_s: float) -> ViewTruth:
    """Truth of the target view for a source camera that sees the scene at the same time.

    Visibility traces the source ray to each target hit exactly. Provability marches the segment from
    the target eye to the hit in steps of at most 0.5 source pixels along its projection and compares
    its disparity with the source's first hit, sampled 4 × 4 a pixel; the last source pixel before the
    hit belongs to the hit's own surface, and a sample is as deep as the deepest of its 3 × 3
    sub-pixels, so that a surface never hides itself (bias: at most 1/4 px at silhouettes).

    Returns:
        the truth at the target's pixel centres.
    """
    packed = scene.pack(time_s)
    view = render_scene(scene, target, time_s)
    points = hit_points(packed, target)
    visible = visible_points(packed, points, source)
    seen = _farthest_disparity(depth_map(packed, source, _SUBPIXELS))
    provable = _provable(points, visible, target.center, image_matrix(source), seen)
    return ViewTruth(rgb=view.rgb, depth=view.depth, visible=visible, provable=provable)


def visible_points(packed: PackedScene, points: Float64, source: Camera) -> Bool:
    """Which surface points float64 [H,W,3] (world) the source sees inside its frame as its first hit."""
    return _visible(packed, points, image_matrix(source), source.center, (source.width, source.height))


def hit_points(packed: PackedScene, camera: Camera) -> Float64:
    """World points float64 [H,W,3] of the first hits at pixel centres."""
    rays = camera_rays(camera)
    y, x = np.mgrid[0 : camera.height, 0 : camera.width] + 0.5
    depth = depth_map(packed, camera, 1)
    return rays[0] + depth[..., None] * (rays[1] + x[..., None] * rays[2] + y[..., None] * rays[3])


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def _homogeneous(m: Float64, x: float, y: float, z: float) -> Vec:
    return (
        m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3],
        m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3],
        m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3],
    )


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def _visible(scene: PackedScene, points: Float64, projection: Float64, eye: Float64, size: tuple[int, int]) -> Bool:
    """Whether each world point is inside the source frame (width, height) and the source's first hit."""
    height, width = points.shape[:2]
    out = np.zeros((height, width), dtype=np.bool_)
    origin = (eye[0], eye[1], eye[2])
    for y in range(height):
        for x in range(width):
            p = points[y, x]
            u, v, w = _homogeneous(projection, p[0], p[1], p[2])
            if w <= 0.0 or u < 0.0 or v < 0.0 or u > size[0] * w or v > size[1] * w:
                continue
            t, _ = trace(scene, origin, (p[0] - eye[0], p[1] - eye[1], p[2] - eye[2]))
            out[y, x] = abs(t - 1.0) <= VISIBLE_TOLERANCE
    return out


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def _farthest_disparity(depth: Float64) -> Float32:
    """Smallest 1/z of each 3 × 3 neighbourhood of a depth map, lowered by the tolerance."""
    height, width = depth.shape
    out = np.empty((height, width), dtype=np.float32)
    for y in range(height):
        for x in range(width):
            far = 0.0
            for j in range(max(y - 1, 0), min(y + 2, height)):
                for i in range(max(x - 1, 0), min(x + 2, width)):
                    far = max(far, depth[j, i])
            out[y, x] = (1.0 - _EMPTY_TOLERANCE) / far
    return out


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def _enter(a: float, b: float, start: float) -> float:
    """Clip a segment by a half-space: a, b are the signed values at its ends, b >= 0; the later start."""
    return max(start, a / (a - b)) if a < 0.0 else start


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def _is_seen_empty(a: Vec, b: Vec, seen: Float32) -> bool:
    """Whether a segment inside the source frustum stays in front of what the source saw.

    a, b: ends as (x, y, disparity), sub-pixels of `seen`; disparity is linear between them.
    """
    height, width = seen.shape
    dx, dy = b[0] - a[0], b[1] - a[1]
    length = math.sqrt(dx * dx + dy * dy)
    usable = length - _SKIP_PX * _SUBPIXELS
    if usable <= 0.0:
        return True
    num = math.ceil(usable / (_STEP_PX * _SUBPIXELS))
    last = usable / length
    for k in range(num, -1, -1):
        # From the hit backwards: what hides it is most often close to it.
        s = last * k / num
        x, y = int(a[0] + s * dx), int(a[1] + s * dy)
        if a[2] + s * (b[2] - a[2]) < seen[min(max(y, 0), height - 1), min(max(x, 0), width - 1)]:
            return False
    return True


@njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
def _provable(points: Float64, visible: Bool, eye: Float64, projection: Float64, seen: Float32) -> Bool:
    """The visible points whose segment from the target eye crosses only space the source saw to be empty."""
    out = np.zeros_like(visible)
    wide, high = seen.shape[1] / _SUBPIXELS, seen.shape[0] / _SUBPIXELS
    ua, va, wa = _homogeneous(projection, eye[0], eye[1], eye[2])
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            if not visible[y, x]:
                continue
            p = points[y, x]
            ub, vb, wb = _homogeneous(projection, p[0], p[1], p[2])
            s = _enter(wa - _NEAR_M, wb - _NEAR_M, 0.0)
            s = _enter(ua, ub, s)
            s = _enter(va, vb, s)
            s = _enter(wide * wa - ua, wide * wb - ub, s)
            s = _enter(high * wa - va, high * wb - vb, s)
            w = wa + s * (wb - wa)
            a = (
                _SUBPIXELS * (ua + s * (ub - ua)) / w,
                _SUBPIXELS * (va + s * (vb - va)) / w,
                1.0 / w,
            )
            out[y, x] = _is_seen_empty(a, (_SUBPIXELS * ub / wb, _SUBPIXELS * vb / wb, 1.0 / wb), seen)
    return out


def iou(a: Bool, b: Bool) -> float:
    """Intersection over union of two masks of one shape; 1 if both are empty."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def share(a: Bool, b: Bool) -> float:
    """Share of mask `a` that lies in `b`, 0–1; 1 if `a` is empty."""
    count = int(a.sum())
    return int((a & b).sum()) / count if count else 1.0


def psnr(a_rgb: UInt8, b_rgb: UInt8, where: Bool) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 images [H,W,3] over a mask [H,W].

    Infinite for equal pixels, NaN where the mask is empty.
    """
    if not where.any():
        return math.nan
    error = float(((a_rgb[where].astype(np.float64) - b_rgb[where]) ** 2).mean())
    return 10 * math.log10(255**2 / error) if error else math.inf
