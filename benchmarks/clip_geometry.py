"""What a run finds in a clip by itself: depth and cameras, by the chain's own stages, kept in memory."""

import tempfile
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
from ex4d.pipeline.source_cameras import SourceCameras, scale_cameras
from ex4d.pipeline.workspace import open_workspace


def clip_geometry(video: Clip[Video], depth: str) -> tuple[ArrayClip[DepthVideo], CameraPath, SourceCameras]:
    """Depth of a clip, its cameras in the unit of that depth, and where these are from.

    Args:
        video: the pictures; nothing else is told.
        depth: what ``--depth`` takes.
    """
    source = WorkingSource(
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
    config = RunConfig(input="clip", depth=DepthConfig(depth=depth, cache=False))
    with tempfile.TemporaryDirectory(prefix="ex4d-geometry-") as folder:
        workspace = open_workspace(Path(folder) / "out", {}, resume=False, overwrite=False)
        found, cameras = find_depth_and_cameras(config, source, workspace, SilentReporter(), {})
        path, _ = scale_cameras(cameras, found)
        chunk = found.depth.read(0, video.num_frames)
        workspace.close()
    return ArrayClip(chunk), path, cameras
