"""Meshes and views along a path: the renderer run over a clip, frames on threads, chunks in order."""

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from ex4d.core.camera import CameraPath
from ex4d.core.clip import DEFAULT_CHUNK_FRAMES, Clip
from ex4d.core.depth import DepthVideo
from ex4d.core.video import Video
from ex4d.core.view import RenderedView
from ex4d.mesh.config import GeometryConfig
from ex4d.mesh.watertight import MeshBuilder
from ex4d.pipeline.config import RenderConfig
from ex4d.render.rasterizer import Rasterizer, RenderedFrame


def render_view(
    source: Clip[Video],
    depth: Clip[DepthVideo],
    source_path: CameraPath,
    path: CameraPath,
    *,
    geometry: GeometryConfig,
    render: RenderConfig,
    fps: float,
    num_threads: int,
) -> Iterator[RenderedView]:
    """The target view, chunk by chunk; two chunks are in memory at a time.

    Official geometry replaces output frame 0, where it is the source view, by the source frame, all of it observed,
    as the release does. fps is the rate of outputs that do not show every source frame once.
    """
    local = threading.local()
    times = output_times(source, path, fps)
    first = source_path[int(path.source_index[0])]
    is_source_view = np.allclose(path[0].world_to_camera, first.world_to_camera) and np.allclose(path[0].K, first.K)

    def work(i: int, video: Video, maps: DepthVideo, offset: int) -> RenderedFrame:
        if not hasattr(local, "builder"):
            local.builder, local.rasterizer = MeshBuilder(geometry), Rasterizer()
        camera = source_path[int(path.source_index[i])]
        frame, z, valid = video.frames[offset], maps.depth[offset], maps.valid[offset]
        if i == 0 and is_source_view and geometry.name == "official":
            return RenderedFrame(rgb=frame, observed=np.ones_like(valid), depth=np.where(valid, z, 0))
        mesh = local.builder.build(frame, z, valid, camera)
        return local.rasterizer.render(mesh, path[i], supersample=render.supersample)

    def collect(batch: list[Future[RenderedFrame]], start: int) -> RenderedView:
        done = [future.result() for future in batch]
        return RenderedView(
            rgb=np.stack([frame.rgb for frame in done]),
            observed=np.stack([frame.observed for frame in done]),
            depth=np.stack([frame.depth for frame in done]),
            timestamps_s=times[start : start + len(done)],
        )

    pending: deque[tuple[list[Future[RenderedFrame]], int]] = deque()
    with ThreadPoolExecutor(num_threads, thread_name_prefix="ex4d-render") as pool:
        for start in range(0, len(path), DEFAULT_CHUNK_FRAMES):
            stop = min(start + DEFAULT_CHUNK_FRAMES, len(path))
            video, maps, offsets = _read_shown(source, depth, path, start, stop)
            batch = [pool.submit(work, start + k, video, maps, offset) for k, offset in enumerate(offsets)]
            pending.append((batch, start))
            if len(pending) > 1:
                yield collect(*pending.popleft())
        while pending:
            yield collect(*pending.popleft())


def output_times(source: Clip[Video], path: CameraPath, fps: float) -> np.ndarray:
    """float64 [N]: the source's own times where every frame is shown once, else a constant rate."""
    return source.timestamps_s if keeps_time(source, path) else np.arange(len(path)) / fps


def keeps_time(source: Clip[Video], path: CameraPath) -> bool:
    """Whether every source frame is shown once, at its own time: only then do its timestamps and its sound fit."""
    return np.array_equal(path.source_index, np.arange(source.num_frames))


def _read_shown(
    source: Clip[Video], depth: Clip[DepthVideo], path: CameraPath, start: int, stop: int
) -> tuple[Video, DepthVideo, list[int]]:
    """The source frames that outputs start:stop show, and where in the chunk each of them is."""
    shown = path.source_index[start:stop]
    first, last = int(shown.min()), int(shown.max()) + 1
    if last - first > 4 * DEFAULT_CHUNK_FRAMES:
        raise ValueError("render_view: consecutive outputs must show source frames close to each other")
    return source.read(first, last), depth.read(first, last), [int(frame) - first for frame in shown]
