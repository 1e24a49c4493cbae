"""TUM RGB-D sequences: ``rgb.txt``, ``depth.txt``, ``groundtruth.txt`` (cvg.cit.tum.de/data/datasets/rgbd-dataset)."""

from pathlib import Path

import numpy as np

from ex4d.core.arrays import Float64, Int64
from ex4d.errors import InputError
from ex4d.io.intrinsics import to_corner_origin
from ex4d.io.rgbd.poses import interpolate_poses, poses_from_quaternions, read_numbers
from ex4d.io.rgbd.recording import Recording

_UNITS_PER_METRE = 5000.0
_MAX_PAIR_GAP_S = 0.02
_MAX_LINES = 1_000_000
_INTRINSICS = {
    "freiburg1": (517.3, 516.5, 318.6, 255.3),
    "freiburg2": (520.9, 521.0, 325.1, 249.7),
    "freiburg3": (535.4, 539.2, 320.1, 247.6),
}
_ROS_DEFAULT = (525.0, 525.0, 319.5, 239.5)
"""fx fy cx cy of 640×480 frames as the dataset's page gives them, pixel-centre origin."""


def is_tum(folder: Path) -> bool:
    """Whether a folder has the two lists of a TUM sequence."""
    return (folder / "rgb.txt").is_file() and (folder / "depth.txt").is_file()


def open_tum(folder: Path) -> Recording:
    """List a TUM sequence: frames are colour pictures that have depth within 0.02 s.

    Raises:
        InputError: damaged lists, no pairs, names that lead out of the folder, or poses that do not cover the frames.
    """
    color_times, colors = _read_list(folder / "rgb.txt")
    depth_times, depths = _read_list(folder / "depth.txt")
    color_index, depth_index = associate(color_times, depth_times)
    if len(color_index) == 0:
        raise InputError(f"colour and depth within {_MAX_PAIR_GAP_S} s of each other in {folder}", "none")
    notices: list[str] = []
    if len(color_index) < len(colors):
        lost = len(colors) - len(color_index)
        notices.append(f"{lost} of {len(colors)} colour frames have no depth within {_MAX_PAIR_GAP_S} s: left out")
    times = color_times[color_index]
    K, k_notice = _intrinsics(folder)
    return Recording(
        color_files=[colors[i] for i in color_index],
        depth_files=[depths[i] for i in depth_index],
        timestamps_s=times - times[0],
        divisor=_UNITS_PER_METRE,
        K=K,
        camera_to_world=_poses(folder, times, notices),
        notices=[*notices, k_notice],
        description=f"TUM RGB-D sequence {folder.name}",
    )


def _read_list(file: Path) -> tuple[Float64, list[Path]]:
    """Times (sorted) and files of a list of "time name" lines."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()[:_MAX_LINES]
        rows = [line.split(maxsplit=1) for line in lines if line.strip() and not line.lstrip().startswith("#")]
        entries = sorted((float(time), name.strip()) for time, name in rows)
    except (OSError, ValueError) as error:
        raise InputError(f"lines of 'time file' in {file}", str(error)) from error
    root = file.parent.resolve()
    paths = [root / name for _, name in entries]
    outside = next((p for p in paths if not p.resolve().is_relative_to(root)), None)
    if outside is not None:
        raise InputError(f"files inside {root} in {file.name}", f"{outside}")
    times = np.array([time for time, _ in entries], np.float64)
    if len(times) == 0 or not np.isfinite(times).all():
        raise InputError(f"finite times in {file}", "none" if len(times) == 0 else "NaN or infinity")
    keep = np.concatenate([[True], np.diff(times) > 0])  # a picture listed twice is one frame
    return times[keep], [p for p, kept in zip(paths, keep, strict=True) if kept]


def associate(times_s: Float64, other_s: Float64, *, max_gap_s: float = _MAX_PAIR_GAP_S) -> tuple[Int64, Int64]:
    """Pair each time with the nearest other one within the gap, each used once, in ascending order.

    Args:
        times_s: float64 [N], increasing.
        other_s: float64 [M], increasing.
        max_gap_s: s.

    Returns:
        Two int64 [P] index arrays.
    """
    right = np.clip(np.searchsorted(other_s, times_s), 0, len(other_s) - 1)
    left = np.maximum(right - 1, 0)
    nearest = np.where(np.abs(other_s[left] - times_s) <= np.abs(other_s[right] - times_s), left, right)
    gap = np.abs(other_s[nearest] - times_s)
    pairs: dict[int, int] = {}
    for i in np.argsort(gap, kind="stable"):
        if gap[i] <= max_gap_s:
            pairs.setdefault(int(nearest[i]), int(i))
    ordered = sorted((i, j) for j, i in pairs.items())
    first, second = np.array(ordered, np.int64).reshape(-1, 2).T
    return first, second


def _poses(folder: Path, times_s: Float64, notices: list[str]) -> Float64 | None:
    file = folder / "groundtruth.txt"
    if not file.is_file():
        notices.append(f"no groundtruth.txt in {folder.name}: the camera is taken to stand still")
        return None
    rows = read_numbers(file, 8)
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    poses = poses_from_quaternions(rows[:, 1:4], rows[:, 4:], str(file))
    return interpolate_poses(rows[:, 0], poses, times_s, str(file))


def _intrinsics(folder: Path) -> tuple[Float64, str]:
    """Corner-origin K of the sensor named in the folder, and the sentence that says so."""
    name = folder.resolve().name.lower()
    sensor = next((s for s in _INTRINSICS if s in name), None)
    fx, fy, cx, cy = _INTRINSICS[sensor] if sensor else _ROS_DEFAULT
    K = to_corner_origin(np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]), "tum")
    which = f"TUM's calibration of {sensor}" if sensor else "TUM's default calibration (f = 525 px)"
    return K, f"K: {which}; lens distortion is not removed"
