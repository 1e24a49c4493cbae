"""RGB-D recordings as one input: colour clip, depth clip, K and camera path, all lazy."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ex4d.core.arrays import Float32, Float64, Int64
from ex4d.core.camera import CameraPath, invert_rigid, pinhole, rebase
from ex4d.core.clip import Clip
from ex4d.core.depth import DepthVideo
from ex4d.core.video import Video
from ex4d.errors import ConfigError, DepthError, InputError
from ex4d.io.depth.arrays import ArrayFrames
from ex4d.io.depth.clip import CheckedDepthClip, ResampledDepthClip
from ex4d.io.depth.images import ImageFrames
from ex4d.io.depth.raw import DepthFrames, RawDepthClip
from ex4d.io.intrinsics import same_aspect
from ex4d.io.rgbd.frames import open_image_video
from ex4d.io.rgbd.pairs import color_files, open_pairs
from ex4d.io.rgbd.poses import build_path
from ex4d.io.rgbd.record3d import find_metadata, open_record3d
from ex4d.io.rgbd.recording import Recording
from ex4d.io.rgbd.tum import is_tum, open_tum

DEFAULT_MAX_DEPTH_M = 20.0
"""Consumer depth cameras measure no farther; larger numbers are noise or codes for "unknown"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RgbdInput:
    """An opened RGB-D recording.

    Attributes:
        video: colour frames.
        depth: metric depth at the size of the colour frames, frame for frame.
        K: float64 [3,3] of frame 0, pixels of the colour frames, corner origin, or None.
        path: the source cameras in metres, world = camera of frame 0, or None (poses or K unknown).
        world_to_camera: float64 [N,4,4], the poses alone (known even where K is not), or None.
        description: what it is, for people.
        notices: what was assumed, substituted or left out.
    """

    video: Clip[Video]
    depth: Clip[DepthVideo]
    K: Float64 | None
    path: CameraPath | None
    world_to_camera: Float64 | None
    description: str
    notices: tuple[str, ...]


def is_rgbd_folder(path: Path | str) -> bool:
    """Whether `open_rgbd` is the way to open this: an RGB-D folder, or a Record3D archive (which it explains)."""
    path = Path(path)
    if path.suffix.lower() == ".r3d":
        return path.is_file()
    return path.is_dir() and (is_tum(path) or find_metadata(path) is not None or bool(color_files(path)))


def open_rgbd(path: Path | str, *, fps: float = 30.0, max_depth_m: float = DEFAULT_MAX_DEPTH_M) -> RgbdInput:
    """Open a 7-Scenes style, generic pair, TUM or Record3D folder.

    Args:
        path: the folder.
        fps: frames a second of recordings without timestamps.
        max_depth_m: depth beyond this is invalid, like 0.

    Raises:
        InputError: not such a folder, or files missing or damaged.
        DepthError: the first depth image cannot be read.
        MediaError: the first picture cannot be read.
        ConfigError: `fps` or `max_depth_m` not above 0.
    """
    for name, value in (("fps", fps), ("max_depth_m", max_depth_m)):
        if not 0 < value < float("inf"):
            raise ConfigError(f"{name} > 0", f"{value}")
    path = Path(path)
    recording = _list_recording(path, fps)
    video = open_image_video(recording.color_files, recording.timestamps_s)
    depth, notices = _open_depth(recording, video.height, video.width, max_depth_m)
    K, k_notices = _known_intrinsics(recording, video.height, video.width)
    poses = None if recording.camera_to_world is None else rebase(invert_rigid(recording.camera_to_world))
    camera_path = None
    if poses is not None and K is not None:
        camera_path = build_path(poses, K, height=video.height, width=video.width)
    return RgbdInput(
        video=video,
        depth=depth,
        K=None if K is None else np.array(K if K.ndim == 2 else K[0]),
        path=camera_path,
        world_to_camera=poses,
        description=recording.description,
        notices=(*recording.notices, *k_notices, *notices),
    )


def _list_recording(path: Path, fps: float) -> Recording:
    if path.suffix.lower() == ".r3d":
        raise InputError(
            "an exported Record3D folder",
            f"the archive {path.name} (its depth is LZFSE-compressed)",
            "in Record3D choose Export → 'EXR + RGB' and give that folder",
        )
    if not path.is_dir():
        raise InputError(f"an RGB-D folder at {path}", "a file" if path.exists() else "nothing there")
    if is_tum(path):
        return open_tum(path)
    if find_metadata(path) is not None:
        return open_record3d(path, fps)
    if color_files(path):
        return open_pairs(path, fps)
    raise InputError(
        f"RGB-D in {path}: *.color.* with *.depth.*, rgb.txt with depth.txt, or Record3D's metadata.json",
        "none of them",
    )


def _open_depth(
    recording: Recording, height: int, width: int, max_depth_m: float
) -> tuple[Clip[DepthVideo], list[str]]:
    frames = _depth_frames(recording.depth_files)
    num = frames.num_frames
    index: Int64 = np.arange(num, dtype=np.int64)
    raw = RawDepthClip(
        frames=frames,
        kind="depth",
        scale="metric",
        timestamps_s=recording.timestamps_s,
        frame_index=index,
        divisor=recording.divisor,
        unknown_code=recording.unknown_code,
        description=recording.description,
    )
    clip: Clip[DepthVideo] = CheckedDepthClip(raw=raw, max_depth=max_depth_m)
    if (clip.height, clip.width) == (height, width):
        return clip, []
    if not same_aspect((clip.height, clip.width), (height, width)):
        raise DepthError(
            f"depth of the colour's aspect ratio ({width}x{height})",
            f"{clip.width}x{clip.height}",
            "register the depth to the colour camera first",
        )
    resampled = ResampledDepthClip(
        clip=clip, frame_index=index, timestamps_s=recording.timestamps_s, height=height, width=width
    )
    return resampled, [f"depth of {clip.width}x{clip.height} resampled (nearest) to {width}x{height}"]


def _depth_frames(files: Sequence[Path]) -> DepthFrames:
    if files[0].suffix == ".npy":
        return ArrayFileFrames(files)
    if files[0].suffix == ".depth":
        _refuse_compressed(files[0])
    return ImageFrames(files)


def _refuse_compressed(file: Path) -> None:
    raise InputError(
        "depth as .exr, .npy or .png",
        f"{file.name}, Record3D's own LZFSE-compressed depth",
        "in Record3D choose Export → 'EXR + RGB' and give that folder",
    )


class ArrayFileFrames:
    """One .npy file [H,W] a frame; satisfies `DepthFrames`.

    Args:
        files: in order; all of the first one's size.

    Raises:
        DepthError: the first file is damaged.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = list(files)
        first = ArrayFrames(self._files[0])
        self.num_frames, self.height, self.width = len(files), first.height, first.width

    def read_frames(self, indices: Int64) -> Float32:
        """float32 [n,H,W].

        Raises:
            DepthError: a damaged file or one of another size.
        """
        out = np.empty((len(indices), self.height, self.width), np.float32)
        for slot, index in enumerate(indices):
            frame = ArrayFrames(self._files[index])
            if (frame.num_frames, frame.height, frame.width) != (1, self.height, self.width):
                raise DepthError(
                    f"one {self.width}x{self.height} map in {self._files[index].name}", f"shape {list(frame.shape)}"
                )
            out[slot] = frame.read_frames(np.zeros(1, np.int64))[0]
        return out


def _known_intrinsics(recording: Recording, height: int, width: int) -> tuple[Float64 | None, list[str]]:
    if recording.K is not None:
        return recording.K, []
    if recording.default_focal is None:
        return None, []
    focal_px = recording.default_focal * width
    text = f"no camera-intrinsics.txt: 7-Scenes' own f = {focal_px:.1f} px, c = (W/2, H/2) is used"
    return pinhole(focal_px=focal_px, height=height, width=width), [text]
