"""What the opener of a depth format hands on: the frames, and what the format knows beside them."""

from dataclasses import dataclass

import numpy as np

from ex4d.core.arrays import Float64
from ex4d.core.camera import CameraPath, rebase
from ex4d.core.depth import DepthScale
from ex4d.errors import CameraPathError, DepthError
from ex4d.io.cameras.common import RawCameras, finish
from ex4d.io.depth.raw import DepthFrames, DepthKind
from ex4d.io.rgbd.poses import build_path


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundDepth:
    """A depth file or folder, opened.

    Attributes:
        frames: the reader.
        name: for messages and the description.
        is_integer: whether the stored numbers are whole (millimetres unless said otherwise).
        hint: the array's name in an archive, which may say "disparity".
        kind: what the numbers are, where the format leaves no choice.
        scale: the unit of depth and cameras as they are stored, where the format says it; the cameras'
            translations are then divided together with the depth.
        K: float64 [3,3] of frame 0, px of the maps, corner origin, or None.
        path: one camera a frame, world = camera of frame 0, or None.
        timestamps_s: float64 [T], or None.
        z_min: of our own depth videos (see `depth.video.read_z_min`), or None.
        notices: for people.
        squeeze_px: see `RawDepthClip`.
    """

    frames: DepthFrames
    name: str
    is_integer: bool = False
    hint: str = ""
    kind: DepthKind | None = None
    scale: DepthScale | None = None
    K: Float64 | None = None
    path: CameraPath | None = None
    timestamps_s: Float64 | None = None
    z_min: float | None = None
    notices: tuple[str, ...] = ()
    squeeze_px: int = 0


def cameras_of_frames(raw: RawCameras, frames: DepthFrames, what: str) -> tuple[CameraPath, tuple[str, ...]]:
    """The cameras of a result as a path over its depth frames, at their size, world = camera of frame 0.

    Args:
        raw: cameras as they were read.
        frames: the depth beside them.
        what: names the result in messages.

    Raises:
        DepthError: another number of cameras than of depth frames.
        CameraPathError: cameras that are not usable, or of pictures of another shape.
    """
    if len(raw.K) != frames.num_frames:
        raise DepthError(
            f"one camera a depth frame in {what}",
            f"{len(raw.K)} cameras and {frames.num_frames} depth frames",
            "export depth and cameras of the same run again",
        )
    try:
        with np.errstate(all="ignore"):  # absurd numbers become infinite here and are refused by `finish`
            path, notices = finish(raw, (frames.height, frames.width))
            matrices = rebase(path.world_to_camera)
            return build_path(matrices, path.K, height=frames.height, width=frames.width), notices
    except CameraPathError as error:
        raise CameraPathError(error.expected, f"{error.got} in {what}", error.fix) from error
    except ValueError as error:
        raise CameraPathError(f"cameras that can be moved to the origin in {what}", str(error)) from error
