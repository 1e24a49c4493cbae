"""Depth and cameras of a segment, by the chain's own stages, in memory."""

import shutil
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np

from ex4d.core.arrays import Int64
from ex4d.core.camera import CameraPath
from ex4d.core.clip import ArrayClip
from ex4d.core.depth import DepthVideo
from ex4d.core.video import Video
from ex4d.depth.result import DepthConfig, Selection
from ex4d.io.depth.files import open_depth
from ex4d.pipeline.config import RunConfig
from ex4d.pipeline.ingest import WorkingSource
from ex4d.pipeline.progress import SilentReporter
from ex4d.pipeline.recon import find_depth_and_cameras
from ex4d.pipeline.source_cameras import scale_cameras
from ex4d.pipeline.workspace import open_workspace
from ex4d.prepare.config import PrepareConfig
from ex4d.prepare.items import DEPTH_SUFFIX, Item
from ex4d.prepare.refused import Refused
from ex4d.prepare.segments import Segment


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentGeometry:
    """What masks are simulated with.

    Attributes:
        video: the target: frames of the bucket's size.
        depth: frame for frame with it.
        path: its cameras in the unit of the depth.
        info: JSON: where depth and cameras are from.
    """

    video: Video
    depth: DepthVideo
    path: CameraPath
    info: dict[str, Any]


def find_geometry(
    segment: Segment, depth: str, *, config: PrepareConfig, num_frames: int, frame_index: Int64, scratch: Path
) -> SegmentGeometry:
    """Depth and cameras of the resized frames, then cut to the bucket: estimators see all there is.

    Args:
        segment: the clip.
        depth: what ``--depth`` takes: an estimator's name or a file.
        config: device and size of networks, seed.
        num_frames: of the whole file: given depth may belong to all of it.
        frame_index: number in the file of each frame.
        scratch: folder for estimates, emptied afterwards.

    Raises:
        DepthError, InputError, CameraPathError: depth or cameras that cannot be had from this clip.
        WeightsError, MissingDependencyError, OutputError: not the clip's fault.
    """
    video = segment.video
    settings = DepthConfig(
        depth=depth, device=config.sample.depth_device, short_side=config.sample.depth_size, cache=False
    )
    run = RunConfig(input="clip", depth=settings, seed=config.seed)
    source = WorkingSource(
        clip=cast(Any, ArrayClip(video)),  # read-only use: any clip will do
        fps=Fraction(30),
        selection=Selection(num_frames=num_frames, height=video.height, width=video.width, frame_index=frame_index),
        rgbd=None,
        audio=None,
        is_still=False,
    )
    folder = scratch / "geometry"
    workspace = open_workspace(folder, {}, resume=False, overwrite=True)
    try:
        found, cameras = find_depth_and_cameras(run, source, workspace, SilentReporter(), {})
        path, scaled = scale_cameras(cameras, found)
        maps = found.depth.read(0, len(video))
    finally:
        workspace.close()
        shutil.rmtree(folder, ignore_errors=True)
    fit = segment.fit
    return SegmentGeometry(
        video=fit.crop_video(video),
        depth=DepthVideo(
            depth=fit.crop(maps.depth),
            valid=fit.crop(maps.valid),
            timestamps_s=maps.timestamps_s,
            scale=maps.scale,
        ),
        path=fit.crop_path(path),
        info={
            "source": found.name,
            "scale": maps.scale,
            "is_preview": found.is_preview,
            "cameras": cameras.origin,
            "notices": [*found.notices, *cameras.notices, *scaled],
        },
    )


def depth_beside(root: Path, item: Item) -> tuple[str, int]:
    """The file NAME.depth.npz of a clip, and how many frames of depth it holds.

    Raises:
        Refused: there is none, or the clip lies in an archive.
        DepthError: it is no depth.
    """
    if item.member or item.offset >= 0:
        raise Refused("depth", "depth files go with clips that are files, not with those in archives")
    path = (root / item.path).with_suffix("")
    path = path.with_name(path.name + DEPTH_SUFFIX)
    if not path.is_file():
        raise Refused("depth", f"no {path.name} beside the clip")
    return str(path), open_depth(path).num_frames


def all_frames(count: int) -> Int64:
    """int64 [count]: numbers of the frames of a segment that stands for itself."""
    return np.arange(count, dtype=np.int64)
