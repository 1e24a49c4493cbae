"""Simulated masks of a clip as files: what `ex4d masks` writes.

::

    sheet.png          the clip, and what survives of it under each mask, in some of its frames: look at this first
    preview.mp4        the same as video, side by side
    mask_00.mkv        each mask, FFV1 gray, 255 = survived (as in mask.mkv of a prior folder)
    stats.json         settings, how each mask was made, what share of each frame survives; there when all is there
    timings.json       the only file that may differ between two equal runs
"""

import math
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from ex4d.core.arrays import Bool, UInt8
from ex4d.core.camera import CameraPath
from ex4d.core.clip import iter_chunks
from ex4d.core.version import __version__
from ex4d.depth.result import DepthResult
from ex4d.errors import CameraPathError, ConfigError, InputError, OutputError
from ex4d.io.atomic import atomic_path, write_json_atomic
from ex4d.io.encode import LosslessWriter
from ex4d.io.encode_delivery import DeliverySettings, DeliveryWriter
from ex4d.io.prior import PREVIEW, PRIOR, TIMINGS
from ex4d.io.strict_json import read_json_object
from ex4d.io.video_frames import resize, shrunk_size
from ex4d.io.video_lossless import LosslessClip
from ex4d.masking.config import MaskConfig
from ex4d.masking.simulate import SimulatedMasks, mask_seed, simulate_masks
from ex4d.masking.tracker import Tracker, make_tracker
from ex4d.pipeline.config import RunConfig, config_to_dict
from ex4d.pipeline.depth_job import OF_THIS_MACHINE
from ex4d.pipeline.depth_weights import prepare_depth
from ex4d.pipeline.ingest import WorkingSource, check_apart, describe_input, ingest
from ex4d.pipeline.progress import Reporter, SilentReporter, timed_stage
from ex4d.pipeline.recon import find_depth_and_cameras, num_threads
from ex4d.pipeline.run import versions
from ex4d.pipeline.sheet import compose_sheet, sheet_cell, sheet_frames
from ex4d.pipeline.source_cameras import scale_cameras
from ex4d.pipeline.stats_folder import STATS, StatsFolder
from ex4d.pipeline.workspace import Workspace, carried_out, is_complete, open_workspace

Kinds = Literal["both", "rendering", "tracking"]
SHEET = "sheet.png"
MAX_MASKS = 64
_SCHEMA_VERSION = 1
_NUM_SHOWN = 5
_PREVIEW_SIDE_PX = 360


@dataclass(frozen=True, slots=True, kw_only=True)
class MasksRequest:
    """What `write_masks_folder` is asked for.

    Attributes:
        run: input, part of it, depth, source camera and seed; the rest is stored and not used.
        masks: what is drawn from; its `rendering_share` is replaced by `kinds`.
        num_masks: 1–64.
        kinds: ``both``: rendering and tracking masks take turns.
    """

    run: RunConfig
    masks: MaskConfig = field(default_factory=MaskConfig)
    num_masks: int = 4
    kinds: Kinds = "both"

    def __post_init__(self) -> None:
        if not 1 <= self.num_masks <= MAX_MASKS:
            raise ConfigError(f"--num-masks from 1 to {MAX_MASKS}", str(self.num_masks), "change it")
        if self.kinds not in ("both", "rendering", "tracking"):
            raise ConfigError("--kind both, rendering or tracking", repr(self.kinds), "choose one of them")

    def config_of(self, number: int) -> MaskConfig:
        """What mask `number` is drawn from: its kind is certain."""
        is_rendering = self.kinds == "rendering" or (self.kinds == "both" and number % 2 == 0)
        return replace(self.masks, rendering_share=float(is_rendering))

    def to_dict(self) -> dict[str, Any]:
        """JSON of all that decides a byte."""
        return {
            "version": __version__,
            "config": config_to_dict(self.run),
            "masks": _json(asdict(self.masks)),
            "num_masks": self.num_masks,
            "kinds": self.kinds,
            "input": describe_input(self.run),
        }


def write_masks_folder(
    request: MasksRequest,
    output: Path | str,
    *,
    resume: bool = False,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> StatsFolder:
    """Masks of a clip, with depth and cameras found as `ex4d recon` finds them, as files.

    Args:
        request: clip and settings.
        output: the folder to write.
        resume: go on with an interrupted run of the same settings and input.
        overwrite: replace what an earlier run left in `output`.
        reporter: told of progress and notices; default: silent.

    Raises:
        Ex4dError: anything wrong with input, settings, tracker or output, before long work where it can be known.
            An unusable input leaves nothing behind; a failed output keeps finished masks for `resume`.
    """
    output, reporter = Path(output), reporter or SilentReporter()
    tracker = None if request.kinds == "rendering" or request.num_masks == 1 else make_tracker(request.masks.tracker)
    check_apart(request.run, output)
    if (output / PRIOR).exists():
        raise OutputError(f"a folder for masks alone at {output}", f"one with a {PRIOR}", "choose another folder")
    described = request.to_dict()
    if resume and is_complete(output, described, [""], [*_mask_files(request.num_masks), SHEET, PREVIEW], record=STATS):
        return StatsFolder.read(output)
    workspace = open_workspace(output, described, resume=resume, overwrite=overwrite)
    if workspace.publish_pending():
        workspace.close()
        return StatsFolder.read(output)
    with carried_out(workspace):
        return _Job(request, described, workspace, reporter, tracker).write()


def _mask_files(num_masks: int) -> list[str]:
    return [f"mask_{number:02d}.mkv" for number in range(num_masks)]


class _Job:
    """One run in its workspace."""

    def __init__(
        self,
        request: MasksRequest,
        described: dict[str, Any],
        workspace: Workspace,
        reporter: Reporter,
        tracker: Tracker | None,
    ) -> None:
        self._request, self._described = request, described
        self._workspace, self._reporter, self._tracker = workspace, reporter, tracker
        self._timings: dict[str, float] = {}

    def write(self) -> StatsFolder:
        """All stages that are not finished yet, and the last step."""
        run, workspace, reporter = self._request.run, self._workspace, self._reporter
        prepare_depth(run, reporter)
        with ExitStack() as stack:
            source = ingest(run, workspace, reporter, self._timings)
            stack.callback(source.clip.close)
            if source.clip.num_frames < 2:
                raise InputError("a clip of at least 2 frames", "1 frame", "choose a longer part, or a video")
            depth, cameras = find_depth_and_cameras(run, source, workspace, reporter, self._timings)
            path, scaled = scale_cameras(cameras, depth)
            notices = [f"depth: {depth.description}", *depth.notices, *cameras.notices, *scaled]
            for notice in notices:
                reporter.note(notice)
            masks = [self._mask(number, source, depth, path) for number in range(self._request.num_masks)]
            with timed_stage(reporter, self._timings, "pictures", source.clip.num_frames):
                self._write_pictures(source, masks)
        ingested = (workspace.result("source") or {}).get("notices", ())
        stats = {
            **self._described,
            **_describe(source, depth, path),
            "source_cameras": {"origin": cameras.origin, "motion": cameras.motion},
            "notices": [*ingested, *(notice for notice in notices if not notice.startswith(OF_THIS_MACHINE))],
            "of_mask": masks,
        }
        self._publish(stats)
        return StatsFolder(folder=workspace.output, stats=stats, timings_s=self._timings)

    def _mask(self, number: int, source: WorkingSource, depth: DepthResult, path: CameraPath) -> dict[str, Any]:
        """Make and store a mask; returns its description with ``coverage``, the surviving share a frame."""
        stage = f"mask_{number:02d}"
        record = self._workspace.result(stage)
        if record is None:
            config = self._request.config_of(number)
            kind = "rendering" if config.rendering_share == 1 else "tracking"
            with timed_stage(self._reporter, self._timings, f"{kind} masks", source.clip.num_frames):
                made = simulate_masks(
                    source.clip,
                    depth.depth,
                    path,
                    config=config,
                    seed=mask_seed(self._request.run.seed, number),
                    tracker=self._tracker,
                    num_threads=num_threads(),
                )
                self._reporter.advance(source.clip.num_frames)
            self._store(number, made, source)
            record = {**made.description, "coverage": made.survived.mean(axis=(1, 2), dtype=np.float64).tolist()}
            self._workspace.finish(stage, record)
        for notice in record["notices"]:
            self._reporter.note(f"mask {number:02d}: {notice}")
        return record

    def _store(self, number: int, made: SimulatedMasks, source: WorkingSource) -> None:
        size = {"height": source.clip.height, "width": source.clip.width, "fps": source.fps}
        with LosslessWriter(self._workspace.staged(_mask_files(number + 1)[number]), "gray", **size) as writer:
            writer.write(np.where(made.survived, np.uint8(255), np.uint8(0)), source.clip.timestamps_s)

    def _write_pictures(self, source: WorkingSource, masks: list[dict[str, Any]]) -> None:
        """sheet.png and preview.mp4, from the stored masks."""
        with ExitStack() as stack:
            files = [self._workspace.staged(name) for name in _mask_files(len(masks))]
            times = source.clip.timestamps_s
            clips = [stack.enter_context(LosslessClip(file, "gray", timestamps_s=times)) for file in files]
            _write_sheet(self._workspace.staged(SHEET), source, clips, masks)
            self._write_preview(source, clips)

    def _write_preview(self, source: WorkingSource, clips: list[LosslessClip]) -> None:
        """The clip and every mask in a grid about as wide as high."""
        height, width = shrunk_size(source.clip.height, source.clip.width, _PREVIEW_SIDE_PX)
        columns = math.ceil(math.sqrt(len(clips) + 1))
        rows = math.ceil((len(clips) + 1) / columns)
        settings = DeliverySettings(crf=20, preset="veryfast")
        size = {"height": rows * height, "width": columns * width, "fps": source.fps}
        with DeliveryWriter(self._workspace.staged(PREVIEW), **size, settings=settings) as writer:
            for start, video in iter_chunks(source.clip):
                shown = np.zeros((len(video), rows * height, columns * width, 3), np.uint8)
                masks = [None, *(clip.read(start, start + len(video)) for clip in clips)]
                for cell, mask in enumerate(masks):
                    top, left = cell // columns * height, cell % columns * width
                    for slot, frame in enumerate(video.frames):
                        seen = frame if mask is None else _seen(frame, mask[slot] > 0)
                        shown[slot, top : top + height, left : left + width] = resize(seen, height, width)
                writer.write(shown, video.timestamps_s)
                self._reporter.advance(len(video))

    def _publish(self, stats: dict[str, Any]) -> None:
        """Move everything to its final name, stats.json last."""
        workspace = self._workspace
        write_json_atomic(workspace.staged(TIMINGS), {"seconds": self._timings})
        write_json_atomic(workspace.staged(STATS), stats)
        moves = [*_mask_files(self._request.num_masks), SHEET, PREVIEW, TIMINGS, STATS]
        outdated = [name for name in _earlier_files(workspace.output) if name not in moves or name == STATS]
        workspace.publish(moves, outdated=outdated)


def _write_sheet(path: Path, source: WorkingSource, clips: list[LosslessClip], masks: list[dict[str, Any]]) -> None:
    """A row for the clip and one for every mask; a column a frame, first and last included."""
    shown = sheet_frames(source.clip.num_frames, _NUM_SHOWN)
    frames = [source.clip.read(i, i + 1).frames[0] for i in shown]
    rows = [("source", [sheet_cell(frame) for frame in frames])]
    for number, (clip, mask) in enumerate(zip(clips, masks, strict=True)):
        seen = [_seen(frame, clip.read(i, i + 1)[0] > 0) for frame, i in zip(frames, shown, strict=True)]
        coverage = " ".join(f"{100 * mask['coverage'][i]:.0f}" for i in shown)
        where = f", set in frame {mask['keyframe']}, {mask['tracker']}" if mask["kind"] == "tracking" else ""
        label = f"mask {number:02d}   {mask['kind']}   {mask['cam']}{where}   survived {coverage} %"
        rows.append((label, [sheet_cell(one) for one in seen]))
    with atomic_path(path) as temporary:
        sheet: Image.Image = compose_sheet([f"frame {i}" for i in shown], rows)
        sheet.save(temporary, format="PNG", compress_level=3)


def _seen(frame: UInt8, survived: Bool) -> UInt8:
    """What the model sees: black where nothing survived."""
    return np.where(survived[..., None], frame, np.uint8(0))


def _describe(source: WorkingSource, depth: DepthResult, path: CameraPath) -> dict[str, Any]:
    return {
        "schema_version": _SCHEMA_VERSION,
        "versions": versions(),
        "num_frames": source.clip.num_frames,
        "height": source.clip.height,
        "width": source.clip.width,
        "fps": str(source.fps),
        "depth": {"source": depth.name, "description": depth.description, "is_preview": depth.is_preview},
        "focal_px": float(path.K[0, 0, 0]),
    }


def _earlier_files(folder: Path) -> list[str]:
    """What an earlier run left in a folder."""
    try:
        stored = read_json_object(folder / STATS)
    except CameraPathError:
        return []
    if stored.get("schema_version") != _SCHEMA_VERSION or "of_mask" not in stored:
        return []
    names = [*_mask_files(MAX_MASKS), SHEET, PREVIEW, TIMINGS, STATS]
    return [name for name in names if (folder / name).is_file()]


def _json(value: Any) -> Any:
    """Tuples as lists, all the way down."""
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    return [_json(item) for item in value] if isinstance(value, tuple) else value
