"""RGB-D folders of pairs ``<stem>.color.*`` + ``<stem>.depth.*``: 7-Scenes and its relatives."""

import re
from pathlib import Path

import numpy as np

from ex4d.core.arrays import Float64, Int64
from ex4d.errors import InputError
from ex4d.io.depth.images import natural_key
from ex4d.io.rgbd.frames import COLOR_SUFFIXES
from ex4d.io.rgbd.poses import poses_from_quaternions, read_matrix_pose, read_numbers
from ex4d.io.rgbd.recording import Recording

_DEPTH_SUFFIXES = (".png", ".pgm")
_MILLIMETRES = 1000.0
_UNKNOWN_CODE = 65535.0
SEVEN_SCENES_FOCAL = 585.0 / 640.0
"""Focal length over width that 7-Scenes states for its camera (microsoft.com/research: f = 585, c = (320, 240))."""


def color_files(folder: Path) -> list[Path]:
    """``*.color.png|jpg|jpeg`` in natural order."""
    found = [p for p in folder.iterdir() if p.suffix.lower() in COLOR_SUFFIXES and p.stem.lower().endswith(".color")]
    return sorted(found, key=lambda p: natural_key(p.name))


def open_pairs(folder: Path, fps: float) -> Recording:
    """List a folder of pairs; poses from ``<stem>.pose.txt`` or one ``pose.txt``, K from ``camera-intrinsics.txt``.

    Raises:
        InputError: a colour picture without depth, or damaged cameras.
    """
    colors = color_files(folder)
    stems = [p.name[: -len(p.suffix) - len(".color")] for p in colors]
    depths = [_depth_of(folder, stem) for stem in stems]
    notices: list[str] = []
    poses = _read_poses(folder, stems, notices)
    return Recording(
        color_files=colors,
        depth_files=depths,
        timestamps_s=np.arange(len(colors)) / fps,
        divisor=_MILLIMETRES,
        unknown_code=_UNKNOWN_CODE,
        K=_read_intrinsics(folder),
        default_focal=SEVEN_SCENES_FOCAL if (folder / f"{stems[0]}.pose.txt").is_file() else None,
        camera_to_world=poses,
        notices=[*notices, f"no timestamps in {folder.name}: {fps:g} frames a second assumed"],
        description=f"RGB-D folder {folder.name}, 16-bit millimetres",
    )


def _depth_of(folder: Path, stem: str) -> Path:
    for suffix in _DEPTH_SUFFIXES:
        candidate = folder / f"{stem}.depth{suffix}"
        if candidate.is_file():
            return candidate
    raise InputError(
        f"{stem}.depth{' or '.join(_DEPTH_SUFFIXES)} beside {stem}.color in {folder}",
        "no such file",
        "every colour picture needs its depth",
    )


def _read_intrinsics(folder: Path) -> Float64 | None:
    """7-Scenes' ``camera-intrinsics.txt``: c = W/2 there, which is the corner origin already."""
    file = folder / "camera-intrinsics.txt"
    if not file.is_file():
        return None
    K = read_numbers(file, 3)
    if K.shape != (3, 3) or min(K[0, 0], K[1, 1]) <= 0 or not np.array_equal(K[2], (0, 0, 1)):
        raise InputError(f"a 3x3 matrix of intrinsics in {file}", f"{K.tolist()}")
    return K


def _read_poses(folder: Path, stems: list[str], notices: list[str]) -> Float64 | None:
    files = [folder / f"{stem}.pose.txt" for stem in stems]
    present = [file.is_file() for file in files]
    if all(present):
        return np.stack([read_matrix_pose(file) for file in files])
    if any(present):
        missing = files[present.index(False)].name
        raise InputError(f"a pose for every frame in {folder}", f"no {missing}", "remove that frame, or all poses")
    single = folder / "pose.txt"
    if not single.is_file():
        notices.append(f"no camera poses in {folder.name}: the camera is taken to stand still")
        return None
    rows = read_numbers(single, 7)
    chosen, how = _match_rows(stems, len(rows), single)
    if len(rows) != len(stems):
        notices.append(f"{single.name} has {len(rows)} poses for {len(stems)} frames: {how}")
    return poses_from_quaternions(rows[chosen, :3], rows[chosen, 3:], str(single))


def _match_rows(stems: list[str], num_rows: int, file: Path) -> tuple[Int64, str]:
    """Which pose line belongs to each frame, and how it was decided."""
    if num_rows == len(stems):
        return np.arange(num_rows, dtype=np.int64), "in order"
    found = [re.search(r"(\d+)$", stem) for stem in stems]
    numbers = np.array([int(match.group(1)) if match else -1 for match in found], np.int64)
    first = 0 if (numbers == 0).any() else 1
    if (numbers >= first).all() and (numbers - first < num_rows).all() and len(set(numbers)) == len(numbers):
        return numbers - first, f"taken by the number in the file name, counted from {first}"
    if num_rows > len(stems):
        return np.arange(len(stems), dtype=np.int64), f"the first {len(stems)} are used"
    raise InputError(f"{len(stems)} poses in {file}", f"{num_rows}", "one line a frame: tx ty tz qx qy qz qw")
