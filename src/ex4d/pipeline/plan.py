"""Before the long work: source intrinsics, target paths, and a survey of the depth along them."""

import re
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.camera.build import build_path, parse_spec, path_notices, relative_to
from ex4d.camera.checks import frame_warnings, summarize
from ex4d.camera.config import PathRequest
from ex4d.camera.keyframes import build_keyframe_path, read_keyframes
from ex4d.camera.pivot import nearest_depth, resolve_pivot
from ex4d.core.arrays import Int64
from ex4d.core.camera import CameraPath
from ex4d.core.clip import Clip, iter_chunks
from ex4d.core.depth import DepthVideo
from ex4d.errors import CameraPathError, ConfigError
from ex4d.io.cameras.files import read_cameras
from ex4d.io.strict_json import read_json_object
from ex4d.pipeline.config import Motion, RunConfig
from ex4d.pipeline.progress import Reporter
from ex4d.render.survey import nearest_in_view

DEFAULT_STILL_FRAMES = 49
"""Output frames of a still: what the diffusion model makes in one window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCamera:
    """One target path.

    Attributes:
        slug: its name in file and folder names.
        path: the cameras, in the world of source frame 0.
    """

    slug: str
    path: CameraPath


def is_camera_file(spec: str) -> bool:
    """Whether a --cam names a file (by suffix) or an existing folder rather than a preset."""
    return bool(re.search(r"\.(json|npz)$", spec, re.IGNORECASE)) or Path(spec).is_dir()


def camera_slugs(config: RunConfig) -> list[str]:
    """A file name for every --cam; finds typing errors before any work (`CameraPathError`)."""
    slugs = [_slug(spec) for spec in config.camera.cam]
    for slug in slugs:
        if slugs.count(slug) > 1:
            raise CameraPathError("cameras with different names", f"{slug!r} twice", "rename one of the files")
    return slugs


def _slug(spec: str) -> str:
    if not is_camera_file(spec):
        return parse_spec(spec).slug
    if not Path(spec).exists():
        raise CameraPathError(f"a camera or keyframe file at {spec}", "nothing there", "check the name")
    return re.sub(r"[^\w.-]+", "_", Path(spec).stem) or "camera"


def source_index(config: RunConfig, num_source: int, *, is_still: bool) -> Int64:
    """int64 [N]: which source frame each output frame shows.

    Raises:
        ConfigError: --num-frames without --freeze or a still, or a frozen frame outside the clip.
    """
    camera = config.camera
    if camera.freeze is not None and camera.freeze >= num_source:
        raise ConfigError(f"--freeze below {num_source}", str(camera.freeze), "choose one of the selected frames")
    if camera.freeze is not None or is_still:
        count = camera.num_frames or (DEFAULT_STILL_FRAMES if is_still else num_source)
        return np.full(count, camera.freeze or 0, np.int64)
    if camera.num_frames not in (None, num_source):
        raise ConfigError(
            "--num-frames only with --freeze or a still", str(camera.num_frames), "choose frames with --frames A:B"
        )
    return np.arange(num_source, dtype=np.int64)


def plan_cameras(
    config: RunConfig,
    source_path: CameraPath,
    depth: Clip[DepthVideo],
    shows: Int64,
    reporter: Reporter,
) -> list[PlannedCamera]:
    """Build every --cam for this clip."""
    first = depth.read(int(shows[0]), int(shows[0]) + 1)
    pivot = resolve_pivot(config.camera.pivot, first.depth[0], first.valid[0])
    request = PathRequest(
        K=source_path.K[int(shows[0])],
        height=source_path.height,
        width=source_path.width,
        source_index=shows,
        pivot_depth=pivot,
        nearest_depth=nearest_depth(first.depth[0], first.valid[0]),
        pivot_given=config.camera.pivot not in ("auto", "default"),
        seed=config.seed,
    )
    unit = "m" if first.scale == "metric" else "scene units"
    reporter.note(f"pivot at depth {pivot:.3f} {unit} (--pivot {config.camera.pivot})")
    planned: list[PlannedCamera] = []
    for spec in config.camera.cam:
        path, is_absolute = _build(spec, request, reporter)
        if not is_absolute:
            path = _follow_source(path, source_path, config.camera.motion)
        planned.append(PlannedCamera(slug=_slug(spec), path=path))
    return planned


def _build(spec: str, request: PathRequest, reporter: Reporter) -> tuple[CameraPath, bool]:
    """The path of a --cam, and whether it is absolute.

    Camera files hold cameras in the world of source frame 0; presets and keyframes are offsets from the source view.
    """
    if not is_camera_file(spec):
        for notice in path_notices(spec, request):
            reporter.note(notice)
        return build_path(spec, request), False
    file = Path(spec)
    if file.suffix.lower() == ".json" and "keyframes" in read_json_object(file):
        keyframes = read_keyframes(file)
        for notice in keyframes.notices:
            reporter.note(notice)
        return build_keyframe_path(keyframes, request), False
    loaded = read_cameras(file, height=request.height, width=request.width)
    for notice in loaded.notices:
        reporter.note(notice)
    if len(loaded.path) != request.num_frames:
        raise CameraPathError(
            f"{request.num_frames} cameras in {file.name}, one an output frame",
            str(len(loaded.path)),
            "choose frames with --frames A:B, or --freeze FRAME --num-frames N",
        )
    return replace(loaded.path, source_index=request.source_index), True


def _follow_source(path: CameraPath, source_path: CameraPath, motion: Motion) -> CameraPath:
    """A path is an offset from the source view: from each frame's own (relative) or from the first one's (world)."""
    shows = path.source_index if motion == "relative" else path.source_index[:1]
    start = source_path.world_to_camera[shows]
    return path if np.array_equal(start, np.broadcast_to(np.eye(4), start.shape)) else relative_to(path, start)


def survey(
    depth: Clip[DepthVideo],
    source_path: CameraPath,
    planned: list[PlannedCamera],
    reporter: Reporter,
) -> dict[str, Any]:
    """One pass over the depth: nearest depths (source and in every view), invalid share, path warnings.

    Returns:
        JSON types: ``z_min`` of the source, ``invalid_share``, ``scale``, and a list ``cameras`` of
        {``slug``, ``z_min``, ``warnings``}.
    """
    shown_by: list[dict[int, list[int]]] = [defaultdict(list) for _ in planned]
    for outputs, camera in zip(shown_by, planned, strict=True):
        for i, frame in enumerate(camera.path.source_index.tolist()):
            outputs[frame].append(i)
    nearest = [float("inf")] * len(planned)
    codes: list[list[frozenset[Any]]] = [[frozenset()] * len(camera.path) for camera in planned]
    z_min, num_invalid, scale = float("inf"), 0, "relative"
    for start, chunk in iter_chunks(depth):
        scale = chunk.scale
        for offset in range(len(chunk)):
            z, valid = chunk.depth[offset], chunk.valid[offset]
            num_invalid += valid.size - int(np.count_nonzero(valid))
            z_min = min(z_min, float(z[valid].min()))
            source = source_path[start + offset]
            for which, camera in enumerate(planned):
                for i in shown_by[which][start + offset]:
                    nearest[which] = min(nearest[which], nearest_in_view(z, valid, source, camera.path[i]))
                    codes[which][i] = frame_warnings(camera.path[i], source, z, valid)
            reporter.advance()
    num_pixels = depth.num_frames * depth.height * depth.width
    cameras = [
        {
            "slug": camera.slug,
            # a view that meets nothing stores no depth: any scale will do
            "z_min": nearest[which] if np.isfinite(nearest[which]) else z_min,
            "warnings": [f"camera {camera.slug}: {text}" for text in summarize(codes[which])],
        }
        for which, camera in enumerate(planned)
    ]
    return {"z_min": z_min, "invalid_share": num_invalid / num_pixels, "scale": scale, "cameras": cameras}
