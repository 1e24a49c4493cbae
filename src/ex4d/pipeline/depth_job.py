"""Depth of a clip as files of its own: what `ex4d depth` writes.

::

    depth.npz          depth with its cameras, float32 (`io.depth.write.npz_depth`)
    depth/000000.exr   the same, an image a frame
    depth.mkv          the same as FFV1 codes, and depth.json, which says what they mean
    preview.mp4        the clip beside its depth in colours
    source_cameras.json
    stats.json         settings, where the depth is from, and numbers a frame; its presence says that all is there
    timings.json       the only file that may differ between two equal runs
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, get_args

from ex4d.core.camera import CameraPath
from ex4d.core.depth import DepthVideo
from ex4d.core.version import __version__
from ex4d.depth.registry import ESTIMATORS
from ex4d.depth.result import DepthResult
from ex4d.errors import CameraPathError, ConfigError, OutputError
from ex4d.io.atomic import write_json_atomic
from ex4d.io.cameras.own_json import write_cameras_json
from ex4d.io.depth.write import known_depth, npz_depth, require_exr, write_exr_depth
from ex4d.io.prior import PREVIEW, PRIOR, SOURCE_CAMERAS, TIMINGS
from ex4d.io.strict_json import read_json_object
from ex4d.pipeline.config import RunConfig, config_to_dict
from ex4d.pipeline.depth_files import measure_depth, write_depth_video, write_preview
from ex4d.pipeline.depth_weights import prepare_depth
from ex4d.pipeline.ingest import WorkingSource, check_apart, describe_input, ingest
from ex4d.pipeline.progress import Reporter, SilentReporter, timed_stage
from ex4d.pipeline.recon import find_depth_and_cameras
from ex4d.pipeline.run import versions
from ex4d.pipeline.source_cameras import SourceCameras, scale_cameras
from ex4d.pipeline.stats_folder import STATS, StatsFolder
from ex4d.pipeline.workspace import Workspace, carried_out, is_complete, open_workspace

DepthFormat = Literal["npz", "exr", "mkv"]
NPZ, VIDEO, VIDEO_INFO, EXR_FOLDER = "depth.npz", "depth.mkv", "depth.json", "depth"
_SCHEMA_VERSION = 1
OF_THIS_MACHINE = ("depth taken from the cache", "depth is not cached", "the cached depth was damaged")
"""Notices of `depth.cache` that an equal run elsewhere would not make: they are said, and not stored."""


def write_depth_folder(
    config: RunConfig,
    output: Path | str,
    *,
    formats: Sequence[DepthFormat] = ("npz",),
    resume: bool = False,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> StatsFolder:
    """Depth and cameras of a clip, found as `ex4d recon` finds them, as files.

    Args:
        config: input, part of it, depth and source camera; the rest is stored and not used.
        output: the folder to write.
        formats: of the depth maps; each once.
        resume: go on with an interrupted run of the same settings and input.
        overwrite: replace what an earlier run left in `output`.
        reporter: told of progress and notices; default: silent.

    Raises:
        Ex4dError: anything wrong with input, settings, estimator or output, before long work where it can be known.
            An unusable input leaves nothing behind; a failed output keeps finished stages for `resume`.
    """
    output, reporter = Path(output), reporter or SilentReporter()
    wanted = _check_formats(formats)
    check_apart(config, output)
    if (output / PRIOR).exists():
        raise OutputError(f"a folder for depth alone at {output}", f"one with a {PRIOR}", "choose another folder")
    request = {
        "version": __version__,
        "config": _settings(config),
        "formats": wanted,
        "input": describe_input(config),
    }
    if resume and is_complete(output, request, [""], [*_fixed_files(wanted), PREVIEW, SOURCE_CAMERAS], record=STATS):
        return StatsFolder.read(output)
    workspace = open_workspace(output, request, resume=resume, overwrite=overwrite)
    if workspace.publish_pending():
        workspace.close()
        return StatsFolder.read(output)
    with carried_out(workspace):
        return _write(workspace, config, request, reporter)


def _settings(config: RunConfig) -> dict[str, Any]:
    """What of a config decides depth and source cameras; `ex4d recon --from stats.json` takes it as it is."""
    data = config_to_dict(config)
    data["camera"] = {name: data["camera"][name] for name in ("source_cameras", "fov_deg", "focal_px")}
    return {name: data[name] for name in ("input", "clip", "camera", "depth", "geometry", "seed")}


def _check_formats(formats: Sequence[DepthFormat]) -> list[str]:
    known = get_args(DepthFormat)
    if not formats or len(set(formats)) != len(formats) or set(formats) - set(known):
        raise ConfigError(f"--format {', '.join(known)}, each at most once", ", ".join(formats) or "none")
    if "exr" in formats:
        require_exr()
    return [name for name in known if name in formats]


def _write(workspace: Workspace, config: RunConfig, request: dict[str, Any], reporter: Reporter) -> StatsFolder:
    timings: dict[str, float] = {}
    prepare_depth(config, reporter)
    with ExitStack() as stack:
        source = ingest(config, workspace, reporter, timings)
        stack.callback(source.clip.close)
        depth, cameras = find_depth_and_cameras(config, source, workspace, reporter, timings)
        path, scaled = scale_cameras(cameras, depth)
        notices = [f"depth: {depth.description}", *depth.notices, *scaled]
        for notice in notices:
            reporter.note(notice)
        measured = _write_maps(workspace, request["formats"], source, depth, path, reporter, timings)
        _write_pictures(workspace, request["formats"], source, depth, measured, reporter, timings)
    write_cameras_json(workspace.staged(SOURCE_CAMERAS), path)
    ingested = workspace.result("source") or {}
    stored = [*ingested.get("notices", ()), *cameras.notices, *notices]
    stats = {
        **request,
        **_describe(source, depth, cameras, measured),
        "notices": [notice for notice in stored if not notice.startswith(OF_THIS_MACHINE)],
        **{name: measured[name] for name in ("nearest", "median", "farthest", "mean", "frames")},
    }
    _publish(workspace, stats, timings)
    return StatsFolder(folder=workspace.output, stats=stats, timings_s=timings)


def _write_maps(
    workspace: Workspace,
    formats: Sequence[str],
    source: WorkingSource,
    depth: DepthResult,
    path: CameraPath,
    reporter: Reporter,
    timings: dict[str, float],
) -> dict[str, Any]:
    """depth.npz and depth/*.exr, and what `measure_depth` says."""
    record = workspace.result("maps")
    if record is not None:
        return record
    clip = depth.depth
    with timed_stage(reporter, timings, "write depth", clip.num_frames), ExitStack() as stack:
        writers: list[Callable[[int, DepthVideo], None]] = []
        if "npz" in formats:
            times, scale = source.clip.timestamps_s, clip.read(0, 1).scale
            append = stack.enter_context(
                npz_depth(workspace.staged(NPZ), cameras=path, timestamps_s=times, scale=scale)
            )
            writers.append(lambda _, chunk: append(chunk))
        if "exr" in formats:
            writers.append(lambda start, chunk: _write_exr(workspace, start, chunk))
        record = measure_depth(source.clip, clip, writers, reporter.advance)
    workspace.finish("maps", record)
    return record


def _write_exr(workspace: Workspace, start: int, chunk: DepthVideo) -> None:
    for number, depth in enumerate(known_depth(chunk), start):
        write_exr_depth(workspace.staged(f"{EXR_FOLDER}/{number:06d}.exr"), depth)


def _write_pictures(
    workspace: Workspace,
    formats: Sequence[str],
    source: WorkingSource,
    depth: DepthResult,
    measured: Mapping[str, Any],
    reporter: Reporter,
    timings: dict[str, float],
) -> None:
    """preview.mp4 and depth.mkv: their colours and codes are those of the whole clip."""
    if workspace.result("pictures") is not None:
        return
    clip = depth.depth
    with timed_stage(reporter, timings, "preview", clip.num_frames):
        preview = workspace.staged(PREVIEW)
        write_preview(preview, source.clip, clip, ends=measured["colors"], fps=source.fps, advance=reporter.advance)
    if "mkv" in formats:
        with timed_stage(reporter, timings, "depth video", clip.num_frames):
            z_min, video = measured["nearest"] or 1.0, workspace.staged(VIDEO)
            write_depth_video(video, clip, z_min=z_min, fps=source.fps, advance=reporter.advance)
    workspace.finish("pictures", {})


def _describe(
    source: WorkingSource, depth: DepthResult, cameras: SourceCameras, measured: Mapping[str, Any]
) -> dict[str, Any]:
    """stats.json without its numbers."""
    licence = next((estimator.licence for estimator in ESTIMATORS if estimator.name == depth.name), None)
    return {
        "schema_version": _SCHEMA_VERSION,
        "versions": versions(),
        "num_frames": source.clip.num_frames,
        "height": source.clip.height,
        "width": source.clip.width,
        "fps": str(source.fps),
        "depth": {
            "source": depth.name,
            "licence": licence,
            "description": depth.description,
            "scale": measured["scale"],
            "is_preview": depth.is_preview,
        },
        "intrinsics": cameras.intrinsics,
        "source_cameras": {"origin": cameras.origin, "motion": cameras.motion},
    }


def _publish(workspace: Workspace, stats: dict[str, Any], timings: dict[str, float]) -> None:
    """Move everything to its final name, stats.json last."""
    write_json_atomic(workspace.staged(TIMINGS), {"seconds": timings})
    write_json_atomic(workspace.staged(STATS), stats)
    num_images = stats["num_frames"] if "exr" in stats["formats"] else 0
    images = [f"{EXR_FOLDER}/{number:06d}.exr" for number in range(num_images)]
    moves = [*_fixed_files(stats["formats"]), *images, PREVIEW, SOURCE_CAMERAS, TIMINGS, STATS]
    outdated = [name for name in _earlier_files(workspace.output) if name not in moves or name == STATS]
    workspace.publish(moves, outdated=outdated)


def _fixed_files(formats: Sequence[str]) -> list[str]:
    """Depth files whose names do not depend on the clip."""
    return [*([NPZ] if "npz" in formats else []), *([VIDEO, VIDEO_INFO] if "mkv" in formats else [])]


def _earlier_files(folder: Path) -> list[str]:
    """What an earlier run left in a folder: maps in a format, say, that are of another clip now."""
    try:
        if read_json_object(folder / STATS).get("schema_version") != _SCHEMA_VERSION:
            return []
    except CameraPathError:
        return []
    images = [path.name for path in (folder / EXR_FOLDER).glob("*.exr") if re.fullmatch(r"\d{6}\.exr", path.name)]
    fixed = [
        name for name in (NPZ, VIDEO, VIDEO_INFO, PREVIEW, SOURCE_CAMERAS, TIMINGS, STATS) if (folder / name).is_file()
    ]
    return [*fixed, *(f"{EXR_FOLDER}/{name}" for name in sorted(images))]
