"""The first stage: any input → `source.mkv` at working size, decoded once and from then on our own file."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.core.video import Video
from ex4d.depth.registry import ESTIMATORS
from ex4d.depth.result import Selection
from ex4d.errors import ConfigError, InputError, OutputError
from ex4d.io import prior as names
from ex4d.io.decode.select import Selection as FrameSelection
from ex4d.io.decode.select import select
from ex4d.io.depth.images import list_depth_images
from ex4d.io.encode import LosslessWriter
from ex4d.io.rgbd.folder import DEFAULT_MAX_DEPTH_M, RgbdInput, is_rgbd_folder, open_rgbd
from ex4d.io.video import VideoReader, VideoSelection, probe_video
from ex4d.io.video_frames import resize, shrunk_size
from ex4d.io.video_lossless import VideoClip
from ex4d.pipeline.config import ClipConfig, RunConfig
from ex4d.pipeline.plan import is_camera_file
from ex4d.pipeline.progress import Reporter, timed_stage
from ex4d.pipeline.workspace import Workspace

LARGE_SIDE_PX = 1280
"""Above this every later stage is slow; the user is told."""
STILL_FPS = Fraction(24)
"""Frame rate of what is made from a still or from frames without a rate."""
OFFICIAL_STEP_PX = 64
OFFICIAL_MAX_SIDE_PX = 1024
ESTIMATOR_NAMES = tuple(estimator.name for estimator in ESTIMATORS)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkingSource:
    """The clip that a run works on.

    Attributes:
        clip: the frames at working size, our own lossless copy.
        fps: average rate.
        selection: which part of the input it is.
        rgbd: the recording it comes from, where it is one.
        audio: (file, seconds into it) where there is sound to copy.
        is_still: whether the input is one picture.
        focal_35mm: 35 mm equivalent of the focal length that the camera wrote into the file, mm, or None.
    """

    clip: VideoClip
    fps: Fraction
    selection: Selection
    rgbd: RgbdInput | None
    audio: tuple[Path, float] | None
    is_still: bool
    focal_35mm: float | None = None


def describe_input(config: RunConfig) -> dict[str, str]:
    """Name and SHA-256 of the input, and of a given depth: what --resume compares.

    Raises:
        InputError: nothing there, not readable, or a folder that holds no RGB-D recording.
    """
    path = Path(config.input)
    if not path.exists():
        raise InputError("a video, picture or RGB-D folder", f"nothing at {path}", "check the name")
    if path.is_dir() and not is_rgbd_folder(path):
        raise InputError(
            "a video file (or an RGB-D folder with colour and depth images)",
            f"the folder {path}, in which no RGB-D recording was recognised",
            "pass the video file itself",
        )
    described = {"name": path.name, "sha256": hash_path(path)}
    if is_given_depth(config):
        depth = Path(config.depth.depth)
        if not depth.exists():
            raise InputError(
                f"--depth auto, {', '.join(ESTIMATOR_NAMES)}, or a depth file or folder",
                f"nothing at {depth}",
                "check the name",
            )
        if depth.is_dir() and not is_rgbd_folder(depth):
            list_depth_images(depth)  # a mistyped folder is told apart before gigabytes of it are hashed
        described["depth_sha256"] = hash_path(depth)
    for spec in (*filter(is_camera_file, config.camera.cam), *_more_files(config)):
        if not Path(spec).exists():
            raise InputError(f"a file or folder at {spec}", "nothing there", "check the name")
        described[f"camera_sha256 {spec}"] = hash_path(Path(spec))
    return described


def _more_files(config: RunConfig) -> list[str]:
    """Other files that decide the result: source cameras and subject masks."""
    cameras = config.camera.source_cameras
    return [
        *([] if cameras in ("auto", "static") else [cameras]),
        *([] if config.depth.subject_mask is None else [config.depth.subject_mask]),
    ]


def check_apart(config: RunConfig, output: Path) -> None:
    """Refuse to write into what is read: no input inside the output folder, nor the output inside an input folder.

    Raises:
        OutputError: they are not apart.
    """
    inside = output.resolve()
    given = [config.input, *filter(is_camera_file, config.camera.cam), *_more_files(config)]
    for name in [*given, config.depth.depth] if is_given_depth(config) else given:
        path = Path(name).resolve()
        if path == inside or path.is_relative_to(inside) or inside.is_relative_to(path):
            raise OutputError(f"an output folder apart from {name}", str(output), "choose another one with -o")


def is_given_depth(config: RunConfig) -> bool:
    """Whether --depth names a file or folder."""
    return config.depth.depth not in ("auto", *ESTIMATOR_NAMES)


def hash_path(path: Path) -> str:
    """SHA-256 of a file, or of a folder's names and contents; raises InputError if it cannot be read."""
    digest = hashlib.sha256()
    try:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                name = file.relative_to(path).as_posix() if path.is_dir() else ""
                digest.update(f"{name}\0{file.stat().st_size}\0".encode())
                with file.open("rb") as stream:
                    while block := stream.read(1 << 20):
                        digest.update(block)
    except OSError as error:
        raise InputError(f"a readable file at {path}", error.strerror or str(error), "check the permissions") from error
    return digest.hexdigest()


def ingest(config: RunConfig, workspace: Workspace, reporter: Reporter, timings: dict[str, float]) -> WorkingSource:
    """Decode the selected frames into ``source.mkv`` (or find them there) and open it."""
    path = Path(config.input)
    rgbd = None
    if is_rgbd_folder(path):
        rgbd = open_rgbd(path, fps=config.clip.fps or 30.0, max_depth_m=config.depth.max_depth or DEFAULT_MAX_DEPTH_M)
        if config.depth.scale is not None:
            raise ConfigError(
                "no --depth-scale with an RGB-D recording", "one", "its format says what its numbers mean"
            )
    record = workspace.result("source")
    if record is None:
        record = _decode_rgbd(rgbd, config, workspace, reporter, timings) if rgbd else _decode_video(
            path, config, workspace, reporter, timings
        )  # fmt: skip
        workspace.finish("source", record)
    for notice in record["notices"]:
        reporter.note(notice)
    size = record["whole"]
    count = len(record["timestamps_s"])
    index = record["frame_index"] or list(range(count))
    whole = Selection(
        # without a frame count, or numbers for the frames, given depth must match the selected ones
        num_frames=(size["num_frames"] or max(index) + 1) if record["frame_index"] else count,
        height=size["height"],
        width=size["width"],
        frame_index=np.array(index, np.int64),
    )
    return WorkingSource(
        clip=VideoClip(workspace.staged(names.SOURCE), timestamps_s=np.array(record["timestamps_s"], np.float64)),
        fps=Fraction(record["fps"]),
        selection=whole,
        rgbd=rgbd,
        audio=(path, float(record["start_s"])) if record["has_audio"] else None,
        is_still=record["is_still"],
        focal_35mm=record["focal_35mm"],
    )


def _decode_video(
    path: Path, config: RunConfig, workspace: Workspace, reporter: Reporter, timings: dict[str, float]
) -> dict[str, Any]:
    clip = config.clip
    selection = VideoSelection(
        start_s=clip.start_s,
        end_s=clip.end_s,
        frames=clip.frame_range(),
        fps=clip.fps,
        max_side=clip.max_side,
        size=_official_size(path, config),
    )
    with VideoReader(path, selection=selection) as reader, timed_stage(
        reporter, timings, "decode", reader.num_frames_expected
    ):  # fmt: skip
        info = reader.info
        fps = Fraction(clip.fps).limit_denominator(1001) if clip.fps else (info.fps or STILL_FPS)
        times = _write_source(iter(reader), reader.height, reader.width, fps, workspace, reporter)
        frame_index = reader.frame_index()
        notices = list(reader.notices)
        height, width = reader.height, reader.width
        start_s = reader.first_time_s
    notices += _size_notice(height, width)
    return {
        "fps": str(fps),
        "timestamps_s": times,
        "frame_index": frame_index,
        "whole": {"num_frames": info.num_frames, "height": info.height, "width": info.width},
        "has_audio": info.has_audio and clip.fps is None,
        "start_s": start_s,
        "is_still": info.is_still,
        "focal_35mm": info.focal_35mm,
        "notices": notices,
    }


def _decode_rgbd(
    rgbd: RgbdInput, config: RunConfig, workspace: Workspace, reporter: Reporter, timings: dict[str, float]
) -> dict[str, Any]:
    """Frames of a recording: selected by the same rules, resized like a video's."""
    video = rgbd.video
    chosen = _select_times(video.timestamps_s, config.clip)
    times, index = [time for time, _ in chosen], [frame for _, frame in chosen]
    height, width = shrunk_size(video.height, video.width, config.clip.max_side)
    fps = _average_rate(times)

    def chunks() -> Iterator[Video]:
        for time, frame in chosen:
            picture = resize(video.read(frame, frame + 1).frames[0], height, width)
            yield Video(frames=picture[None], timestamps_s=np.array([time]))

    with timed_stage(reporter, timings, "decode", len(index)):
        _write_source(chunks(), height, width, fps, workspace, reporter)
    return {
        "fps": str(fps),
        "timestamps_s": times,
        "frame_index": index,
        "whole": {"num_frames": video.num_frames, "height": video.height, "width": video.width},
        "has_audio": False,
        "start_s": 0.0,
        "is_still": False,
        "focal_35mm": None,
        "notices": _size_notice(height, width),
    }


def _write_source(
    chunks: Iterator[Video], height: int, width: int, fps: Fraction, workspace: Workspace, reporter: Reporter
) -> list[float]:
    times: list[float] = []
    path = workspace.staged(names.SOURCE)
    with LosslessWriter(path, "rgb", height=height, width=width, fps=fps) as writer:
        for chunk in chunks:
            writer.write(chunk.frames, chunk.timestamps_s)
            times += chunk.timestamps_s.tolist()
            reporter.advance(len(chunk))
    return times


def _select_times(timestamps_s: np.ndarray, clip: ClipConfig) -> list[tuple[float, int]]:
    first, stop = clip.frame_range() or (0, None)
    wanted = FrameSelection(start_s=clip.start_s, end_s=clip.end_s, first=first, stop=stop, fps=clip.fps)
    relative = timestamps_s - timestamps_s[0]
    interval_s = float(1 / _average_rate(relative.tolist()))
    numbered = zip(relative.tolist(), range(len(relative)), strict=True)
    chosen = list(select(numbered, wanted, nominal_interval_s=interval_s))
    if not chosen:
        raise InputError("a selection with at least one frame", f"none of {len(relative)}", "change --frames")
    return chosen


def _average_rate(times: list[float]) -> Fraction:
    if len(times) < 2 or times[-1] <= times[0]:
        return STILL_FPS
    return Fraction((len(times) - 1) / (times[-1] - times[0])).limit_denominator(1001)


def _official_size(path: Path, config: RunConfig) -> tuple[int, int] | None:
    """Official geometry rounds each side to 64 px by itself; frames with given depth keep their size."""
    if config.geometry.name != "official" or is_given_depth(config):
        return None
    info = probe_video(path)
    limit = min(config.clip.max_side or OFFICIAL_MAX_SIDE_PX, OFFICIAL_MAX_SIDE_PX)
    return official_size(info.height, info.width, limit)


def official_size(height: int, width: int, max_side_px: int = OFFICIAL_MAX_SIDE_PX) -> tuple[int, int]:
    """Working size of the official release: sides rounded to 64 px, the longer one at most 1024."""
    step = OFFICIAL_STEP_PX
    sides = round(height / step) * step, round(width / step) * step
    if max(sides) > max_side_px:
        scale = max_side_px / max(height, width)
        sides = round(height * scale / step) * step, round(width * scale / step) * step
    return max(sides[0], step), max(sides[1], step)


def _size_notice(height: int, width: int) -> list[str]:
    if max(height, width) <= LARGE_SIDE_PX:
        return []
    return [f"frames of {width}x{height} make every stage slow; --max-side {LARGE_SIDE_PX} or less is faster"]
