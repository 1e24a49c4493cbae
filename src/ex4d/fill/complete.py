"""`complete_view`: a geometry prior → completed frames, one after the other."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np

from ex4d.core.arrays import Bool, Float32, UInt8
from ex4d.core.camera import Camera
from ex4d.core.clip import DEFAULT_CHUNK_FRAMES, iter_chunks
from ex4d.core.mesh import DepthMesh
from ex4d.core.video import Video
from ex4d.core.view import GeometryPrior
from ex4d.errors import ConfigError
from ex4d.fill.config import FillConfig
from ex4d.fill.guide import Guide, make_guide
from ex4d.fill.neighbors import SourceMeshes, choose_neighbors
from ex4d.fill.spatial import fill_spatial
from ex4d.fill.stabilize import Memory, carry_fill
from ex4d.fill.temporal import search_neighbors
from ex4d.mesh.config import GeometryConfig
from ex4d.render.rasterizer import Rasterizer, RenderedFrame


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameFill:
    """What was done to one frame.

    Attributes:
        index: of the target frame.
        observed_share: pixels that passed through unchanged, 0–1.
        temporal_share: pixels taken from other frames of the clip, 0–1.
        spatial_share: pixels invented from their surroundings, 0–1.
        is_blank: True if neither this frame nor an earlier one showed anything: the frame stays black.
    """

    index: int
    observed_share: float
    temporal_share: float
    spatial_share: float
    is_blank: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """All that one frame needs, read before its thread starts."""

    index: int
    view: RenderedFrame
    target: Camera
    own: DepthMesh | None
    neighbors: list[DepthMesh]


@dataclass(slots=True, kw_only=True)
class _Draft:
    """One frame filled on its own, before it meets the previous one."""

    job: _Job
    color: Float32
    disparity: Float32
    found: Bool
    is_blank: bool


def complete_view(
    prior: GeometryPrior,
    config: FillConfig | None = None,
    *,
    geometry: GeometryConfig | None = None,
    num_threads: int = 1,
    on_frame: Callable[[FrameFill], None] | None = None,
) -> Iterator[Video]:
    """Complete the unobserved pixels of a target view without a model: a preview, not generation.

    Observed pixels pass through bit for bit. The others come first from other frames of the clip seen
    from the same camera where the scene agrees, then from a multi-scale fill of each hole from the far
    side of its torn edge, carried along from frame to frame. Equal input gives equal bytes, whatever
    `num_threads`. Memory does not grow with the length of the clip.

    Args:
        prior: view, target path and the source clip with depth and cameras.
        config: settings; default `FillConfig()`.
        geometry: the tear limits that the prior was made with; default `GeometryConfig()`.
        num_threads: frames worked on at the same time, >= 1.
        on_frame: called in order, after each completed frame.

    Yields:
        `Video` chunks in order, N frames altogether, with the view's timestamps.

    Raises:
        ConfigError: if `num_threads` is below 1.
    """
    if num_threads < 1:
        raise ConfigError("num_threads >= 1", str(num_threads), "pass the number of CPU cores to use")
    return _run(prior, config or FillConfig(), geometry or GeometryConfig(), num_threads, on_frame)


def _run(
    prior: GeometryPrior,
    config: FillConfig,
    geometry: GeometryConfig,
    num_threads: int,
    on_frame: Callable[[FrameFill], None] | None,
) -> Iterator[Video]:
    finisher = _Finisher(config)
    timestamps_s = prior.view.timestamps_s
    frames: list[UInt8] = []
    for draft in _drafts(prior, config, geometry, num_threads):
        frame, report = finisher.finish(draft)
        frames.append(frame)
        if on_frame is not None:
            on_frame(report)
        done = report.index + 1
        if len(frames) == DEFAULT_CHUNK_FRAMES or done == len(prior.path):
            yield Video(frames=np.stack(frames), timestamps_s=timestamps_s[done - len(frames) : done])
            frames = []


def _drafts(prior: GeometryPrior, config: FillConfig, geometry: GeometryConfig, num_threads: int) -> Iterator[_Draft]:
    """Drafts in order; at most `num_threads` + 1 frames are under way."""
    rasterizers: SimpleQueue[Rasterizer] = SimpleQueue()
    for _ in range(num_threads):
        rasterizers.put(Rasterizer())

    def work(job: _Job) -> _Draft:
        rasterizer = rasterizers.get()
        try:
            return _draft(job, config, rasterizer)
        finally:
            rasterizers.put(rasterizer)

    pending: deque[Future[_Draft]] = deque()
    with ThreadPoolExecutor(num_threads, thread_name_prefix="ex4d-fill") as pool:
        try:
            for job in _jobs(prior, config, geometry):
                pending.append(pool.submit(work, job))
                if len(pending) > num_threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _jobs(prior: GeometryPrior, config: FillConfig, geometry: GeometryConfig) -> Iterator[_Job]:
    """Read what each frame needs; clips are only touched here, by one thread."""
    meshes = SourceMeshes(prior, geometry, config)
    for start, chunk in iter_chunks(prior.view):
        for offset in range(len(chunk)):
            index = start + offset
            observed = chunk.observed[offset]
            shows = int(prior.path.source_index[index])
            hole_share = 1.0 - float(observed.mean())
            own: DepthMesh | None = None
            neighbors: list[DepthMesh] = []
            if hole_share > 0:
                if config.temporal and hole_share >= config.min_hole_share:
                    chosen = choose_neighbors(shows, prior.source.num_frames, config.num_neighbors)
                    neighbors = [mesh for other, mesh in meshes.static(chosen) if other != shows]
                own = meshes.mesh(shows)
            view = RenderedFrame(rgb=chunk.rgb[offset], observed=observed, depth=chunk.depth[offset])
            yield _Job(index=index, view=view, target=prior.path[index], own=own, neighbors=neighbors)


def _draft(job: _Job, config: FillConfig, rasterizer: Rasterizer) -> _Draft:
    """Fill one frame without regard to the others of the target path."""
    view, observed = job.view, job.view.observed
    color = view.rgb.astype(np.float32)
    with np.errstate(divide="ignore"):
        disparity = np.where(view.depth > 0, np.float32(1) / view.depth, np.float32(0))
    known = observed
    draft = _Draft(job=job, color=color, disparity=disparity, found=np.zeros_like(observed), is_blank=False)
    if observed.all():
        return draft
    guide = None if job.own is None else make_guide(job.own, job.target, observed, rasterizer)
    confidence, background = np.zeros_like(disparity), np.float32(0)
    if guide is not None:
        unmeasured = observed & (disparity <= 0)
        disparity[unmeasured] = guide.surface[unmeasured]
        if job.neighbors:
            surface = np.where(observed, disparity, guide.surface)
            found = search_neighbors(view, surface, job.neighbors, job.target, config=config, rasterizer=rasterizer)
            draft.found = found.found
            known = observed | found.found
            np.copyto(color, found.color, where=found.found[..., None])
            np.copyto(disparity, found.disparity, where=found.found)
        _put_hints(color, disparity, guide, known)
        confidence, background = guide.confidence, guide.background
    draft.is_blank = not (known.any() or confidence.any())
    if not draft.is_blank:
        fill_spatial(color, disparity, confidence, known, background=background)
    return draft


def _put_hints(color: Float32, disparity: Float32, guide: Guide, known: Bool) -> None:
    hinted = ~known & (guide.confidence > 0)
    np.copyto(color, guide.color, where=hinted[..., None])
    np.copyto(disparity, guide.disparity, where=hinted)


class _Finisher:
    """Joins drafts in order: carries the fill from frame to frame, rounds, reports."""

    def __init__(self, config: FillConfig) -> None:
        self._share = config.stability
        self._memory: Memory | None = None

    def finish(self, draft: _Draft) -> tuple[UInt8, FrameFill]:
        """The completed frame uint8 [H,W,3] and what was done to it."""
        view = draft.job.view
        known = view.observed | draft.found
        blank = draft.is_blank and self._memory is None
        if draft.is_blank and self._memory is not None:
            # nothing is known of this frame: the last picture, as it was, says more than black
            np.copyto(draft.color, self._memory.color)
            np.copyto(draft.disparity, self._memory.disparity)
        elif self._memory is not None and self._share > 0 and not known.all():
            carry_fill(
                draft.color, draft.disparity, ~known, memory=self._memory, camera=draft.job.target, share=self._share
            )
        if not blank:
            self._memory = Memory(color=draft.color, disparity=draft.disparity, camera=draft.job.target)
        frame = np.where(view.observed[..., None], view.rgb, np.clip(draft.color + 0.5, 0, 255).astype(np.uint8))
        observed, temporal = float(view.observed.mean()), float(draft.found.mean())
        report = FrameFill(
            index=draft.job.index,
            observed_share=observed,
            temporal_share=temporal,
            spatial_share=0.0 if blank else float((~known).mean()),
            is_blank=blank,
        )
        return frame, report
