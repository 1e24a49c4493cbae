"""What a run finds in a clip by itself: depth and cameras, by the chain's own stages, kept in memory."""

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np

from ex4d.core.camera import CameraPath
from ex4d.core.clip import ArrayClip, Clip
from ex4d.core.depth import DepthVideo
from ex4d.core.video import Video
from ex4d.depth.result import DepthConfig, Selection
from ex4d.pipeline.config import RunConfig
from ex4d.pipeline.ingest import WorkingSource
from ex4d.pipeline.progress import SilentReporter
from ex4d.pipeline.recon import find_depth_and_cameras
from ex4d.pipeline.source_cameras import SourceCameras, find_source_cameras, scale_cameras
from ex4d.pipeline.workspace import Workspace, open_workspace


def clip_geometry(video: Clip[Video], depth: str) -> tuple[ArrayClip[DepthVideo], CameraPath, SourceCameras]:
    """Depth of a clip, its cameras in the unit of that depth, and where these are from.

    Args:
        video: the pictures; nothing else is told.
        depth: what ``--depth`` takes.
    """
    with _workspace() as workspace:
        config = RunConfig(input="clip", depth=DepthConfig(depth=depth, cache=False))
        found, cameras = find_depth_and_cameras(config, _source(video), workspace, SilentReporter(), {})
        path, _ = scale_cameras(cameras, found)
        return ArrayClip(found.depth.read(0, video.num_frames)), path, cameras


def clip_cameras(video: Clip[Video]) -> SourceCameras:
    """Cameras alone, as they are found before depth is estimated."""
    with _workspace() as workspace:
        config = RunConfig(input="clip")
        return find_source_cameras(config, _source(video), None, workspace, SilentReporter(), {})


@contextmanager
def _workspace() -> Generator[Workspace, None, None]:
    with tempfile.TemporaryDirectory(prefix="ex4d-geometry-") as folder:
        workspace = open_workspace(Path(folder) / "out", {}, resume=False, overwrite=False)
        yield workspace
        workspace.close()


def _source(video: Clip[Video]) -> WorkingSource:
    return WorkingSource(
        clip=cast(Any, video),  # read-only use: any clip will do
        fps=Fraction(30),
        selection=Selection(
            num_frames=video.num_frames,
            height=video.height,
            width=video.width,
            frame_index=np.arange(video.num_frames, dtype=np.int64),
        ),
        rgbd=None,
        audio=None,
        is_still=False,
    )
