"""The renderer again, slow and obvious: triangle by triangle in NumPy. The truth in tests.

Same definition as `ex4d.render.kernels`, other machinery: explicit faces, integer edge functions over
a whole box of samples at once, float64 shading.
"""

from collections.abc import Iterator

import numpy as np

from ex4d.core.arrays import Bool, Float64, Int64
from ex4d.core.camera import Camera
from ex4d.core.geometry import project, unproject
from ex4d.core.mesh import DepthMesh
from ex4d.render.rasterizer import NEAR_SHARE, OBSERVED_MIN_ALPHA, RenderedFrame

ONE_PX = 256


def render_reference(mesh: DepthMesh, target: Camera) -> RenderedFrame:
    """What `render_mesh` must return (colours to ±1 level); minutes for real frame sizes."""
    height, width = target.height, target.width
    inv_z = np.zeros((height, width))
    rgba = np.zeros((height, width, 4))
    face_id = np.full((height, width), -1, np.int32)
    local = _to_camera(mesh, target)
    near = float(np.float32(NEAR_SHARE * mesh.grid[2].min()))
    colors = mesh.rgba.reshape(-1, 4).astype(np.float64)
    torn = mesh.face_torn
    for face, corners in enumerate(mesh.faces):
        for points, colors_3 in _visible_parts(local[corners], colors[corners], near):
            shown = np.zeros_like(colors_3) if torn[face] else colors_3
            _draw(inv_z, rgba, face_id, _snap(points, target), 1 / points[:, 2], shown, face)
    if mesh.ring:
        _show_reach(mesh, target, inv_z, rgba, np.where(face_id >= 0, torn[face_id], False), face_id)
    observed = rgba[..., 3] >= OBSERVED_MIN_ALPHA
    with np.errstate(divide="ignore"):
        depth = np.where(observed, 1 / inv_z, 0).astype(np.float32)
    # the fan of the cap is one face to the kernels, which draw it as two big triangles
    face_id[face_id >= 2 * mesh.num_quads] = 2 * mesh.num_quads
    rgb = np.where(observed[..., None], rgba[..., :3], 0).astype(np.uint8)
    return RenderedFrame(rgb=rgb, observed=observed, depth=depth, face_id=face_id)


def _to_camera(mesh: DepthMesh, target: Camera) -> Float64:
    """float64 [V,3]: vertices in the target camera, computed in float32 like the kernels."""
    matrix = (target.world_to_camera @ mesh.source.camera_to_world).astype(np.float32)
    x, y, z = mesh.grid.reshape(3, -1)
    rows = [matrix[r, 0] * x + matrix[r, 1] * y + matrix[r, 2] * z + matrix[r, 3] for r in range(3)]
    return np.stack(rows, axis=1).astype(np.float64)


def _snap(points: Float64, target: Camera) -> Int64:
    """int64 [3,2]: pixel coordinates in 1/256 px with sample (x, y) at (256 x, 256 y)."""
    p = points.astype(np.float32)
    focal = np.float32(ONE_PX) * np.array([target.K[0, 0], target.K[1, 1]], np.float32)
    center = np.float32(ONE_PX) * np.array([target.K[0, 2], target.K[1, 2]], np.float32) - np.float32(ONE_PX / 2)
    pixels = focal * p[:, :2] * (np.float32(1) / p[:, 2:]) + center
    return np.floor(pixels + np.float32(0.5)).astype(np.int64)


def _visible_parts(points: Float64, colors: Float64, near: float) -> Iterator[tuple[Float64, Float64]]:
    """The triangle itself, or the triangles left of it in front of the near plane."""
    front = points[:, 2] >= near
    if front.all():
        yield points, colors
        return
    polygon: list[tuple[Float64, Float64]] = []
    for i in range(3):
        j = (i + 1) % 3
        if front[i]:
            polygon.append((points[i], colors[i]))
        if front[i] != front[j]:
            t = (points[i, 2] - near) / (points[i, 2] - points[j, 2])
            polygon.append((points[i] + t * (points[j] - points[i]), colors[i] + t * (colors[j] - colors[i])))
    for i in range(1, len(polygon) - 1):
        part = (polygon[0], polygon[i], polygon[i + 1])
        yield np.stack([p for p, _ in part]), np.stack([c for _, c in part])


def _draw(
    inv_z: Float64,
    rgba: Float64,
    face_id: np.ndarray,
    corners: Int64,
    inv_z_3: Float64,
    colors: Float64,
    face: int,
) -> None:
    """Depth-test and shade one triangle given by snapped corners int64 [3,2]."""
    height, width = inv_z.shape
    lo = np.maximum(-(-corners.min(axis=0) // ONE_PX), 0)
    hi = np.minimum(corners.max(axis=0) // ONE_PX, (width - 1, height - 1))
    (ax, ay), (bx, by), (cx, cy) = corners.tolist()
    area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
    if area == 0 or (lo > hi).any():
        return
    y, x = np.mgrid[lo[1] : hi[1] + 1, lo[0] : hi[0] + 1] * ONE_PX
    edges = [_edge(x, y, *pair) for pair in ((bx, by, cx, cy), (cx, cy, ax, ay), (ax, ay, bx, by))]
    owns = [_top_left(*pair) for pair in ((cx - bx, cy - by), (ax - cx, ay - cy), (bx - ax, by - ay))]
    filled = np.stack([edge + own for edge, own in zip(edges, owns, strict=True)])
    inside = (filled > 0).all(axis=0) | (filled <= 0).all(axis=0)
    weights = np.stack(edges) / area * inv_z_3[:, None, None]
    sample_inv_z = weights.sum(axis=0)
    box = (slice(lo[1], hi[1] + 1), slice(lo[0], hi[0] + 1))
    wins = inside & (sample_inv_z > inv_z[box] * (1 + 1e-7))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = weights / sample_inv_z
        color = np.floor(np.einsum("khw,kc->hwc", share, colors) + 0.5)
    inv_z[box][wins] = sample_inv_z[wins]
    rgba[box][wins] = color[wins]
    face_id[box][wins] = face


def _show_reach(
    mesh: DepthMesh, target: Camera, inv_z: Float64, rgba: Float64, torn: Bool, face_id: np.ndarray
) -> None:
    """Colour samples on torn faces from the corners that reach them (or that they lie on)."""
    faces, cols = mesh.faces, mesh.grid.shape[2]
    reach, source_z, colors = mesh.reach.ravel(), mesh.grid[2].ravel(), mesh.rgba.reshape(-1, 4)
    for row, col in zip(*np.nonzero(torn & (face_id < 2 * mesh.num_quads)), strict=True):
        world = unproject(target, np.array([col + 0.5, row + 0.5]), np.array(1 / inv_z[row, col]))
        pixel, z = project(mesh.source, world)
        corners = faces[face_id[row, col]]
        vertex_px = np.stack([corners % cols, corners // cols], axis=1) - mesh.ring + 0.5
        gap = np.abs(pixel - vertex_px)
        on_vertex = (gap < 1 / 512).all(axis=1)
        known = on_vertex if on_vertex.any() else np.abs(z - source_z[corners]) < reach[corners]
        if known.any():
            weight = np.maximum(1 - gap, 1e-3).prod(axis=1) * known
            rgba[row, col] = np.floor(weight @ colors[corners] / weight.sum() + 0.5)


def _edge(x: Int64, y: Int64, px: int, py: int, qx: int, qy: int) -> Int64:
    """Twice the signed area of (p, q, sample)."""
    return (qx - px) * (y - py) - (qy - py) * (x - px)


def _top_left(dx: int, dy: int) -> int:
    """1 where an edge of this direction owns the samples on it."""
    return int(dy < 0 or (dy == 0 and dx > 0))
