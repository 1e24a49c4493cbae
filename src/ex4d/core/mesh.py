"""The noun `DepthMesh`: the depth watertight mesh of one frame.

It is a grid of vertices (one a pixel, in default geometry with a ring around the frame) whose quads
are cut into two triangles, closed behind the scene by a cap: a fan over the grid's perimeter. Names
of a quad's corners, everywhere in the project::

    a ── b      a = (row, col)      first triangle  (b, a, c)
    │  ╱ │      d = (row+1, col+1)  second triangle (d, b, c)
    c ── d      the diagonal is b–c

Seen from the source camera both wind so that their normals point at it: outward.
"""

from dataclasses import dataclass

import numpy as np

from ex4d.core.arrays import Bool, Float32, Int32, UInt8, check_array
from ex4d.core.camera import Camera

FIRST_TORN = 1
"""Bit of `DepthMesh.quad_torn`: the triangle (b, a, c) is torn."""
SECOND_TORN = 2
"""Bit of `DepthMesh.quad_torn`: the triangle (d, b, c) is torn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthMesh:
    """One closed mesh: visible surface, torn surface, border walls and cap.

    Attributes:
        grid: float32 [3,GH,GW], x, y, z of every grid vertex in the *source camera* frame (planes, so that
            kernels stream; in this frame the source view is exact however far the camera travelled).
        rgba: uint8 [GH,GW,4], vertex colour; alpha 255 = a surface colour, 0 = no colour is known
            (border ring; in official geometry also every vertex of a torn face).
        quad_torn: uint8 [GH-1,GW-1], bits `FIRST_TORN`, `SECOND_TORN`.
        reach: float32 [GH,GW], ≥ 0, scene units: how far in source depth, on a torn face, the surface of
            this vertex is still known to go on. A torn face runs from the last pixel centre of one surface to
            the first of another; the surfaces themselves end somewhere in between.
        texture: uint8 [H,W,3], the source frame.
        source: the camera that saw the frame.
        ring: 1 if the grid carries a ring of vertices outside the frame (GH = H+2; default geometry, vertices at
            pixel centres), else 0 (GH = H; official geometry, vertices at pixel corners).
    """

    grid: Float32
    rgba: UInt8
    quad_torn: UInt8
    reach: Float32
    texture: UInt8
    source: Camera
    ring: int

    def __post_init__(self) -> None:
        check_array("DepthMesh.grid", self.grid, np.float32, (3, None, None))
        rows, cols = self.grid.shape[1:]
        check_array("DepthMesh.rgba", self.rgba, np.uint8, (rows, cols, 4))
        check_array("DepthMesh.quad_torn", self.quad_torn, np.uint8, (rows - 1, cols - 1))
        check_array("DepthMesh.reach", self.reach, np.float32, (rows, cols))
        check_array("DepthMesh.texture", self.texture, np.uint8, (rows - 2 * self.ring, cols - 2 * self.ring, 3))

    @property
    def vertices(self) -> Float32:
        """float32 [V,3], world coordinates, row-major over the grid; V = GH·GW."""
        local = self.grid.reshape(3, -1).T
        matrix = self.source.camera_to_world
        if np.array_equal(matrix, np.eye(4)):
            return np.ascontiguousarray(local)
        return (local @ matrix[:3, :3].T + matrix[:3, 3]).astype(np.float32)

    @property
    def num_quads(self) -> int:
        """Quads of the grid; face ids are 0…Q-1 (first triangles), Q…2Q-1 (second), then the cap."""
        return self.quad_torn.size

    @property
    def faces(self) -> Int32:
        """int32 [F,3], outward winding: all first triangles, all second triangles, the cap's fan."""
        rows, cols = self.grid.shape[1:]
        a = np.arange(rows * cols, dtype=np.int64).reshape(rows, cols)[:-1, :-1].ravel()
        b, c, d = a + 1, a + cols, a + cols + 1
        fan = perimeter(rows, cols)
        cap = np.stack([np.full(len(fan) - 2, fan[0]), fan[1:-1], fan[2:]], axis=1)
        return np.concatenate([np.stack([b, a, c], 1), np.stack([d, b, c], 1), cap]).astype(np.int32)

    @property
    def face_torn(self) -> Bool:
        """bool [F], True for faces that are occluders without a known colour (torn, border, cap)."""
        flat = self.quad_torn.ravel()
        cap = np.ones(2 * sum(self.grid.shape[1:]) - 6, dtype=np.bool_)
        return np.concatenate([(flat & FIRST_TORN) != 0, (flat & SECOND_TORN) != 0, cap])

    @property
    def texture_px(self) -> Float32:
        """float32 [V,2], where each vertex lies in the texture, px, corner origin; clamped to the frame."""
        height, width = self.texture.shape[:2]
        rows, cols = self.grid.shape[1:]
        x = np.clip(np.arange(cols, dtype=np.float64) - self.ring, 0, width - 1) + 0.5
        y = np.clip(np.arange(rows, dtype=np.float64) - self.ring, 0, height - 1) + 0.5
        grid_x, grid_y = np.meshgrid(x, y)
        return np.stack([grid_x.ravel(), grid_y.ravel()], axis=1).astype(np.float32)

    @property
    def is_watertight(self) -> bool:
        """True if every edge is used by exactly two faces, once in each direction."""
        return open_edge_count(self.faces) == 0


def perimeter(rows: int, cols: int) -> Int32:
    """int32 [2(rows+cols)-4], grid vertices of the border, clockwise in the image from the top left."""
    index = np.arange(rows * cols, dtype=np.int32).reshape(rows, cols)
    return np.concatenate([index[0, :-1], index[:-1, -1], index[-1, :0:-1], index[:0:-1, 0]])


def open_edge_count(faces: Int32) -> int:
    """How many directed edges lack their one reverse: 0 for a closed, consistently wound mesh.

    Args:
        faces: int32 [F,3].
    """
    start = faces.ravel().astype(np.int64)
    end = np.roll(faces, -1, axis=1).ravel().astype(np.int64)
    base = int(faces.max()) + 1
    forward, backward = np.sort(start * base + end), np.sort(end * base + start)
    repeated = int(np.count_nonzero(forward[1:] == forward[:-1]))
    if repeated == 0 and np.array_equal(forward, backward):
        return 0
    return repeated + int(np.setxor1d(forward, backward).size)
