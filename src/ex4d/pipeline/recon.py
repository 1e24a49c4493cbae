"""Clip → geometry prior: depth, meshes, target views, and the files of a prior folder."""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from ex4d.core.camera import CameraPath
from ex4d.core.clip import Clip, iter_chunks
from ex4d.core.depth import DepthVideo
from ex4d.core.depth_codes import encode_depth
from ex4d.core.view import RenderedView
from ex4d.depth.estimator import DepthEstimator, EstimateRequest
from ex4d.depth.intrinsics import choose_intrinsics
from ex4d.depth.result import DepthConfig, DepthResult
from ex4d.depth.source import FoundDepth, find_depth, finish_depth, pick_estimator
from ex4d.io import prior as names
from ex4d.io.encode import LosslessWriter
from ex4d.io.encode_delivery import DeliverySettings, DeliveryWriter
from ex4d.io.masks import open_subject_mask
from ex4d.io.meshes import write_glb, write_ply
from ex4d.mesh.watertight import MeshBuilder
from ex4d.pipeline.config import RunConfig
from ex4d.pipeline.ingest import WorkingSource
from ex4d.pipeline.plan import PlannedCamera, plan_cameras, source_index, survey
from ex4d.pipeline.progress import Reporter, timed_stage
from ex4d.pipeline.source_cameras import SourceCameras, find_source_cameras, scale_cameras
from ex4d.pipeline.view import output_times, render_view
from ex4d.pipeline.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """What is known before rendering.

    Attributes:
        depth: how the depth was found.
        source_path: source cameras, in the unit of the depth.
        cameras: where they are from.
        planned: target paths.
        survey: see `plan.survey`.
    """

    depth: DepthResult
    source_path: CameraPath
    cameras: SourceCameras
    planned: list[PlannedCamera]
    survey: dict[str, Any]


def num_threads() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def find_geometry(
    config: RunConfig, source: WorkingSource, workspace: Workspace, reporter: Reporter, timings: dict[str, float]
) -> Geometry:
    """Depth, source cameras, target paths and the survey; every complaint about them comes from here."""
    depth, cameras = find_depth_and_cameras(config, source, workspace, reporter, timings)
    source_path, scaled = scale_cameras(cameras, depth)
    for notice in (f"depth: {depth.description}", *depth.notices, *scaled):
        reporter.note(notice)
    shows = source_index(config, source.clip.num_frames, is_still=source.is_still)
    planned = plan_cameras(config, source_path, depth.depth, shows, reporter)
    found = workspace.result("survey")
    if found is None:
        with timed_stage(reporter, timings, "survey", source.clip.num_frames):
            found = survey(depth.depth, source_path, planned, reporter)
        workspace.finish("survey", found)
    for camera in found["cameras"]:
        for warning in camera["warnings"]:
            reporter.note(f"warning: {warning}")
    return Geometry(depth=depth, source_path=source_path, cameras=cameras, planned=planned, survey=found)


def find_depth_and_cameras(
    config: RunConfig, source: WorkingSource, workspace: Workspace, reporter: Reporter, timings: dict[str, float]
) -> tuple[DepthResult, SourceCameras]:
    """Both, in the order that they need each other.

    Depth that may bring cameras or K comes first. Estimators that do not are told the cameras, which are looked for
    before; landmarks of these then anchor their disparity.
    """
    settings = _depth_config(config)
    estimator = pick_estimator(settings.depth, has_depth=source.rgbd is not None)
    request = _request(config, source, reporter)
    first = estimator is None or estimator.brings_cameras
    found = _find(config, source, estimator, request, workspace, reporter, timings) if first else None
    cameras = find_source_cameras(config, source, found, workspace, reporter, timings)
    request = replace(request, K=cameras.path.K[0], cameras=cameras.path, landmarks=cameras.landmarks)
    if found is None:
        found = _find(config, source, estimator, request, workspace, reporter, timings)
    with timed_stage(reporter, timings, "depth mapping", None):
        depth = finish_depth(found, source.clip, settings, request=request)
    return depth, cameras


def _request(config: RunConfig, source: WorkingSource, reporter: Reporter) -> EstimateRequest:
    """What an estimator is told before anything is known of the cameras."""
    clip, depth, camera = source.clip, config.depth, config.camera
    typed = camera.fov_deg is not None or camera.focal_px is not None or source.focal_35mm is not None
    K = None
    if typed:
        K, _ = choose_intrinsics(
            height=clip.height,
            width=clip.width,
            fov_deg=camera.fov_deg,
            focal_px=camera.focal_px,
            focal_35mm=source.focal_35mm,
        )
    subject = None
    if depth.subject_mask is not None:
        subject = open_subject_mask(
            depth.subject_mask,
            num_frames=clip.num_frames,
            height=clip.height,
            width=clip.width,
            timestamps_s=clip.timestamps_s,
        )
    return EstimateRequest(
        K=K,
        subject=subject,
        short_side=depth.short_side,
        device=depth.device,
        seed=config.seed,
        advance=reporter.advance,
    )


def _find(
    config: RunConfig,
    source: WorkingSource,
    estimator: DepthEstimator | None,
    request: EstimateRequest,
    workspace: Workspace,
    reporter: Reporter,
    timings: dict[str, float],
) -> FoundDepth:
    total = None if estimator is None or estimator.is_instant else source.clip.num_frames
    with timed_stage(reporter, timings, "depth", total):
        return find_depth(
            source.clip,
            _depth_config(config),
            estimator,
            request=request,
            scratch=workspace.root / "depth",
            selection=source.selection,
            rgbd=source.rgbd,
        )


def _depth_config(config: RunConfig) -> DepthConfig:
    """Official geometry maps disparity as the release does."""
    return replace(config.depth, mapping="official") if config.geometry.name == "official" else config.depth


def write_source_depth(
    geometry: Geometry, fps: Fraction, workspace: Workspace, reporter: Reporter, timings: dict[str, float]
) -> None:
    """``source_depth.mkv``."""
    if workspace.result("source_depth") is not None:
        return
    clip = geometry.depth.depth
    path = workspace.staged(names.SOURCE_DEPTH)
    with (
        timed_stage(reporter, timings, "source depth", clip.num_frames),
        LosslessWriter(path, "gray16", height=clip.height, width=clip.width, fps=fps) as writer,
    ):
        for _, chunk in iter_chunks(clip):
            codes = encode_depth(chunk.depth, chunk.valid, geometry.survey["z_min"])
            writer.write(codes, chunk.timestamps_s)
            reporter.advance(len(chunk))
    workspace.finish("source_depth", {})


def render_camera(
    config: RunConfig,
    source: WorkingSource,
    geometry: Geometry,
    which: int,
    workspace: Workspace,
    reporter: Reporter,
    timings: dict[str, float],
    folder: str,
) -> dict[str, Any]:
    """color, mask, depth, preview and mesh files of one target path; returns coverage and timestamps."""
    planned = geometry.planned[which]
    stage = f"render-{planned.slug}"
    record = workspace.result(stage)
    if record is not None:
        return record
    z_min = geometry.survey["cameras"][which]["z_min"]
    coverage: list[float] = []
    saturated = 0
    views = render_view(
        source.clip,
        geometry.depth.depth,
        geometry.source_path,
        planned.path,
        geometry=config.geometry,
        render=config.render,
        fps=float(source.fps),
        num_threads=num_threads(),
    )
    with timed_stage(reporter, timings, f"render {planned.slug}", len(planned.path)), ExitStack() as stack:
        writers = _Writers(config, planned, source.fps, workspace, folder, stack)
        for view in views:
            writers.write(view, z_min)
            coverage += view.observed.mean(axis=(1, 2), dtype=np.float64).tolist()
            saturated += int(np.count_nonzero((view.depth > 0) & (view.depth < np.float32(z_min * (1 - 1e-5)))))
            reporter.advance(len(view))
    _write_meshes(config, source, geometry, planned, workspace, folder)
    times = output_times(source.clip, planned.path, float(source.fps))
    record = {"coverage": coverage, "timestamps_s": times.tolist(), "saturated_depth_pixels": saturated}
    workspace.finish(stage, record)
    return record


class _Writers:
    """The streams of one prior folder, written together."""

    def __init__(
        self,
        config: RunConfig,
        planned: PlannedCamera,
        fps: Fraction,
        workspace: Workspace,
        folder: str,
        stack: ExitStack,
    ) -> None:
        size = {"height": planned.path.height, "width": planned.path.width, "fps": fps}

        def staged(name: str):
            return workspace.staged(folder + name)

        self._color = stack.enter_context(LosslessWriter(staged(names.COLOR), "rgb", **size))
        self._mask = stack.enter_context(LosslessWriter(staged(names.MASK), "gray", **size))
        self._depth = stack.enter_context(LosslessWriter(staged(names.DEPTH), "gray16", **size))
        preview = DeliveryWriter(staged(names.PREVIEW), **size, settings=DeliverySettings(crf=20, preset="veryfast"))
        self._previews = [stack.enter_context(preview)]
        self._mask_videos: list[DeliveryWriter] = []
        if config.official_files:
            color = DeliveryWriter(staged(f"color_{planned.slug}.mp4"), **size)
            mask = DeliveryWriter(staged(f"mask_{planned.slug}.mp4"), **size)
            self._previews.append(stack.enter_context(color))
            self._mask_videos.append(stack.enter_context(mask))
        # entered last, so that it is left first: no stream is closed while a thread writes to it
        self._pool = stack.enter_context(ThreadPoolExecutor(4, thread_name_prefix="ex4d-encode"))

    def write(self, view: RenderedView, z_min: float) -> None:
        """Append a chunk to every stream."""
        times = view.timestamps_s
        mask = np.where(view.observed, np.uint8(255), np.uint8(0))
        jobs = [(writer, view.rgb) for writer in (self._color, *self._previews)]
        jobs += [(self._mask, mask), (self._depth, encode_depth(view.depth, view.depth > 0, z_min))]
        jobs += [(writer, np.repeat(mask[..., None], 3, axis=3)) for writer in self._mask_videos]
        # encoders hold no GIL: the streams are written side by side, each by one thread at a time
        for done in [self._pool.submit(writer.write, frames, times) for writer, frames in jobs]:
            done.result()


def _write_meshes(
    config: RunConfig,
    source: WorkingSource,
    geometry: Geometry,
    planned: PlannedCamera,
    workspace: Workspace,
    folder: str,
) -> None:
    """The mesh of the first frame shown, or of every frame."""
    builder = MeshBuilder(config.geometry)
    depth: Clip[DepthVideo] = geometry.depth.depth
    first = int(planned.path.source_index[0])
    frames = sorted(set(planned.path.source_index.tolist())) if config.save_meshes else [first]
    for frame in frames:
        video, maps = source.clip.read(frame, frame + 1), depth.read(frame, frame + 1)
        mesh = builder.build(video.frames[0], maps.depth[0], maps.valid[0], geometry.source_path[frame])
        number = 0 if not config.save_meshes else frame
        write_ply(mesh, workspace.staged(f"{folder}meshes/frame_{number:06d}.ply"))
        if config.save_meshes:
            write_glb(mesh, workspace.staged(f"{folder}meshes/frame_{number:06d}.glb"))
        if config.official_files and frame == first:
            write_ply(mesh, workspace.staged(f"{folder}DW-Mesh.ply"))
