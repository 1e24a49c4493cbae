"""Cameras that other programs estimated from a video: ViPE, Depth Anything 3 and MegaSaM.

Axes are OpenCV's in all three. Their K has its principal point at (W/2, H/2) of the pictures they saw and
is rescaled with the pictures without half pixels, which is the corner origin; so it is kept as it is, although
their own code lets whole numbers stand for the centres of pixels. The world is whatever the program chose.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ex4d.core.arrays import Float64, Int64
from ex4d.errors import CameraPathError
from ex4d.io.cameras.common import MAX_CAMERAS, RawCameras, Size, size_from_center, to_world_to_camera
from ex4d.io.cameras.npz import list_members, read_member, read_member_shape
from ex4d.io.strict_json import read_bytes

VIPE_KEYS = frozenset(("data", "inds"))
DA3_KEYS = frozenset(("depth", "extrinsics", "intrinsics"))
MEGASAM_KEYS = frozenset(("images", "depths", "intrinsic", "cam_c2w"))
DA3_PATCH_PX = 14
"""Depth Anything 3 resizes each side to a multiple of its patches (utils/io/input_processor.py)."""
MEGASAM_STEP_PX = 8
"""MegaSaM cuts its pictures to multiples of this, on the right and below (camera_tracking_scripts/test_*.py)."""

_MAX_LISTED = 8


@dataclass(frozen=True, slots=True)
class VipeClip:
    """One clip of a ViPE result folder (``ArtifactPath`` in ViPE's vipe/utils/io.py).

    Attributes:
        root: the folder that holds ``pose``, ``intrinsics`` and ``depth``.
        name: of the clip: the files' name without suffix.
    """

    root: Path
    name: str

    @property
    def pose_file(self) -> Path:
        return self.root / "pose" / f"{self.name}.npz"

    @property
    def intrinsics_file(self) -> Path:
        return self.root / "intrinsics" / f"{self.name}.npz"

    @property
    def camera_type_file(self) -> Path:
        return self.root / "intrinsics" / f"{self.name}_camera.txt"

    @property
    def depth_file(self) -> Path:
        return self.root / "depth" / f"{self.name}.zip"


def list_vipe_clips(folder: Path) -> list[VipeClip]:
    """The clips of a ViPE result folder by name; empty where it is none."""
    found = [*folder.glob("pose/*.npz"), *folder.glob("depth/*.zip")]
    return [VipeClip(folder, name) for name in sorted({file.stem for file in found})]


def describe_clips(clips: list[VipeClip]) -> str:
    """``3 clips: a, b, c`` for messages."""
    names = ", ".join(clip.name[:60] for clip in clips[:_MAX_LISTED])
    return f"{len(clips)} clips: {names}{', ...' if len(clips) > _MAX_LISTED else ''}"


def find_vipe_clip(folder: Path) -> VipeClip | None:
    """The only clip of a ViPE result folder, or None where it is no such folder.

    Raises:
        CameraPathError: several clips.
    """
    clips = list_vipe_clips(folder)
    if len(clips) > 1:
        raise CameraPathError(
            f"one clip in ViPE's folder {folder}", describe_clips(clips), f"name one of them: {clips[0].pose_file}"
        )
    return clips[0] if clips else None


def read_vipe_cameras(clip: VipeClip) -> RawCameras:
    """Cameras of a ViPE clip: camera_to_world [N,4,4] and [fx, fy, cx, cy] of the numbered frames.

    `source_index` is ViPE's number of the frame. Translations are in metres as far as ViPE's depth is.

    Raises:
        CameraPathError: a file is missing or damaged, a camera that is no pinhole, poses and intrinsics of
            different frames.
    """
    for file in (clip.pose_file, clip.intrinsics_file):
        if not file.is_file():
            raise CameraPathError(f"ViPE's {file.parent.name} of the clip {clip.name} at {file}", "nothing there")
    _require_pinhole(clip.camera_type_file)
    poses, frames = read_member(clip.pose_file, "data"), _read_numbers(clip.pose_file)
    lenses, lens_frames = read_member(clip.intrinsics_file, "data"), _read_numbers(clip.intrinsics_file)
    if poses.shape != (len(frames), 4, 4):
        raise CameraPathError(f"poses [{len(frames)},4,4] in {clip.pose_file}", f"shape {list(poses.shape)}")
    if lenses.shape != (len(lens_frames), 4):
        raise CameraPathError(
            f"[fx, fy, cx, cy] of {len(lens_frames)} pinhole cameras in {clip.intrinsics_file}",
            f"shape {list(lenses.shape)}",
            "run ViPE with its default pipeline on a video without strong distortion",
        )
    if not np.array_equal(frames, lens_frames):
        raise CameraPathError(
            f"poses and intrinsics of the same frames in {clip.root}", f"{len(frames)} and {len(lens_frames)}"
        )
    K = np.zeros((len(lenses), 3, 3))
    K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2] = lenses.astype(np.float64).T
    K[:, 2, 2] = 1.0
    return RawCameras(
        K=K,
        world_to_camera=to_world_to_camera(poses.astype(np.float64)),
        source_index=frames,
        sizes=size_from_center(K),
    )


def _read_numbers(file: Path) -> Int64:
    """int64 [N], increasing frame numbers."""
    numbers = read_member(file, "inds")
    if numbers.dtype.kind not in "iu" or numbers.ndim != 1 or not 1 <= len(numbers) <= MAX_CAMERAS:
        raise CameraPathError(f"1 to {MAX_CAMERAS} frame numbers in inds of {file}", f"shape {list(numbers.shape)}")
    frames = numbers.astype(np.int64)
    if frames[0] < 0 or (np.diff(frames) <= 0).any():
        raise CameraPathError(f"increasing frame numbers in inds of {file}", "another order")
    return frames


def _require_pinhole(file: Path) -> None:
    """ViPE writes one line ``frame: TYPE`` a frame; without the file all are pinhole cameras (its own rule)."""
    if not file.is_file():
        return
    types = set(re.findall(r"^\s*\d+\s*:\s*(\w{1,40})", read_bytes(file).decode("utf-8", "replace"), re.MULTILINE))
    if types - {"PINHOLE"}:
        raise CameraPathError(
            f"pinhole cameras in {file}",
            ", ".join(sorted(types)[:4]),
            "run ViPE with its default pipeline, or undistort the video first",
        )


def read_da3_cameras(file: Path) -> RawCameras:
    """Cameras of a ``results.npz`` that Depth Anything 3 exported (utils/export/npz.py): world_to_camera
    [N,3,4] or [N,4,4] and K [N,3,3] in pixels of its depth maps, in the unit of its depth.

    Raises:
        CameraPathError: damaged, or arrays of another shape.
    """
    extrinsics, K = read_member(file, "extrinsics"), read_member(file, "intrinsics")
    depth_shape = read_member_shape(file, "depth")
    num = len(K) if K.ndim == 3 else 0
    if not 1 <= num <= MAX_CAMERAS or K.shape != (num, 3, 3) or extrinsics.shape not in ((num, 3, 4), (num, 4, 4)):
        raise CameraPathError(
            f"extrinsics [N,3,4] and intrinsics [N,3,3] in {file}",
            f"shapes {list(extrinsics.shape)} and {list(K.shape)}",
        )
    if len(depth_shape) < 3:
        raise CameraPathError(f"depth [N,H,W] in {file}", f"shape {list(depth_shape)}")
    matrices = np.repeat(np.eye(4)[None], num, axis=0)
    matrices[:, : extrinsics.shape[1]] = extrinsics
    return RawCameras(
        K=K.astype(np.float64),
        world_to_camera=matrices,
        source_index=np.arange(num, dtype=np.int64),
        sizes=((depth_shape[1], depth_shape[2]),) * num,
        squeeze_px=DA3_PATCH_PX,
    )


def read_megasam_cameras(file: Path) -> RawCameras:
    """Cameras of MegaSaM's ``*_droid.npz`` or ``*_sgd_cvd_hr.npz``: camera_to_world [N,4,4] and one K [3,3].

    The size is that of the whole picture, before MegaSaM cut it (see `megasam_size`). Scale unknown.

    Raises:
        CameraPathError: damaged, or arrays of another shape.
    """
    K, poses = read_member(file, "intrinsic"), read_member(file, "cam_c2w")
    shape = read_member_shape(file, "depths")
    num = len(poses) if poses.ndim == 3 else 0
    if not 1 <= num <= MAX_CAMERAS or poses.shape != (num, 4, 4) or K.shape != (3, 3) or len(shape) != 3:
        raise CameraPathError(
            f"cam_c2w [N,4,4], intrinsic [3,3] and depths [N,H,W] in {file}",
            f"shapes {list(poses.shape)}, {list(K.shape)} and {list(shape)}",
        )
    one = K.astype(np.float64)
    return RawCameras(
        K=np.repeat(one[None], num, axis=0),
        world_to_camera=to_world_to_camera(poses.astype(np.float64)),
        source_index=np.arange(num, dtype=np.int64),
        sizes=(megasam_size(one, (shape[1], shape[2])),) * num,
    )


def megasam_size(K: Float64, cut: Size) -> Size:
    """(height, width) of the picture before MegaSaM cut up to 7 px off its right side and bottom.

    Its K [3,3] keeps c at the middle of the whole picture (only the focal length is optimised).

    Args:
        K: float64 [3,3].
        cut: (height, width) of the depth maps.
    """
    whole = tuple(round(2 * c) if abs(c) < 1e6 else -1 for c in (float(K[1, 2]), float(K[0, 2])))
    fits = all(0 <= full - kept < MEGASAM_STEP_PX for full, kept in zip(whole, cut, strict=True))
    return (whole[0], whole[1]) if fits else cut


def read_estimated_npz(file: Path) -> RawCameras | None:
    """Cameras of one of these programs' npz files, or None where it is another kind of npz.

    Raises:
        CameraPathError: damaged.
    """
    keys = list_members(file)
    if keys >= MEGASAM_KEYS:
        return read_megasam_cameras(file)
    if keys >= DA3_KEYS:
        return read_da3_cameras(file)
    if keys >= VIPE_KEYS and file.parent.name in ("pose", "intrinsics"):
        return read_vipe_cameras(VipeClip(file.parent.parent, file.stem))
    return None
