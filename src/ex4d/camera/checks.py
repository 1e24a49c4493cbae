"""What may be wrong with a path, said before it costs anything: cameras inside things or looking away."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ex4d.core.arrays import Bool, Float32, check_array
from ex4d.core.camera import Camera
from ex4d.core.geometry import project, unproject

WarningCode = Literal["behind-surface", "looks-away"]

GRID_STEP_PX = 8
"""Every 8th pixel of each side is enough to tell whether a view meets the scene."""
LEAST_IN_VIEW = 0.01
"""Share of the source's known points that must fall into a target view."""

_TEXT: dict[WarningCode, tuple[str, str]] = {
    "behind-surface": (
        "the camera centre is behind the observed surface",
        "use a smaller move, or a nearer pivot",
    ),
    "looks-away": (
        "the camera looks away from the scene (less than 1 % of its points are in view)",
        "use a smaller angle",
    ),
}


def frame_warnings(target: Camera, source: Camera, depth: Float32, valid: Bool) -> frozenset[WarningCode]:
    """What is wrong with one target camera.

    Args:
        target: the camera of an output frame.
        source: the camera of the source frame it shows; same world.
        depth: float32 [H,W] of that source frame, scene units.
        valid: bool [H,W], True where the depth is known.

    Returns:
        ``behind-surface``: the target's centre, seen from the source, lies inside the frame and farther
        than the surface there. ``looks-away``: less than 1 % of the known source points (a grid of every
        8th pixel) project into the target frame. A source without a known depth gives neither.
    """
    check_array("frame_warnings.depth", depth, np.float32, (source.height, source.width))
    check_array("frame_warnings.valid", valid, np.bool_, depth.shape)
    codes: set[WarningCode] = set()
    if _is_behind_surface(target, source, depth, valid):
        codes.add("behind-surface")
    if _looks_away(target, source, depth, valid):
        codes.add("looks-away")
    return frozenset(codes)


def _is_behind_surface(target: Camera, source: Camera, depth: Float32, valid: Bool) -> bool:
    pixel, z = project(source, target.center)
    if not z > 0:
        return False
    x, y = float(pixel[0]), float(pixel[1])
    if not (0 <= x < source.width and 0 <= y < source.height):
        return False
    column, row = int(x), int(y)
    return bool(valid[row, column] and z > depth[row, column])


def _looks_away(target: Camera, source: Camera, depth: Float32, valid: Bool) -> bool:
    rows, columns = (
        np.arange(min(GRID_STEP_PX, length) // 2, length, GRID_STEP_PX) for length in (source.height, source.width)
    )
    grid = np.ix_(rows, columns)
    known = valid[grid]
    if not known.any():
        return False
    x, y = np.broadcast_arrays(columns + 0.5, rows[:, None] + 0.5)
    pixels_px = np.stack([x[known], y[known]], axis=-1, dtype=np.float64)
    points = unproject(source, pixels_px, depth[grid][known].astype(np.float64))
    pixels, z = project(target, points)
    size = np.array([target.width, target.height])
    with np.errstate(invalid="ignore"):
        inside = (z > 0) & np.all((pixels >= 0) & (pixels <= size), axis=-1)
    return float(inside.mean()) < LEAST_IN_VIEW


def summarize(per_frame: Sequence[frozenset[WarningCode]]) -> tuple[str, ...]:
    """One sentence a kind of warning, with its frames as ranges (``12–30, 41``); empty when all is well."""
    sentences: list[str] = []
    for code, (problem, advice) in _TEXT.items():
        frames = [i for i, codes in enumerate(per_frame) if code in codes]
        if frames:
            noun = "frame" if len(frames) == 1 else "frames"
            sentences.append(f"{problem} in {noun} {frame_ranges(frames)} of {len(per_frame)}: {advice}")
    return tuple(sentences)


def frame_ranges(frames: Sequence[int]) -> str:
    """``12–30, 41`` of increasing frame numbers."""
    ranges: list[list[int]] = []
    for frame in frames:
        if ranges and frame == ranges[-1][1] + 1:
            ranges[-1][1] = frame
        else:
            ranges.append([frame, frame])
    return ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in ranges)
