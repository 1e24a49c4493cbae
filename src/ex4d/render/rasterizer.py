"""The CPU renderer: a `DepthMesh` seen from a `Camera`.

`render_mesh` is the functional entry point; `Rasterizer` keeps its scratch memory between frames.
Many frames render on Python threads (the kernels hold no GIL); each thread needs its own `Rasterizer`.
"""

from dataclasses import dataclass

import numpy as np

from ex4d.core.arrays import Bool, Float32, Float64, Int32, UInt8, UInt32
from ex4d.core.camera import Camera, invert_rigid
from ex4d.core.mesh import DepthMesh
from ex4d.render import kernels, shading

OBSERVED_MIN_ALPHA = 126
"""A sample counts as observed from this interpolated alpha on (the official code: alpha > 125 of 255)."""
NEAR_SHARE = 0.01
"""The near plane lies at this share of the mesh's nearest depth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedFrame:
    """One rendered frame.

    Attributes:
        rgb: uint8 [H,W,3], black where not observed.
        observed: bool [H,W].
        depth: float32 [H,W], z in the target camera, 0 where not observed.
        face_id: int32 [H,W] or None: index into `DepthMesh.faces` of the nearest face, torn or not; -1 = none.
            The cap counts as one face (its first id).
        surface_inv_z: float32 [H,W] or None: 1/z of that face, torn ones included; 0 = none.
    """

    rgb: UInt8
    observed: Bool
    depth: Float32
    face_id: Int32 | None = None
    surface_inv_z: Float32 | None = None


class Rasterizer:
    """Renders meshes one after the other, reusing its buffers. Not thread-safe: one a thread."""

    def __init__(self) -> None:
        self._scratch: dict[str, np.ndarray] = {}

    def render(
        self, mesh: DepthMesh, target: Camera, *, supersample: int = 1, with_faces: bool = False
    ) -> RenderedFrame:
        """See a mesh from a camera.

        Args:
            mesh: what to draw.
            target: where from; its height and width are the output's.
            supersample: 1, or 2 for 2×2 samples a pixel (colour averaged over the observed ones; a pixel
                is observed if half of its samples are; depth is the nearest of them).
            with_faces: also return which face each sample hit and how far it is (supersample 1 only).
        """
        if supersample not in (1, 2):
            raise ValueError(f"supersample: expected 1 or 2, got {supersample}")
        if supersample == 2:
            if with_faces:
                raise ValueError("with_faces needs supersample = 1")
            return _box_filter(self.render(mesh, _scaled(target, 2)))
        inv_z, color, face = self._draw(mesh, target)
        height, width = target.height, target.width
        rgb = np.empty((height, width, 3), np.uint8)
        observed = np.empty((height, width), np.bool_)
        depth = np.empty((height, width), np.float32)
        shading.resolve(inv_z, color, OBSERVED_MIN_ALPHA, rgb, observed, depth)
        return RenderedFrame(
            rgb=rgb,
            observed=observed,
            depth=depth,
            face_id=face.copy() if with_faces else None,
            surface_inv_z=inv_z.copy() if with_faces else None,
        )

    def _draw(self, mesh: DepthMesh, target: Camera) -> tuple[Float32, UInt32, Int32]:
        """Project, rasterise, and colour what torn faces still show; returns the z, colour and face buffers."""
        buffers = self._cleared(target.height, target.width)
        num = mesh.rgba.shape[0] * mesh.rgba.shape[1]
        snapped = (
            self._buffer("x", (num,), np.int32),
            self._buffer("y", (num,), np.int32),
            self._buffer("inv_z", (num,), np.float32),
            self._buffer("flags", (num,), np.uint8),
        )
        to_target = target.world_to_camera @ mesh.source.camera_to_world
        transform = np.ascontiguousarray(to_target[:3], np.float32)
        target_k, source_k = _fxycxy(target), _fxycxy(mesh.source)
        intrinsics = target_k.astype(np.float32)
        near = np.float32(NEAR_SHARE * mesh.grid[2].min())
        rgba = mesh.rgba.view(np.uint32)[..., 0]
        planes = mesh.grid.reshape(3, num)
        kernels.snap_vertices(planes[0], planes[1], planes[2], transform, intrinsics, near, *snapped)
        kernels.draw_grid(buffers, snapped, mesh.grid, rgba.reshape(num), mesh.quad_torn, transform, intrinsics, near)
        if mesh.ring:
            to_source = np.ascontiguousarray(invert_rigid(to_target)[:3])
            shading.show_reach(buffers, mesh.grid, rgba, mesh.reach, mesh.ring, to_source, target_k, source_k)
        return buffers

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
        have = self._scratch.get(name)
        if have is None or have.shape != shape:
            have = self._scratch[name] = np.empty(shape, dtype)
        return have

    def _cleared(self, height: int, width: int) -> tuple[Float32, UInt32, Int32]:
        inv_z = self._buffer("canvas_inv_z", (height, width), np.float32)
        color = self._buffer("canvas_color", (height, width), np.uint32)
        face = self._buffer("canvas_face", (height, width), np.int32)
        inv_z.fill(0)
        color.fill(0)
        face.fill(-1)
        return inv_z, color, face


def render_mesh(mesh: DepthMesh, target: Camera, *, supersample: int = 1, with_faces: bool = False) -> RenderedFrame:
    """`Rasterizer.render` for a single frame."""
    return Rasterizer().render(mesh, target, supersample=supersample, with_faces=with_faces)


def _fxycxy(camera: Camera) -> Float64:
    """float64 [4]: fx, fy, cx, cy in px, corner origin."""
    return np.array([camera.K[0, 0], camera.K[1, 1], camera.K[0, 2], camera.K[1, 2]])


def _scaled(camera: Camera, factor: int) -> Camera:
    """The same view with `factor` times the pixels (corner origin: K just scales)."""
    scale = np.array([[factor], [factor], [1.0]])
    return Camera(
        K=camera.K * scale,
        world_to_camera=camera.world_to_camera,
        height=camera.height * factor,
        width=camera.width * factor,
    )


def _box_filter(fine: RenderedFrame) -> RenderedFrame:
    """2×2 samples → one pixel."""
    height, width = fine.observed.shape[0] // 2, fine.observed.shape[1] // 2
    seen = fine.observed.reshape(height, 2, width, 2)
    count = seen.sum(axis=(1, 3))
    observed = count >= 2
    total = fine.rgb.reshape(height, 2, width, 2, 3).astype(np.uint32).sum(axis=(1, 3))
    mean = (total + count[..., None] // 2) // np.maximum(count, 1)[..., None]
    nearest = np.where(seen, fine.depth.reshape(height, 2, width, 2), np.inf).min(axis=(1, 3))
    return RenderedFrame(
        rgb=np.where(observed[..., None], mean, 0).astype(np.uint8),
        observed=observed,
        depth=np.where(observed, nearest, 0).astype(np.float32),
    )
