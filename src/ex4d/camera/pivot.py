"""The pivot: the depth that a camera turns about, found in frame 0 or named by a person."""

import numpy as np

from ex4d.core.arrays import Bool, Float32, Float64, check_array
from ex4d.errors import CameraPathError

DEFAULT_PERCENTILE = 20.0
"""Of the central third: the subject of most clips, with room for what stands before it."""
NEAR_PERCENTILE = 2.0
"""Robust nearest depth: single wrong pixels of a depth sensor do not move the camera."""

_OPTIONS = "auto, near, median, a pixel PX,PY, or a depth > 0 in scene units"


def nearest_depth(depth: Float32, valid: Bool) -> float:
    """Smallest valid depth of a frame, as the official pivot takes it (no outlier is removed).

    Args:
        depth: float32 [H,W], scene units.
        valid: bool [H,W], True where the depth is known.

    Raises:
        CameraPathError: no pixel is valid.
    """
    return float(_valid_depths(depth, valid, "frame 0").min())


def resolve_pivot(option: str, depth: Float32, valid: Bool) -> float:
    """The pivot depth p in scene units.

    Args:
        option: ``auto`` (or ``default``): 20th percentile of the valid depths in the central third of the frame;
            ``near``: 2nd percentile of all valid depths; ``median``: of all valid depths;
            ``PX,PY``: the depth at that pixel (corner origin: 0,0 to W,H); a number: that depth.
        depth: float32 [H,W] of frame 0.
        valid: bool [H,W], True where the depth is known.

    Raises:
        CameraPathError: the option is not one of these, or there is no valid depth where it asks.
    """
    text = option.strip().lower()
    if text in ("auto", "default"):
        height, width = depth.shape
        rows, columns = _central_third(height), _central_third(width)
        center = _valid_depths(depth[rows, columns], valid[rows, columns], "the central third of frame 0")
        return float(np.percentile(center, DEFAULT_PERCENTILE))
    if text == "near":
        return float(np.percentile(_valid_depths(depth, valid, "frame 0"), NEAR_PERCENTILE))
    if text == "median":
        return float(np.median(_valid_depths(depth, valid, "frame 0")))
    if "," in text:
        return _depth_at(option, depth, valid)
    value = _numbers(text, 1, option)[0]
    if value <= 0:
        raise CameraPathError(f"--pivot {_OPTIONS}", f"{option!r}", "pass a positive depth")
    return value


def _central_third(length: int) -> slice:
    """At least one pixel of any length."""
    margin = length // 3
    return slice(margin, max(length - margin, margin + 1))


def _valid_depths(depth: Float32, valid: Bool, where: str) -> Float64:
    check_array("pivot.depth", depth, np.float32, (None, None))
    check_array("pivot.valid", valid, np.bool_, depth.shape)
    values = depth[valid].astype(np.float64)
    if values.size == 0:
        raise CameraPathError(
            f"a valid depth in {where}", "none", "choose the pivot with --pivot median, PX,PY or a depth in scene units"
        )
    return values


def _numbers(text: str, count: int, option: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count or not np.isfinite(values).all():
        raise CameraPathError(f"--pivot {_OPTIONS}", f"{option!r}", "e.g. --pivot near, --pivot 320,240, --pivot 2.5")
    return values


def _depth_at(option: str, depth: Float32, valid: Bool) -> float:
    x, y = _numbers(option, 2, option)
    height, width = depth.shape
    if not (0 <= x <= width and 0 <= y <= height):
        raise CameraPathError(
            f"--pivot PX,PY inside the {width}x{height} working frame", f"{option!r}", "pixels count from the top left"
        )
    column, row = min(int(x), width - 1), min(int(y), height - 1)
    if valid[row, column]:
        return float(depth[row, column])
    rows, columns = np.nonzero(valid)
    if rows.size == 0:
        raise CameraPathError("a valid depth in frame 0", "none", "pass --pivot with a depth in scene units")
    near = int(np.argmin((rows - row) ** 2 + (columns - column) ** 2))
    raise CameraPathError(
        f"a valid depth at pixel {column},{row}",
        "an unknown one",
        f"the nearest known pixel is --pivot {columns[near]},{rows[near]}",
    )
