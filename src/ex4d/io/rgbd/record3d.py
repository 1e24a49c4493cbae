"""Record3D exports (record3d.app): ``metadata.json`` with K and poses, pictures, depth as .exr, .npy or .png.

K (column by column) and perFrameIntrinsicCoeffs (fx, fy, cx, cy) belong to pictures of w x h px and count from the
centre of the first pixel, as ARKit's camera intrinsics do; poses are qx qy qz qw tx ty tz, camera to world in metres
with OpenGL axes (github.com/marek-simonik/record3d, issues 27 and 33). EXR depth is float32 metres (issue 67).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.core.arrays import Float64
from ex4d.errors import InputError
from ex4d.io.depth.images import natural_key
from ex4d.io.intrinsics import same_aspect, scale_intrinsics, to_corner_origin
from ex4d.io.rgbd.frames import COLOR_SUFFIXES, read_color_image
from ex4d.io.rgbd.poses import poses_from_quaternions
from ex4d.io.rgbd.recording import Recording

_METADATA_NAMES = ("metadata.json", "metadata")
_COLOR_FOLDERS = ("rgbd", "rgb", "color")
_DEPTH_FOLDERS = ("depth", "rgbd")
_DEPTH_SUFFIXES = (".exr", ".npy", ".png", ".depth")
_MAX_METADATA_BYTES = 64 << 20


def find_metadata(folder: Path) -> Path | None:
    """The metadata file of a Record3D export (also inside its ``EXR_RGBD`` folder), or None."""
    for root in (folder, folder / "EXR_RGBD"):
        for name in _METADATA_NAMES:
            if (root / name).is_file() and any((root / sub).is_dir() for sub in _COLOR_FOLDERS):
                return root / name
    return None


def open_record3d(folder: Path, fps: float) -> Recording:
    """List a Record3D export. Its poses are camera-to-world with OpenGL axes, quaternion x y z w first.

    Raises:
        InputError: damaged metadata, a picture without depth, or pictures of another shape than K is for.
        MediaError: the first picture cannot be read.
    """
    file = find_metadata(folder)
    if file is None:
        raise InputError(f"metadata.json and pictures in {folder}", "not both")
    content = _read_metadata(file)
    colors = _list_colors(file.parent)
    depths = [_depth_of(file.parent, color.stem) for color in colors]
    num = len(colors)
    notices: list[str] = []
    K = _intrinsics(content, num, file)
    if K is not None:
        K = _at_picture_size(K, content, colors[0], notices)
    divisor = 1000.0 if depths[0].suffix == ".png" else 1.0
    return Recording(
        color_files=colors,
        depth_files=depths,
        timestamps_s=_timestamps(content, num, fps, notices),
        divisor=divisor,
        K=K,
        camera_to_world=_poses(content, num, file, notices),
        notices=notices,
        description=f"Record3D export {folder.name}",
    )


def _read_metadata(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > _MAX_METADATA_BYTES:
            raise InputError(f"metadata of at most 64 MiB at {file}", f"{file.stat().st_size} bytes")
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"Record3D's metadata (JSON) at {file}", str(error)) from error
    if not isinstance(content, dict):
        raise InputError(f"a JSON object at {file}", type(content).__name__)
    return content


def _list_colors(root: Path) -> list[Path]:
    for sub in _COLOR_FOLDERS:
        folder = root / sub
        if folder.is_dir():
            found = [p for p in folder.iterdir() if p.suffix.lower() in COLOR_SUFFIXES]
            pictures = [p for p in found if not (p.suffix.lower() == ".png" and p.with_suffix(".jpg") in found)]
            if pictures:
                return sorted(pictures, key=lambda p: natural_key(p.name))
    raise InputError(f"pictures in {root / _COLOR_FOLDERS[0]}", "none")


def _depth_of(root: Path, stem: str) -> Path:
    for sub in _DEPTH_FOLDERS:
        for suffix in _DEPTH_SUFFIXES:
            candidate = root / sub / f"{stem}{suffix}"
            if candidate.is_file():
                return candidate
    raise InputError(
        f"depth of frame {stem} as {', '.join(_DEPTH_SUFFIXES)} in {root}", "none", "export as 'EXR + RGB' in Record3D"
    )


def _numbers(values: Any, shape: tuple[int, ...], what: str) -> Float64:
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"numbers as {what}", str(error)) from error
    if array.shape != shape or not np.isfinite(array).all():
        raise InputError(f"finite numbers of shape {list(shape)} as {what}", f"shape {list(array.shape)}")
    return array


def _intrinsics(content: dict[str, Any], num: int, file: Path) -> Float64 | None:
    """K [3,3] (stored column by column) or [N,3,3] of perFrameIntrinsicCoeffs; +0.5 for the corner."""
    per_frame = content.get("perFrameIntrinsicCoeffs")
    if isinstance(per_frame, list) and len(per_frame) == num:
        rows = [row[:4] if isinstance(row, list) else row for row in per_frame]
        fx, fy, cx, cy = _numbers(rows, (num, 4), f"perFrameIntrinsicCoeffs in {file}").T
        K = np.zeros((num, 3, 3))
        K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2], K[:, 2, 2] = fx, fy, cx, cy, 1.0
    elif "K" in content:
        K = _numbers(content["K"], (9,), f"K in {file}").reshape(3, 3).T.copy()
    else:
        return None
    if (K[..., 0, 0] <= 0).any() or (K[..., 1, 1] <= 0).any():
        raise InputError(f"positive focal lengths in {file}", "zero or less")
    K[..., 2, :] = (0, 0, 1)
    return to_corner_origin(K, "record3d")


def _at_picture_size(K: Float64, content: dict[str, Any], picture: Path, notices: list[str]) -> Float64:
    """K for pictures of the size they have, where the metadata say that it is for another one."""
    stated = content.get("h"), content.get("w")
    if not all(isinstance(side, int) and 0 < side < 1 << 20 for side in stated):
        return K
    own, size = (int(content["h"]), int(content["w"])), read_color_image(picture).shape[:2]
    if own == size:
        return K
    shapes = f"{own[1]}x{own[0]}", f"{size[1]}x{size[0]}"
    if not same_aspect(own, size):
        raise InputError(
            f"pictures of {shapes[0]}, or another size of the same shape, as the metadata say", f"{shapes[1]}"
        )
    notices.append(f"K of {shapes[0]} pictures scaled to {shapes[1]}")
    return scale_intrinsics(K, from_size=own, to_size=size)


def _poses(content: dict[str, Any], num: int, file: Path, notices: list[str]) -> Float64 | None:
    poses = content.get("poses")
    if not isinstance(poses, list) or not poses:
        notices.append(f"no poses in {file.name}: the camera is taken to stand still")
        return None
    if len(poses) != num:
        raise InputError(f"{num} poses in {file}, one a picture", f"{len(poses)}")
    rows = _numbers(poses, (num, 7), f"poses in {file}")
    matrices_gl = poses_from_quaternions(rows[:, 4:], rows[:, :4], str(file))
    return matrices_gl @ np.diag([1.0, -1.0, -1.0, 1.0])


def _timestamps(content: dict[str, Any], num: int, fps: float, notices: list[str]) -> Float64:
    stamps = content.get("frameTimestamps")
    if isinstance(stamps, list) and len(stamps) == num:
        times = _numbers(stamps, (num,), "frameTimestamps")
        if (np.diff(times) > 0).all():
            return times - times[0]
    rate = content.get("fps")
    if isinstance(rate, int | float) and 0 < rate < 1000:
        return np.arange(num) / float(rate)
    notices.append(f"no timestamps in the metadata: {fps:g} frames a second assumed")
    return np.arange(num) / fps
