"""Rendering masks: which pixels of a frame another camera would have seen, by meshes and renderer of inference.

The clip is the new view, another camera the source. Its frame is not known, so it is made from the clip's:

1. The clip's frame becomes a mesh and is seen from the other camera. What the clip did not see is missing there.
2. A real source frame has no missing pixels: their depth is completed by what claims the least (the farther of the
   nearest known depths), but never in space that the clip saw to be empty, i.e. not before the mesh.
3. That frame becomes a mesh like any source frame at inference and is seen from the clip's camera.
4. A pixel survives where something is observed there, and it is the clip's own surface.

Without step 2 every missing pixel would be a torn occluder, and holes would be counted twice: against inference at
30–90° masks would keep 5–6 % less of the frame (`benchmarks/masks.py`, ``strict``).
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ex4d.core.arrays import Bool, Float32, UInt8
from ex4d.core.camera import Camera, CameraPath
from ex4d.core.clip import Clip, iter_chunks
from ex4d.core.depth import DepthVideo
from ex4d.core.video import Video
from ex4d.mesh.config import GeometryConfig
from ex4d.mesh.kernels import fill_invalid
from ex4d.mesh.watertight import MeshBuilder
from ex4d.render.rasterizer import Rasterizer

_RIM_PX = 2


class RoundTrip:
    """Frames seen from other cameras and back, reusing scratch memory. Not thread-safe: one a thread."""

    def __init__(self, geometry: GeometryConfig) -> None:
        self._tolerance = np.float32(geometry.tear_disparity_jump)
        self._builder, self._rasterizer = MeshBuilder(geometry), Rasterizer()

    def survived(self, frame: UInt8, depth: Float32, valid: Bool, *, camera: Camera, other: Camera) -> Bool:
        """Which pixels of a frame another camera's frame of the same moment shows.

        Args:
            frame: uint8 [H,W,3].
            depth: float32 [H,W], z in `camera`, scene units.
            valid: bool [H,W]; pixels of unknown depth never survive, as at inference.
            camera: that saw the frame.
            other: the source camera that is simulated.

        Returns:
            bool [H,W].

        Raises:
            DepthError: no pixel of the frame is valid.
        """
        mesh = self._builder.build(frame, depth, valid, camera)
        there = self._rasterizer.render(mesh, other, with_faces=True)
        if not there.observed.any():
            return np.zeros_like(valid)
        assert there.surface_inv_z is not None
        farthest = depth[valid].max()
        completed = completed_depth(there.depth, there.observed, there.surface_inv_z, farthest)
        back_mesh = self._builder.build(there.rgb, completed, np.ones_like(there.observed), other)
        back = self._rasterizer.render(back_mesh, camera)
        nearer, farther = np.minimum(back.depth, depth), np.maximum(back.depth, depth)
        survived = back.observed & (nearer >= (1 - self._tolerance) * farther)
        _take_over_rim(survived)
        return survived & valid


def _take_over_rim(survived: Bool) -> None:
    """The outermost pixels of bool [H,W] survive too where the ones just inside do; in place.

    The clip's mesh ends in their middle, so that half of each is missing in the other view; a real source frame would
    show the surface going on.
    """
    rim = min(_RIM_PX, (min(survived.shape) - 1) // 2)
    if rim:
        survived[:, :rim] |= survived[:, rim : rim + 1]
        survived[:, -rim:] |= survived[:, -rim - 1 : -rim]
        survived[:rim] |= survived[rim]
        survived[-rim:] |= survived[-rim - 1]


def completed_depth(depth: Float32, observed: Bool, surface_inv_z: Float32, farthest: np.float32) -> Float32:
    """Depth float32 [H,W] of a whole frame from one with missing pixels.

    Args:
        depth: float32 [H,W], 0 where not observed.
        observed: bool [H,W].
        surface_inv_z: float32 [H,W], 1/z of the mesh, torn faces included; 0 where a ray meets nothing.
        farthest: depth of the clip's frame: where a ray met nothing at all, nothing nearer is claimed.
    """
    filled = np.empty_like(depth)
    fill_invalid(depth, observed, filled)
    with np.errstate(divide="ignore"):
        entry = np.where(surface_inv_z > 0, 1 / surface_inv_z, farthest)
    return np.where(observed, depth, np.maximum(filled, entry)).astype(np.float32)


def rendering_survived(
    source: Clip[Video],
    depth: Clip[DepthVideo],
    source_path: CameraPath,
    cameras: CameraPath,
    *,
    geometry: GeometryConfig,
    num_threads: int,
) -> Bool:
    """What survives of every frame of a clip; `RoundTrip.survived` on threads (the kernels hold no GIL).

    Args:
        source: the clip.
        depth: frame for frame with it.
        source_path: its cameras.
        cameras: the others, one a frame.
        geometry: of the meshes.
        num_threads: changes no byte.

    Returns:
        bool [T,H,W].
    """
    local = threading.local()

    def work(index: int, frame: UInt8, z: Float32, valid: Bool) -> Bool:
        if not hasattr(local, "trip"):
            local.trip = RoundTrip(geometry)
        return local.trip.survived(frame, z, valid, camera=source_path[index], other=cameras[index])

    done: list[Bool] = []
    with ThreadPoolExecutor(num_threads, thread_name_prefix="ex4d-masks") as pool:
        for start, video in iter_chunks(source):
            maps = depth.read(start, start + len(video))
            indices: Sequence[int] = range(start, start + len(video))
            done += pool.map(work, indices, video.frames, maps.depth, maps.valid)
    return np.stack(done)
