"""Depth of one frame → depth watertight mesh (DW-Mesh, arXiv 2506.05554 §3.1)."""

import math

import numpy as np

from ex4d.core.arrays import Bool, Float32, UInt8, check_array
from ex4d.core.camera import Camera
from ex4d.core.mesh import DepthMesh
from ex4d.errors import DepthError
from ex4d.mesh import kernels
from ex4d.mesh.config import OFFICIAL_RING_DEPTH, RING_FACTOR, GeometryConfig


class MeshBuilder:
    """Builds meshes one after the other, reusing its scratch memory. Not thread-safe: one a thread."""

    def __init__(self, config: GeometryConfig | None = None) -> None:
        self.config = config or GeometryConfig()
        self._lengths = np.empty((3, 0), np.float32)
        self._flags = np.empty((2, 0, 0), np.uint8)

    def build(self, frame: UInt8, depth: Float32, valid: Bool, source: Camera) -> DepthMesh:
        """The closed mesh of one frame.

        Args:
            frame: uint8 [H,W,3], sRGB.
            depth: float32 [H,W], z in the source camera, scene units.
            valid: bool [H,W], where the depth is known; at least one pixel.
            source: the camera that saw the frame.

        Raises:
            DepthError: if no pixel is valid.
            ValueError: arrays of another shape or type than the camera's frame has, or a valid depth that is not
                finite and > 0.
        """
        all_valid = _check(frame, depth, valid, source)
        if not all_valid:
            filled = np.empty_like(depth)
            kernels.fill_invalid(depth, valid, filled)
            depth = filled
        official = self.config.name == "official"
        ring, offset_px = (0, 0.0) if official else (1, 0.5)
        ring_depth = np.float32(OFFICIAL_RING_DEPTH if official else RING_FACTOR * depth.max())
        height, width = depth.shape
        grid = np.empty((3, height + 2 * ring, width + 2 * ring), np.float32)
        k = source.K
        intrinsics = np.array([k[0, 0], k[1, 1], k[0, 2], k[1, 2]], np.float32)
        kernels.unproject_grid(depth, ring, ring_depth, offset_px, intrinsics, grid)
        quad_torn = self._tear(grid, valid, all_valid, ring)
        reach = np.zeros(grid.shape[1:], np.float32)
        if not official:
            kernels.surface_reach(grid[2], quad_torn, valid, intrinsics[0], reach)
        return DepthMesh(
            grid=grid,
            rgba=_vertex_colors(frame, quad_torn, ring),
            quad_torn=quad_torn,
            reach=reach,
            texture=frame,
            source=source,
            ring=ring,
        )

    def _tear(self, grid: Float32, valid: Bool, all_valid: bool, ring: int) -> UInt8:
        """Torn bits uint8 [GH-1,GW-1] of every quad."""
        rows, cols = grid.shape[1:]
        if self._lengths.shape[1] != rows * cols:
            self._lengths = np.empty((3, rows * cols), np.float32)
            self._flags = np.empty((2, rows - 1, cols), np.uint8)
        horizontal, vertical, diagonal = self._lengths
        first, second = self._flags
        four_cos2 = np.float32(4 * math.cos(math.radians(self.config.angle_limit_deg)) ** 2)
        kernels.sliver_flags(grid, four_cos2, horizontal, vertical, diagonal, first, second)
        quad_torn = np.empty((rows - 1, cols - 1), np.uint8)
        if ring:
            kernels.jump_flags(grid[2], np.float32(1 - self.config.tear_disparity_jump), first, second)
        kernels.pack_quads(first, second, quad_torn)
        if ring:
            kernels.tear_border(quad_torn)
        if not all_valid:
            kernels.tear_invalid(valid, ring, quad_torn)
        return quad_torn


def build_mesh(
    frame: UInt8, depth: Float32, valid: Bool, source: Camera, *, config: GeometryConfig | None = None
) -> DepthMesh:
    """`MeshBuilder.build` for a single frame."""
    return MeshBuilder(config).build(frame, depth, valid, source)


def _check(frame: UInt8, depth: Float32, valid: Bool, source: Camera) -> bool:
    """Whether all depth is valid. The kernels check no bounds: nothing of another shape may reach them."""
    size = (source.height, source.width)
    check_array("build_mesh.frame", frame, np.uint8, (*size, 3))
    check_array("build_mesh.depth", depth, np.float32, size)
    check_array("build_mesh.valid", valid, np.bool_, size)
    all_valid = bool(valid.all())
    known = depth if all_valid else depth[valid]
    if not known.size:
        raise DepthError("a frame with at least one valid depth", "none", "check the depth source")
    if not (known.min() > 0 and np.isfinite(known.max())):
        raise ValueError("build_mesh.depth: expected finite depths > 0 where valid")
    return all_valid


def _vertex_colors(frame: UInt8, quad_torn: UInt8, ring: int) -> UInt8:
    """uint8 [GH,GW,4]; alpha 0 on the ring (default) or on the vertices of torn faces (official)."""
    height, width = frame.shape[:2]
    rgba = np.empty((height + 2 * ring, width + 2 * ring, 4), np.uint8)
    packed = rgba.view(np.uint32)[..., 0]
    kernels.pack_colors(frame, ring, packed)
    if ring == 0:
        kernels.clear_torn_vertices(quad_torn, packed)
    return rgba
