"""Depth as a gray16 FFV1 video: our own ``source_depth.mkv`` and plain 16-bit tracks of other tools."""

from pathlib import Path
from typing import Any

import numpy as np

from ex4d.core.arrays import Float32, Int64
from ex4d.errors import CameraPathError, DepthError
from ex4d.io.depth.clip import frame_runs
from ex4d.io.depth.raw import check_declared_size
from ex4d.io.strict_json import read_json_object
from ex4d.io.video_lossless import LosslessClip

VIDEO_SUFFIXES = (".mkv", ".avi", ".nut", ".mov")
CODE_MAX = 65535.0


class VideoFrames:
    """Codes of a gray16 video, decoded in the sandboxed child; satisfies `DepthFrames`.

    Args:
        path: the video.

    Raises:
        MediaError: not a readable video within the limits.
        DepthError: not 16-bit gray.
    """

    def __init__(self, path: Path) -> None:
        self._clip = LosslessClip(path, pix_fmt="gray16")
        self.num_frames = self._clip.num_frames
        self.height = self._clip.height
        self.width = self._clip.width
        self.timestamps_s = self._clip.timestamps_s
        check_declared_size(path.name, num_frames=self.num_frames, height=self.height, width=self.width)

    def read_frames(self, indices: Int64) -> Float32:
        """float32 [n,H,W]: the codes 0–65535; consecutive runs are read in one go."""
        parts = [self._clip.read(start, stop) for start, stop in frame_runs(indices)]
        return np.concatenate(parts).astype(np.float32)


def read_z_min(path: Path) -> float | None:
    """z_min of the prior folder that a depth video lies in, or None where no ``prior.json`` is beside it.

    ``prior.json`` holds ``z_min`` as one number, or one number for each video under its name without suffix.

    Raises:
        DepthError: a ``prior.json`` that cannot be read or names no usable z_min.
    """
    info = path.with_name("prior.json")
    if not info.is_file():
        return None
    try:
        content: dict[str, Any] = read_json_object(info)
        z_min = content.get("z_min")
        if isinstance(z_min, dict):
            z_min = z_min.get(path.stem)
        value = float(z_min if z_min is not None else "nothing")
    except (CameraPathError, ValueError, TypeError) as error:
        raise DepthError(f"z_min for {path.name} in {info}", str(error), "write the prior folder again") from error
    if not 0 < value < float("inf"):
        raise DepthError(f"z_min > 0 for {path.name} in {info}", f"{value}", "write the prior folder again")
    return value
