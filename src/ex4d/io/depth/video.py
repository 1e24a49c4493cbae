"""Depth as a gray16 FFV1 video: our own ``source_depth.mkv`` and plain 16-bit tracks of other tools."""

from pathlib import Path
from typing import Any

import numpy as np

from ex4d.core.arrays import Float32, Int64
from ex4d.core.depth import DepthScale
from ex4d.errors import CameraPathError, DepthError
from ex4d.io.atomic import write_json_atomic
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
    """z_min of a depth video of ours, or None where nothing beside it says that it is one.

    It stands in ``prior.json`` of the prior folder that the video lies in, as one number, or one number for each video
    under its name without suffix; or in ``NAME.json`` beside ``NAME.mkv`` (see `write_z_min`).

    Raises:
        DepthError: such a file that cannot be read or names no usable z_min.
    """
    prior, own = path.with_name("prior.json"), path.with_suffix(".json")
    info = prior if prior.is_file() else own
    if not info.is_file():
        return None
    try:
        content: dict[str, Any] = read_json_object(info)
        z_min = content.get("z_min")
        if z_min is None and info == own:
            return None  # another program's file of that name
        if isinstance(z_min, dict):
            z_min = z_min.get(path.stem)
        value = float(z_min if z_min is not None else "nothing")
    except (CameraPathError, ValueError, TypeError) as error:
        raise DepthError(f"z_min for {path.name} in {info}", str(error), f"write {info.parent} again") from error
    if not 0 < value < float("inf"):
        raise DepthError(f"z_min > 0 for {path.name} in {info}", f"{value}", f"write {info.parent} again")
    return value


def write_z_min(path: Path, z_min: float, scale: DepthScale) -> None:
    """Note beside a depth video what its codes (`core.depth_codes`) mean, for `read_z_min` and for people.

    Args:
        path: the video, ``NAME.mkv``; ``NAME.json`` is written.
        z_min: the nearest depth of the clip, > 0.
        scale: of the depth.
    """
    content = {"codes": "round(65535 * z_min / z), 0 = unknown", "z_min": z_min, "scale": scale}
    write_json_atomic(path.with_suffix(".json"), content)
